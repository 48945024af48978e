"""What a manager's state comes to in numbers, taken when somebody asks for metrics. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import cast

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.manager.store import Action, Commit, Kind, Store, by

_STATES = [(name.lower(), value) for name, value in api.TaskState.items()]
_NODE_STATES = [(name.lower(), value) for name, value in api.NodeStatus.State.items()]


def census(store: Store, *, leads: bool) -> Iterator[Metric]:
    """Objects of the store by state, per service what is wanted and what runs, and whether this manager leads."""
    yield GaugeMetricFamily("swarm_manager_leader", "1 if this manager leads, else 0.", value=float(leads))
    nodes = GaugeMetricFamily("swarm_manager_nodes", "Nodes by state.", labels=["state"])
    found = Counter(node.status.state for node in store.nodes)
    for name, state in _NODE_STATES:
        nodes.add_metric([name], found[state])
    yield nodes
    tasks = GaugeMetricFamily("swarm_manager_tasks_total", "Tasks by observed state.", labels=["state"])
    for name, value in _STATES:
        tasks.add_metric([name], store.tasks.count(by.task_state(value)))
    yield tasks
    for table in (store.services, store.networks, store.secrets, store.configs):
        plural = table.schema.plural
        yield GaugeMetricFamily(f"swarm_manager_{plural}_total", f"All {plural}.", value=len(table))
    yield from _services(store)


def _services(store: Store) -> Iterator[Metric]:
    labels = ["service_id", "service_name"]
    wanted = GaugeMetricFamily("swarm_service_tasks_desired", "Tasks that a service should have.", labels=labels)
    running = GaugeMetricFamily("swarm_service_tasks_running", "Tasks of a service that run.", labels=labels)
    for service in store.services:
        values = [service.id, service.spec.annotations.name]
        wanted.add_metric(values, _desired(store, service))
        running.add_metric(values, store.tasks.count(by.service(service.id), by.task_state(api.TaskState.RUNNING)))
    yield wanted
    yield running


def _desired(store: Store, service: api.Service) -> int:
    match service.spec.WhichOneof("mode"):
        case "replicated":
            return service.spec.replicated.replicas
        case "replicated_job":
            return service.spec.replicated_job.max_concurrent
        case "global_job":
            return store.tasks.count(by.service(service.id), by.desired_state(api.TaskState.COMPLETE))
    return store.tasks.count(by.service(service.id), by.desired_state(api.TaskState.RUNNING))


def scheduling_delays(commit: Commit) -> Iterator[float]:
    """For each task that began to run: the seconds since it was created."""
    for event in commit.events:
        if event.kind is not Kind.TASK or event.action is not Action.UPDATE:
            continue
        task, before = cast(api.Task, event.obj), cast(api.Task, event.old)
        if task.status.state == api.TaskState.RUNNING and before.status.state < api.TaskState.RUNNING:
            yield max(0.0, times.seconds_of(task.meta.updated_at) - times.seconds_of(task.meta.created_at))
