"""What a cluster has come to once nothing disturbs it any more: everything as asked for, nothing left over."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from pyswarm.api import v1 as api
from pyswarm.api.jobs import is_job
from pyswarm.api.tasks import is_runnable
from pyswarm.manager.orchestrator import slots
from pyswarm.manager.orchestrator.jobslots import Progress, present, progress_of
from pyswarm.manager.orchestrator.reaper import is_over, limit_of
from pyswarm.manager.store import Store, by
from tests.simulation.judge import history_too_long
from tests.simulation.trace import short

if TYPE_CHECKING:
    from tests.simulation.nodes import SimNode

S = api.TaskState
N = api.NodeStatus.State
Availability = api.NodeSpec.Availability


def problems(store: Store, workers: Sequence[SimNode], managers: Sequence[str] = ()) -> list[str]:
    """What is not as it should be in the end, one sentence each. `managers` are node ids of machines without an agent."""
    return [*_nodes(store, workers, managers), *_services(store), *_tasks(store), *_machines(store, workers), *_databases(store, workers)]


def _nodes(store: Store, workers: Sequence[SimNode], managers: Sequence[str]) -> Iterator[str]:
    for worker in workers:
        node = store.nodes.get(worker.node_id)
        if node is None:
            yield f"{worker.name} is not in the store"
        elif node.status.state != N.READY:
            yield f"{worker.name} is {N.Name(node.status.state)}"
    present = {*managers, *(worker.node_id for worker in workers)}
    for node in store.nodes:
        if node.role == api.NodeRole.WORKER and node.id not in present and node.status.state != N.DOWN:
            yield f"node {short(node.id)}, whose machine is gone, is {N.Name(node.status.state)}"


def _services(store: Store) -> Iterator[str]:
    for service in store.services:
        name, tasks = service.spec.annotations.name, store.tasks.find(by.service(service.id))
        running = [t for t in tasks if t.desired_state == S.RUNNING == t.status.state]
        if is_job(service.spec):
            yield from _job(store, service, tasks)
        elif service.spec.WhichOneof("mode") == "replicated":
            if len(running) != service.spec.replicated.replicas:
                yield f"{name} has {len(running)} of {service.spec.replicated.replicas} tasks running"
        else:
            yield from _global(store, name, running)
        image = service.spec.task.container.image
        if old := [short(t.id) for t in running if t.spec.container.image != image and not _rests(store, t)]:
            yield f"{name} is updated, but {old} are not"
        if service.update_status.state in {api.UpdateStatus.UPDATING, api.UpdateStatus.ROLLBACK_STARTED}:
            yield f"{name} is still being updated"
        if wrong := history_too_long(service, tasks, limit_of(store, service)):
            yield wrong


def _waits_for_a_paused_node(store: Store, task: api.Task) -> bool:
    """It was made for a node that was paused before it got there: it waits until that is active again."""
    node = store.nodes.get(task.node_id)
    paused = node is not None and node.spec.availability == Availability.PAUSE
    return paused and task.status.state == S.PENDING


def _rests(store: Store, task: api.Task) -> bool:
    """A global service's tasks on paused nodes are left as they are."""
    node = store.nodes.get(task.node_id)
    return not task.slot and node is not None and node.spec.availability == Availability.PAUSE


def _job(store: Store, service: api.Service, tasks: Sequence[api.Task]) -> Iterator[str]:
    by_node, job = slots.is_global(service), service.spec.replicated_job
    ready = [n.id for n in store.nodes if n.status.state == N.READY and n.spec.availability == Availability.ACTIVE]
    places: Iterable[int | str] = ready if by_node else range(job.total_completions if job.max_concurrent else 0)
    here = slots.group(tasks, by_node=by_node)
    for place in places:
        came_to = progress_of(present(service, here[place])) if place in here else Progress.OPEN
        if came_to is not Progress.COMPLETE:
            yield f"{service.spec.annotations.name}.{place} is {came_to.name}"


def _global(store: Store, name: str, running: Sequence[api.Task]) -> Iterator[str]:
    on = [t.node_id for t in running]
    for node in store.nodes:
        count = on.count(node.id)
        if node.status.state == N.DOWN:
            continue
        ready = node.status.state == N.READY
        wanted = {0, 1} if node.spec.availability == Availability.PAUSE else {int(ready and node.spec.availability == Availability.ACTIVE)}
        if count not in wanted:
            yield f"{name} has {count} tasks on node {short(node.id)}"


def _tasks(store: Store) -> Iterator[str]:
    for task in store.tasks:
        place = f"task {short(task.id)} of {task.service_annotations.name}.{task.slot}"
        node = store.nodes.get(task.node_id)
        # Nobody will hear of the tasks there for a day.
        lost = node is not None and node.status.state == N.DOWN
        if task.service_id not in store.services and not lost:
            yield f"{place} is left of a service that is gone"
        if is_runnable(task) and (task.status.state != S.RUNNING or lost) and not _waits_for_a_paused_node(store, task):
            yield f"{place} is {S.Name(task.status.state)} ({task.status.err})" + (" on a lost node" if lost else "")
        if not is_runnable(task) and task.status.state <= S.RUNNING and not lost:
            yield f"{place} is still {S.Name(task.status.state)}"
        if is_over(task):
            yield f"{place} is over and not deleted"
        if node is not None and not lost and task.status.state <= S.RUNNING and node.spec.availability == Availability.DRAIN:
            yield f"{place} is on a drained node"


def _machines(store: Store, workers: Sequence[SimNode]) -> Iterator[str]:
    for worker in workers:
        assigned = {t.id: t for t in store.tasks.find(by.node(worker.node_id))}
        for task_id, container in worker.machine.containers.items():
            alive = container.started_at is not None and container.exit_code is None
            task = assigned.get(task_id)
            if task is None:
                yield f"{worker.name} has a container of task {short(task_id)}, which it was not given"
            elif alive and task.status.state != S.RUNNING:
                yield f"{worker.name} runs task {short(task_id)}, which is {S.Name(task.status.state)} in the store"
        for task in assigned.values():
            found = worker.machine.containers.get(task.id)
            if task.status.state == S.RUNNING and (found is None or found.started_at is None or found.exit_code is not None):
                yield f"{worker.name} does not run task {short(task.id)}, which is RUNNING in the store"


def _databases(store: Store, workers: Sequence[SimNode]) -> Iterator[str]:
    for worker in workers:
        wanted = {t.id: t for t in store.tasks.find(by.node(worker.node_id)) if t.status.state >= S.ASSIGNED}
        stored = {t.id: (t, assigned) for t, assigned in worker.rows()}
        for task_id in sorted({*wanted, *stored}):
            if task_id not in stored:
                yield f"the database of {worker.name} lacks task {short(task_id)}"
            elif task_id not in wanted or not stored[task_id][1]:
                yield f"the database of {worker.name} still has task {short(task_id)}"
            else:
                yield from _row(worker.name, stored[task_id][0], wanted[task_id])


def _row(worker: str, stored: api.Task, wanted: api.Task) -> Iterator[str]:
    if stored.status.state != wanted.status.state and wanted.status.state <= S.RUNNING:
        here, there = S.Name(stored.status.state), S.Name(wanted.status.state)
        yield f"task {short(wanted.id)} is {here} for the database of {worker} and {there} for the store"
    if stored.desired_state != wanted.desired_state:
        here, there = S.Name(stored.desired_state), S.Name(wanted.desired_state)
        yield f"task {short(wanted.id)} is to be {here} for the database of {worker} and {there} for the store"
