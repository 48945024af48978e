"""ListServices and ListServiceStatuses."""

from __future__ import annotations

import pytest
from google.protobuf.any_pb2 import Any

from pyswarm.api import v1 as api
from pyswarm.manager.control import ControlService
from pyswarm.manager.store import Store
from tests.manager.control.support import ME, create, names_of, service_spec
from tests.support.loops import write

S = api.TaskState
F = api.ListServicesRequest.Filters


async def listed(control: ControlService, **fields: object) -> list[str]:
    """Names of the services that a filter finds."""
    request = api.ListServicesRequest(filters=F(**fields)) if fields else api.ListServicesRequest()  # type: ignore[arg-type]
    return names_of((await control.ListServices(request, ME)).services)


@pytest.fixture
async def three(control: ControlService) -> list[api.Service]:
    """Two container services and one of a generic runtime."""
    generic = service_spec("name3")
    generic.task.generic.CopyFrom(api.GenericRuntimeSpec(kind="My-Runtime", payload=Any(type_url="t", value=b"v")))
    return [await create(control, spec) for spec in (service_spec("name1"), service_spec("name2"), generic)]


async def test_list_empty(control: ControlService) -> None:
    """An empty store lists nothing. [control 61]"""
    assert await listed(control) == []


async def test_list_by_runtime(control: ControlService, three: list[api.Service]) -> None:
    """Runtimes are compared with the lower-cased kind; the filter itself is not lower-cased. [control 61]"""
    assert len(await listed(control)) == 3
    assert await listed(control, runtimes=["container"]) == ["name1", "name2"]
    assert await listed(control, runtimes=["my-runtime"]) == ["name3"]
    assert await listed(control, runtimes=["My-Runtime"]) == await listed(control, runtimes=["invalid"]) == []


async def test_list_by_prefix(control: ControlService, three: list[api.Service]) -> None:
    """Values of one field are alternatives. [control 62]"""
    assert "name1" in await listed(control, id_prefixes=[three[0].id[:4]])
    assert await listed(control, name_prefixes=["name1"]) == ["name1"]
    assert await listed(control, name_prefixes=["name1", "name2"]) == ["name1", "name2"]
    assert await listed(control, name_prefixes=["name1", "name2", "name4"]) == ["name1", "name2"]
    assert await listed(control, name_prefixes=["name4"]) == []


async def test_list_by_several_fields(control: ControlService, three: list[api.Service]) -> None:
    """Different fields must all match. [control 63]"""
    assert await listed(control, name_prefixes=["name1"], id_prefixes=[three[0].id]) == ["name1"]
    assert await listed(control, name_prefixes=["name2"], id_prefixes=[three[0].id]) == []
    assert await listed(control, name_prefixes=["name3"], runtimes=["my-runtime"]) == ["name3"]


async def test_list_by_label(control: ControlService, three: list[api.Service]) -> None:
    """An empty filter value asks only for the key. [control 64]"""
    assert len(await listed(control, labels={"common": "yes"})) == 3
    assert len(await listed(control, labels={"common": ""})) == 3
    assert await listed(control, labels={"common": "", "unique": "name1"}) == ["name1"]
    assert await listed(control, labels={"common": "", "unique": "error"}) == []


async def test_list_by_name(control: ControlService, three: list[api.Service]) -> None:
    """Names are compared exactly. [control 65]"""
    assert await listed(control, names=["NAME1"]) == []
    assert await listed(control, names=["name1"]) == ["name1"]
    assert await listed(control, name_prefixes=["NAME"]) == []


def task(number: int, state: S.ValueType, desired: S.ValueType = S.RUNNING, service: str = "svc", iteration: int | None = None) -> api.Task:
    """A task of a service."""
    made = api.Task(id=f"{service}-{number}", service_id=service, status=api.TaskStatus(state=state), desired_state=desired)
    if iteration is not None:
        made.job_iteration.index = iteration
    return made


def tasks(*groups: tuple[int, S.ValueType, S.ValueType], iteration: int | None = None, first: int = 0) -> list[api.Task]:
    """Groups of (count, state, desired state)."""
    states = [(state, desired) for count, state, desired in groups for _ in range(count)]
    return [task(first + number, state, desired, iteration=iteration) for number, (state, desired) in enumerate(states)]


def service(mode: api.ServiceSpec, iteration: int | None = None) -> api.Service:
    """A stored service with only a mode."""
    made = api.Service(id="svc", spec=mode)
    if iteration is not None:
        made.job_status.job_iteration.index = iteration
    return made


