"""What a task's states, times and names mean."""

from __future__ import annotations

import random

import pytest

from pyswarm.api import tasks, times
from pyswarm.api import v1 as api


def timed(timestamp: float | None, applied: float | None = None) -> api.Task:
    """A task with the times of its status."""
    made = api.Task(id=f"{timestamp}-{applied}")
    if timestamp is not None:
        made.status.timestamp.CopyFrom(times.timestamp(timestamp))
    if applied is not None:
        made.status.applied_at.CopyFrom(times.timestamp(applied))
    return made


def test_task_time() -> None:
    """When the leader applied a status counts before the reporter's time; a task without any time is the oldest. [orchestration 26]"""
    reported = [timed(float(n)) for n in range(1, 6)]
    shuffled = random.Random(1).sample(reported, 5)
    assert sorted(shuffled, key=tasks.task_time) == reported
    applied = [timed(5.0 - n, 10.0 + n) for n in range(5)]
    assert sorted(random.Random(2).sample(applied, 5), key=tasks.task_time) == applied
    assert min([*reported, timed(None)], key=tasks.task_time) == timed(None)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"slot": 10}, "theservice.10.taskID"),
        ({"node_id": "thenodeID"}, "theservice.thenodeID.taskID"),
        ({"slot": 10, "node_id": "thenodeID"}, "theservice.10.taskID"),
        ({"slot": 10, "annotations": api.Annotations(name="thisisthetaskname")}, "thisisthetaskname"),
    ],
)
def test_display_name(fields: dict[str, object], name: str) -> None:
    """Service, slot or node, and id; an own name wins. [dispatcher 198]"""
    made = api.Task(id="taskID", service_annotations=api.Annotations(name="theservice"), **fields)  # type: ignore[arg-type]
    assert tasks.display_name(made) == name


@pytest.mark.parametrize("state", api.TaskState.values())
@pytest.mark.parametrize("desired", api.TaskState.values())
def test_states(state: api.TaskState.ValueType, desired: api.TaskState.ValueType) -> None:
    """Beyond RUNNING a task is over; until RUNNING, or to be completed, it is wanted; unwanted before ASSIGNED it never runs."""
    made = api.Task(desired_state=desired, status=api.TaskStatus(state=state))
    assert tasks.is_terminal(made) is (state > api.TaskState.RUNNING)
    wanted = desired <= api.TaskState.COMPLETE and not desired == state == api.TaskState.COMPLETE
    assert tasks.is_runnable(made) is wanted
    assert tasks.will_never_run(made) is (state < api.TaskState.ASSIGNED and not wanted)
