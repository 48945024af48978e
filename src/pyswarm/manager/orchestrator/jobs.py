"""The orchestrator of jobs: replicated and global ones (spec/orchestration, section 8).

A job is done when so many tasks were completed. Every update of the service begins a new iteration, which starts from nothing; what earlier
ones left running is removed without being waited for. Completions, attempts and delays are read off the records, as for services.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import count, islice, takewhile

from pyswarm.api import ids
from pyswarm.api import v1 as api
from pyswarm.api.jobs import is_current, is_job
from pyswarm.api.tasks import is_runnable
from pyswarm.manager.changes import Change, Create
from pyswarm.manager.loop import Decision
from pyswarm.manager.orchestrator import nodes
from pyswarm.manager.orchestrator.jobslots import Progress, present, progress_of, settle_node, settle_slot
from pyswarm.manager.orchestrator.orchestrator import Key, NodeKey, Orchestrator, ServiceKey
from pyswarm.manager.orchestrator.settle import Outcome
from pyswarm.manager.orchestrator.situation import NewId, Situation
from pyswarm.manager.orchestrator.slots import Place, Slot, is_global
from pyswarm.manager.orchestrator.tasks import want
from pyswarm.manager.orchestrator.update import STEP
from pyswarm.manager.store import Action, View, by

S = api.TaskState


class Jobs(Orchestrator):
    """Runs every replicated job to its number of completions, and every global one once on each node."""

    name = "jobs orchestrator"

    def __init__(self, new_id: NewId = ids.new_id) -> None:
        super().__init__(new_id)
        self._global: set[str] = set()  # a mirror: a task alone does not show whether its place is a slot or a node

    def owns(self, service: api.Service) -> bool:
        """Both kinds of jobs."""
        return is_job(service.spec)

    def place_of(self, task: api.Task) -> Place | None:
        """Its node, or its slot; the iteration tells it from the task of a service."""
        if not task.service_id or not task.HasField("job_iteration"):
            return None
        return task.node_id if task.service_id in self._global else task.slot

    def everything(self, view: View) -> Iterable[Key]:
        """As for services."""
        self._global = {s.id for s in view.services if self.owns(s) and is_global(s)}
        return super().everything(view)

    def _on_service(self, action: Action, service: api.Service) -> Iterable[Key]:
        if action is not Action.REMOVE and self.owns(service) and is_global(service):
            self._global.add(service.id)
        else:
            self._global.discard(service.id)
        return super()._on_service(action, service)

    def _on_task(self, action: Action, task: api.Task, old: api.Task | None) -> Iterator[Key]:
        """When a slot's task is no longer meant to run, or a record is gone, another slot may have its turn."""
        yield from super()._on_task(action, task, old)
        if not task.HasField("job_iteration") or task.service_id in self._global:
            return
        gone = action is Action.REMOVE and task.desired_state < S.REMOVE
        ended = action is Action.UPDATE and not is_runnable(task) and (old is None or is_runnable(old))
        if gone or ended:
            yield ServiceKey(task.service_id)

    def _on_node(self, node: api.Node, old: api.Node | None) -> Iterable[Key]:
        return (NodeKey(node.id),) if nodes.eligibility_changed(node, old) else ()

    def decide_service(self, situation: Situation) -> Decision:
        """Whatever its kind of job needs; where places only wait, their own keys know until when."""
        changes: list[Change] = []
        for part in _global_job(situation) if is_global(situation.service) else _replicated_job(situation):
            changes += part
            if len(changes) >= STEP:
                return Decision(changes, again=True)
        return Decision(changes)

    def decide_slot(self, situation: Situation, place: Place) -> Decision:
        """One slot's or one node's task."""
        outcome = _settle(situation, place)
        return Decision(outcome.changes, wake=outcome.wake)

    def decide_node(self, view: View, node_id: str, now: float) -> Decision:
        """Every global job, and the slots of replicated jobs with a task on the node."""
        total = Outcome()
        for service, place in _places(view, node_id):
            outcome = _settle(self._situation(view, service, now), place)
            total.changes += outcome.changes
            if outcome.wake is not None:
                total.wait_until(outcome.wake)
            if len(total.changes) >= STEP:
                return Decision(total.changes, again=True)
        return Decision(total.changes, wake=total.wake)


def _settle(situation: Situation, place: Place) -> Outcome:
    slot = situation.slot(place)
    return settle_slot(situation, present(situation.service, slot)) if isinstance(place, int) else settle_node(situation, slot)


def _places(view: View, node_id: str) -> Iterator[tuple[api.Service, Place]]:
    """The places of jobs that a node's change may concern, each once.

    On a drained node also those where a task has ended: its replacement no longer waits for the delay.
    """
    drained = nodes.is_drained(view.nodes.get(node_id))
    for service in sorted((s for s in view.services if is_job(s.spec) and is_global(s)), key=lambda s: s.id):
        yield service, node_id
    seen: set[tuple[str, int]] = set()
    for task in view.tasks.find(by.node(node_id)):
        place = (task.service_id, task.slot)
        if not task.HasField("job_iteration") or place in seen or (task.status.state > S.RUNNING and not drained):
            continue
        seen.add(place)
        of = view.services.get(task.service_id)
        if of is not None and not is_global(of):
            yield of, task.slot


def _global_job(situation: Situation) -> Iterator[Sequence[Change]]:
    """Every node in turn."""
    slots = situation.tasks()
    for place in sorted({n.id for n in situation.view.nodes} | {str(p) for p in slots}):
        yield settle_node(situation, slots.get(place, Slot(place, ()))).changes


def _replicated_job(situation: Situation) -> Iterator[Sequence[Change]]:
    """New tasks; the end of doubles, and of what earlier iterations left running."""
    service, slots = situation.service, situation.tasks()
    current = {place: present(service, slot) for place, slot in slots.items()}
    came_to = {place: progress_of(slot) for place, slot in current.items()}
    for number in _next_slots(service.spec.replicated_job, came_to):
        after = slots[number].tasks if number in slots else ()
        yield [Create(situation.new_task(number, S.COMPLETE, after=after))]
    for place, slot in slots.items():
        here = current[place]
        if len(here.tasks) > 1 and (came_to[place] is Progress.COMPLETE or len(here.runnable) > 1):
            yield settle_slot(situation, here).changes
        if here is not slot:
            yield from (_give_up(t) for t in slot.tasks if not is_current(service, t))


def _give_up(task: api.Task) -> Sequence[Change]:
    """The task of an earlier iteration: what still lives goes, what has ended is history; nobody will restart it."""
    if task.status.state <= S.RUNNING:
        return want(task, S.REMOVE)
    return want(task, S.SHUTDOWN) if is_runnable(task) else ()


def _next_slots(job: api.ReplicatedJob, came_to: dict[Place, Progress]) -> Iterator[int]:
    """The lowest open slots, as many as may begin now. There is a slot for each completion, so no more can come together."""
    slots = takewhile(lambda number: number < job.total_completions, count())
    is_open = (number for number in slots if came_to.get(number, Progress.OPEN) is Progress.OPEN)
    busy = list(came_to.values()).count(Progress.BUSY)
    return islice(is_open, max(0, job.max_concurrent - busy))
