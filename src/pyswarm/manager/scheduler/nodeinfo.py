"""What the scheduler knows of one node: the object, what is counted on it, what is left (spec sections 3.1, 5.2, 8)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from pyswarm.api import v1 as api
from pyswarm.manager.scheduler import generic

FAULTY_SECONDS = 300.0
FAULTY_COUNT = 5
Port: TypeAlias = tuple[int, int]
Version: TypeAlias = tuple[str, int]

_READY, _ACTIVE = api.NodeStatus.State.READY, api.NodeSpec.Availability.ACTIVE
_HOST = api.PortConfig.PublishMode.HOST
_FIRST_OCCUPYING, _LAST_OCCUPYING, _LAST_ACTIVE = api.TaskState.ASSIGNED, api.TaskState.RUNNING, api.TaskState.COMPLETE


def version_of(task: api.Task) -> Version:
    """What failures are counted by: service and spec version (0 when the task has none)."""
    return task.service_id, task.spec_version.index


def host_ports(task: api.Task) -> set[Port]:
    """The fixed host ports a task needs, as (protocol, port)."""
    if not task.HasField("endpoint"):
        return set()
    return {(p.protocol, p.published_port) for p in task.endpoint.ports if p.publish_mode == _HOST and p.published_port}


def is_active(task: api.Task) -> bool:
    """Counts for spreading: the manager still wants it."""
    return task.desired_state <= _LAST_ACTIVE


def occupies(task: api.Task) -> bool:
    """Whether a task counts on its node: it was given to it, and has not ended."""
    return bool(task.node_id) and _FIRST_OCCUPYING <= task.status.state <= _LAST_OCCUPYING


@dataclass(slots=True)
class NodeInfo:
    """A node with the tasks on it. `cpus` in nano CPUs and `memory` in bytes are what is left; both may be negative.

    `ports` says how many tasks have a host port: two may, when both were preassigned.
    """

    node: api.Node
    tasks: dict[str, api.Task] = field(default_factory=dict)
    ready: bool = False
    active: int = 0
    by_service: dict[str, int] = field(default_factory=dict)
    cpus: int = 0
    memory: int = 0
    generic: list[api.GenericResource] = field(default_factory=list)
    ports: dict[Port, int] = field(default_factory=dict)
    failures: dict[Version, list[float]] = field(default_factory=dict)

    @classmethod
    def of(cls, node: api.Node, tasks: Iterable[api.Task]) -> NodeInfo:
        """The node with those of the tasks that count on it."""
        info = cls(node, {t.id: t for t in tasks if t.node_id == node.id and occupies(t)})
        for task in info.tasks.values():
            info._count(task, 1)
            info._use_ports(task, 1)
        info.set_node(node)
        return info

    def set_node(self, node: api.Node) -> None:
        """Take over a changed node object; what is left follows its new description."""
        self.node = node
        self.ready = node.status.state == _READY and node.spec.availability == _ACTIVE
        self.cpus = self.memory = 0
        self.generic = []
        if node.description.HasField("resources"):
            resources = node.description.resources
            self.cpus, self.memory = resources.nano_cpus, resources.memory_bytes
            self._refresh_generic()
        for task in self.tasks.values():
            self._reserve(task, -1)

    def add(self, task: api.Task) -> bool:
        """Count a task; one that is known already is only refreshed. Whether what is left here, or the load, changed."""
        known = self.tasks.get(task.id)
        self.tasks[task.id] = task
        if known is not None:
            if is_active(known) == is_active(task):
                return False
            self._count(known, -1)
        else:
            self._reserve(task, -1)
            self._use_ports(task, 1)
            if task.assigned_generic_resources:
                self._refresh_generic()
        self._count(task, 1)
        return True

    def remove(self, task_id: str) -> bool:
        """Stop counting a task; whether it was counted."""
        task = self.tasks.pop(task_id, None)
        if task is None:
            return False
        self._reserve(task, 1)
        self._count(task, -1)
        self._use_ports(task, -1)
        if task.assigned_generic_resources:
            self._refresh_generic()
        return True

    def _reserve(self, task: api.Task, sign: int) -> None:
        if task.spec.HasField("resources"):
            wanted = task.spec.resources.reservations
            self.cpus += sign * wanted.nano_cpus
            self.memory += sign * wanted.memory_bytes

    def _count(self, task: api.Task, sign: int) -> None:
        if not is_active(task):
            return
        self.active += sign
        service = task.service_id
        left = self.by_service.get(service, 0) + sign
        if left:
            self.by_service[service] = left
        else:
            self.by_service.pop(service, None)

    def _use_ports(self, task: api.Task, sign: int) -> None:
        for port in host_ports(task):
            users = self.ports.get(port, 0) + sign
            if users:
                self.ports[port] = users
            else:
                self.ports.pop(port, None)

    def _refresh_generic(self) -> None:
        described = self.node.description.resources.generic
        held = (claim for task in self.tasks.values() for claim in task.assigned_generic_resources) if described else ()
        self.generic = generic.available(described, held)

    def record_failure(self, version: Version, at: float) -> int:
        """Remember that a task of this service version failed here, and forget what is too old; its failures since."""
        fresh = {v: [t for t in times if t > at - FAULTY_SECONDS] for v, times in self.failures.items()}
        self.failures = {v: times for v, times in fresh.items() if times}
        recent = self.failures.setdefault(version, [])
        recent.append(at)
        return len(recent)

    def recent_failures(self, version: Version, now: float) -> int:
        """Failures of this service version within the last five minutes."""
        return sum(1 for t in self.failures.get(version, ()) if t >= now - FAULTY_SECONDS)
