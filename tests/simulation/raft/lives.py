"""Random lives of whole clusters, one per seed."""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import Iterator

import structlog

from tests.simulation.raft.cluster import Cluster
from tests.simulation.raft.trouble import live
from tests.simulation.raft.weather import drawn, small_sizes


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Nothing is logged: thousands of lives have much to say."""
    before = structlog.get_config()
    library = logging.getLogger("pysyncobj")
    level = library.level
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL), processors=[_drop])
    library.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        structlog.configure(**before)
        library.setLevel(level)


def _drop(*_: object) -> str:
    raise structlog.DropEvent


def made(seed: int) -> tuple[Cluster, int]:
    """The cluster of a seed, and how many steps of trouble it will see."""
    chance = random.Random(f"raft {seed}")
    size = chance.choice((1, 3, 3, 3, 5, 5, 7))
    return Cluster(chance.getrandbits(64), size, drawn(chance)), chance.choice((200, 400, 800))


def run_seed(seed: int) -> None:
    """Live the life of a seed. Raises Violation, or whatever ended a member that should have lived."""
    with small_sizes(), quiet():
        cluster, steps = made(seed)
        live(cluster, steps)
