"""The next step of a rolling update of one service (spec/orchestration, section 10).

    status null, a dirty slot        -> UPDATING, and the first slots
    UPDATING or ROLLBACK_STARTED     -> next slots while workers are free; pause or roll back on too many failures; in the end complete
    anything else                    -> nothing: what is under way in a slot is finished by `settle`, nothing new begins

`settle` does the rest of a slot's update: it lets the new task go when the old one has stopped, and ends the old one, start-first, when the
new one runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.manager.changes import Change, Create, Update
from pyswarm.manager.loop import Decision
from pyswarm.manager.orchestrator.release import due
from pyswarm.manager.orchestrator.rolling import Attempt, Config, exceeds, failures, in_progress
from pyswarm.manager.orchestrator.situation import Situation
from pyswarm.manager.orchestrator.slots import Slot
from pyswarm.manager.orchestrator.tasks import want
from pyswarm.manager.store import copy_of

S = api.TaskState
U = api.UpdateStatus
STEP = 200
"""Changes to a decision, about."""
_CAUSE = "due to failure or early termination of task "
Occupied = tuple[Slot, Sequence[api.Task]]


@dataclass(slots=True)
class Progress:
    """Where the update stands: slots not begun, in order, and the attempts made."""

    pending: list[Occupied] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def total(self) -> int:
        """The slots this update is about."""
        return len(self.pending) + len(self.attempts)

    def add(self, situation: Situation, slot: Slot, tasks: Sequence[api.Task]) -> None:
        """Look at one more slot that stays, with its updatable tasks."""
        attempt = Attempt.of(situation, slot) if situation.service.HasField("update_status") else None
        if attempt is not None:
            self.attempts.append(attempt)
        elif all(situation.is_dirty(t) for t in tasks):
            self.pending.append((slot, tasks))

    def too_many(self, config: Config) -> Attempt | None:
        """The failure that was one too many, whatever the config then asks for."""
        failed = failures(self.attempts, config)
        return next((a for n, a in enumerate(failed, 1) if exceeds(n, self.total, config.ratio)), None)


@dataclass(frozen=True, slots=True)
class Workers:
    """How many slots are in transition, or in the delay after it, and when the next of those delays ends (seconds; None: no delay)."""

    busy: int
    free_at: float | None
    end: float
    """When the last delay ends."""

    @classmethod
    def of(cls, situation: Situation, config: Config, attempts: Iterable[Attempt]) -> Workers:
        """As the attempts show."""
        now = situation.now
        busy, wakes, end = 0, [], times.seconds_of(situation.service.update_status.started_at)
        for attempt in attempts:
            if attempt.starting:
                busy += 1
            elif attempt.settled is not None:
                free = due(attempt.settled, config.delay, now)
                if free > now:
                    busy += 1
                    wakes.append(free)
                end = max(end, attempt.settled + config.delay)
        return cls(busy, min(wakes, default=None), end)


def update(situation: Situation, occupied: Sequence[Occupied]) -> Decision:
    """What the service's update needs now. `occupied` are the slots that stay, ascending, each with its updatable tasks."""
    service = situation.service
    if service.HasField("update_status") and not in_progress(service):
        return Decision()
    progress = Progress()
    for slot, tasks in occupied:
        progress.add(situation, slot, tasks)
    if not service.HasField("update_status"):
        return _begin(situation, progress)
    config = Config.of(service)
    if config.action != api.UpdateConfig.CONTINUE:
        over = progress.too_many(config)
        if over is not None:
            return Decision([Update(_failed(service, config, over.task.id))])
    return _advance(situation, config, progress)


def awaits_update(situation: Situation, tasks: Sequence[api.Task]) -> bool:
    """All that a place has to show is outdated, and no update has begun: one must."""
    return bool(tasks) and not situation.service.HasField("update_status") and all(situation.is_dirty(t) for t in tasks)


def _begin(situation: Situation, progress: Progress) -> Decision:
    if not progress.pending:
        return Decision()
    service = copy_of(situation.service)
    started = U(state=U.UPDATING, message="update in progress", started_at=times.timestamp(situation.now))
    service.update_status.CopyFrom(started)
    config = Config.of(service)
    first = _start(situation, config, progress.pending, config.parallelism or None, since=situation.now)
    return Decision([Update(service), *first])


def _advance(situation: Situation, config: Config, progress: Progress) -> Decision:
    now = situation.now
    workers = Workers.of(situation, config, progress.attempts)
    wake = workers.free_at
    if progress.pending:
        idle = max(0, config.parallelism - workers.busy) if config.parallelism else None
        since = times.seconds_of(situation.service.update_status.started_at)
        changes = _start(situation, config, progress.pending, idle, since)
        return Decision(changes, again=len(changes) >= STEP, wake=wake)
    if any(a.starting for a in progress.attempts):
        return Decision(wake=wake)
    over = due(workers.end, config.monitor, now)
    return Decision([Update(_completed(situation))]) if over <= now else Decision(wake=over)


def _start(situation: Situation, config: Config, pending: Sequence[Occupied], idle: int | None, since: float) -> list[Change]:
    """Begin on as many slots as there are idle workers (None: all), within one step.

    Start-first the old task stays until the new one runs.
    """
    changes: list[Change] = []
    for slot, tasks in pending[:idle]:
        changes.append(Create(situation.new_task(slot.place, S.READY, after=slot.tasks, since=since)))
        for task in () if config.start_first else tasks:
            changes += want(task, S.SHUTDOWN)
        if len(changes) >= STEP:
            break
    return changes


def blamed(status: api.UpdateStatus) -> str:
    """Id of the task whose failure ended the update; empty when none did."""
    return status.message.partition(_CAUSE)[2]


def _failed(service: api.Service, config: Config, task_id: str) -> api.Service:
    """The service after one failure too many: paused, or turned back to its previous spec.

    Without a previous spec there is nothing to go back to; the reference then leaves the status at UPDATING and starts over at the next
    occasion, we pause.
    """
    service = copy_of(service)
    status = service.update_status
    rollback = status.state == U.ROLLBACK_STARTED
    cause = f"{_CAUSE}{task_id}"
    if config.action == api.UpdateConfig.ROLLBACK and not rollback and service.HasField("previous_spec"):
        status.state, status.message = U.ROLLBACK_STARTED, f"update rolled back {cause}"
        service.spec.CopyFrom(service.previous_spec)
        service.ClearField("spec_version")
        if service.HasField("previous_spec_version"):
            service.spec_version.CopyFrom(service.previous_spec_version)
        service.ClearField("previous_spec")
        service.ClearField("previous_spec_version")
        return service
    what = "rollback" if rollback and config.action == api.UpdateConfig.ROLLBACK else "update"
    status.state = U.ROLLBACK_PAUSED if rollback else U.PAUSED
    status.message = f"{what} paused {cause}"
    return service


def _completed(situation: Situation) -> api.Service:
    service = copy_of(situation.service)
    status = service.update_status
    if status.state == U.ROLLBACK_STARTED:
        status.state, status.message = U.ROLLBACK_COMPLETED, "rollback completed"
    else:
        status.state, status.message = U.COMPLETED, "update completed"
    status.completed_at.CopyFrom(times.timestamp(situation.now))
    return service
