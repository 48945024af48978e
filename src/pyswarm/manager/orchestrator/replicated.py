"""The orchestrator of replicated services (spec/orchestration, section 6)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count, islice

from pyswarm.api import v1 as api
from pyswarm.manager.changes import Change, Create
from pyswarm.manager.loop import Decision
from pyswarm.manager.orchestrator import nodes
from pyswarm.manager.orchestrator.orchestrator import Key, NodeKey, Orchestrator
from pyswarm.manager.orchestrator.settle import settle
from pyswarm.manager.orchestrator.situation import Situation
from pyswarm.manager.orchestrator.slots import Place, Slot, surplus, updatable
from pyswarm.manager.orchestrator.tasks import want
from pyswarm.manager.orchestrator.update import STEP, Occupied, awaits_update, update
from pyswarm.manager.store import View, by

S = api.TaskState


class Replicated(Orchestrator):
    """Keeps `replicas` slots of each replicated service occupied."""

    name = "replicated orchestrator"
    mode = "replicated"

    def place_of(self, task: api.Task) -> Place | None:
        """Its slot; these begin at 1, where global tasks have none."""
        if not task.service_id or not task.slot or task.HasField("job_iteration"):
            return None
        return task.slot

    def _on_node(self, node: api.Node, old: api.Node | None) -> Iterable[Key]:
        if old is not None and old.status.state == node.status.state and old.spec.availability == node.spec.availability:
            return ()
        return (NodeKey(node.id),)

    def decide_service(self, situation: Situation) -> Decision:
        """Scale; then end doubles; then the update. One after the other, each on what the last one left."""
        slots = situation.tasks()
        occupied: list[Occupied] = []
        dead: list[Slot] = []
        for slot in slots.values():
            tasks = updatable(situation.service, slot)
            if tasks:
                occupied.append((slot, tasks))
            else:
                dead.append(slot)
        changes = _scale(situation, slots, occupied, dead)
        if changes:
            return Decision(changes, again=True)
        for slot, several in occupied:
            if len(several) > 1 and len(changes) < STEP:
                changes += settle(situation, slot).changes
        return Decision(changes, again=True) if changes else update(situation, occupied)

    def decide_slot(self, situation: Situation, place: Place) -> Decision:
        """Restarts, delayed starts and doubles of one slot; of all, where this slot alone does not show what is to be done."""
        slot = situation.slot(place)
        outcome = settle(situation, slot)
        if not outcome.changes and outcome.wake is None and _is_for_all(situation, slot):
            return self.decide_service(situation)
        return Decision(outcome.changes, wake=outcome.wake)

    def decide_node(self, view: View, node_id: str, now: float) -> Decision:
        """Every slot with a task on the node that is meant to run, or that others wait for."""
        changes: list[Change] = []
        wakes: list[float] = []
        for service_id, place in self._slots_on(view, node_id):
            service = view.services.get(service_id)
            if service is None or not self.owns(service):
                continue
            situation = self._situation(view, service, now)
            outcome = settle(situation, situation.slot(place))
            changes += outcome.changes
            if outcome.wake is not None:
                wakes.append(outcome.wake)
            if len(changes) >= STEP:
                return Decision(changes, again=True)
        return Decision(changes, wake=min(wakes, default=None))

    def _slots_on(self, view: View, node_id: str) -> Iterable[tuple[str, Place]]:
        """Those with a task meant to run come first: each step then finds its work at once, however much an earlier one has done.

        On a drained node ended tasks matter too: their replacements no longer wait for the delay.
        """
        drained = nodes.is_drained(view.nodes.get(node_id))
        runnable: dict[tuple[str, Place], None] = {}
        stopping: dict[tuple[str, Place], None] = {}
        for task in view.tasks.find(by.node(node_id)):
            place = self.place_of(task)
            if place is None:
                continue
            if task.desired_state <= S.RUNNING:
                runnable[task.service_id, place] = None
            elif drained or task.status.state <= S.RUNNING:
                stopping[task.service_id, place] = None
        return runnable | stopping


def _is_for_all(situation: Situation, slot: Slot) -> bool:
    """The record that kept the slot occupied is gone, so that it may have to be filled; or what is left in it is outdated, and no update
    has begun.
    """
    if slot.tasks and slot.tasks[-1].desired_state == S.REMOVE:
        return False  # given up
    tasks = updatable(situation.service, slot)
    return not tasks or awaits_update(situation, tasks)


def _scale(situation: Situation, slots: Mapping[Place, Slot], occupied: list[Occupied], dead: Sequence[Slot]) -> list[Change]:
    """Create what is missing, mark for removal what is too much, a step at a time."""
    wanted = situation.service.spec.replicated.replicas
    changes: list[Change] = []
    if len(occupied) < wanted:
        taken = {slot.place for slot, _ in occupied}
        numbers = list(islice(_free(taken), min(wanted - len(occupied), STEP)))
        reused = set(numbers)
        for number in numbers:
            after = slots[number].tasks if number in slots else ()
            changes.append(Create(situation.new_task(number, S.RUNNING, after=after)))
        dead = [slot for slot in dead if slot.place not in reused] if wanted - len(occupied) <= STEP else ()
    gone = surplus(occupied, wanted) if len(occupied) > wanted else []
    for slot in [*gone, *dead]:
        if len(changes) >= STEP:
            break
        changes += _remove(slot)
    return changes


def _free(taken: set[Place]) -> Iterator[int]:
    return (number for number in count(1) if number not in taken)


def _remove(slot: Slot) -> Iterator[Change]:
    """All records go, not only the living: a slot that is given up has no history, and none that could make it look occupied."""
    for task in slot.tasks:
        yield from want(task, S.REMOVE)
