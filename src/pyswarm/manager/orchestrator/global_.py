"""The orchestrator of global services: one task on every eligible node (spec/orchestration, section 7)."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Sequence

from pyswarm.api import v1 as api
from pyswarm.manager import constraints
from pyswarm.manager.changes import Change, Create, Delete
from pyswarm.manager.loop import Decision
from pyswarm.manager.orchestrator import nodes
from pyswarm.manager.orchestrator.orchestrator import Key, NodeKey, Orchestrator, ServiceKey
from pyswarm.manager.orchestrator.rolling import is_unfinished
from pyswarm.manager.orchestrator.settle import Outcome, settle
from pyswarm.manager.orchestrator.situation import Situation
from pyswarm.manager.orchestrator.slots import Place, Slot, updatable
from pyswarm.manager.orchestrator.tasks import want
from pyswarm.manager.orchestrator.update import STEP, Occupied, awaits_update, update
from pyswarm.manager.store import Kind, View, by

S = api.TaskState


class Global(Orchestrator):
    """Keeps one task of each global service on every node that may have one."""

    name = "global orchestrator"
    mode = "global"

    def place_of(self, task: api.Task) -> Place | None:
        """Its node; slot 0 tells it from a replicated task."""
        if not task.service_id or task.slot or not task.node_id or task.HasField("job_iteration"):
            return None
        return task.node_id

    def _on_node(self, node: api.Node, old: api.Node | None) -> Iterable[Key]:
        """Whatever eligibility depends on: state, availability, and what constraints can name.

        An update under way is looked at too: a node that may no longer be changed gives its worker back.
        """
        if not nodes.eligibility_changed(node, old):
            return ()
        return (NodeKey(node.id), *(ServiceKey(service_id) for service_id in sorted(self._updating)))

    def decide_service(self, situation: Situation) -> Decision:
        """Every node in turn; then the update of those that may be updated."""
        slots = situation.tasks()
        changes: list[Change] = []
        occupied: list[Occupied] = []
        for place in sorted({n.id for n in situation.view.nodes} | {str(p) for p in slots}):
            slot = slots.get(place, Slot(place, ()))
            changes += _up_to_date(situation, slot).changes
            if len(changes) >= STEP:
                break
            if _may_change(situation, place) and (tasks := updatable(situation.service, slot)):
                occupied.append((slot, tasks))
        return Decision(changes, again=True) if changes else update(situation, occupied)

    def decide_slot(self, situation: Situation, place: Place) -> Decision:
        """One node's task."""
        slot = situation.slot(place)
        outcome = _place(situation, slot)
        if not outcome.changes and outcome.wake is None and awaits_update(situation, updatable(situation.service, slot)):
            return self.decide_service(situation)
        return Decision(outcome.changes, wake=outcome.wake)

    def decide_node(self, view: View, node_id: str, now: float) -> Decision:
        """All global services on a node that came, went or changed."""
        node = view.nodes.get(node_id)
        if node is None:
            found = view.tasks.find(by.node(node_id))
            gone = [Delete(Kind.TASK, t.id) for t in found if self._is_global_task(view, t)]
            return Decision(gone[:STEP], again=len(gone) > STEP)
        changes: list[Change] = []
        wakes: list[float] = []
        for service in sorted((s for s in view.services if self.owns(s)), key=lambda s: s.id):
            situation = self._situation(view, service, now)
            slot = situation.slot(node_id)
            outcome = _after_node_change(situation, slot, node)
            if not outcome.changes and _may_change(situation, node_id) and awaits_update(situation, updatable(service, slot)):
                changes += self.decide_service(situation).changes
            changes += outcome.changes
            if outcome.wake is not None:
                wakes.append(outcome.wake)
            if len(changes) >= STEP:
                return Decision(changes, again=True)
        return Decision(changes, wake=min(wakes, default=None))

    def _is_global_task(self, view: View, task: api.Task) -> bool:
        service = view.services.get(task.service_id)
        return self.place_of(task) is not None and service is not None and self.owns(service)


class Obstacle(enum.Enum):
    """What keeps new tasks of a global service from a node."""

    DOWN = "down"
    DRAINED = "drained"
    PAUSED = "paused"
    CONSTRAINTS = "constraints"


def obstacle(service: api.Service, node: api.Node | None) -> Obstacle | None:
    """Why the node gets no new task of the service; None when it may: it is there, wanted, fits, and is not paused."""
    if node is None or nodes.is_down(node):
        return Obstacle.DOWN
    if nodes.is_drained(node):
        return Obstacle.DRAINED
    if not constraints.node_matches(node, service.spec.task.placement):
        return Obstacle.CONSTRAINTS
    return Obstacle.PAUSED if node.spec.availability == api.NodeSpec.PAUSE else None


def _may_change(situation: Situation, node_id: str) -> bool:
    return obstacle(situation.service, situation.node(node_id)) is None


def _place(situation: Situation, slot: Slot) -> Outcome:
    """What one node needs of one service (the table of section 7.2), but for updates."""
    node = situation.node(str(slot.place))
    if node is None:
        return Outcome([Delete(Kind.TASK, t.id) for t in slot.tasks])
    if nodes.is_invalid(node) or not constraints.node_matches(node, situation.service.spec.task.placement):
        return Outcome(list(_stop(slot.runnable)))
    if node.spec.availability == api.NodeSpec.PAUSE:
        return settle(situation, slot, replace=False)
    outcome = settle(situation, slot)
    if not outcome.changes and not updatable(situation.service, slot):
        outcome.changes.append(Create(situation.new_task(slot.place, S.RUNNING, after=slot.tasks)))
    return outcome


def _after_node_change(situation: Situation, slot: Slot, node: api.Node) -> Outcome:
    """As `_up_to_date`, but a task that no longer fits is left to the constraint enforcer."""
    fits = constraints.node_matches(node, situation.service.spec.task.placement)
    if not fits and node.spec.availability == api.NodeSpec.ACTIVE and not nodes.is_down(node):
        return Outcome(list(_stop(t for t in slot.runnable if t.status.state > S.RUNNING)))
    return _up_to_date(situation, slot)


def _up_to_date(situation: Situation, slot: Slot) -> Outcome:
    """As `_place`; and once an update is complete, an outdated task is replaced at once.

    The latter brings a node that was paused during the update up to date without starting another (section 7.5). While one is under way, or
    paused, the node waits for its turn; and if none has begun, this node begins it.
    """
    outcome = _place(situation, slot)
    service = situation.service
    if outcome.changes or is_unfinished(service) or not service.HasField("update_status") or not _may_change(situation, str(slot.place)):
        return outcome
    tasks = updatable(service, slot)
    if tasks and all(situation.is_dirty(t) for t in tasks):
        outcome.changes.append(Create(situation.new_task(slot.place, S.RUNNING, after=slot.tasks)))
        outcome.changes += _stop(tasks)
    return outcome


def _stop(tasks: Iterable[api.Task] | Sequence[api.Task]) -> Iterator[Change]:
    for task in tasks:
        yield from want(task, S.SHUTDOWN)
