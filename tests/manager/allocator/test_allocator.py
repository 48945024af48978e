"""From NEW to PENDING."""

from __future__ import annotations

from pyswarm.api import v1 as api
from pyswarm.manager.allocator.allocator import ALLOCATED, Allocator
from pyswarm.manager.store import Action, Event, Kind
from tests.support.loops import new_store, settle

HOST = api.PortConfig.PublishMode.HOST


def test_new_task_becomes_pending_with_its_host_ports() -> None:
    """A NEW task gets its host-mode ports as asked for and becomes PENDING; others are left alone. [scheduling 2]"""
    new = api.Task(id="t1", service_id="s1")
    new.status.message = "created"
    new.endpoint.spec.ports.add(publish_mode=HOST, target_port=80, published_port=8080)
    running = api.Task(id="t2", service_id="s1")
    running.status.state = api.TaskState.RUNNING
    store = new_store(new, running)
    settle(Allocator(), store, 10.0)
    allocated = store.tasks.get("t1")
    assert (allocated.status.state, allocated.status.message, allocated.status.timestamp.seconds) == (api.TaskState.PENDING, ALLOCATED, 10)
    assert list(allocated.endpoint.ports) == list(new.endpoint.spec.ports)
    assert store.tasks.get("t2") is running


def test_service_endpoint_follows_its_spec() -> None:
    """A service's endpoint shows the host ports of the spec and disappears with it."""
    service = api.Service(id="s1")
    service.spec.endpoint.ports.add(publish_mode=HOST, target_port=80)
    plain = api.Service(id="s2")
    plain.endpoint.ports.add(target_port=1)
    store = new_store(service, plain)
    settle(Allocator(), store, 10.0)
    assert [p.target_port for p in store.services.get("s1").endpoint.ports] == [80]
    assert not store.services.get("s2").HasField("endpoint")


def test_changed_host_ports_are_followed() -> None:
    """The endpoint becomes what the spec says now; without a change nothing is written. [scheduling 92 in part, 93 in part]"""
    service = api.Service(id="s1")
    service.spec.endpoint.ports.add(publish_mode=HOST, target_port=80, published_port=10000)
    service.endpoint.spec.CopyFrom(service.spec.endpoint)
    service.endpoint.ports.add(publish_mode=HOST, target_port=80, published_port=15000)
    store = new_store(service)
    assert len(settle(Allocator(), store, 10.0)) == 1
    allocated = store.services.get("s1")
    assert [p.published_port for p in allocated.endpoint.ports] == [10000]
    assert allocated.endpoint.spec == service.spec.endpoint
    assert settle(Allocator(), store, 10.0) == []


def test_tasks_without_service() -> None:
    """A task alone becomes PENDING too; once it is, the allocator leaves it alone. [scheduling 98 in part]"""
    store = new_store(api.Task(id="t1"))
    loop = Allocator()
    assert len(settle(loop, store, 10.0)) == 1
    pending = store.tasks.get("t1")
    assert pending.status.state == api.TaskState.PENDING
    assert list(loop.on_event(Event(Kind.TASK, Action.UPDATE, pending, api.Task(id="t1")))) == []
    assert settle(loop, store, 11.0) == []
