"""A manager as the agent sees it, its dispatcher and its log broker, and the thin class that reaches them over gRPC."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Iterator
from typing import Any, Protocol, TypeVar

import grpc
import grpc.aio

from pyswarm import errors
from pyswarm.api import v1 as api
from pyswarm.api.swarmkit.dispatcher_pb2_grpc import DispatcherStub
from pyswarm.api.swarmkit.logbroker_pb2_grpc import LogBrokerStub
from pyswarm.cancellation import heeded
from pyswarm.errors import Code, PermissionDenied, SwarmError, Unavailable
from pyswarm.rpc.pump import pumping

R = TypeVar("R")
_ERRORS: dict[int, type[SwarmError]] = {
    kind.code: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, SwarmError) and kind is not SwarmError
}


_DISTRUST = ("CERTIFICATE_VERIFY_FAILED", "Hostname Verification Check failed")
"""What gRPC says when the other side's certificate is not one that we trust."""
_REMOVED = "was removed from swarm"


class UntrustedManager(Unavailable):
    """Who answers is no manager of this node's cluster."""


class RemovedNode(PermissionDenied):
    """The cluster accepts this node's certificate no longer, and never will again."""


class DispatcherClient(Protocol):
    """One connection to a manager. Every method raises SwarmError; streams end normally when the manager ends them without an error.

    Of the errors, the two classes above matter to sessions.
    """

    def session(self, request: api.SessionRequest) -> AsyncGenerator[api.SessionMessage, None]:
        """Register or resume; then everything the manager has to say besides tasks."""
        ...

    def assignments(self, request: api.AssignmentsRequest) -> AsyncGenerator[api.AssignmentsMessage, None]:
        """What to run."""
        ...

    def tasks(self, request: api.TasksRequest) -> AsyncGenerator[api.TasksMessage, None]:
        """What to run, as old managers say it."""
        ...

    async def heartbeat(self, request: api.HeartbeatRequest) -> api.HeartbeatResponse:
        """A sign of life."""
        ...

    async def update_task_status(self, request: api.UpdateTaskStatusRequest) -> api.UpdateTaskStatusResponse:
        """What became of tasks."""
        ...

    async def update_volume_status(self, request: api.UpdateVolumeStatusRequest) -> api.UpdateVolumeStatusResponse:
        """Which volumes are free again."""
        ...

    def subscriptions(self, request: api.ListenSubscriptionsRequest) -> AsyncGenerator[api.SubscriptionMessage, None]:
        """Whose output is wanted."""
        ...

    async def publish_logs(self, messages: AsyncGenerator[api.PublishLogsMessage, None]) -> api.PublishLogsResponse:
        """Send output for one subscription until the messages end or the manager answers, whichever comes first."""
        ...

    async def close(self, success: bool) -> None:
        """Hand the connection back, saying whether the manager served well."""
        ...


class Connection(Protocol):
    """What a connection broker hands out."""

    @property
    def channel(self) -> grpc.aio.Channel:
        """An open or lazily connecting channel."""
        ...

    async def close(self, success: bool) -> None:
        """Close it."""
        ...


class GrpcDispatcherClient:
    """A `DispatcherClient` over a channel."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub: Any = DispatcherStub(connection.channel)  # type: ignore[no-untyped-call, unused-ignore]
        self._logs: Any = LogBrokerStub(connection.channel)  # type: ignore[no-untyped-call, unused-ignore]

    def session(self, request: api.SessionRequest) -> AsyncGenerator[api.SessionMessage, None]:
        """As the protocol says."""
        return _stream(self._stub.Session(request))

    def assignments(self, request: api.AssignmentsRequest) -> AsyncGenerator[api.AssignmentsMessage, None]:
        """As the protocol says."""
        return _stream(self._stub.Assignments(request))

    def tasks(self, request: api.TasksRequest) -> AsyncGenerator[api.TasksMessage, None]:
        """As the protocol says."""
        return _stream(self._stub.Tasks(request))

    async def heartbeat(self, request: api.HeartbeatRequest) -> api.HeartbeatResponse:
        """As the protocol says."""
        return await _unary(self._stub.Heartbeat(request))

    async def update_task_status(self, request: api.UpdateTaskStatusRequest) -> api.UpdateTaskStatusResponse:
        """As the protocol says."""
        return await _unary(self._stub.UpdateTaskStatus(request))

    async def update_volume_status(self, request: api.UpdateVolumeStatusRequest) -> api.UpdateVolumeStatusResponse:
        """As the protocol says."""
        return await _unary(self._stub.UpdateVolumeStatus(request))

    def subscriptions(self, request: api.ListenSubscriptionsRequest) -> AsyncGenerator[api.SubscriptionMessage, None]:
        """As the protocol says."""
        return _stream(self._logs.ListenSubscriptions(request))

    async def publish_logs(self, messages: AsyncGenerator[api.PublishLogsMessage, None]) -> api.PublishLogsResponse:
        """As the protocol says."""
        call = self._logs.PublishLogs()
        encoded = (message.SerializeToString() async for message in messages)
        try:
            async with pumping(call, encoded):
                return await _unary(call)
        finally:
            call.cancel()
            await encoded.aclose()
            await messages.aclose()

    async def close(self, success: bool) -> None:
        """As the protocol says."""
        await self._connection.close(success)


async def _stream(call: Any) -> AsyncGenerator[Any, None]:
    try:
        with _translated():
            async for message in call:
                yield message
    finally:
        call.cancel()


async def _unary(call: Awaitable[R]) -> R:
    with _translated():
        return await call


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Statuses as the exceptions that name them."""
    try:
        with heeded():
            yield
    except grpc.aio.AioRpcError as error:
        raise _error(error) from error


def _error(error: grpc.aio.AioRpcError) -> SwarmError:
    code, details = error.code().value[0], error.details() or error.code().name.lower()
    if code == Code.UNAVAILABLE and any(sign in details for sign in _DISTRUST):
        return UntrustedManager(f"the manager's certificate does not verify: {details}")
    if code == Code.PERMISSION_DENIED and _REMOVED in details:
        return RemovedNode(details)
    return _ERRORS.get(code, _ERRORS[Code.UNKNOWN])(details)
