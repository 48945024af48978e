"""The dispatcher's times and limits (spec/dispatcher-agent-node, section 2). Seconds unless said otherwise."""

from __future__ import annotations

import random
from dataclasses import dataclass

from pyswarm.api import defaults


@dataclass(frozen=True, slots=True)
class Config:
    """Everything but the heartbeat period can only be changed in tests."""

    period: float = defaults.HEARTBEAT_PERIOD
    """Used while the cluster object names none."""
    epsilon: float = 0.5
    """Half the width of the jitter of each heartbeat period."""
    grace: int = 3
    """Periods without a heartbeat until a registered node is down."""
    grace_unknown: int = 6
    """The same for nodes that were last seen by an earlier leader."""
    rate_window: float = 8.0
    rate_count: int = 3
    """Registrations per node and window."""
    orphan_after: float = 24 * 3600.0
    batch_seconds: float = 0.1
    batch_items: int = 10_000
    """Reported statuses wait this long, or for so many, before they are written together."""
    crowd: int = 8
    """So many calls that report statuses between two writes are answered at once; further ones when the next write begins."""
    crowd_seconds: float = 1.0
    """But no later than after so long."""
    stream_quiet: float = 0.1
    stream_patience: float = 1.0
    stream_limit: int = 100
    """An assignment message is sent after this much quiet, this long after its first change, or with so many changes."""
    manager_weight: int = 10


def draw_period(period: float, config: Config, rng: random.Random) -> float:
    """A heartbeat period with jitter, so that nodes which registered together do not stay together.

    The jitter never exceeds half the period; a period that is not positive counts as the default (it would expire every node at once).
    """
    if period <= 0:
        period = config.period
    epsilon = min(config.epsilon, period / 2)
    return period + epsilon * (2 * rng.random() - 1)
