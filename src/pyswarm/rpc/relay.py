"""A call passed on to the leader as raw bytes: unary or streamed in either direction, message by message, each side as fast as the other.

What ends one leg ends the other: the answer, an error with its code and text, the caller's cancellation or deadline, the leader's. An error
that the leader did not send, because the connection to it broke, says that the outcome is not known; such a call is never repeated. One
that is certain not to have run is `NotExecuted`, and may be.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
from google.protobuf.descriptor import MethodDescriptor

from pyswarm.cancellation import heeded, told_to_stop
from pyswarm.raft.log import Dropped, LostLeadership
from pyswarm.rpc.forward import Line, NotHere, Stopping
from pyswarm.rpc.headers import Header
from pyswarm.rpc.pump import pumping

_OUTCOME = "pyswarm-outcome"
"""Trailing metadata by which one manager tells another that it is itself who ended a call, and whether the call left a trace."""
_ANSWERED, _NOT_EXECUTED = "answered", "not-executed"
# Control methods that make more than one log entry: the last may be refused when the first was not. All others make at most one.
_SEVERAL_ENTRIES = frozenset({"RemoveNode"})


@dataclass(frozen=True, slots=True)
class Passage:
    """Leave to pass one call on."""

    line: Line
    metadata: tuple[Header, ...]


class Answered(Exception):
    """How a call that was passed on ended, other than well."""

    def __init__(self, status: grpc.StatusCode, details: str) -> None:
        super().__init__(f"{status.name}: {details}")
        self.status = status
        self.details = details


class NotExecuted(Answered):
    """The call certainly did not run; `refused_by` is the node id of who said so, None when it was never sent."""

    def __init__(self, status: grpc.StatusCode, details: str, refused_by: str | None) -> None:
        super().__init__(status, details)
        self.refused_by = refused_by


def certainly_not_executed(method: MethodDescriptor, error: BaseException) -> bool:
    """Whether an error raised by a method of this manager, or by its gate, proves that the call left no trace."""
    if isinstance(error, NotHere | Stopping):
        return True
    one_entry = method.containing_service.name == "Control" and method.name not in _SEVERAL_ENTRIES
    return one_entry and isinstance(error, LostLeadership | Dropped) and not error.uncertain


def outcome(method: MethodDescriptor, error: BaseException) -> tuple[tuple[str, str], ...]:
    """The trailing metadata for the manager that passed on a call which ends with `error`."""
    return ((_OUTCOME, _NOT_EXECUTED if certainly_not_executed(method, error) else _ANSWERED),)


async def unary_unary(passage: Passage, method: MethodDescriptor, request: bytes, seconds: float | None) -> bytes:
    """Pass a call on; returns the answer. `seconds` is what the caller still allows, None: no limit. Raises Answered."""
    with _outcome(passage.line) as channel:
        start = channel.unary_unary(_path(method))
        call = start(request, timeout=seconds, metadata=_metadata(passage), wait_for_ready=False)
        with _ended(call):
            return bytes(await call)


async def unary_stream(passage: Passage, method: MethodDescriptor, request: bytes, seconds: float | None) -> AsyncIterator[bytes]:
    """As `unary_unary`, for a streamed answer; the next message is fetched when the last was taken."""
    with _outcome(passage.line) as channel:
        start = channel.unary_stream(_path(method))
        call = start(request, timeout=seconds, metadata=_metadata(passage), wait_for_ready=False)
        with _ended(call):
            async for message in call:
                yield message


async def stream_unary(passage: Passage, method: MethodDescriptor, requests: AsyncIterator[bytes], seconds: float | None) -> bytes:
    """As `unary_unary`, for a streamed request; the next message is fetched when the last was sent."""
    with _outcome(passage.line) as channel:
        start = channel.stream_unary(_path(method))
        call = start(timeout=seconds, metadata=_metadata(passage), wait_for_ready=False)
        with _ended(call):
            async with pumping(call, requests):
                return bytes(await call)


async def stream_stream(
    passage: Passage, method: MethodDescriptor, requests: AsyncIterator[bytes], seconds: float | None
) -> AsyncIterator[bytes]:
    """Both directions streamed, each at its own pace."""
    with _outcome(passage.line) as channel:
        start = channel.stream_stream(_path(method))
        call = start(timeout=seconds, metadata=_metadata(passage), wait_for_ready=False)
        with _ended(call):
            async with pumping(call, requests):
                async for message in call:
                    yield message


@contextlib.contextmanager
def _ended(call: Any) -> Iterator[None]:
    """The leader learns at once when the caller's side ends first."""
    try:
        yield
    finally:
        call.cancel()


@contextlib.contextmanager
def _outcome(line: Line) -> Iterator[Any]:
    """The channel to use; everything that can go wrong on it, as Answered."""
    try:
        # As Any: the stubs know nothing of calls without serializers, which take and return bytes.
        with line.in_use() as channel, heeded():
            yield channel
    except grpc.aio.AioRpcError as error:
        raise _answered(error, line) from error
    except grpc.aio.UsageError as error:
        # The channel was replaced between its choice and its use.
        raise NotExecuted(grpc.StatusCode.UNAVAILABLE, "the connection to the leader was closed; the call was not made", None) from error
    except asyncio.CancelledError as error:
        if told_to_stop():
            raise
        # Not the caller.
        raise Answered(grpc.StatusCode.UNAVAILABLE, _unknown(line, "closed, because another manager leads or this one stops")) from error


def _answered(error: grpc.aio.AioRpcError, line: Line) -> Answered:
    status, details = error.code(), error.details() or ""
    trailing: Any = error.trailing_metadata() or {}
    said = trailing.get(_OUTCOME)
    if said == _NOT_EXECUTED:
        return NotExecuted(status, details, line.node_id)
    if status is grpc.StatusCode.UNAVAILABLE and said is None:
        details = _unknown(line, details)
    return Answered(status, details)


def _unknown(line: Line, why: str) -> str:
    where = f"the leader {line.node_id} at {line.addr}"
    return f"the connection to {where} ended before its answer, so whether the call took effect is not known: {why}"


def _metadata(passage: Passage) -> Any:
    return grpc.aio.Metadata(*passage.metadata)


def _path(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"
