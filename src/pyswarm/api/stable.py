"""Equality that overlooks what changes by itself: how both ends of an assignment decide whether there is news (spec/dispatcher-agent-node,
section 1).
"""

from __future__ import annotations

from pyswarm.api import v1 as api

_REPORT_FIELDS = ("timestamp", "applied_by", "applied_at")


def same_task(one: api.Task, other: api.Task) -> bool:
    """Everything but `status` and `meta` is equal."""
    if one is other:
        return True
    if one.id != other.id or one.desired_state != other.desired_state:
        return False
    return _without_task_status(one) == _without_task_status(other)


def same_node(one: api.Node, other: api.Node) -> bool:
    """Everything but `status` and `meta` is equal."""
    return one is other or _without_node_status(one) == _without_node_status(other)


def same_status(one: api.TaskStatus, other: api.TaskStatus) -> bool:
    """The same facts, whenever and by whomever they were written down."""
    return one is other or _facts(one) == _facts(other)


def _without_task_status(task: api.Task) -> api.Task:
    bare = api.Task()
    bare.CopyFrom(task)
    bare.ClearField("status")
    bare.ClearField("meta")
    return bare


def _without_node_status(node: api.Node) -> api.Node:
    bare = api.Node()
    bare.CopyFrom(node)
    bare.ClearField("status")
    bare.ClearField("meta")
    return bare


def _facts(status: api.TaskStatus) -> api.TaskStatus:
    bare = api.TaskStatus()
    bare.CopyFrom(status)
    for field in _REPORT_FIELDS:
        bare.ClearField(field)  # type: ignore[arg-type]
    return bare
