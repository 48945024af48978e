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


def version_of(task: api.Task) -> Version:
    """What failures are counted by: service and spec version (0 when the task has none)."""
    return task.service_id, task.spec_version.index


def host_ports(task: api.Task) -> set[Port]:
    """The fixed host ports a task needs, as (protocol, port)."""
    mode = api.PortConfig.PublishMode.HOST
    return {(p.protocol, p.published_port) for p in task.endpoint.ports if p.publish_mode == mode and p.published_port}


def is_active(task: api.Task) -> bool:
    """Counts for spreading: the manager still wants it."""
    return task.desired_state <= api.TaskState.COMPLETE


def occupies(task: api.Task) -> bool:
    """Whether a task counts on its node: it was given to it, and has not ended."""
    return bool(task.node_id) and api.TaskState.ASSIGNED <= task.status.state <= api.TaskState.RUNNING


@dataclass(slots=True)
class NodeInfo:
    """A node with the tasks on it. `cpus` in nano CPUs and `memory` in bytes are what is left; both may be negative."""

    node: api.Node
    tasks: dict[str, api.Task] = field(default_factory=dict)
    active: int = 0
    by_service: dict[str, int] = field(default_factory=dict)
    cpus: int = 0
    memory: int = 0
    generic: list[api.GenericResource] = field(default_factory=list)
    ports: set[Port] = field(default_factory=set)
    failures: dict[Version, list[float]] = field(default_factory=dict)

    @classmethod
    def of(cls, node: api.Node, tasks: Iterable[api.Task]) -> NodeInfo:
        """The node with those of the tasks that count on it."""
        info = cls(node, {t.id: t for t in tasks if t.node_id == node.id and occupies(t)})
        for task in info.tasks.values():
            info._count(task, 1)
            info.ports |= host_ports(task)
        info.set_node(node)
        return info

    def set_node(self, node: api.Node) -> None:
        """Take over a changed node object; what is left follows its new description."""
        self.node = node
        resources = node.description.resources
        self.cpus = resources.nano_cpus
        self.memory = resources.memory_bytes
        for task in self.tasks.values():
            self._reserve(task, -1)
        self._refresh_generic()

    def add(self, task: api.Task) -> None:
        """Count a task; again for a task known already only refreshes it."""
        if task.id in self.tasks:
            self._count(self.tasks[task.id], -1)
        else:
            self._reserve(task, -1)
            self.ports |= host_ports(task)
        self.tasks[task.id] = task
        self._count(task, 1)
        if task.assigned_generic_resources:
            self._refresh_generic()

    def remove(self, task_id: str) -> bool:
        """Stop counting a task; whether it was counted."""
        task = self.tasks.pop(task_id, None)
        if task is None:
            return False
        self._reserve(task, 1)
        self._count(task, -1)
        if host_ports(task):
            self.ports = {port for other in self.tasks.values() for port in host_ports(other)}
        if task.assigned_generic_resources:
            self._refresh_generic()
        return True

    def _reserve(self, task: api.Task, sign: int) -> None:
        wanted = task.spec.resources.reservations
        self.cpus += sign * wanted.nano_cpus
        self.memory += sign * wanted.memory_bytes

    def _count(self, task: api.Task, sign: int) -> None:
        if not is_active(task):
            return
        self.active += sign
        left = self.by_service.get(task.service_id, 0) + sign
        if left:
            self.by_service[task.service_id] = left
        else:
            self.by_service.pop(task.service_id, None)

    def _refresh_generic(self) -> None:
        held = (claim for task in self.tasks.values() for claim in task.assigned_generic_resources)
        self.generic = generic.available(self.node.description.resources.generic, held)

    def fork(self) -> NodeInfo:
        """A light copy to try placements on; it knows the counts but not the tasks."""
        return NodeInfo(
            self.node, {}, self.active, dict(self.by_service), self.cpus, self.memory, list(self.generic), set(self.ports), self.failures
        )

    def take(self, task: api.Task, claimed: Iterable[api.GenericResource]) -> None:
        """On a fork: account for a task decided but not yet committed."""
        self._reserve(task, -1)
        self._count(task, 1)
        self.ports |= host_ports(task)
        got = list(claimed)
        if got:
            self.generic = generic.available(self.generic, got)

    def record_failure(self, version: Version, at: float) -> None:
        """Remember that a task of this service version failed here; old failures are dropped."""
        recent = [t for t in self.failures.get(version, ()) if t > at - FAULTY_SECONDS]
        self.failures[version] = [*recent, at]

    def recent_failures(self, version: Version, now: float) -> int:
        """Failures of this service version within the last five minutes."""
        return sum(1 for t in self.failures.get(version, ()) if t >= now - FAULTY_SECONDS)

    def rank(self, version: Version, now: float) -> tuple[int, int, int]:
        """Lower is better: faulty nodes last, then fewest tasks of the service, then fewest tasks (spec section 5.1)."""
        failures = self.recent_failures(version, now) if self.failures else 0
        return failures if failures >= FAULTY_COUNT else 0, self.by_service.get(version[0], 0), self.active
