"""The restart policy and the moment of release."""

from __future__ import annotations

import pytest

from pyswarm.api import v1 as api
from pyswarm.manager.orchestrator import restart as policy
from pyswarm.manager.orchestrator.release import release_at
from pyswarm.manager.orchestrator.situation import Situation
from pyswarm.manager.orchestrator.slots import Slot
from pyswarm.manager.store import copy_of
from tests.support.loops import new_store
from tests.support.swarm import ANY, NONE, ON_FAILURE, ids, node, restart, service, task

S = api.TaskState
DOWN, READY = api.NodeStatus.DOWN, api.NodeStatus.READY
DRAIN = api.NodeSpec.DRAIN
NOW = 1000.0


@pytest.mark.parametrize(
    ("given", "delay"),
    [(None, 5.0), (restart(ANY), 5.0), (restart(ANY, delay=0), 0.0), (restart(ANY, delay=2.5), 2.5), (restart(ANY, delay=-1), 5.0)],
)
def test_delay(given: api.RestartPolicy | None, delay: float) -> None:
    """The delay is 5 s where the policy is silent or invalid, and 0 where it says so. [orchestration 74]"""
    assert policy.delay(api.TaskSpec(restart=given)) == delay


@pytest.mark.parametrize(
    ("given", "state", "allowed"),
    [
        (None, S.COMPLETE, True),
        (api.RestartPolicy(), S.FAILED, False),
        (restart(NONE), S.FAILED, False),
        (restart(ON_FAILURE), S.COMPLETE, False),
        (restart(ON_FAILURE), S.FAILED, True),
        (restart(ON_FAILURE), S.SHUTDOWN, True),
        (restart(ON_FAILURE), S.RUNNING, True),
        (restart(ANY), S.COMPLETE, True),
    ],
)
def test_condition(given: api.RestartPolicy | None, state: api.TaskState.ValueType, allowed: bool) -> None:
    """An absent policy restarts always, an empty one never. [orchestration 74] [orchestration 80]"""
    subject = task("t", state=state, of=service(policy=given))
    assert policy.may_restart([subject], subject) is allowed


def test_complete_job_is_never_restarted() -> None:
    """For jobs ANY means ON_FAILURE, and so does no policy."""
    for given in (None, restart(ANY)):
        subject = task("t", state=S.COMPLETE, of=service(policy=given))
        subject.job_iteration.index = 0
        assert not policy.may_restart([subject], subject)


def history(*made: tuple[int, float], limit: api.RestartPolicy) -> list[api.Task]:
    """Records of one slot: (spec version, creation)."""
    svc = service(policy=limit)
    return [task(f"t{n}", of=svc, version=v, made=at, state=S.FAILED, desired=S.SHUTDOWN) for n, (v, at) in enumerate(made)]


def test_attempts_are_counted_per_version() -> None:
    """`max_attempts` N allows N restarts of one spec version; another version starts anew. [orchestration 70]"""
    limit = restart(ANY, attempts=1)
    records = history((0, 1), limit=limit)
    assert policy.may_restart(records, records[-1])
    records = history((0, 1), (0, 2), limit=limit)
    assert not policy.may_restart(records, records[-1])
    records = history((0, 1), (0, 2), (1, 3), limit=limit)
    assert policy.may_restart(records, records[-1])


def test_window_looks_back_from_the_end_of_the_task() -> None:
    """Only restarts within the window before the task's end count. [orchestration 64]"""
    limit = restart(ANY, attempts=3, window=600)
    start = 10_000.0
    made = [(1, start - 300), (2, start - 720), (2, start - 660), (2, start - 540), (2, start - 480)]
    records = history(*sorted(made, key=lambda m: (m[0], m[1])), limit=limit)
    records[-1].status.timestamp.seconds = int(start)
    assert policy.may_restart(records, records[-1])
    again = copy_of(records[-1])
    again.id = "t5"
    again.meta.created_at.seconds = int(start)
    again.status.timestamp.seconds = int(start) + 1
    assert not policy.may_restart([*records, again], again)


def test_window_without_time_counts_all() -> None:
    """A task without any time cannot be judged by a window."""
    records = history((0, 1), (0, 2), limit=restart(ANY, attempts=1, window=0.5))
    assert not policy.may_restart(records, records[-1])


