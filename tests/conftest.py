"""Fixtures that every test may use."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import HealthCheck, settings
from tools.cluster import Cluster, pyswarmctl
from xdist.scheduler import LoadFileScheduling

from pyswarm import garbage
from pyswarm.manager.store import Store
from tests.support.clock import VirtualClock
from tests.support.commands import Commands
from tests.support.log import running_store

COSTLY = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)
COMMON = settings(deadline=None, suppress_health_check=COSTLY, print_blob=True)
settings.register_profile("quick", COMMON, max_examples=100, derandomize=True)  # the same each time
settings.register_profile("deep", COMMON, max_examples=1000)  # `make test-deep`
settings.load_profile("quick")


class SideBySide(LoadFileScheduling):  # type: ignore[misc]
    """How tests are shared out among processes (`make test`): file by file, but all that need a Docker Engine go to one process.

    An engine takes seconds to start, and two that start at once get into each other's way.
    """

    def _split_scope(self, nodeid: str) -> str:
        scope = super()._split_scope(nodeid)
        return "tests/docker" if scope.startswith("tests/docker/") else scope


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> SideBySide:
    """See pytest-xdist."""
    return SideBySide(config, log)


@pytest.hookimpl(trylast=True)  # after they were shuffled
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What mostly waits begins first, so that what computes fills the pauses; and what is long and in one piece before what is short."""
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    if item.get_closest_marker("docker"):
        return 0
    if item.get_closest_marker("cluster"):
        return 1
    return 2 if item.nodeid.startswith("tests/simulation/") else 3


@pytest.fixture(scope="session", autouse=True)
def _commands() -> Iterator[None]:
    """How tests with real daemons give their many commands."""
    with contextlib.closing(Commands()) as commands:
        Cluster.program = commands.run
        yield
        Cluster.program = staticmethod(pyswarmctl)


_THRESHOLDS = gc.get_threshold()


@pytest.fixture(autouse=True)
def _collector_as_it_was() -> Iterator[None]:
    """A daemon that ran in this process changed the collector for all of it. Hypothesis, for one, then misses objects of its own."""
    yield
    if any(isinstance(callback, garbage._Watch) for callback in gc.callbacks):
        gc.callbacks[:] = [callback for callback in gc.callbacks if not isinstance(callback, garbage._Watch)]
        gc.set_threshold(*_THRESHOLDS)
        gc.unfreeze()


@pytest.fixture
def clock() -> VirtualClock:
    """A clock that moves only when told."""
    return VirtualClock()


@pytest.fixture
async def store(clock: VirtualClock) -> AsyncIterator[Store]:
    """A running store on a memory log."""
    async with running_store(clock) as running:
        yield running
