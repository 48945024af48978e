"""What a simulated life is made of: a typical one, and named ones that provoke something in particular."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.cluster import Cluster
    from tests.simulation.nodes import SimNode


@dataclass(frozen=True)
class Scenario:
    """What a run is made of. Spans are virtual seconds."""

    managers: int = 1
    workers: int = 3
    users: int = 2
    services: int = 3
    span: float = 40.0
    rest: float = 240.0
    quiet: float = 5.0
    tick: float = 1.0
    heartbeat_tick: int = 2
    snapshot_interval: int = 0
    """Entries between the snapshots of a manager; 0: the cluster's default."""
    faults: Sequence[str] | None = None
    """Methods of `Trouble` to choose from all the time; None: a selection that the seed makes."""
    pause: float = 0.0
    """Mean seconds between faults; 0: as the seed says."""
    busy: bool = False
    """Users hardly rest."""
    jobs: float = 0.0
    """How likely a new service is a job."""
    look: float = 1.0
    """How often managers look whether another one leads, instead of every quarter of a second: most of the cost of virtual time."""
    prepare: Callable[[Cluster], None] = lambda _: None
    prepare_worker: Callable[[SimNode], None] = lambda _: None
    """Called with everything that is made before it starts: where tests plant bugs."""


def typical(chance: random.Random) -> Scenario:
    """A small cluster with a short life: many different ones find more than few long ones."""
    return Scenario(
        managers=chance.choice((1, 3, 3, 3, 3, 5)),
        workers=chance.choice((1, 2, 2, 3)),
        users=chance.choice((1, 2, 2)),
        services=chance.choice((1, 2, 3)),
        span=chance.choice((3, 4, 6, 8, 12, 30)),
        tick=chance.choice((0.4, 0.7, 1.0, 1.0)),
        heartbeat_tick=chance.choice((1, 2, 3)),
        snapshot_interval=chance.choice((0, 30, 100)),
        busy=chance.random() < 0.12,
    )


def _log(chance: random.Random, faults: Sequence[str], pause: float, managers: Sequence[int] = (3, 3, 5)) -> Scenario:
    """Much happens to the log, little to workers."""
    return Scenario(
        managers=chance.choice(managers),
        workers=1,
        users=chance.choice((2, 3)),
        services=chance.choice((1, 2)),
        span=chance.choice((10, 20, 30)),
        tick=chance.choice((0.1, 0.2, 0.5)),
        heartbeat_tick=chance.choice((1, 2)),
        snapshot_interval=chance.choice((0, 15, 60)),
        faults=faults,
        pause=pause,
        busy=True,
    )


def crashes(chance: random.Random) -> Scenario:
    """Managers die and start again, at any write or send."""
    return _log(chance, ("kill_manager", "kill_leader", "manager_dies_at_work", "leader_dies_at_work", "blackout", "slow_disk"), 1.0)


def partitions(chance: random.Random) -> Scenario:
    """The network between managers, users and workers falls apart."""
    return _log(
        chance, ("cut_managers", "isolate", "isolate_leader", "split", "reset_managers", "lose_answer", "cut", "reset", "slow_host"), 1.5
    )


def politics(chance: random.Random) -> Scenario:
    """Managers come and go, and hand over, while some die."""
    faults = ("transfer", "transfer", "demote", "promote", "promote", "join_manager", "stop_leader", "kill_manager", "leader_dies_at_work")
    return _log(chance, faults, 1.5)


def pauses(chance: random.Random) -> Scenario:
    """Leaders that sleep, and wake up as leaders of the past."""
    return _log(chance, ("freeze_leader", "freeze_leader", "freeze_manager", "slow_disk", "slow_host", "set_clock", "transfer"), 2.0)


def alone(chance: random.Random) -> Scenario:
    """One manager."""
    return Scenario(
        workers=chance.choice((2, 3, 3)), users=2, span=chance.choice((8, 20, 40)), snapshot_interval=chance.choice((0, 30, 200))
    )


def jobs(chance: random.Random) -> Scenario:
    """A typical cluster in which most services are jobs."""
    return replace(typical(chance), jobs=0.7)


def everything(chance: random.Random) -> Scenario:
    """A long life in which everything happens."""
    return Scenario(
        managers=chance.choice((3, 5)), workers=4, users=3, span=120, tick=0.2, heartbeat_tick=1, snapshot_interval=30, pause=1.0, busy=True
    )


SCENARIOS: Mapping[str, Callable[[random.Random], Scenario]] = {
    scenario.__name__: scenario for scenario in (typical, crashes, partitions, politics, pauses, alone, jobs, everything)
}
