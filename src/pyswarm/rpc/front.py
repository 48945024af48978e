"""The TLS front: what listens on the remote port (spec/ca-and-security, section 28).

gRPC's own server either demands a client certificate or never asks for one; the remote port needs "verified if given", because joining
nodes have none. So this front terminates TLS and splices the plain bytes, one to one, to a gRPC server on a private Unix socket. Each inner
connection starts from its own abstract address, never used again; that address is what the gRPC server sees as the peer, and `peer()` tells
whose connection it is.

Own pump on `ssl.MemoryBIO` instead of asyncio's TLS: a quarter MiB less per connection, and a peer whose certificate fails is sent the
alert that says why, not a reset.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
import socket
import ssl
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import structlog

from pyswarm.clock import Clock
from pyswarm.rpc.peer import Peer
from pyswarm.rpc.tls import identity_of

log = structlog.get_logger(__name__)

_BACKLOG = 1024
_CHUNK = 65536
_SWEEP_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Limits:
    """What one front bears. Times in seconds, buffer marks in bytes per leg and direction."""

    handshake_seconds: float = 20.0
    handshakes: int = 256
    connections: int = 20_000
    linger_seconds: float = 5.0
    high_water: int = 256 * 1024
    low_water: int = 64 * 1024


class Front:
    """Listens, terminates TLS, knows whose connection is whose.

    Life: `await listen(...)`, then `run()` until cancelled, after which no connection is added but those that stand still work, so that
    they can drain; `close()` cuts them.
    """

    def __init__(self, context: ssl.SSLContext, inner_paths: Sequence[str], clock: Clock, limits: Limits | None = None) -> None:
        """`inner_paths`: the sockets of the gRPC servers behind, among which connections are dealt out in turn."""
        self.context = context
        self.limits = limits or Limits()
        self.clock = clock
        self._inner_paths = itertools.cycle(inner_paths)
        self._server: asyncio.Server | None = None
        self._group: asyncio.TaskGroup | None = None
        self._legs: set[_Outer] = set()
        self._handshaking: set[_Outer] = set()
        self._queue: deque[_Outer] = deque()
        self._peers: dict[str, Peer] = {}
        # Other processes share the abstract name space: the random part keeps fronts apart, the counter keeps connections apart.
        self._prefix = f"pyswarm-{secrets.token_hex(8)}"
        self._counter = itertools.count(1)

    async def listen(self, host: str, port: int) -> tuple[str, int]:
        """Bind and listen; connections wait in the backlog until `run()`. Returns the bound address. Raises OSError."""
        loop = asyncio.get_running_loop()
        sock = await _listening_socket(host, port)
        self._server = await loop.create_server(lambda: _Outer(self), sock=sock, start_serving=False)
        name = sock.getsockname()
        return str(name[0]), int(name[1])

    async def run(self) -> None:
        """Accept until cancelled."""
        if self._server is None:
            raise RuntimeError("listen() comes before run()")
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                await self._server.start_serving()
                await self._sweep()
        finally:
            self._group = None
            self.stop_accepting()

    def stop_accepting(self) -> None:
        """Close the listening socket; connections live on."""
        if self._server is not None:
            self._server.close()

    def close(self) -> None:
        """Stop accepting and cut all connections at once."""
        self.stop_accepting()
        for leg in list(self._legs):
            leg.abort()

    def replace_context(self, context: ssl.SSLContext) -> None:
        """Use `context` for the connections that follow; those that stand are left alone."""
        self.context = context

    def disconnect(self, node_id: str) -> int:
        """Cut the connections of a node (it was removed). Returns how many there were."""
        legs = [leg for leg in self._legs if leg.peer.certificate and leg.peer.certificate.node_id == node_id]
        for leg in legs:
            leg.abort()
        return len(legs)

    def peer(self, inner_peer: str) -> Peer | None:
        """Whose connection the gRPC server sees as `inner_peer` (`context.peer()`); None when it did not come through this front."""
        return self._peers.get(inner_peer)

    @property
    def connections(self) -> int:
        """How many peers are connected, those in the handshake included."""
        return len(self._legs)

    # What legs call.

    def admit(self, leg: _Outer) -> bool:
        """A connection was accepted. False: there are too many, cut it. It may have to wait for its handshake."""
        if self._group is None or len(self._legs) >= self.limits.connections:
            return False
        self._legs.add(leg)
        if len(self._handshaking) < self.limits.handshakes:
            self._handshaking.add(leg)
        else:
            leg.transport.pause_reading()
            self._queue.append(leg)
        return True

    def handshake_over(self, leg: _Outer) -> None:
        """A handshake ended, well or not: the next in the queue may start."""
        self._handshaking.discard(leg)
        while self._queue and len(self._handshaking) < self.limits.handshakes:
            waiting = self._queue.popleft()
            if waiting in self._legs:
                self._handshaking.add(waiting)
                waiting.transport.resume_reading()

    def connect_inside(self, leg: _Outer) -> None:
        """The handshake is done: open the inner leg."""
        if self._group is None:
            leg.abort()
        else:
            self._group.create_task(self._connect_inside(leg))

    def forget(self, leg: _Outer) -> None:
        """The outer socket is gone."""
        self._legs.discard(leg)
        self.handshake_over(leg)

    def forget_inner(self, name: str) -> None:
        """The inner socket is gone: no call can come from it any more."""
        self._peers.pop(name, None)

    async def _connect_inside(self, leg: _Outer) -> None:
        loop = asyncio.get_running_loop()
        name = f"{self._prefix}-{next(self._counter)}"
        inner_peer = f"unix-abstract:{name}"
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        # Registered before connecting: a call can arrive as soon as the connection stands.
        self._peers[inner_peer] = leg.peer
        try:
            sock.bind(b"\0" + name.encode("ascii"))
            await loop.sock_connect(sock, next(self._inner_paths))
            await loop.create_unix_connection(lambda: _Inner(self, leg, inner_peer), sock=sock)
        except OSError as error:
            log.warning("inner connection failed", peer=leg.peer.remote_addr, error=str(error))
            sock.close()
            self.forget_inner(inner_peer)
            leg.abort()
        except asyncio.CancelledError:
            sock.close()
            self.forget_inner(inner_peer)
            raise

    async def _sweep(self) -> None:
        """Cut connections whose handshake or farewell takes too long."""
        while True:
            await self.clock.sleep(_SWEEP_SECONDS)
            now = self.clock.monotonic()
            for leg in [leg for leg in self._legs if leg.deadline is not None and leg.deadline <= now]:
                log.debug("connection timed out", peer=leg.peer.remote_addr)
                leg.abort()


class _Outer(asyncio.Protocol):
    """The TLS leg: one accepted connection."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._established = False
        self._held: list[bytes] = []
        self._closing = False
        self._write_paused = False
        self._inner: _Inner | None = None
        self._tls = front.context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.transport: asyncio.Transport
        self.peer = Peer("")
        self.deadline: float | None = front.clock.monotonic() + front.limits.handshake_seconds

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client connected."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(self._front.limits.high_water, self._front.limits.low_water)
        _keep_alive(transport.get_extra_info("socket"))
        self.peer = Peer(_address(transport.get_extra_info("peername")))
        if not self._front.admit(self):
            log.warning("connection refused", peer=self.peer.remote_addr, connections=self._front.connections)
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Ciphertext from the client."""
        if self._closing:
            return
        self._incoming.write(data)
        try:
            if not self._established:
                self._tls.do_handshake()
                self._on_handshake()
            while not self._closing:
                if plain := self._tls.read(_CHUNK):
                    self._forward(plain)
                else:  # the client's orderly farewell
                    self.close()
        except ssl.SSLWantReadError:
            pass
        except (ssl.SSLError, ValueError) as error:
            # ValueError: a certificate that verifies but whose subject cannot be read.
            log.info("tls failed", peer=self.peer.remote_addr, error=getattr(error, "reason", None) or str(error))
            self.close()
        self._flush()

    def eof_received(self) -> None:
        """The client closed its side; HTTP/2 has no use for a half-open connection."""
        self.close()

    def pause_writing(self) -> None:
        """The client reads too slowly: stop reading what the server sends it."""
        self._write_paused = True
        if self._inner is not None:
            self._inner.transport.pause_reading()

    def resume_writing(self) -> None:
        """The client caught up."""
        self._write_paused = False
        if self._inner is not None:
            self._inner.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """The socket is gone."""
        self._closing = True
        self._front.forget(self)
        if self._inner is not None:
            # Whatever the server has not read yet belongs to calls that are over with their connection.
            self._inner.transport.abort()

    # The inner leg's side

    def on_inner(self, inner: _Inner) -> None:
        """The inner leg stands: send what was held and read on."""
        if self._closing:
            inner.transport.abort()
            return
        self._inner = inner
        if self._write_paused:
            inner.transport.pause_reading()
        self.transport.resume_reading()
        for plain in self._held:
            inner.transport.write(plain)
        self._held.clear()

    def send(self, plain: bytes) -> None:
        """Encrypt bytes of the server and send them to the client."""
        if self._closing:
            return
        self._tls.write(plain)
        self._flush()

    def close(self) -> None:
        """Say goodbye, send what is buffered, close; whoever does not take it within the linger time is cut."""
        if self._closing:
            return
        self._closing = True
        self.deadline = self._front.clock.monotonic() + self._front.limits.linger_seconds
        if self._established:
            # It always wants the peer's farewell too, for which nobody waits.
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()
        self._flush()
        self.transport.close()

    def abort(self) -> None:
        """Cut the connection now."""
        self._closing = True
        self.transport.abort()

    def _on_handshake(self) -> None:
        self._established = True
        self.deadline = None
        self._front.handshake_over(self)
        # ALPN is not insisted on: Docker Engines offer none any more once they have renewed their certificate. Whoever does not speak
        # HTTP/2 is turned away by the gRPC server, which looks at the first bytes.
        der = self._tls.getpeercert(binary_form=True)
        if der:
            self.peer = Peer(self.peer.remote_addr, identity_of(der))
        # Read no more than what came along with the handshake until the inner leg can take it.
        self.transport.pause_reading()
        self._front.connect_inside(self)

    def _forward(self, plain: bytes) -> None:
        if self._inner is None:
            self._held.append(plain)
        else:
            self._inner.transport.write(plain)

    def _flush(self) -> None:
        if self._outgoing.pending and not self.transport.is_closing():
            self.transport.write(self._outgoing.read())


class _Inner(asyncio.Protocol):
    """The plain leg: a Unix connection to the gRPC server."""

    def __init__(self, front: Front, outer: _Outer, name: str) -> None:
        self._front = front
        self._outer = outer
        self._name = name
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The gRPC server accepted."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(self._front.limits.high_water, self._front.limits.low_water)
        self._outer.on_inner(self)

    def data_received(self, data: bytes) -> None:
        """Plain bytes from the server."""
        self._outer.send(data)

    def pause_writing(self) -> None:
        """The server reads too slowly: stop reading from the client."""
        self._outer.transport.pause_reading()

    def resume_writing(self) -> None:
        """The server caught up."""
        self._outer.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """The server closed, or the client did; the identity goes last."""
        self._outer.close()
        self._front.forget_inner(self._name)


async def _listening_socket(host: str, port: int) -> socket.socket:
    """Bound and listening. An empty host means every address, IPv6 too where the machine has it."""
    if not host:
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, backlog=_BACKLOG, dualstack_ipv6=True)
        return socket.create_server(("", port), backlog=_BACKLOG)
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = found[0]
    return socket.create_server((str(address[0]), int(address[1])), family=family, backlog=_BACKLOG)


def _keep_alive(sock: socket.socket) -> None:
    """Notice within two minutes that a peer's machine is gone: nothing is ever sent to a node whose sessions have expired."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 20), (socket.TCP_KEEPCNT, 3)):
        sock.setsockopt(socket.IPPROTO_TCP, option, value)


def _address(name: tuple[str, int] | tuple[str, int, int, int]) -> str:
    host = name[0].removeprefix("::ffff:")
    return f"[{host}]:{name[1]}" if ":" in host else f"{host}:{name[1]}"
