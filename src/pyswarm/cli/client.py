"""The connection to a manager's control socket, and its errors in our own types.

gRPC with TLS over a Unix socket, the server's certificate pinned as it is shown (`rpc.leaf`): the socket file's permissions are the guard.
Every wait has an end: 10 s to connect, 60 s for an answer, except while following logs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from pyswarm import errors
from pyswarm.rpc.leaf import fetch_leaf, pinned_credentials

if TYPE_CHECKING:
    import grpc

    from pyswarm.api.private.why_pb2_grpc import WhyStub
    from pyswarm.api.swarmkit.ca_pb2_grpc import CAStub
    from pyswarm.api.swarmkit.control_pb2_grpc import ControlStub
    from pyswarm.api.swarmkit.logbroker_pb2_grpc import LogsStub

CONNECT_SECONDS = 10.0
CALL_SECONDS = 60.0
_DISTRUST = "CERTIFICATE_VERIFY_FAILED"
"""In gRPC's description of a call whose handshake met a certificate that is not the pinned one."""

Q = TypeVar("Q", contravariant=True)
R = TypeVar("R", covariant=True)
M = TypeVar("M")


class Unary(Protocol[Q, R]):
    """A method of a generated stub with one answer."""

    def __call__(self, request: Q, *, timeout: float | None = None) -> R:
        """Call and wait."""
        ...


class Client:
    """One manager. Use `ask` for calls, so that failures come as SwarmError with one clear line."""

    def __init__(self, socket: str, channel: grpc.Channel) -> None:
        from pyswarm.api.swarmkit.control_pb2_grpc import ControlStub

        self.socket = socket
        self._channel = channel
        self.control: ControlStub = ControlStub(channel)

    @property
    def ca(self) -> CAStub:
        """The CA service, for the unlock key."""
        from pyswarm.api.swarmkit.ca_pb2_grpc import CAStub

        return CAStub(self._channel)

    @property
    def logs(self) -> LogsStub:
        """The log service."""
        from pyswarm.api.swarmkit.logbroker_pb2_grpc import LogsStub

        return LogsStub(self._channel)

    @property
    def why(self) -> WhyStub:
        """What explains tasks. Only a manager of pyswarm has it."""
        from pyswarm.api.private.why_pb2_grpc import WhyStub

        return WhyStub(self._channel)

    def ask(self, method: Unary[Q, R], request: Q) -> R:
        """Call a unary method, waiting at most a minute. Raises SwarmError."""
        import grpc

        try:
            return method(request, timeout=CALL_SECONDS)
        except grpc.RpcError as error:
            raise self.error(error) from None

    def stream(self, messages: Iterator[M]) -> Iterator[M]:
        """The messages of a stream, without a deadline. Raises SwarmError with the status spelled out, as subscribers know it."""
        import grpc

        try:
            yield from messages
        except grpc.RpcError as error:
            mapped = self.error(error)
            if isinstance(mapped, errors.Unimplemented | errors.Unavailable):
                raise mapped from None
            name = "".join(word.capitalize() for word in mapped.code.name.split("_")).replace("Cancelled", "Canceled")
            raise type(mapped)(f"failed receiving stream message: rpc error: code = {name} desc = {mapped.message}") from None

    def error(self, error: grpc.RpcError) -> errors.SwarmError:
        """What a failed call means, in one line."""
        number, name, details = status_of(error)
        kind = next((kind for kind in errors.SwarmError.__subclasses__() if kind.code == number), errors.Unknown)
        if kind is errors.DeadlineExceeded:
            details = f"the manager at {self.socket} gave no answer within {CALL_SECONDS:g} s; what was asked may still happen: look first"
        elif kind is errors.Unavailable and details.startswith(("failed to connect", "Socket closed", "connections to all")):
            details = _unreachable(self.socket, details)
        elif kind is errors.Unimplemented and (not details or details == "Method not found!"):
            details = f"the manager at {self.socket} does not offer this yet"
        return kind(details or name)


def status_of(error: grpc.RpcError) -> tuple[int, str, str]:
    """Number, name and description of a failed call's status."""
    code: Callable[[], grpc.StatusCode] | None = getattr(error, "code", None)
    details: Callable[[], str | None] | None = getattr(error, "details", None)
    if code is None or details is None:
        return int(errors.Code.UNKNOWN), "UNKNOWN", str(error)
    status = code()
    return int(status.value[0]), str(status.name), details() or ""


@contextmanager
def connect(socket: str) -> Iterator[Client]:
    """A client of the manager that listens at the path `socket`. Raises Unavailable naming the path, the reason and what to do."""
    # gRPC's own diagnostics would appear between our lines.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    pinned = _Pinned(socket)
    try:
        yield Client(socket, cast("grpc.Channel", pinned))
    finally:
        pinned.close()


class _Pinned:
    """What stubs need of a channel. It trusts the certificate that the manager showed last, for managers renew theirs as they run.

    A handshake that meets another certificate fails before the call is sent, so the call may be repeated on a new channel. (Connecting
    before the first call, to be sure, would cost a fifth of a second: gRPC polls for that.)
    """

    def __init__(self, socket: str) -> None:
        self._socket = socket
        self._leaf = _shown(socket)
        self._channel = self._open()

    def unary_unary(self, *method: Any, **how: Any) -> Callable[..., Any]:
        """As `grpc.Channel.unary_unary`."""
        import grpc

        def call(request: Any, **options: Any) -> Any:
            while True:
                try:
                    return self._channel.unary_unary(*method, **how)(request, **options)
                except grpc.RpcError as error:
                    if _DISTRUST not in status_of(error)[2] or not self._renewed():
                        raise

        return call

    def unary_stream(self, *method: Any, **how: Any) -> Callable[..., Any]:
        """As `grpc.Channel.unary_stream`; its failures come too late to be mended here."""
        return self._channel.unary_stream(*method, **how)

    def close(self) -> None:
        """End all calls."""
        self._channel.close()

    def _renewed(self) -> bool:
        """Whether another certificate is shown by now, which is trusted then."""
        fresh = _shown(self._socket)
        if fresh == self._leaf:
            return False
        self._leaf = fresh
        self._channel.close()
        self._channel = self._open()
        return True

    def _open(self) -> grpc.Channel:
        import grpc

        credentials, options = pinned_credentials(self._leaf)
        options.append(("grpc.min_reconnect_backoff_ms", int(CONNECT_SECONDS * 1000)))
        return grpc.secure_channel(f"unix:{self._socket}", credentials, options=options)


def _shown(socket: str) -> bytes:
    """The certificate at the socket."""
    address = f"unix:{socket}"
    try:
        return fetch_leaf(address, CONNECT_SECONDS)
    except errors.Unavailable as error:
        raise errors.Unavailable(_unreachable(socket, error.message.removeprefix(f"{address}: "))) from None


def _unreachable(socket: str, reason: str) -> str:
    return (
        f"no manager answers at {socket}: {reason}. pyswarmd must run there as a manager; "
        "--socket or SWARM_SOCKET names another control socket (--listen-control-api of pyswarmd)"
    )
