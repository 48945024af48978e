"""gRPC as simulated processes see it: channels over the network in memory, and the two servers of a manager.

What production code does with `grpc.aio` is all there is. The edge itself (admission, forwarding, the mapping of errors) is the real one:
only sockets and TLS are missing. A certificate's identity is taken from the credentials that a channel was made with.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
from collections.abc import AsyncIterator, Callable, Container, Generator, Sequence
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from pyswarm.ca.credentials import Credentials, Identity, SecurityConfig
from pyswarm.clock import Clock
from pyswarm.rpc import forward
from pyswarm.rpc.authorize import Policy
from pyswarm.rpc.binder import Service, Streams, handlers
from pyswarm.rpc.forward import LeaderDirectory, LeaderDoor
from pyswarm.rpc.gates import LocalGate, RemoteGate
from pyswarm.rpc.peer import Peer
from tests.simulation.network import UP, Call, Connection, Ended, Network, Trailers
from tests.simulation.process import Process

Coder = Callable[[Any], Any]
BACKOFF = (0.2, 2.0)
STREAMS_SECONDS = 0.25
STOP_SECONDS = 8.0


class RpcError(grpc.aio.AioRpcError):
    """A failed call; with what the server knew about its effect."""

    def __init__(self, ended: Ended) -> None:
        super().__init__(ended.status, grpc.aio.Metadata(), grpc.aio.Metadata(*ended.trailers), ended.details)
        self.uncertain = ended.uncertain


# --- channels


class Channel:
    """A channel of a process to an address. Connects when it is needed, and again after a pause when that failed."""

    def __init__(self, network: Network, process: Process, address: str, credentials: Credentials | None) -> None:
        self._network = network
        self._process = process
        self._address = address
        self._identity = identity_of(credentials)
        self._connection: Connection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._error: Ended | None = None
        self._rest_until = 0.0
        self._pause = BACKOFF[0]
        self._closed = False

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """See grpc.aio.Channel."""
        if self._closed:
            return grpc.ChannelConnectivity.SHUTDOWN
        if self._connection is not None and not self._connection.broken:
            return grpc.ChannelConnectivity.READY
        if try_to_connect:
            self._begin()
        return grpc.ChannelConnectivity.CONNECTING if self._connecting else grpc.ChannelConnectivity.TRANSIENT_FAILURE

    def _begin(self) -> None:
        if self._connecting is None and self._network.loop.time() >= self._rest_until:
            self._connecting = self._process.spawn(self._connect())

    async def _connect(self) -> None:
        try:
            self._connection = await self._network.connect(self._process, self._address, self._identity)
            self._error, self._pause = None, BACKOFF[0]
        except Ended as error:
            self._error = error
            self._rest_until = self._network.loop.time() + self._pause
            self._pause = min(2 * self._pause, BACKOFF[1])
        finally:
            self._connecting = None
            if self._closed and self._connection is not None:
                self._connection.close()

    async def connected(self) -> Connection:
        """The connection, made if need be. Raises Ended."""
        if self._closed:
            raise grpc.aio.UsageError("Channel is closed.")
        while self._connection is None or self._connection.broken:
            self._begin()
            if self._connecting is None:
                raise self._error or Ended(grpc.StatusCode.UNAVAILABLE, "not connected", uncertain=False)
            await asyncio.wait([self._connecting])
            if self._closed:
                raise Ended(grpc.StatusCode.CANCELLED, "channel closed", uncertain=False)
            if self._error is not None:
                raise self._error
        return self._connection

    async def close(self, grace: float | None = None) -> None:
        """See grpc.aio.Channel."""
        self._closed = True
        if self._connection is not None:
            self._connection.close()

    def unary_unary(
        self, path: str, request_serializer: Coder = bytes, response_deserializer: Coder = bytes, _registered_method: bool = False
    ) -> Callable[..., Unary]:
        """See grpc.aio.Channel."""
        del _registered_method

        def call(request: Any, *, timeout: float | None = None, metadata: Any = (), wait_for_ready: bool = False) -> Unary:
            del wait_for_ready
            return Unary(self, path, request_serializer(request), response_deserializer, timeout, tuple(metadata or ()))

        return call

    def unary_stream(
        self, path: str, request_serializer: Coder = bytes, response_deserializer: Coder = bytes, _registered_method: bool = False
    ) -> Callable[..., Stream]:
        """See grpc.aio.Channel."""
        del _registered_method

        def call(request: Any, *, timeout: float | None = None, metadata: Any = (), wait_for_ready: bool = False) -> Stream:
            del wait_for_ready
            return Stream(self, path, request_serializer(request), bytes, response_deserializer, timeout, tuple(metadata or ()))

        return call

    def stream_stream(
        self, path: str, request_serializer: Coder = bytes, response_deserializer: Coder = bytes, _registered_method: bool = False
    ) -> Callable[..., Stream]:
        """See grpc.aio.Channel."""
        del _registered_method

        def call(*, timeout: float | None = None, metadata: Any = (), wait_for_ready: bool = False) -> Stream:
            del wait_for_ready
            return Stream(self, path, None, request_serializer, response_deserializer, timeout, tuple(metadata or ()))

        return call

    def stream_unary(self, *args: Any, **kwargs: Any) -> Any:
        """Not used by what is simulated, but part of every stub."""
        del args, kwargs

    def __getattr__(self, name: str) -> Any:
        raise NotImplementedError(f"simulated channels have no {name}")

    @property
    def now(self) -> float:
        """Seconds of virtual time."""
        return self._network.loop.time()


def identity_of(credentials: Credentials | None) -> Identity | None:
    """What a certificate would say."""
    if credentials is None or not credentials.node_id:
        return None
    return Identity(credentials.node_id, credentials.organization, (credentials.role,))


class _Common:
    """What all calls have at the client's end. The deadline is the client's; the server sees it too."""

    def __init__(self, channel: Channel, path: str, request: bytes | None, timeout: float | None, metadata: Trailers) -> None:
        self._channel = channel
        self._path = path
        self._request = request
        self._metadata = metadata
        self._deadline = channel.now + timeout if timeout is not None else float("inf")
        self._call: Call | None = None
        self._cancelled = False
        self._timer: Any = None

    async def _begun(self) -> Call:
        if self._call is None:
            connection = await self._channel.connected()
            if self._call is None:
                if self._cancelled:
                    raise Ended(grpc.StatusCode.CANCELLED, "Locally cancelled by application!", uncertain=False)
                self._call = Call(connection, self._path, self._request, self._metadata, self._deadline)
                if self._deadline != float("inf"):
                    self._timer = connection.network.loop.call_at(self._deadline, self._late)
        return self._call

    def _late(self) -> None:
        if self._call is not None and not self._call.done:
            self._call.fail(Ended(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"))
            self._call.give_up()

    def _finish(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._call is not None:
            self._call.give_up()

    def cancel(self) -> bool:
        """See grpc.aio.Call."""
        self._cancelled = True
        if self._call is not None:
            self._call.fail(Ended(grpc.StatusCode.CANCELLED, "Locally cancelled by application!"))
        self._finish()
        return True


class Unary(_Common):
    """One answer; to be awaited."""

    def __init__(self, channel: Channel, path: str, request: bytes, parse: Coder, timeout: float | None, metadata: Trailers) -> None:
        super().__init__(channel, path, request, timeout, metadata)
        self._parse = parse

    def __await__(self) -> Generator[Any, None, Any]:
        return self._answer().__await__()

    async def _answer(self) -> Any:
        try:
            call = await self._begun()
            message = await call.next()
            if message is None:
                raise Ended(grpc.StatusCode.INTERNAL, "no answer came")
            return self._parse(message)
        except Ended as ended:
            raise RpcError(ended) from None
        finally:
            self._finish()


class Stream(_Common):
    """Many answers, and maybe many requests."""

    def __init__(
        self, channel: Channel, path: str, request: bytes | None, write: Coder, parse: Coder, timeout: float | None, metadata: Trailers
    ) -> None:
        super().__init__(channel, path, request, timeout, metadata)
        self._serialize = write
        self._parse = parse
        self._end: Ended | None = None

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._messages()

    async def _messages(self) -> AsyncIterator[Any]:
        while (message := await self.read()) is not grpc.aio.EOF:
            yield message

    async def read(self) -> Any:
        """See grpc.aio.StreamStreamCall."""
        try:
            message = await (await self._begun()).next()
        except Ended as ended:
            self._end = ended
            self._finish()
            raise RpcError(ended) from None
        if message is None:
            self._finish()
            return grpc.aio.EOF
        return self._parse(message)

    async def write(self, message: Any) -> None:
        """See grpc.aio.StreamStreamCall."""
        try:
            await (await self._begun()).send(self._serialize(message))
        except Ended as ended:
            self._end = ended
            raise asyncio.InvalidStateError("RPC already finished.") from None

    async def code(self) -> grpc.StatusCode:
        """See grpc.aio.Call. Only asked when the call has ended."""
        ended = self._ended()
        return ended.status if ended is not None else grpc.StatusCode.OK

    async def details(self) -> str:
        """See grpc.aio.Call."""
        ended = self._ended()
        return ended.details if ended is not None else ""

    def _ended(self) -> Ended | None:
        return self._end or (self._call.error if self._call is not None else None)


# --- servers


class Context:
    """The server's view of a call: what the edge uses of grpc.aio.ServicerContext."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self.ended: Ended | None = None

    def peer(self) -> Any:
        """The connection itself: `Front` knows who that is."""
        return self._call.connection

    def invocation_metadata(self) -> Trailers:
        """See grpc."""
        return self._call.metadata

    def time_remaining(self) -> float | None:
        """See grpc."""
        if self._call.deadline == float("inf"):
            return None
        return max(0.0, self._call.deadline - self._call.connection.network.loop.time())

    def code(self) -> grpc.StatusCode | int:
        """See grpc: a number as long as nobody has set a status."""
        return self.ended.status if self.ended is not None else 0

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Trailers = ()) -> None:
        """See grpc."""
        uncertain = _is_uncertain(sys.exc_info()[1])
        self.ended = Ended(code, details, trailing_metadata, uncertain=uncertain)
        raise grpc.aio.AbortError