async def counts(control: ControlService, *ids: str) -> list[tuple[int, int, int]]:
    """Desired, running and completed of each service."""
    response = await control.ListServiceStatuses(api.ListServiceStatusesRequest(services=ids), ME)
    assert [s.service_id for s in response.statuses] == list(ids)
    return [(s.desired_tasks, s.running_tasks, s.completed_tasks) for s in response.statuses]


GLOBAL = api.ServiceSpec(**{"global": api.GlobalService()})  # type: ignore[arg-type]
JOB = api.ServiceSpec(replicated_job=api.ReplicatedJob(max_concurrent=2, total_completions=10))


async def test_statuses_of_nothing(control: ControlService) -> None:
    """No ids give no answers, unknown ids zeros, repeated ids repeated answers. [control 66]"""
    assert await counts(control) == []
    assert await counts(control, "foo", "foo") == [(0, 0, 0)] * 2


@pytest.mark.parametrize(
    ("replicas", "groups", "expected"),
    [
        (3, [(3, S.RUNNING, S.RUNNING), (2, S.FAILED, S.SHUTDOWN), (2, S.SHUTDOWN, S.SHUTDOWN)], (3, 3, 0)),
        (7, [(4, S.RUNNING, S.RUNNING), (3, S.NEW, S.RUNNING), (5, S.SHUTDOWN, S.SHUTDOWN)], (7, 4, 0)),
        (2, [(4, S.RUNNING, S.RUNNING)], (2, 4, 0)),
    ],
)
async def test_statuses_replicated(
    control: ControlService, store: Store, replicas: int, groups: list[tuple[int, S.ValueType, S.ValueType]], expected: tuple[int, int, int]
) -> None:
    """Replicas are desired, running tasks counted whatever is desired of them. [control 67; orchestration 176]"""
    write(store, service(api.ServiceSpec(replicated=api.ReplicatedService(replicas=replicas))), *tasks(*groups))
    assert await counts(control, "svc") == [expected]


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ([(2, S.RUNNING, S.RUNNING), (3, S.SHUTDOWN, S.SHUTDOWN)], (2, 2, 0)),
        ([(4, S.RUNNING, S.RUNNING), (1, S.NEW, S.RUNNING), (6, S.FAILED, S.SHUTDOWN)], (5, 4, 0)),
    ],
)
async def test_statuses_global(
    control: ControlService, store: Store, groups: list[tuple[int, S.ValueType, S.ValueType]], expected: tuple[int, int, int]
) -> None:
    """A global service desires the tasks that are meant to run. [control 68; orchestration 176]"""
    write(store, service(GLOBAL), *tasks(*groups))
    assert await counts(control, "svc") == [expected]


async def test_statuses_job(control: ControlService, store: Store) -> None:
    """A job counts what it completed in this iteration. [control 69; orchestration 176]"""
    write(store, service(JOB, 0), *tasks((2, S.RUNNING, S.COMPLETE), (4, S.COMPLETE, S.COMPLETE), iteration=0))
    assert await counts(control, "svc") == [(2, 2, 4)]


async def test_statuses_job_updated(control: ControlService, store: Store) -> None:
    """Tasks of earlier iterations do not count at all, nor those without one. [control 70; orchestration 176]"""
    old = tasks((10, S.COMPLETE, S.COMPLETE), iteration=0)
    new = tasks((1, S.RUNNING, S.COMPLETE), (3, S.COMPLETE, S.COMPLETE), iteration=1, first=50)
    write(store, service(JOB, 1), *old, *new, *tasks((1, S.RUNNING, S.COMPLETE), first=90))
    assert await counts(control, "svc") == [(2, 1, 3)]


async def test_statuses_global_job(control: ControlService, store: Store) -> None:
    """A global job desires what has not completed. [control 71; orchestration 176]"""
    job = api.ServiceSpec(global_job=api.GlobalJob())
    write(store, service(job, 0), *tasks((5, S.RUNNING, S.COMPLETE), (3, S.COMPLETE, S.COMPLETE), iteration=0))
    assert await counts(control, "svc") == [(5, 5, 3)]


async def test_statuses_of_a_deleted_service(control: ControlService, store: Store) -> None:
    """Tasks that outlive their service are counted while they run. [control 72; orchestration 176]"""
    write(store, *tasks((3, S.RUNNING, S.SHUTDOWN), (3, S.SHUTDOWN, S.SHUTDOWN)))
    assert await counts(control, "svc") == [(0, 3, 0)]
