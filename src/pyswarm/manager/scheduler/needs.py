"""What a task asks of a node, as a key: tasks with equal needs are refused and accepted by the same nodes, for the same reasons."""

from __future__ import annotations

from typing import TypeAlias

from pyswarm.api import v1 as api
from pyswarm.manager.scheduler.nodeinfo import host_ports

Needs: TypeAlias = tuple[object, ...]
GroupKey: TypeAlias = tuple[str, object]

_CLUSTER = api.Mount.Type.CLUSTER
_NOTHING: Needs = ()


def needs_of(task: api.Task) -> Needs:
    """All that any filter reads of a task, and its spread preferences. One field per filter, in their order."""
    spec = task.spec
    placement = spec.placement if spec.HasField("placement") else None
    found: Needs = (
        spec.resources.reservations.SerializeToString(deterministic=True) if spec.HasField("resources") else b"",
        tuple(m.SerializeToString(deterministic=True) for m in spec.container.mounts) if spec.HasField("container") else (),
        _drivers(task),
        spec.log_driver.name if spec.HasField("log_driver") else "",
        placement.SerializeToString(deterministic=True) if placement else b"",
        _ports(task),
        task.service_id if placement and placement.max_replicas else "",
    )
    return found if any(found) else _NOTHING


def group_of(task: api.Task) -> GroupKey:
    """Which waiting tasks are placed together: those of one service and spec version; without version, those with equal needs.

    What the allocator gave a task is not part of its spec: it is what the service had then, and of one version some may have a host port.
    """
    if not task.HasField("spec_version"):
        return task.service_id, needs_of(task)
    return task.service_id, (task.spec_version.index, _drivers(task), _ports(task))


def _drivers(task: api.Task) -> tuple[str, ...]:
    return tuple(a.network.driver_state.name for a in task.networks) if task.networks else ()


def _ports(task: api.Task) -> Needs | frozenset[object]:
    return frozenset(host_ports(task)) if task.HasField("endpoint") else ()


def wants_volumes(task: api.Task) -> bool:
    """Whether more than the state of a node decides if it suits: cluster volumes change on their own."""
    return task.spec.HasField("container") and any(m.type == _CLUSTER for m in task.spec.container.mounts)
