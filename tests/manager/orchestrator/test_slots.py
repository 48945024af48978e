"""Which slots are occupied, and which go first."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.manager.orchestrator.slots import Slot, group, surplus, updatable
from tests.support.swarm import ANY, NONE, ON_FAILURE, restart, service, task

S = api.TaskState
SVC = service(replicas=7)
SEVEN = [
    task("task1", 1, S.STARTING, on="node1"),
    task("task2", 2, on="node2"),
    task("task3", 3, on="node2"),
    task("task4", 4, on="node3"),
    task("task5", 5, on="node3"),
    task("task6", 6, on="node3"),
    task("task7", 7, S.NEW),
]


def goes(tasks: Sequence[api.Task], keep: int) -> set[object]:
    """The slots that scaling down to `keep` removes."""
    return {slot.place for slot in surplus([(slot, slot.tasks) for slot in group(tasks).values()], keep)}


@pytest.mark.parametrize(
    ("gone", "keep", "expected"),
    [((), 6, {7}), ((7,), 4, {5, 6}), ((5, 6, 7), 2, {1, 3})],
)
def test_scale_down_takes_the_most_dispensable(gone: tuple[int, ...], keep: int, expected: set[int]) -> None:
    """Unassigned goes first, then the fullest nodes, then what does not run; low slots stay. [orchestration 38] [orchestration 39]
    [orchestration 40]"""
    assert goes([t for t in SEVEN if t.slot not in gone], keep) == expected


def test_double_slots_go_first() -> None:
    """A slot with two runnable tasks is removed before any with one. [orchestration 41]"""
    tasks = [task("a", 1, on="n1"), task("a2", 1, on="n2"), task("b", 2, on="n1"), task("c", 3, on="n1")]
    assert goes(tasks, 2) == {1}


def test_high_slots_of_one_node_go() -> None:
    """With all tasks on one node, the high slot numbers go. [orchestration 42]"""
    assert goes([task(f"t{n}", n, on="n1") for n in (1, 2, 3, 4)], 2) == {3, 4}


def test_ties_are_stable_beyond_twelve_slots() -> None:
    """Among many equal slots the order by number is kept."""
    assert goes([task(f"t{n:02d}", n, on="n1") for n in range(1, 31)], 3) == set(range(4, 31))


@pytest.mark.parametrize(
    ("policy", "state", "desired", "occupied"),
    [
        (restart(ANY), S.FAILED, S.SHUTDOWN, False),
        (restart(ANY), S.COMPLETE, S.SHUTDOWN, False),
        (restart(NONE), S.FAILED, S.SHUTDOWN, True),
        (restart(NONE), S.FAILED, S.REMOVE, False),
        (restart(ON_FAILURE), S.COMPLETE, S.SHUTDOWN, True),
        (restart(ON_FAILURE), S.FAILED, S.SHUTDOWN, False),
        (restart(ANY, attempts=1), S.FAILED, S.SHUTDOWN, False),
        (restart(NONE), S.FAILED, S.RUNNING, True),
    ],
)
def test_what_ended_on_purpose_is_occupied(
    policy: api.RestartPolicy, state: api.TaskState.ValueType, desired: api.TaskState.ValueType, occupied: bool
) -> None:
    """A slot whose newest task may not be restarted counts as occupied, unless it was to be removed. [orchestration 44]"""
    svc = service(policy=policy)
    assert bool(updatable(svc, Slot(1, [task("t", 1, state, desired, of=svc)]))) is occupied


def test_exhausted_attempts_occupy_the_slot() -> None:
    """After `max_attempts` restarts the last task keeps the slot."""
    svc = service(policy=restart(ANY, attempts=1))
    tasks = [task(f"t{n}", 1, S.FAILED, S.SHUTDOWN, of=svc, made=n) for n in (1, 2)]
    assert [t.id for t in updatable(svc, Slot(1, tasks))] == ["t2"]


@pytest.mark.parametrize(("made", "occupied"), [(10.0, False), (30.0, True)])
def test_rollback_fills_slots_that_had_ended_before(made: float, occupied: bool) -> None:
    """During a rollback a slot that ended for good before the update began is filled anew; one that ended in its course is not."""
    svc = service(policy=restart(NONE))
    svc.update_status.state = api.UpdateStatus.ROLLBACK_STARTED
    svc.update_status.started_at.CopyFrom(times.timestamp(20.0))
    assert bool(updatable(svc, Slot(1, [task("t", 1, S.FAILED, S.SHUTDOWN, of=svc, made=made)]))) is occupied
