"""The task state table."""

from __future__ import annotations

import pytest

from pyswarm.agent.executor import AlreadyPrepared, AlreadyStarted, ExecutorError, ExitError, TemporaryError
from pyswarm.agent.taskstate import Operation, Outcome, Step, failed, next_step, outcome, resolved, stamped, succeeded, with_runtime
from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.errors import Cancelled

S = api.TaskState
P, W, T, D = Operation.PREPARE, Operation.WAIT, Operation.START, Operation.SHUTDOWN


def status(state: S.ValueType, message: str = "m", err: str = "") -> api.TaskStatus:
    """A status."""
    return api.TaskStatus(state=state, message=message, err=err)


@pytest.mark.parametrize(
    ("desired", "state", "step"),
    [
        (S.RUNNING, S.NEW, Step(S.ACCEPTED, "accepted")),
        (S.RUNNING, S.PENDING, Step(S.ACCEPTED, "accepted")),
        (S.RUNNING, S.ASSIGNED, Step(S.ACCEPTED, "accepted")),
        (S.RUNNING, S.ACCEPTED, Step(S.PREPARING, "preparing")),
        (S.RUNNING, S.PREPARING, Step(S.READY, "prepared", P)),
        (S.RUNNING, S.READY, Step(S.STARTING, "starting")),
        (S.RUNNING, S.STARTING, Step(S.RUNNING, "started", T)),
        (S.RUNNING, S.RUNNING, Step(S.COMPLETE, "finished", W)),
        (S.COMPLETE, S.RUNNING, Step(S.COMPLETE, "finished", W)),
        (S.RUNNING, S.COMPLETE, None),
        (S.RUNNING, S.FAILED, None),
        (S.READY, S.READY, None),
        (S.READY, S.PREPARING, Step(S.READY, "prepared", P)),
        (S.READY, S.STARTING, None),
        (S.ACCEPTED, S.ACCEPTED, None),
        (S.ACCEPTED, S.PREPARING, None),
        (S.PREPARING, S.PREPARING, Step(S.READY, "prepared", P)),
        (S.STARTING, S.STARTING, Step(S.RUNNING, "started", T)),
    ],
)
def test_steps(desired: S.ValueType, state: S.ValueType, step: Step | None) -> None:
    """The step for each pair, as section 22 lists them. [dispatcher 136, 138, 142; orchestration 2.4; orchestration 3, 5, 9, 10]"""
    assert next_step(desired, state) == step


@pytest.mark.parametrize("state", S.values())
@pytest.mark.parametrize("desired", S.values())
def test_every_pair_moves_forward_or_rests(desired: S.ValueType, state: S.ValueType) -> None:
    """No step of any pair leads back, and a deliberate stop never goes further than SHUTDOWN."""
    step = next_step(desired, state)
    assert step is None or step.state > state
    if desired >= S.SHUTDOWN:
        assert step == (None if state >= S.COMPLETE else Step(S.SHUTDOWN, "shutdown", D))


@pytest.mark.parametrize("desired", [S.SHUTDOWN, S.REMOVE])
def test_stop(desired: S.ValueType) -> None:
    """A new task is stopped to SHUTDOWN, also when it is to be removed; a finished one is not touched.

    [dispatcher 140, 141; orchestration 7, 8]
    """
    assert next_step(desired, S.NEW) == Step(S.SHUTDOWN, "shutdown", D)
    for state in (S.COMPLETE, S.SHUTDOWN, S.FAILED, S.REJECTED, S.REMOVE):
        assert next_step(desired, state) is None


def test_resolved_with_controller() -> None:
    """A controller makes ASSIGNED ACCEPTED, and changes nothing later. [dispatcher 135; orchestration 1]"""
    accepted = resolved(status(S.ASSIGNED), None)
    assert (accepted.state, accepted.message) == (S.ACCEPTED, "accepted")
    assert resolved(accepted, None) == accepted


