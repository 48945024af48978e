"""What a service or a new task gets (spec/scheduling-and-allocation, sections 2 and 13)."""

from __future__ import annotations

from collections.abc import Iterable

from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.manager.changes import Update
from pyswarm.manager.loop import Decision
from pyswarm.manager.store import Action, Event, Kind, View, by, copy_of

S = api.TaskState
ALLOCATED = "pending task scheduling"


class Allocator:
    """A `Loop` over (kind, id) of services and tasks."""

    name = "allocator"
    quiet = 0.0
    patience = 0.0

    def everything(self, view: View) -> Iterable[tuple[Kind, str]]:
        """All services, then all tasks that no allocator has seen."""
        yield from ((Kind.SERVICE, s.id) for s in view.services)
        yield from ((Kind.TASK, t.id) for t in view.tasks.find(by.task_state(S.NEW)))

    def on_event(self, event: Event) -> Iterable[tuple[Kind, str]]:
        """A service that changed, a task that is new."""
        if event.action is Action.REMOVE:
            return ()
        if isinstance(event.obj, api.Service):
            return ((Kind.SERVICE, event.obj.id),)
        if isinstance(event.obj, api.Task) and event.obj.status.state == S.NEW:
            return ((Kind.TASK, event.obj.id),)
        return ()

    def decide(self, view: View, key: tuple[Kind, str], now: float) -> Decision:
        """Bring the endpoint in line with its spec; pass a new task on to the scheduler."""
        kind, object_id = key
        if kind is Kind.SERVICE:
            return self._service(view.services.get(object_id))
        return self._task(view.tasks.get(object_id), now)

    def _service(self, service: api.Service | None) -> Decision:
        if service is None:
            return Decision()
        edited = copy_of(service)
        if service.spec.HasField("endpoint"):
            fill_endpoint(edited.endpoint, service.spec.endpoint)
        else:
            edited.ClearField("endpoint")
        return Decision() if edited == service else Decision(changes=[Update(edited)])

    def _task(self, task: api.Task | None, now: float) -> Decision:
        if task is None or task.status.state != S.NEW:
            return Decision()
        edited = copy_of(task)
        if task.HasField("endpoint") and task.endpoint.HasField("spec"):
            fill_endpoint(edited.endpoint, task.endpoint.spec)
        edited.status.Clear()
        edited.status.state = S.PENDING
        edited.status.message = ALLOCATED
        edited.status.timestamp.CopyFrom(times.timestamp(now))
        return Decision(changes=[Update(edited)])


def fill_endpoint(endpoint: api.Endpoint, spec: api.EndpointSpec) -> None:
    """What a spec asks for that needs no allocation: the host-mode ports as they are."""
    if endpoint.spec != spec:
        endpoint.spec.CopyFrom(spec)
    del endpoint.ports[:]
    endpoint.ports.extend(p for p in spec.ports if p.publish_mode == api.PortConfig.PublishMode.HOST)
