"""The constraint enforcer: rejects running tasks whose node no longer suits them (spec/orchestration, section 12.1).

It changes the observed state, not the desired one, so that the orchestrators then replace the task under its restart policy.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.manager import constraints
from pyswarm.manager.changes import Update
from pyswarm.manager.loop import Decision
from pyswarm.manager.orchestrator import nodes
from pyswarm.manager.orchestrator.dirty import same_version
from pyswarm.manager.orchestrator.rolling import is_unfinished
from pyswarm.manager.orchestrator.update import STEP
from pyswarm.manager.store import Action, Event, View, by, copy_of

S = api.TaskState
MESSAGE = "task rejected by constraint enforcer"
ERROR = "assigned node no longer meets constraints"


class ConstraintEnforcer:
    """Implements `Loop[str]`; keys are node ids."""

    name = "constraint enforcer"
    quiet = 0.0
    patience = 0.0

    def on_event(self, event: Event) -> Iterable[str]:
        """A node of which something changed that constraints or reservations look at."""
        node, old = event.obj, event.old
        if event.action is not Action.UPDATE or not isinstance(node, api.Node):
            return ()
        if isinstance(old, api.Node) and _same(node, old):
            return ()
        return (node.id,)

    def everything(self, view: View) -> Iterable[str]:
        """All nodes."""
        return [n.id for n in view.nodes]

    def decide(self, view: View, key: str, now: float) -> Decision:
        """The tasks of a node to reject, in order of their ids.

        One that still waits for a place on the node has reserved nothing there: it is rejected only when the node can never hold it.
        """
        node = view.nodes.get(key)
        if node is None or node.spec.availability != api.NodeSpec.ACTIVE:
            return Decision()
        left = Room.of(node)
        rejected: list[Update] = []
        for task in view.tasks.find(by.node(key)):
            if task.desired_state < S.ASSIGNED or task.desired_state > S.COMPLETE or task.status.state >= S.COMPLETE:
                continue
            room = left if task.status.state >= S.ASSIGNED else Room.of(node)
            if constraints.node_matches(node, _placement(view, task)) and room.take(task):
                continue
            rejected.append(Update(_rejected(task, now)))
            if len(rejected) >= STEP:
                return Decision(rejected, again=True)
        return Decision(rejected)


@dataclass(slots=True)
class Room:
    """What a node has left for the tasks not looked at yet. Generic resources by kind; named ones as (kind, value)."""

    nano_cpus: int
    memory: int
    discrete: dict[str, int] = field(default_factory=dict)
    named: set[tuple[str, str]] = field(default_factory=set)

    @classmethod
    def of(cls, node: api.Node) -> Room:
        """All that a node describes; a node without description has nothing."""
        resources = node.description.resources
        room = cls(resources.nano_cpus, resources.memory_bytes)
        for generic in resources.generic:
            if generic.HasField("discrete_resource_spec"):
                spec = generic.discrete_resource_spec
                room.discrete[spec.kind] = room.discrete.get(spec.kind, 0) + spec.value
            else:
                room.named.add((generic.named_resource_spec.kind, generic.named_resource_spec.value))
        return room

    def take(self, task: api.Task) -> bool:
        """Reserve what the task needs; False, with nothing taken, when it is not there."""
        reserved = task.spec.resources.reservations
        if reserved.memory_bytes > self.memory or reserved.nano_cpus > self.nano_cpus:
            return False
        discrete: dict[str, int] = {}
        named: set[tuple[str, str]] = set()
        for generic in task.assigned_generic_resources:
            if generic.HasField("discrete_resource_spec"):
                spec = generic.discrete_resource_spec
                discrete[spec.kind] = discrete.get(spec.kind, 0) + spec.value
            else:
                named.add((generic.named_resource_spec.kind, generic.named_resource_spec.value))
        if not named <= self.named or any(value > self.discrete.get(kind, -1) for kind, value in discrete.items()):
            return False
        self.memory -= reserved.memory_bytes
        self.nano_cpus -= reserved.nano_cpus
        self.named -= named
        for kind, value in discrete.items():
            self.discrete[kind] -= value
        return True


def _same(node: api.Node, old: api.Node) -> bool:
    return (
        node.spec == old.spec
        and node.role == old.role
        and node.status.addr == old.status.addr
        and node.description == old.description
        and nodes.is_down(node) == nodes.is_down(old)
    )


def _placement(view: View, task: api.Task) -> api.Placement:
    """The service's present constraints: a task may have outlived the placement it was made with.

    But while a replicated service is being updated, or its update is paused, its outdated tasks are the update's to replace in their turn:
    else a new leader, which looks at every node, would take down all at once what the update takes slot by slot.
    """
    service = view.services.get(task.service_id) if task.service_id else None
    if service is None:
        return task.spec.placement
    if service.spec.HasField("replicated") and is_unfinished(service) and not same_version(service, task):
        return task.spec.placement
    return service.spec.task.placement


def _rejected(task: api.Task, now: float) -> api.Task:
    edited = copy_of(task)
    edited.status.state = S.REJECTED
    edited.status.message = MESSAGE
    edited.status.err = ERROR
    edited.status.timestamp.CopyFrom(times.timestamp(now))
    edited.status.ClearField("applied_at")  # that of the report before: it would hide when this one ended
    return edited
