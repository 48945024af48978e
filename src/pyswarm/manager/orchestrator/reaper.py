"""The task reaper: deletes records of tasks that are over (spec/orchestration, section 13).

Two reasons: the task was to be removed (or was a network attachment) and nobody has it any more; or its slot holds more records than the
cluster keeps as history. Slots are looked at when a record comes or a task ends, so nothing has to stay marked for a later occasion.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from pyswarm.api import defaults
from pyswarm.api import v1 as api
from pyswarm.api.jobs import is_job
from pyswarm.api.tasks import is_runnable, is_terminal, will_never_run
from pyswarm.manager.changes import Delete
from pyswarm.manager.loop import Decision
from pyswarm.manager.orchestrator import jobslots, slots
from pyswarm.manager.orchestrator.rolling import attempt_at, in_progress
from pyswarm.manager.orchestrator.slots import Slot
from pyswarm.manager.orchestrator.update import STEP
from pyswarm.manager.store import Action, Event, Kind, View, by

S = api.TaskState
QUIET = 0.25


@dataclass(frozen=True, slots=True)
class TaskKey:
    """A task that was to be removed."""

    task: str


@dataclass(frozen=True, slots=True)
class HistoryKey:
    """A slot whose records may have become too many. `node` matters for services whose slots are nodes."""

    service: str
    slot: int
    node: str


@dataclass(frozen=True, slots=True)
class AllHistoryKey:
    """All slots of a service."""

    service: str


Key: TypeAlias = TaskKey | HistoryKey | AllHistoryKey


class Reaper:
    """Implements `Loop[Key]`. Waits a quarter of a second after the first event and then deletes what has come together."""

    name = "task reaper"
    quiet = QUIET
    patience = QUIET

    def on_event(self, event: Event) -> Iterator[Key]:
        """The records that a change makes superfluous."""
        match event.obj:
            case api.Task() as task if event.action is not Action.REMOVE:
                if is_over(task):
                    yield TaskKey(task.id)
                came = event.action is Action.CREATE
                released = isinstance(event.old, api.Task) and event.old.desired_state < S.RUNNING <= task.desired_state
                if task.service_id and (came or released or is_terminal(task) or will_never_run(task)):
                    yield HistoryKey(task.service_id, task.slot, task.node_id)
            case api.Service() as service if isinstance(event.old, api.Service):
                if _stage(event.old) != _stage(service):
                    yield AllHistoryKey(service.id)

    def everything(self, view: View) -> Iterable[Key]:
        """What a leader before this one may have left."""
        over: list[Key] = [TaskKey(t.id) for t in view.tasks if is_over(t)]
        return [*over, *(AllHistoryKey(s.id) for s in view.services)]

    def decide(self, view: View, key: Key, now: float) -> Decision:  # noqa: ARG002 - as the protocol has it
        """The records to delete."""
        match key:
            case TaskKey(task_id):
                task = view.tasks.get(task_id)
                return Decision(_delete([task])) if task is not None and is_over(task) else Decision()
            case HistoryKey(service_id, number, node_id):
                service = view.services.get(service_id)
                return Decision(_delete(_beyond_limit(view, service, _slot(view, service, number, node_id)))) if service else Decision()
            case AllHistoryKey(service_id):
                service = view.services.get(service_id)
                return self._trim_all(view, service) if service else Decision()

    def _trim_all(self, view: View, service: api.Service) -> Decision:
        deletions: list[Delete] = []
        for slot in slots.group(view.tasks.find(by.service(service.id)), by_node=slots.is_global(service)).values():
            deletions += _delete(_beyond_limit(view, service, slot))
            if len(deletions) >= STEP:
                return Decision(deletions, again=True)
        return Decision(deletions)


def is_over(task: api.Task) -> bool:
    """Its record serves nobody: it was to be removed and no agent has it, or it was a network attachment on a node that is gone."""
    state = task.status.state
    if not task.service_id and state >= S.ORPHANED:
        return True
    return task.desired_state == S.REMOVE and (state < S.ASSIGNED or state >= S.COMPLETE)


def limit_of(view: View, service: api.Service) -> int:
    """How many records a slot keeps; negative means all. Limited restart attempts need their own number, or they could not be counted."""
    attempts = service.spec.task.restart.max_attempts
    if attempts:
        return int(attempts) + 1
    clusters = view.clusters.find(by.name(defaults.CLUSTER_NAME))
    return clusters[0].spec.orchestration.task_history_retention_limit if clusters else 0


def needed(service: api.Service, tasks: Sequence[api.Task]) -> set[str]:
    """Ids of the records of a slot that have to stay, however many there are.

    Those a job's progress is read from; the one that shows that a slot is done, or its task would be run again; the one that shows that a
    task waits for the restart delay; the pair from which a running update reads how far it has come.
    """
    if is_job(service.spec):
        return jobslots.needed(service, tasks)
    slot = Slot(0, tasks)
    kept = _restarted(tasks) if slot.runnable else {t.id for t in slots.updatable(service, slot)}
    index = attempt_at(service, tasks) if in_progress(service) else None
    return kept if index is None else kept | {t.id for t in tasks[index - 1 : index + 1]}


def _restarted(tasks: Sequence[api.Task]) -> set[str]:
    """Predecessors of tasks that wait, where something older lives: else these would look like what a start-first update has made."""
    waits = [t.desired_state < S.RUNNING for t in tasks]
    return {tasks[n - 1].id for n in range(2, len(tasks)) if waits[n] and any(map(is_runnable, tasks[: n - 1]))}


def _stage(service: api.Service) -> tuple[int, int]:
    """What `_beyond_limit` asks of a service: its update's state, and the version that it is about."""
    return service.update_status.state, service.spec_version.index


def _slot(view: View, service: api.Service, number: int, node_id: str) -> Slot:
    if slots.is_global(service):
        return Slot(node_id, slots.in_order(t for t in view.tasks.find(by.node(node_id)) if t.service_id == service.id))
    return Slot(number, slots.in_order(view.tasks.find(by.slot(service.id, number))))


def _beyond_limit(view: View, service: api.Service, slot: Slot) -> list[api.Task]:
    """The oldest records that may go and are too many. What still runs, or will, never goes.

    Neither does one that ended and is still meant to run: its orchestrator marks it when it deals with it. Without the record nothing would
    show that the next one has to wait for the restart delay. What goes for another reason does not count.
    """
    limit = limit_of(view, service)
    tasks = [t for t in slot.tasks if not is_over(t)]
    too_many = len(tasks) - limit
    if limit < 0 or too_many <= 0:
        return []
    kept = needed(service, tasks)
    return [t for t in tasks if t.id not in kept and not is_runnable(t) and (is_terminal(t) or will_never_run(t))][:too_many]


def _delete(tasks: Iterable[api.Task]) -> list[Delete]:
    return [Delete(Kind.TASK, t.id) for t in tasks]
