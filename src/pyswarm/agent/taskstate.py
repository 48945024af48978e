"""A task's way through its states, as tables: what to do next, and what its status is afterwards (spec/dispatcher-agent-node, section 22).

Statuses returned here are new messages; the ones passed in are never changed.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass

from pyswarm.agent.executor import AlreadyPrepared, AlreadyStarted, ExitError, TemporaryError
from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.api.stable import same_status
from pyswarm.errors import Cancelled, DeadlineExceeded

S = api.TaskState


class Operation(enum.Enum):
    """What the controller is asked for."""

    PREPARE = "prepare"
    START = "start"
    WAIT = "wait"
    SHUTDOWN = "shutdown"


@dataclass(frozen=True, slots=True)
class Step:
    """One step: an operation to carry out first, if any, then the state and message that its success leads to."""

    state: S.ValueType
    message: str
    operation: Operation | None = None


class Outcome(enum.Enum):
    """How an operation went, seen from the task."""

    SUCCESS = "success"
    RETRY = "retry"
    FATAL = "fatal"


_WORK = {
    S.PREPARING: Step(S.READY, "prepared", Operation.PREPARE),
    S.STARTING: Step(S.RUNNING, "started", Operation.START),
    S.RUNNING: Step(S.COMPLETE, "finished", Operation.WAIT),
}
_MOVES = {
    S.NEW: Step(S.ACCEPTED, "accepted"),
    S.PENDING: Step(S.ACCEPTED, "accepted"),
    S.ASSIGNED: Step(S.ACCEPTED, "accepted"),
    S.ACCEPTED: Step(S.PREPARING, "preparing"),
    S.READY: Step(S.STARTING, "starting"),
}
_STOP = Step(S.SHUTDOWN, "shutdown", Operation.SHUTDOWN)


def next_step(desired: S.ValueType, state: S.ValueType) -> Step | None:
    """What brings a task in `state` closer to `desired`; None when there is nothing to do until that changes."""
    if desired >= S.SHUTDOWN:
        return None if state >= S.COMPLETE else _STOP
    if state > desired:
        return None
    if state in _WORK:
        return _WORK[state]
    return None if state >= desired else _MOVES.get(state)


def resolved(status: api.TaskStatus, error: Exception | None) -> api.TaskStatus:
    """The status once a controller was asked for: accepted if there is one, rejected or failed if not."""
    changed = _copy(status)
    if error is None:
        if status.state < S.ACCEPTED:
            changed.state, changed.message, changed.err = S.ACCEPTED, "accepted", ""
    else:
        changed.message, changed.err = "resolving controller failed", str(error)
        if status.state <= S.RUNNING:
            changed.state = _failure_state(status.state)
    return changed


def outcome(error: BaseException | None) -> Outcome:
    """Whether an operation succeeded, may succeed later, or never will."""
    if error is None or isinstance(error, AlreadyPrepared | AlreadyStarted):
        return Outcome.SUCCESS
    causes = tuple(_chain(error))
    if any(isinstance(cause, TemporaryError | TimeoutError | Cancelled | DeadlineExceeded) for cause in causes):
        return Outcome.RETRY
    return Outcome.FATAL


def succeeded(status: api.TaskStatus, step: Step) -> api.TaskStatus:
    """The status after a step."""
    changed = _copy(status)
    changed.state, changed.message, changed.err = step.state, step.message, ""
    return changed


def failed(status: api.TaskStatus, error: BaseException) -> api.TaskStatus:
    """The status after an operation that did not succeed."""
    changed = _copy(status)
    match outcome(error):
        case Outcome.FATAL:
            changed.state = _failure_state(status.state)
            changed.err = str(error) or type(error).__name__
        case Outcome.RETRY if any(isinstance(cause, TemporaryError) for cause in _chain(error)):
            changed.err = str(error)
    return changed


def with_runtime(
    status: api.TaskStatus, container: api.ContainerStatus | None, ports: api.PortStatus | None, error: BaseException | None
) -> api.TaskStatus:
    """The status with what the executor knows of the container; the previous facts stay where it knows nothing."""
    if status.state < S.STARTING:
        return status
    changed = _copy(status)
    if container is not None:
        changed.container.CopyFrom(container)
    elif not changed.HasField("container"):
        changed.container.SetInParent()
    for cause in _chain(error):
        if isinstance(cause, ExitError):
            changed.container.exit_code = cause.code
            break
    if ports is not None:
        changed.port_status.CopyFrom(ports)
    return changed


def stamped(old: api.TaskStatus, new: api.TaskStatus, now: float) -> api.TaskStatus | None:
    """The new status with its time, never an earlier one than before; None when nothing but the time would change."""
    if same_status(old, new):
        return None
    before = times.seconds_of(old.timestamp) if old.HasField("timestamp") else 0.0
    changed = _copy(new)
    changed.timestamp.CopyFrom(times.timestamp(max(now, before)))
    return changed


def _failure_state(state: S.ValueType) -> S.ValueType:
    return S.REJECTED if state < S.STARTING else S.FAILED


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what caused it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _copy(status: api.TaskStatus) -> api.TaskStatus:
    twin = api.TaskStatus()
    twin.CopyFrom(status)
    return twin
