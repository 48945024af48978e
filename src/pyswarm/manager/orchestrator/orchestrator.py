"""What the orchestrators of services and jobs have in common: which keys an event touches, and whom a decision is about.

A service is the key of what needs all its tasks (how many there are, the update's progress), a slot of what concerns one place (restarts,
delayed starts), a node of what concerns all tasks on it. The small keys keep the cost of a task's life independent of its service's size.
"""

from __future__ import annotations

import abc
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from pyswarm.api import ids
from pyswarm.api import v1 as api
from pyswarm.api.tasks import is_runnable
from pyswarm.manager.changes import Change
from pyswarm.manager.loop import Decision
from pyswarm.manager.orchestrator import nodes
from pyswarm.manager.orchestrator.rolling import in_progress
from pyswarm.manager.orchestrator.situation import NewId, Situation
from pyswarm.manager.orchestrator.slots import Place
from pyswarm.manager.orchestrator.tasks import want
from pyswarm.manager.orchestrator.update import STEP
from pyswarm.manager.store import Action, Event, View, by

S = api.TaskState


@dataclass(frozen=True, slots=True)
class ServiceKey:
    """All of a service."""

    service: str


@dataclass(frozen=True, slots=True)
class SlotKey:
    """One place of a service."""

    service: str
    place: Place


@dataclass(frozen=True, slots=True)
class NodeKey:
    """Whatever is on a node."""

    node: str


Key: TypeAlias = ServiceKey | SlotKey | NodeKey


class Orchestrator(abc.ABC):
    """Base of the loops over services; implements `Loop[Key]`.

    The only thing kept is which services are being updated, a mirror of the store that spares all others a look when a task comes up.
    """

    name: str
    mode: str
    quiet = 0.0
    patience = 0.0

    def __init__(self, new_id: NewId = ids.new_id) -> None:
        self._new_id = new_id
        self._updating: set[str] = set()

    # --- whose is it

    @abc.abstractmethod
    def place_of(self, task: api.Task) -> Place | None:
        """Where a task of this orchestrator's services is; None for other tasks. Told from the task alone: its service may be gone."""

    def owns(self, service: api.Service) -> bool:
        """Whether this orchestrator handles the service."""
        return service.spec.WhichOneof("mode") == self.mode

    # --- which keys

    def on_event(self, event: Event) -> Iterable[Key]:
        """The keys that a change touches."""
        match event.obj:
            case api.Task():
                return self._on_task(event.action, event.obj, event.old if isinstance(event.old, api.Task) else None)
            case api.Service():
                return self._on_service(event.action, event.obj)
            case api.Node():
                return self._on_node(event.obj, event.old if isinstance(event.old, api.Node) else None)
        return ()

    def _on_service(self, action: Action, service: api.Service) -> Iterable[Key]:
        if not self.owns(service):
            return ()
        if action is not Action.REMOVE and in_progress(service):
            self._updating.add(service.id)
        else:
            self._updating.discard(service.id)
        return (ServiceKey(service.id),)

    def _on_task(self, action: Action, task: api.Task, old: api.Task | None) -> Iterator[Key]:
        """Only what can matter: most steps of a task on its way up do not."""
        place = self.place_of(task)
        if place is None:
            return
        if action is Action.REMOVE:
            if task.desired_state < S.REMOVE or S.ASSIGNED <= task.status.state <= S.RUNNING:
                yield SlotKey(task.service_id, place)  # else the reaper tidies up a slot that was given up
            if is_runnable(task) or task.service_id in self._updating:
                yield ServiceKey(task.service_id)
            return
        if _matters(task, old):
            yield SlotKey(task.service_id, place)
            if task.service_id in self._updating:
                yield ServiceKey(task.service_id)

    @abc.abstractmethod
    def _on_node(self, node: api.Node, old: api.Node | None) -> Iterable[Key]: ...

    def everything(self, view: View) -> Iterable[Key]:
        """All services, those of which only tasks are left, and the slots in which something is due."""
        self._updating = {s.id for s in view.services if self.owns(s) and in_progress(s)}
        return list(self._all(view))

    def _all(self, view: View) -> Iterator[Key]:
        """Slots first, as with events: what replaces a dead task is decided before its update turns back."""
        invalid = {n.id for n in view.nodes if nodes.is_invalid(n)}
        for task in view.tasks:
            place = self.place_of(task)
            if place is None:
                continue
            if task.service_id not in view.services:
                yield ServiceKey(task.service_id)
            elif is_runnable(task):
                stranded = bool(task.node_id) and (task.node_id in invalid or task.node_id not in view.nodes)
                if stranded or task.desired_state < S.RUNNING or task.status.state > S.RUNNING:
                    yield SlotKey(task.service_id, place)
        yield from (ServiceKey(s.id) for s in view.services if self.owns(s))

    # --- what they need

    def decide(self, view: View, key: Key, now: float) -> Decision:
        """What a key needs."""
        match key:
            case NodeKey(node_id):
                return self.decide_node(view, node_id, now)
            case ServiceKey(service_id):
                service = view.services.get(service_id)
                if service is None:
                    return self._remove_all(view, service_id)
                return self.decide_service(self._situation(view, service, now)) if self.owns(service) else Decision()
            case SlotKey(service_id, place):
                service = view.services.get(service_id)
                if service is None or not self.owns(service):
                    return Decision()
                return self.decide_slot(self._situation(view, service, now), place)

    def _situation(self, view: View, service: api.Service, now: float) -> Situation:
        return Situation(view, service, now, self._new_id)

    def _remove_all(self, view: View, service_id: str) -> Decision:
        """Tasks of a service that is gone: stop them all; the reaper deletes what has stopped."""
        changes: list[Change] = []
        for task in view.tasks.find(by.service(service_id)):
            if self.place_of(task) is not None:
                changes += want(task, S.REMOVE)
            if len(changes) >= STEP:
                return Decision(changes, again=True)
        return Decision(changes)

    @abc.abstractmethod
    def decide_service(self, situation: Situation) -> Decision:
        """How many tasks there are to be, and the next step of an update."""

    @abc.abstractmethod
    def decide_slot(self, situation: Situation, place: Place) -> Decision:
        """What one place needs."""

    @abc.abstractmethod
    def decide_node(self, view: View, node_id: str, now: float) -> Decision:
        """What a change of a node means for the tasks on it."""


def _matters(task: api.Task, old: api.Task | None) -> bool:
    """It came up or ended, something else is wanted of it, or it got a node; a new task that just waits for one does not matter."""
    state = task.status.state
    if old is None:
        return task.desired_state != S.RUNNING or state > S.RUNNING or bool(task.node_id)
    if state >= S.RUNNING and state != old.status.state:
        return True
    return old.desired_state != task.desired_state or old.node_id != task.node_id