def released(*records: api.Task, nodes: tuple[api.Node, ...] = (), now: float = NOW) -> float:
    """Seconds from now until the last record may start."""
    situation = Situation(new_store(*nodes), service(), now, ids())
    return max(0.0, release_at(situation, Slot(1, records), records[-1]) - now)


def old(
    state: api.TaskState.ValueType, *, at: float = NOW, delay: float = 5.0, version: int = 0, desired: api.TaskState.ValueType = S.SHUTDOWN
) -> api.Task:
    """The predecessor: made long ago, on n1."""
    svc = service(policy=restart(ANY, delay=delay))
    return task("old", 1, state, desired, of=svc, on="n1", made=NOW - 100, at=at, version=version)


def new(made: float = NOW, version: int = 0, state: api.TaskState.ValueType = S.NEW) -> api.Task:
    """The replacement, READY."""
    return task("new", 1, state, S.READY, of=service(policy=restart(ANY, delay=5)), made=made, version=version)


@pytest.mark.parametrize(
    ("before", "replacement", "where", "wait"),
    [
        (old(S.FAILED), new(), node("n1"), 5.0),
        (old(S.FAILED, delay=0), new(), node("n1"), 0.0),
        (old(S.FAILED, at=NOW - 10), new(NOW - 3), node("n1"), 2.0),
        (old(S.ORPHANED), new(), None, 5.0),
        (old(S.RUNNING), new(), node("n1", availability=DRAIN), 60.0),
        (old(S.RUNNING), new(NOW - 59), node("n1", availability=DRAIN), 1.0),
        (old(S.RUNNING), new(NOW - 60), node("n1", availability=DRAIN), 0.0),
        (old(S.SHUTDOWN), new(NOW - 3), node("n1", availability=DRAIN), 0.0),
        (old(S.RUNNING), new(), node("n1", state=DOWN), 5.0),
        (old(S.RUNNING), new(NOW - 2), None, 3.0),
        (old(S.RUNNING), new(version=1), node("n1"), 60.0),
        (old(S.SHUTDOWN), new(NOW - 1, version=1), node("n1"), 0.0),
        (old(S.RUNNING), new(version=1), node("n1", state=DOWN), 0.0),
        (old(S.PENDING), new(version=1), None, 0.0),
        (old(S.RUNNING, desired=S.RUNNING), new(version=1), node("n1"), 0.0),
        (old(S.RUNNING, delay=90), new(), node("n1", state=DOWN), 90.0),
    ],
)
def test_release(before: api.Task, replacement: api.Task, where: api.Node | None, wait: float) -> None:
    """The delay of a restart, the end of what has to stop but at most 60 s, nothing start-first. [orchestration 48] [orchestration 49]
    [orchestration 50] [orchestration 75] [orchestration 76]"""
    assert released(before, replacement, nodes=(where,) if where else ()) == pytest.approx(wait, abs=1e-4)


def test_release_of_an_update_of_an_ended_task_is_immediate() -> None:
    """What a policy keeps from restarting was replaced by an update, at once. [orchestration 97]"""
    done = task("old", 1, S.COMPLETE, S.SHUTDOWN, of=service(policy=restart(NONE)), on="n1", made=NOW - 100, at=NOW - 50)
    assert released(done, new(version=1), nodes=(node("n1"),)) == 0.0


@pytest.mark.parametrize(("made", "wait"), [(NOW, 5.0), (NOW - 10, 0.0), (NOW + 3600, 0.0), (0.0, 0.0)])
def test_release_without_predecessor(made: float, wait: float) -> None:
    """Without a record of the predecessor its own policy counts; a creation far ahead of our clock does not. [orchestration 56]
    [orchestration 57] [orchestration 77]"""
    assert released(new(made)) == pytest.approx(wait)


def test_start_first_waits_for_nobody() -> None:
    """A new task beside one that still is meant to run starts at once, even if an older one has not stopped yet. [orchestration 84]"""
    older = old(S.RUNNING)
    between = task("between", 1, S.RUNNING, on="n1", made=NOW - 50)
    assert released(older, between, new(version=1), nodes=(node("n1"),)) == 0.0