def _is_uncertain(error: BaseException | None) -> bool:
    while error is not None:
        if hasattr(error, "uncertain"):
            return bool(error.uncertain)
        error = error.__cause__
    return False


class Front:
    """Knows who is at the other end of a connection."""

    def peer(self, connection: Any) -> Peer:
        """See rpc.front.Front."""
        return Peer(f"{connection.names[UP]}:5000", connection.identity)


class Port:
    """A server of one process at one address."""

    def __init__(self, network: Network, address: str, process: Process) -> None:
        self.network = network
        self.address = address
        self.process = process
        self.host = process.host
        self.open = False
        self._handlers: Sequence[Any] = ()
        self._methods: dict[str, Any] = {}
        self._running: dict[asyncio.Task[Any], None] = {}

    def listen(self, services: Sequence[Any]) -> None:
        """Be reachable."""
        self._handlers = services
        self.open = True
        self.network.servers[self.address] = self

    async def serve(self, call: Call) -> None:
        """See Server."""
        task = asyncio.current_task()
        assert task is not None
        self._running[task] = None
        context = Context(call)
        ended: Ended | None = Ended(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        try:
            await self._answer(call, context)
            ended = None
        except grpc.aio.AbortError:
            ended = context.ended
        except Exception as error:  # noqa: BLE001 - of ours, or of this imitation
            self.network.loop.errors.append(f"serving {call.path} failed: {error!r}")
        finally:
            self._running.pop(task, None)
            call.finish(ended)

    async def _answer(self, call: Call, context: Context) -> None:
        handler = self._handler(call.path)
        request = call.requests() if handler.request_streaming else call.request
        if handler.response_streaming:
            stream = (handler.stream_stream or handler.unary_stream)(request, context)
            async with contextlib.aclosing(stream):
                async for message in stream:
                    call.answer(message)
        else:
            call.answer(await (handler.stream_unary or handler.unary_unary)(request, context))

    def _handler(self, path: str) -> Any:
        found = self._methods.get(path)
        if found is None:
            details = _Details(path)
            found = self._methods[path] = next(h for handler in self._handlers if (h := handler.service(details)) is not None)
        return found

    async def stop(self, streams: Streams) -> None:
        """Refuse what is new, let calls end for a while, cut the rest."""
        if not self.open:
            return
        self.open = False
        if self.network.servers.get(self.address) is self:
            del self.network.servers[self.address]
        await streams.end(STREAMS_SECONDS)
        if self._running:
            await asyncio.wait(list(self._running), timeout=STOP_SECONDS)
        self.cut(lambda _: True)

    def cut(self, wanted: Callable[[Connection], bool]) -> int:
        """Break connections to this server; how many."""
        theirs = [c for c in self.network.connections if c.server is self and wanted(c)]
        for connection in theirs:
            connection.break_off()
        return len(theirs)


class _Details:
    """As grpc.HandlerCallDetails."""

    def __init__(self, method: str) -> None:
        self.method = method
        self.invocation_metadata = ()


class RemoteServer:
    """Stands in for rpc.server.RemoteServer."""

    def __init__(
        self,
        *,
        services: Sequence[Service],
        security: SecurityConfig,
        directory: LeaderDirectory,
        blacklist: Callable[[], Container[str]],
        clock: Clock,
        port: Port,
        **_other: Any,
    ) -> None:
        self._services = services
        self._policy = lambda: Policy(security.current.organization, blacklist())
        self._door = LeaderDoor(directory, clock)
        self._streams = Streams()
        self._port = port
        self.address = ""

    async def listen(self, address: str) -> str:
        """See rpc.server."""
        self.address = address
        gate: Any = RemoteGate(Front(), self._policy, self._door)  # type: ignore[arg-type]
        self._port.listen(handlers(self._services, gate, self._streams))
        return address

    async def run(self) -> None:
        """See rpc.server."""
        try:
            await asyncio.Event().wait()
        finally:
            await self.close()

    async def close(self) -> None:
        """See rpc.server."""
        self._door.close()
        await self._port.stop(self._streams)

    def disconnect(self, node_id: str) -> int:
        """See rpc.server."""
        return self._port.cut(lambda c: c.identity is not None and c.identity.node_id == node_id)


class ControlServer:
    """Stands in for rpc.server.ControlServer."""

    def __init__(
        self,
        *,
        services: Sequence[Service],
        security: SecurityConfig,
        directory: LeaderDirectory,
        remote_addr: Callable[[], str],
        clock: Clock,
        port: Port,
    ) -> None:
        self._services = [service for service in services if service.descriptor.name not in forward.NOT_ON_LOCAL]
        self._door = LeaderDoor(directory, clock)
        self._gate: Any = LocalGate(security, remote_addr, self._door)
        self._streams = Streams()
        self._port = port

    async def listen(self, path: Path) -> None:
        """See rpc.server."""
        del path
        self._port.listen(handlers(self._services, self._gate, self._streams))

    async def run(self) -> None:
        """See rpc.server."""
        try:
            await asyncio.Event().wait()
        finally:
            await self.close()

    async def close(self) -> None:
        """See rpc.server."""
        self._door.close()
        await self._port.stop(self._streams)


class SeededRandom(random.Random):
    """Stands in for `random.Random` and `random.SystemRandom`: what would be seeded by the machine is seeded by the simulation."""

    source: random.Random

    def __init__(self, seed: Any = None) -> None:
        super().__init__(SeededRandom.source.getrandbits(64) if seed is None else seed)
