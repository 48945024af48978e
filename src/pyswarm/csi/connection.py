"""One storage plugin over its Unix socket: gRPC without TLS, every call with a time limit, every error one of ours."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import Message

from pyswarm import errors
from pyswarm.api.csi import csi_pb2 as csi
from pyswarm.api.csi.csi_pb2_grpc import ControllerStub, IdentityStub, NodeStub
from pyswarm.errors import Code, DeadlineExceeded, FailedPrecondition, SwarmError, Unavailable, Unknown

CALL_SECONDS = 15.0
HIDDEN = "***"
_OPTIONS = [
    # A plugin that was restarted is found again within a second; its neighbours' troubles are not its own.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.use_local_subchannel_pool", 1),
]
_BY_CODE = {
    int(kind.code): kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, SwarmError) and kind is not SwarmError
}


class Connection:
    """The three services of a plugin. `ask(connection.controller.CreateVolume, ...)` opens the channel when needed."""

    def __init__(self, name: str, socket: Path) -> None:
        self.name = name
        self._socket = socket
        self._channel: grpc.aio.Channel | None = None

    @property
    def identity(self) -> Any:
        """The stub of `csi.v1.Identity`."""
        return IdentityStub(self._open())  # type: ignore[no-untyped-call, unused-ignore]

    @property
    def controller(self) -> Any:
        """The stub of `csi.v1.Controller`."""
        return ControllerStub(self._open())  # type: ignore[no-untyped-call, unused-ignore]

    @property
    def node(self) -> Any:
        """The stub of `csi.v1.Node`."""
        return NodeStub(self._open())  # type: ignore[no-untyped-call, unused-ignore]

    async def ask(self, call: Any, request: Message, *, hide: Iterable[str] = (), seconds: float = CALL_SECONDS) -> Any:
        """The answer of one call. Raises SwarmError with the plugin's status and words, in which the texts of `hide` are covered."""
        method = type(request).__name__.removesuffix("Request")
        try:
            return await call(request, timeout=seconds)
        except grpc.aio.AioRpcError as error:
            raise self._error(error, method, hide, seconds) from None
        except ValueError as error:
            # What does not serialise: text that is no Unicode. The error's own words may show it.
            raise FailedPrecondition(f"plugin {self.name}: {method} could not be asked ({type(error).__name__})") from None

    async def info(self, seconds: float = CALL_SECONDS) -> csi.GetPluginInfoResponse:
        """Who the plugin says it is. Raises SwarmError."""
        answer: csi.GetPluginInfoResponse = await self.ask(self.identity.GetPluginInfo, csi.GetPluginInfoRequest(), seconds=seconds)
        return answer

    async def probe(self) -> None:
        """Raises FailedPrecondition while the plugin says that it is not ready, and what `ask` raises."""
        answer: csi.ProbeResponse = await self.ask(self.identity.Probe, csi.ProbeRequest())
        if answer.HasField("ready") and not answer.ready.value:
            raise FailedPrecondition(f"plugin {self.name} is not ready")

    async def close(self) -> None:
        """Close the channel; calls under way fail."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close(None)

    def _open(self) -> grpc.aio.Channel:
        if self._channel is None:
            self._channel = grpc.aio.insecure_channel(f"unix:{self._socket}", options=_OPTIONS)
        return self._channel

    def _error(self, error: grpc.aio.AioRpcError, method: str, hide: Iterable[str], seconds: float) -> SwarmError:
        code, details = error.code().value[0], error.details() or error.code().name
        if code == Code.DEADLINE_EXCEEDED:
            return DeadlineExceeded(f"plugin {self.name} did not answer {method} within {seconds:g} s")
        if code == Code.UNAVAILABLE and not self._socket.exists():
            return Unavailable(f"plugin {self.name} does not answer: there is no socket {self._socket}")
        if code == Code.UNAVAILABLE and "failed to connect" in details:
            return Unavailable(f"plugin {self.name} does not answer at {self._socket}")
        # From the longest on, so that a secret within another is not left in pieces.
        for text in sorted(filter(None, hide), key=len, reverse=True):
            details = details.replace(text, HIDDEN)
        return _BY_CODE.get(code, Unknown)(f"plugin {self.name}: {details}")
