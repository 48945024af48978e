"""How far a rolling update has come (spec/orchestration, sections 10.2 to 10.5).

SwarmKit's updater remembers what it did; here progress is read off the records, so that a new leader goes on where the old one was:

- An *attempt* is a slot's first task of the service's version after one of another version, made since the update began. Its restarts are
  further tasks of the same version and do not count. (What replaces an outdated task that died during the update counts: it brings the
  new version into the slot just the same.) The reaper keeps this pair of records in each slot for the length of the update.
- An attempt occupies one of the `parallelism` workers until it runs or ended, and `delay` seconds more.
- When an attempt ran is the time of its status, while it runs. When it has ended that moment is no longer recorded; it then counts as a
  failure unless the records prove that it had been up for the monitor period: an update never has more workers than `parallelism`, so if
  at the moment when it began on another slot that many other attempts were in transition, this one was up and past its delay. This
  never misses a failure within the monitor period; it may count one shortly after it.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf, nextafter

from pyswarm.api import defaults, times
from pyswarm.api import v1 as api
from pyswarm.api.tasks import is_terminal, task_time
from pyswarm.manager.orchestrator.dirty import is_current
from pyswarm.manager.orchestrator.release import is_restart
from pyswarm.manager.orchestrator.situation import Situation
from pyswarm.manager.orchestrator.slots import Slot
from pyswarm.manager.orchestrator.tasks import created

S = api.TaskState
U = api.UpdateStatus
IN_PROGRESS = frozenset({U.UPDATING, U.ROLLBACK_STARTED})
PAUSED = frozenset({U.PAUSED, U.ROLLBACK_PAUSED})
_ROLLBACK = frozenset({U.ROLLBACK_STARTED, U.ROLLBACK_PAUSED, U.ROLLBACK_COMPLETED})


def in_progress(service: api.Service) -> bool:
    """An update or a rollback is under way."""
    return service.HasField("update_status") and service.update_status.state in IN_PROGRESS


def is_unfinished(service: api.Service) -> bool:
    """An update or a rollback has begun and is not complete: it is under way, or paused."""
    return service.HasField("update_status") and service.update_status.state in IN_PROGRESS | PAUSED


def rolling_back(service: api.Service) -> bool:
    """The present update is a rollback, whatever it came to."""
    return service.HasField("update_status") and service.update_status.state in _ROLLBACK


@dataclass(frozen=True, slots=True)
class Config:
    """An update's parameters with defaults filled in; seconds. `parallelism` 0 means all at once."""

    parallelism: int = 1
    delay: float = 0.0
    monitor: float = defaults.UPDATE_MONITOR
    action: api.UpdateConfig.FailureAction.ValueType = api.UpdateConfig.PAUSE
    ratio: float = 0.0
    start_first: bool = False

    @classmethod
    def of(cls, service: api.Service) -> Config:
        """The config that applies now: that of the restored spec's `rollback` section in a rollback."""
        back = rolling_back(service)
        if not (service.spec.HasField("rollback") if back else service.spec.HasField("update")):
            return cls()
        config = service.spec.rollback if back else service.spec.update
        delay = max(0.0, times.seconds_of(config.delay))
        monitor = times.seconds_of(config.monitor) if config.HasField("monitor") else defaults.UPDATE_MONITOR
        return cls(
            parallelism=config.parallelism,
            delay=delay,
            monitor=monitor if delay < monitor else delay + 1.0,
            action=config.failure_action,
            ratio=config.max_failure_ratio,
            start_first=config.order == api.UpdateConfig.START_FIRST,
        )


def attempt_at(service: api.Service, tasks: Sequence[api.Task]) -> int | None:
    """Index of the first task of the service's version after the newest of another, among records in order; None without such a pair."""
    for index in range(len(tasks) - 1, -1, -1):
        if not is_current(service, tasks[index]):
            return index + 1 if index + 1 < len(tasks) else None
    return None


@dataclass(frozen=True, slots=True)
class Attempt:
    """The task with which the update began on a slot. Times in seconds."""

    task: api.Task
    made: float
    settled: float | None
    """Since when it runs or, having ended, when it ended; None before either."""
    by_update: bool
    """A free worker of the update made it, not the end or the eviction of an outdated task."""

    @classmethod
    def of(cls, situation: Situation, slot: Slot) -> Attempt | None:
        """The slot's attempt in the present update, if there is one."""
        if len(slot.tasks) < 2:
            return None
        index = attempt_at(situation.service, slot.tasks)
        if index is None:
            return None
        task, earlier = slot.tasks[index], slot.tasks[:index]
        made = created(task)
        if made < times.seconds_of(situation.service.update_status.started_at) or task.desired_state == S.REMOVE:
            return None
        by_update = not situation.is_stranded(earlier[-1]) and not is_restart(earlier, task)
        return cls(task, made, task_time(task) if task.status.state >= S.RUNNING else None, by_update)

    @property
    def starting(self) -> bool:
        """Still on its way up. One that was evicted or replaced on the way no longer is."""
        return self.settled is None and self.task.desired_state <= S.RUNNING

    @property
    def ended(self) -> bool:
        """It has reached a terminal state, for whatever reason."""
        return is_terminal(self.task)


def failures(attempts: Sequence[Attempt], config: Config) -> list[Attempt]:
    """The attempts that ended before they ran, or within the monitor period after, in the order of their ends."""
    workers = _Workers(attempts, config)
    failed = [a for a in attempts if a.ended and not workers.outlived(a)]
    return sorted(failed, key=lambda a: (a.settled or 0.0, a.task.id))


class _Workers:
    """How many workers were provably busy at any moment of the update."""

    def __init__(self, attempts: Iterable[Attempt], config: Config) -> None:
        self._config = config
        self._begun = sorted(a.made for a in attempts if a.by_update)
        self._starts = sorted(a.made for a in attempts)
        self._ends = sorted(self._busy_until(a) for a in attempts)

    def _busy_until(self, attempt: Attempt) -> float:
        """The latest moment until which it certainly held its worker."""
        up = attempt.made if attempt.ended else inf if attempt.settled is None else attempt.settled
        return max(up + self._config.delay, nextafter(attempt.made, inf))

    def outlived(self, attempt: Attempt) -> bool:
        """Whether the records prove that it ended more than the monitor period after it came up."""
        config = self._config
        if not config.parallelism or attempt.settled is None:
            return False
        before = attempt.settled - config.monitor + config.delay
        at = bisect_right(self._begun, before)
        if not at or self._begun[at - 1] <= attempt.made:
            return False
        moment = self._begun[at - 1]
        busy = bisect_right(self._starts, moment) - bisect_right(self._ends, moment)
        busy -= self._busy_until(attempt) > moment
        return busy >= config.parallelism


def exceeds(failed: int, total: int, ratio: float) -> bool:
    """Whether the share of failures is above the limit, in single precision as the limit itself is."""
    return total > 0 and _single(failed / total) > ratio


def _single(value: float) -> float:
    packed: tuple[float] = struct.unpack("f", struct.pack("f", value))
    return packed[0]
