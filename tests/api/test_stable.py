"""Equality that overlooks what changes by itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pyswarm.api import v1 as api
from pyswarm.api.stable import same_node, same_status, same_task


def task() -> api.Task:
    """A task with something in it."""
    made = api.Task(id="t", desired_state=api.TaskState.RUNNING)
    made.spec.container.image = "one"
    made.status.state = api.TaskState.READY
    made.meta.version.index = 5
    return made


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (lambda t: t.status.ClearField("state"), True),
        (lambda t: t.meta.ClearField("version"), True),
        (lambda t: setattr(t, "desired_state", api.TaskState.SHUTDOWN), False),
        (lambda t: setattr(t.spec.container, "image", "two"), False),
        (lambda t: setattr(t, "id", "u"), False),
    ],
)
def test_tasks(change: Callable[[api.Task], object], same: bool) -> None:
    """Status and meta make no difference, everything else does; nothing is changed by comparing. [control 157 in part]"""
    other = task()
    change(other)
    before = task(), api.Task.FromString(other.SerializeToString())
    mine = task()
    assert same_task(mine, other) is same_task(other, mine) is same
    assert (mine, other) == before


def test_nodes() -> None:
    """Status and meta make no difference, the spec does."""
    one, other = api.Node(id="n"), api.Node(id="n")
    other.status.state = api.NodeStatus.State.DOWN
    other.meta.version.index = 3
    assert same_node(one, other)
    other.spec.availability = api.NodeSpec.Availability.DRAIN
    assert not same_node(one, other)


def test_statuses() -> None:
    """When and by whom a status was written makes no difference, what it says does."""
    one, other = api.TaskStatus(state=api.TaskState.RUNNING), api.TaskStatus(state=api.TaskState.RUNNING)
    other.timestamp.FromSeconds(5)
    other.applied_at.FromSeconds(6)
    other.applied_by = "m1"
    assert same_status(one, other)
    other.message = "started"
    assert not same_status(one, other)
