"""The next step of a rolling update of one service (spec/orchestration, section 10).

    status null, a dirty slot        -> UPDATING, and the first slots
    UPDATING or ROLLBACK_STARTED     -> next slots while workers are free; pause or roll back on too many failures; in the end complete
    anything else                    -> nothing: what is under way in a slot is finished by `settle`, nothing new begins

`settle` does the rest of a slot's update: it lets the new task go when the old one has stopped, and ends the old one, start-first, when the
new one runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.manager.changes import Change, Create, Update
from pyswarm.manager.loop import Decision
from pyswarm.manager.orchestrator.release import due
from pyswarm.manager.orchestrator.rolling import Attempt, Config, exceeds, failures, in_progress
from pyswarm.manager.orchestrator.situation import Situation
from pyswarm.manager.orchestrator.slots import Slot
from pyswarm.manager.orchestrator.tasks import by_creation, want
from pyswarm.manager.store import copy_of

S = api.TaskState
U = api.UpdateStatus
STEP = 200
"""Changes to a decision, about."""
Occupied = tuple[Slot, Sequence[api.Task]]


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the update stands: slots not begun, in order, and the attempts made."""

    pending: Sequence[Occupied]
    attempts: Sequence[Attempt]

    @property
    def total(self) -> int:
        """The slots this update is about."""
        return len(self.pending) + len(self.attempts)


def update(situation: Situation, occupied: Sequence[Occupied]) -> Decision:
    """What the service's update needs now. `occupied` are the slots that stay, ascending, each with its updatable tasks."""
    service = situation.service
    if service.HasField("update_status") and not in_progress(service):
        return Decision()
    progress = _progress(situation, occupied)
    if not service.HasField("update_status"):
        return _begin(situation, progress)
    config = Config.of(service)
    if config.action != api.UpdateConfig.CONTINUE:
        failed = failures(progress.attempts, config)
        over = next((a for n, a in enumerate(failed, 1) if exceeds(n, progress.total, config.ratio)), None)
        if over is not None:
            return Decision([Update(_failed(service, config, over.task.id))])
    return _advance(situation, config, progress)


def _progress(situation: Situation, occupied: Sequence[Occupied]) -> Progress:
    service = situation.service
    pending: list[Occupied] = []
    attempts: list[Attempt] = []
    counting = service.HasField("update_status")
    for slot, tasks in occupied:
        attempt = Attempt.of(situation, slot) if counting else None
        if attempt is not None:
            attempts.append(attempt)
        elif all(situation.is_dirty(t) for t in tasks):
            pending.append((slot, tasks))
    return Progress(pending, attempts)


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
    busy, wakes, end = 0, [], times.seconds_of(situation.service.update_status.started_at)
    for attempt in progress.attempts:
        if attempt.starting:
            busy += 1
        elif attempt.settled is not None:
            free = due(attempt.settled, config.delay, now)
            if free > now:
                busy += 1
                wakes.append(free)
            end = max(end, attempt.settled + config.delay)
    wake = min(wakes, default=None)
    if progress.pending:
        idle = max(0, config.parallelism - busy) if config.parallelism else None
        since = times.seconds_of(situation.service.update_status.started_at)
        changes = _start(situation, config, progress.pending, idle, since)
        return Decision(changes, again=len(changes) >= STEP, wake=wake)
    if any(a.starting for a in progress.attempts):
        return Decision(wake=wake)
    over = due(end, config.monitor, now)
    return Decision([Update(_completed(situation))]) if over <= now else Decision(wake=over)


def _start(situation: Situation, config: Config, pending: Sequence[Occupied], idle: int | None, since: float) -> list[Change]:
    """Begin on as many slots as there are idle workers (None: all), within one step."""
    changes: list[Change] = []
    for slot, tasks in pending[:idle]:
        changes.append(Create(situation.new_task(slot.place, S.READY, after=slot.tasks, since=since)))
        for task in _leaving(tasks, config):
            changes += want(task, S.SHUTDOWN)
        if len(changes) >= STEP:
            break
    return changes


def _leaving(tasks: Sequence[api.Task], config: Config) -> Sequence[api.Task]:
    """Those that stop as soon as the new task is made. Start-first one stays until that runs, the one that runs itself if any does."""
    if not config.start_first:
        return tasks
    stays = min(tasks, key=lambda t: (t.status.state != S.RUNNING, by_creation(t)))
    return [t for t in tasks if t is not stays]


def _failed(service: api.Service, config: Config, task_id: str) -> api.Service:
    """The service after one failure too many: paused, or turned back to its previous spec.

    Without a previous spec there is nothing to go back to; the reference then leaves the status at UPDATING and starts over at the next
    occasion, we pause.
    """
    service = copy_of(service)
    status = service.update_status
    rollback = status.state == U.ROLLBACK_STARTED
    cause = f"due to failure or early termination of task {task_id}"
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
