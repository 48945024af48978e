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
        tuple(a.network.driver_state.name for a in task.networks) if task.networks else (),
        spec.log_driver.name if spec.HasField("log_driver") else "",
        placement.SerializeToString(deterministic=True) if placement else b"",
        frozenset(host_ports(task)) if task.HasField("endpoint") else (),
        task.service_id if placement and placement.max_replicas else "",
    )
    return found if any(found) else _NOTHING


def group_of(task: api.Task) -> GroupKey:
    """Which waiting tasks are placed together: those of one service and spec version; without version, those with equal needs."""
    return task.service_id, task.spec_version.index if task.HasField("spec_version") else needs_of(task)


def wants_volumes(task: api.Task) -> bool:
    """Whether more than the state of a node decides if it suits: cluster volumes change on their own."""
    return task.spec.HasField("container") and any(m.type == _CLUSTER for m in task.spec.container.mounts)