@pytest.mark.parametrize(
    ("state", "after"),
    [(S.ASSIGNED, S.REJECTED), (S.READY, S.REJECTED), (S.STARTING, S.FAILED), (S.RUNNING, S.FAILED), (S.COMPLETE, S.COMPLETE)],
)
def test_resolved_without_controller(state: S.ValueType, after: S.ValueType) -> None:
    """Without one the task is rejected, or failed once it may have run; a later success does not undo it.

    [dispatcher 135; orchestration 2]
    """
    changed = resolved(status(state), ExecutorError("no"))
    assert (changed.state, changed.message, changed.err) == (after, "resolving controller failed", "no")
    assert resolved(changed, None).state == after


def wrapped(cause: BaseException) -> Exception:
    """An error around another around another."""
    try:
        try:
            raise ValueError("inner") from cause
        except ValueError as inner:
            raise RuntimeError("outer") from inner
    except RuntimeError as outer:
        return outer


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (None, Outcome.SUCCESS),
        (AlreadyPrepared(), Outcome.SUCCESS),
        (AlreadyStarted(), Outcome.SUCCESS),
        (TemporaryError("t"), Outcome.RETRY),
        (wrapped(TemporaryError("t")), Outcome.RETRY),
        (Cancelled("c"), Outcome.RETRY),
        (wrapped(TimeoutError()), Outcome.RETRY),
        (ExecutorError("e"), Outcome.FATAL),
        (wrapped(ExecutorError("e")), Outcome.FATAL),
        (ExitError(1), Outcome.FATAL),
        (KeyError("bug"), Outcome.FATAL),
    ],
)
def test_outcomes(error: BaseException | None, expected: Outcome) -> None:
    """Passing failures are recognised through any number of wrappings. [dispatcher 136, 144; orchestration 3, 5]"""
    assert outcome(error) is expected


@pytest.mark.parametrize(("state", "after"), [(S.PREPARING, S.REJECTED), (S.STARTING, S.FAILED), (S.RUNNING, S.FAILED)])
def test_fatal_error(state: S.ValueType, after: S.ValueType) -> None:
    """A failure keeps the message and says why; before STARTING it is a rejection. [dispatcher 137; orchestration 4]"""
    assert failed(status(state, "preparing"), ExecutorError("test error")) == status(after, "preparing", "test error")


def test_passing_error() -> None:
    """A temporary error is noted without a change of state, a cancellation is not; success clears it. [dispatcher 134, 138]"""
    noted = failed(status(S.PREPARING), TemporaryError("later"))
    assert noted == status(S.PREPARING, "m", "later")
    assert failed(status(S.RUNNING), Cancelled("c")) == status(S.RUNNING)
    assert succeeded(noted, Step(S.READY, "prepared", P)) == status(S.READY, "prepared")


def test_error_without_text_is_named() -> None:
    """An error that says nothing is reported by its kind."""
    assert failed(status(S.RUNNING), KeyError()).err == "KeyError"


def test_exit_code_and_container() -> None:
    """From STARTING on the container's facts belong to the status; the error's exit code counts. [dispatcher 138, 139; orchestration 6]"""
    fresh = api.ContainerStatus(container_id="c", pid=7)
    running = with_runtime(status(S.RUNNING), fresh, None, None)
    assert running.container == fresh
    ended = with_runtime(failed(running, ExitError(1)), None, None, ExitError(1))
    assert (ended.state, ended.err, ended.container.exit_code, ended.container.container_id) == (
        S.FAILED,
        "task: non-zero exit (1)",
        1,
        "c",
    )
    assert not with_runtime(status(S.READY), fresh, None, None).HasField("container")
    assert with_runtime(status(S.STARTING), None, None, None).HasField("container")


def test_time_changes_with_a_change_only() -> None:
    """The timestamp moves when something else does, and never backwards. [dispatcher 143]"""
    first = stamped(status(S.READY), status(S.RUNNING), 10.0)
    assert first is not None
    assert stamped(first, status(S.RUNNING), 20.0) is None
    second = stamped(first, status(S.COMPLETE), 5.0)
    assert second is not None
    assert times.seconds_of(second.timestamp) == 10.0
