"""How bad things are, as probabilities per step of a tenth of a tick."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from unittest.mock import patch

from pyswarm.raft import guarded, segments, transfers


@dataclass(frozen=True, slots=True)
class Weather:
    """What may go wrong, and what people do meanwhile."""

    reorder: bool = False
    """Messages overtake each other, arrive twice, and survive their connection. No real network of ours does that."""
    cut: float = 0.004
    one_way: float = 0.0
    isolate: float = 0.003
    heal: float = 0.01
    reset: float = 0.02
    crash: float = 0.01
    freeze: float = 0.0
    """A member stops for up to 40 ticks, and wakes up as if nothing had happened."""
    clock: float = 0.0
    """A member's clock jumps ahead; all the time, clocks and ticks are faster here than there."""
    slow_disk: float = 0.0
    full_disk: float = 0.0
    propose: float = 0.3
    read: float = 0.1
    join: float = 0.0
    remove: float = 0.0
    transfer: float = 0.0
    move: float = 0.0
    """A member gets another address."""
    rekey: float = 0.0
    """A member is to keep its log under another data key."""
    snapshot_interval: int = 15


CALM = Weather(cut=0, isolate=0, reset=0, crash=0, propose=0, read=0)
EVERYTHING = Weather(
    one_way=0.004,
    freeze=0.004,
    clock=0.004,
    slow_disk=0.004,
    full_disk=0.002,
    join=0.01,
    remove=0.01,
    transfer=0.01,
    move=0.005,
    rekey=0.01,
)
_LASTING = {"reorder", "heal", "propose", "read", "snapshot_interval"}


def drawn(chance: random.Random) -> Weather:
    """Some faults of all, each more or less often."""
    changes = {f.name: getattr(EVERYTHING, f.name) * chance.choice((0, 0, 0.5, 1, 2)) for f in fields(Weather) if f.name not in _LASTING}
    return replace(
        EVERYTHING,
        **changes,
        reorder=chance.random() < 0.2,
        heal=chance.choice((0.004, 0.01, 0.03)),
        propose=chance.choice((0.1, 0.3, 0.8)),
        snapshot_interval=chance.choice((5, 15, 40)),
    )


@contextlib.contextmanager
def small_sizes() -> Iterator[None]:
    """So little is a segment, a message, or a piece of a snapshot, that the few entries of a simulated life fill many."""
    with (
        patch.object(segments, "SEGMENT_BYTES", 4096),
        patch.object(segments, "SPARE_SEGMENT_BYTES", 1024),
        patch.object(guarded, "APPEND_BYTES", 200),
        patch.object(guarded, "SEND_BYTES", 800),
        patch.object(transfers, "PIECE_BYTES", 100),
    ):
        yield
