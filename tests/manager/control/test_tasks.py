"""GetTask, ListTasks, RemoveTask."""

from __future__ import annotations

import pytest

from pyswarm.api import v1 as api
from pyswarm.manager.control import ControlService
from pyswarm.manager.store import Store, copy_of
from tests.manager.control.support import IA, ME, NF, refused, service_spec
from tests.support.loops import write

S = api.TaskState


async def listed(control: ControlService, **fields: object) -> list[str]:
    """Ids of the tasks that a filter finds, in the order of the answer."""
    request = api.ListTasksRequest(filters=api.ListTasksRequest.Filters(**fields))  # type: ignore[arg-type]
    return [task.id for task in (await control.ListTasks(request, ME)).tasks]


def task(task_id: str, **fields: object) -> api.Task:
    """A task."""
    return api.Task(id=task_id, **fields)  # type: ignore[arg-type]


async def test_get_and_remove(control: ControlService, store: Store) -> None:
    """Both need an id that exists; remove deletes whatever the state. [control 73]"""
    with refused(IA, "invalid argument", exactly=True):
        await control.GetTask(api.GetTaskRequest(), ME)
    with refused(IA, "invalid argument", exactly=True):
        await control.RemoveTask(api.RemoveTaskRequest(), ME)
    with refused(NF, "task t not found", exactly=True):
        await control.GetTask(api.GetTaskRequest(task_id="t"), ME)
    stored = task("t", desired_state=S.RUNNING, status=api.TaskStatus(state=S.RUNNING))
    write(store, stored)
    assert (await control.GetTask(api.GetTaskRequest(task_id="t"), ME)).task == stored
    await control.RemoveTask(api.RemoveTaskRequest(task_id="t"), ME)
    assert store.tasks.get("t") is None
    with refused(NF, "task t not found", exactly=True):
        await control.RemoveTask(api.RemoveTaskRequest(task_id="t"), ME)


async def test_list_by_state_and_id(control: ControlService, store: Store) -> None:
    """Desired states are alternatives; id prefixes select exactly; no filter lists all by id. [control 74]"""
    write(store, task("a1", desired_state=S.RUNNING), task("a2", desired_state=S.RUNNING), task("b1", desired_state=S.SHUTDOWN))
    assert await listed(control, desired_states=[S.RUNNING]) == ["a1", "a2"]
    assert await listed(control, desired_states=[S.SHUTDOWN]) == ["b1"]
    assert sorted(await listed(control, desired_states=[S.RUNNING, S.SHUTDOWN])) == ["a1", "a2", "b1"]
    assert await listed(control, id_prefixes=["a"]) == ["a1", "a2"]
    assert await listed(control) == ["a1", "a2", "b1"]


async def test_list_by_name(control: ControlService, store: Store) -> None:
    """A task's name is service, slot or node, and id, unless it has one of its own. [control 75]"""
    service = api.Annotations(name="theservice")
    write(
        store,
        task("taskID", slot=10, service_annotations=service),
        task("named", annotations=api.Annotations(name="thisisthetaskname"), service_annotations=service),
        task("global", node_id="thenodeID", service_annotations=service),
    )
    assert await listed(control, names=["theservice.10.taskID"]) == ["taskID"]
    assert await listed(control, names=["thisisthetaskname"]) == ["named"]
    assert await listed(control, names=["theservice.thenodeID.global"]) == ["global"]
    assert sorted(await listed(control, name_prefixes=["theservice."])) == ["global", "taskID"]
    assert await listed(control, names=["THESERVICE.10.taskID"]) == []


async def test_list_by_several_fields(control: ControlService, store: Store) -> None:
    """Service, node, runtime and label filters must all match. [control 74]"""
    container = api.TaskSpec(container=api.ContainerSpec(image="i"))
    labels = api.Annotations(name="s", labels={"a": "b"})
    write(
        store,
        task("t1", service_id="s1", node_id="n1", spec=container, service_annotations=labels),
        task("t2", service_id="s1", node_id="n2", spec=api.TaskSpec(attachment=api.NetworkAttachmentSpec())),
        task("t3", service_id="s2", node_id="n1", spec=container),
    )
    assert await listed(control, service_ids=["s1"], node_ids=["n1"]) == ["t1"]
    assert await listed(control, node_ids=["n1"], runtimes=["container"]) == ["t1", "t3"]
    assert await listed(control, runtimes=["attachment"]) == ["t2"]
    assert await listed(control, labels={"a": ""}) == ["t1"]
    assert await listed(control, service_ids=["s2"], labels={"a": "b"}) == []


NODE = api.Node(id="n1", spec=api.NodeSpec(annotations=api.Annotations(labels={"zone": "east"})))


@pytest.fixture
def service() -> api.Service:
    """A service at its second spec version."""
    return api.Service(id="s", spec=service_spec(), spec_version=api.Version(index=2))


@pytest.fixture
def running(service: api.Service) -> api.Task:
    """A task of the same spec at another version, running on a node."""
    return task(
        "t",
        service_id="s",
        node_id="n1",
        spec=service.spec.task,
        spec_version=api.Version(index=1),
        desired_state=S.RUNNING,
        status=api.TaskStatus(state=S.RUNNING),
    )


async def up_to_date(control: ControlService, store: Store, service: api.Service, one: api.Task) -> bool:
    """Whether the filter keeps the task."""
    write(store, NODE, copy_of(service), copy_of(one))
    return await listed(control, up_to_date=True) == ["t"]


async def test_up_to_date_by_version_or_spec(control: ControlService, store: Store, service: api.Service, running: api.Task) -> None:
    """Equal versions or equal specs are up to date; another image is not. [control 76]"""
    assert await up_to_date(control, store, service, running)
    running.spec.container.image = "other"
    assert not await up_to_date(control, store, service, running)
    running.spec_version.index = 2
    assert await up_to_date(control, store, service, running)


async def test_up_to_date_needs_the_service(control: ControlService, store: Store, running: api.Task) -> None:
    """Tasks of a deleted service are never up to date. [control 76]"""
    write(store, running)
    assert await listed(control, up_to_date=True) == []


async def test_up_to_date_ignores_credentials(control: ControlService, store: Store, service: api.Service, running: api.Task) -> None:
    """Pull options do not count once the image is there, and do before. [control 76]"""
    service.spec.task.container.pull_options.registry_auth = "new"
    assert await up_to_date(control, store, service, running)
    running.status.state = S.PENDING
    assert not await up_to_date(control, store, service, running)


async def test_up_to_date_by_placement(control: ControlService, store: Store, service: api.Service, running: api.Task) -> None:
    """Other constraints alone do not matter while the task's node satisfies them. [control 76]"""
    service.spec.task.placement.constraints.append("node.labels.zone == east")
    assert await up_to_date(control, store, service, running)
    service.spec.task.placement.constraints[0] = "node.labels.zone == west"
    assert not await up_to_date(control, store, service, running)


async def test_up_to_date_by_endpoint(control: ControlService, store: Store, service: api.Service, running: api.Task) -> None:
    """A task that carries an endpoint must carry the service's. [control 76]"""
    running.endpoint.SetInParent()
    assert await up_to_date(control, store, service, running)
    service.spec.endpoint.ports.add(published_port=80)
    assert not await up_to_date(control, store, service, running)
