"""A manager's state in numbers."""

from __future__ import annotations

from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.manager.census import census, scheduling_delays
from pyswarm.manager.store import Action, Commit, Event, Kind, Store

S = api.TaskState
N = api.NodeStatus


def task(task_id: str, state: S.ValueType, service: str = "web", desired: S.ValueType = S.RUNNING) -> api.Task:
    """A task."""
    return api.Task(id=task_id, service_id=service, desired_state=desired, status=api.TaskStatus(state=state))


def service(service_id: str) -> api.Service:
    """A service whose name is its id in capitals."""
    return api.Service(id=service_id, spec=api.ServiceSpec(annotations=api.Annotations(name=service_id.upper())))


def numbers(store: Store, *, leads: bool = True) -> dict[tuple[str, ...], float]:
    """By name and labels."""
    return {(s.name, *s.labels.values()): s.value for metric in census(store, leads=leads) for s in metric.samples}


async def test_objects_by_state(store: Store) -> None:
    """Nodes and tasks are counted by state, every state is there, and other objects in all."""
    await store.update(
        lambda tx: [tx.nodes.create(api.Node(id=i, status=api.NodeStatus(state=s))) for i, s in (("a", N.READY), ("b", N.DOWN))]
    )
    await store.update(lambda tx: [tx.tasks.create(task(str(n), state)) for n, state in enumerate((S.NEW, S.RUNNING, S.RUNNING))])
    await store.update(lambda tx: tx.services.create(service("web")))
    found = numbers(store)
    assert {key[1]: value for key, value in found.items() if key[0] == "swarm_manager_nodes"} == {
        "unknown": 0, "down": 1, "ready": 1, "disconnected": 0,
    }  # fmt: skip
    tasks = {key[1]: value for key, value in found.items() if key[0] == "swarm_manager_tasks_total"}
    assert tasks == {name.lower(): {"NEW": 1, "RUNNING": 2}.get(name, 0) for name, _ in S.items()}
    assert found["swarm_manager_services_total",] == 1
    assert found["swarm_manager_secrets_total",] == found["swarm_manager_configs_total",] == found["swarm_manager_networks_total",] == 0
    assert found["swarm_manager_leader",] == 1
    assert numbers(store, leads=False)["swarm_manager_leader",] == 0


async def test_services(store: Store) -> None:
    """For each service what is wanted stands beside what runs, in each mode."""
    web, everywhere, job, once = service("web"), service("everywhere"), service("job"), service("once")
    web.spec.replicated.replicas = 3
    everywhere.spec.SetInParent()
    getattr(everywhere.spec, "global").SetInParent()
    job.spec.replicated_job.max_concurrent = 2
    once.spec.global_job.SetInParent()
    await store.update(lambda tx: [tx.services.create(one) for one in (web, everywhere, job, once)])
    made = [
        task("1", S.RUNNING),
        task("2", S.FAILED, desired=S.SHUTDOWN),
        task("3", S.RUNNING, "everywhere"),
        task("4", S.PENDING, "everywhere"),
        task("5", S.RUNNING, "everywhere", S.SHUTDOWN),
        task("6", S.RUNNING, "job", S.COMPLETE),
        task("7", S.RUNNING, "once", S.COMPLETE),
        task("8", S.PENDING, "once", S.COMPLETE),
    ]
    await store.update(lambda tx: [tx.tasks.create(one) for one in made])
    found = numbers(store)
    counted = {
        name: tuple(found[f"swarm_service_tasks_{what}", name, name.upper()] for what in ("desired", "running"))
        for name in ("web", "everywhere", "job", "once")
    }
    assert counted == {"web": (3, 1), "everywhere": (2, 2), "job": (2, 1), "once": (2, 1)}


def test_scheduling_delays() -> None:
    """The time from creation is told once, when a task begins to run."""

    def update(before: S.ValueType, after: S.ValueType) -> Event:
        old, new = task("t", before), task("t", after)
        for one, updated in ((old, 11.0), (new, 13.5)):
            one.meta.created_at.CopyFrom(times.timestamp(10.0))
            one.meta.updated_at.CopyFrom(times.timestamp(updated))
        return Event(Kind.TASK, Action.UPDATE, new, old)

    events = [update(S.STARTING, S.RUNNING), update(S.RUNNING, S.RUNNING), update(S.ASSIGNED, S.STARTING), update(S.RUNNING, S.FAILED)]
    created = Event(Kind.TASK, Action.CREATE, task("t", S.RUNNING))
    assert list(scheduling_delays(Commit(1, [*events, created]))) == [3.5]
