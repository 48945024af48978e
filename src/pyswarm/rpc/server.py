"""The two servers of a manager: the remote port for other nodes, the control socket for whoever may open the file.

Both: `await listen()` binds or says why it cannot, `run()` serves until cancelled and then ends gracefully.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import Callable, Container, Sequence
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import structlog

from pyswarm.ca.credentials import Credentials, SecurityConfig
from pyswarm.ca.files import ensure_directory
from pyswarm.clock import Clock
from pyswarm.errors import FailedPrecondition, InvalidArgument
from pyswarm.rpc import forward, tls
from pyswarm.rpc.authorize import Policy
from pyswarm.rpc.binder import Gate, Service, Streams, handlers, method_handlers
from pyswarm.rpc.forward import LeaderDirectory, LeaderDoor
from pyswarm.rpc.front import Front, Limits
from pyswarm.rpc.gates import LocalGate, RemoteGate

log = structlog.get_logger(__name__)

STOP_SECONDS = 8.0
INNER_SERVERS = 16
"""gRPC's server for asyncio takes in one call at a time, and each takes some six turns of the loop: while these are long, a few hundred
calls at once would wait for seconds. So there are several servers, among which the connections are dealt out."""

_URGENT = {"docker.swarmkit.v1.Dispatcher": frozenset({"Heartbeat"})}
"""Methods that have a queue of their own at each server, so that they do not wait behind the others."""
STREAMS_SECONDS = 0.25
"""How long streams are given for a last message when a server stops; calls with one answer have the longer time."""

_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),
    # Peers ping as they like: a worker behind a stateful firewall does so every few seconds.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # No pings to measure the line: what comes in comes from the front, a process-local socket. The window is fixed instead.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 256 * 1024),
]
_UNIX_PATH_MAX = 107


class ListenError(FailedPrecondition):
    """An address or socket cannot be served; the message names it and the way out."""


class RemoteServer:
    """The remote port: TLS front, private gRPC server behind it, authorization of every call."""

    def __init__(
        self,
        *,
        services: Sequence[Service],
        security: SecurityConfig,
        directory: LeaderDirectory,
        blacklist: Callable[[], Container[str]],
        inner_directory: Path,
        clock: Clock,
        limits: Limits | None = None,
    ) -> None:
        """`blacklist` returns the node ids whose certificates are no longer accepted, asked at every call; `inner_directory` (made 0700)
        holds the private socket.
        """
        self._services = services
        self._security = security
        self._policy = lambda: Policy(security.current.organization, blacklist())
        self._door = LeaderDoor(directory, clock)
        self._inner_directory = inner_directory
        self._clock = clock
        self._limits = limits
        self._stack = contextlib.AsyncExitStack()
        self._streams = Streams()
        self._front: Front
        self._servers: list[grpc.aio.Server] = []
        self.address = ""

    async def listen(self, address: str) -> str:
        """Bind `host:port` (an empty host means all addresses, port 0 any); returns the address bound, also kept in `address`.

        Raises InvalidArgument for an address that is none, ListenError when it cannot be had.
        """
        host, port = split_address(address)
        paths = self._inner_paths()
        self._front = Front(tls.server_context(self._security.current), paths, self._clock, self._limits)
        try:
            bound_host, bound_port = await self._front.listen(host, port)
        except OSError as error:
            await self._stack.aclose()
            raise ListenError(
                f"failed to listen on remote API address {address}: {error.strerror or error}; "
                "stop the other process or choose another address with --listen-remote-api"
            ) from error
        self.address = f"[{bound_host}]:{bound_port}" if ":" in bound_host else f"{bound_host}:{bound_port}"
        gate = RemoteGate(self._front, self._policy, self._door)
        for path in paths:
            server = grpc.aio.server(handlers=handlers(self._services, gate, self._streams), options=_OPTIONS)
            registry: Any = server  # the type stubs do not know the method yet
            for name, urgent in _urgent(self._services, gate, self._streams).items():
                registry.add_registered_method_handlers(name, urgent)
            server.add_insecure_port(f"unix:{path}")
            await server.start()
            self._servers.append(server)
        return self.address

    async def run(self) -> None:
        """Serve until cancelled; then refuse new connections, let calls end for up to eight seconds, cut the rest."""
        log.info("listening for connections", addr=self.address, proto="tcp")
        undo = self._security.subscribe(self._on_credentials)
        self._on_credentials(self._security.current)
        try:
            await self._front.run()
        finally:
            undo()
            await self.close()

    async def close(self) -> None:
        """What `run()` does at its end; for a server that was bound and never ran. May be called twice."""
        self._door.close()
        if self._servers:
            self._front.stop_accepting()
            await self._streams.end(STREAMS_SECONDS)
            await asyncio.gather(*(server.stop(STOP_SECONDS) for server in self._servers))
            self._front.close()
        await self._stack.aclose()

    def disconnect(self, node_id: str) -> int:
        """Cut the connections of a removed node; returns how many."""
        return self._front.disconnect(node_id)

    def _on_credentials(self, credentials: Credentials) -> None:
        self._front.replace_context(tls.server_context(credentials))

    def _inner_paths(self) -> list[str]:
        """Paths to the private sockets that fit a socket address however long the state directory's name is."""
        ensure_directory(self._inner_directory, 0o700)
        self._inner_directory.chmod(0o700)
        sockets = [self._inner_directory / f"inner-{number}.sock" for number in range(INNER_SERVERS)]
        for path in sockets:
            path.unlink(missing_ok=True)
            self._stack.callback(path.unlink, missing_ok=True)
        descriptor = os.open(self._inner_directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._stack.callback(os.close, descriptor)
        return [f"/proc/self/fd/{descriptor}/{path.name}" for path in sockets]


class ControlServer:
    """The control socket: TLS with the node certificate, no client certificate, no authorization. Whoever may open the file may call."""

    def __init__(
        self,
        *,
        services: Sequence[Service],
        security: SecurityConfig,
        directory: LeaderDirectory,
        remote_addr: Callable[[], str],
        clock: Clock,
    ) -> None:
        """`remote_addr` returns what callers' address counts as: this manager's own. Raft services are left out."""
        self._services = [service for service in services if service.descriptor.name not in forward.NOT_ON_LOCAL]
        self._security = security
        self._door = LeaderDoor(directory, clock)
        self._gate = LocalGate(security, remote_addr, self._door)
        self._path: Path | None = None
        self._streams = Streams()
        self._server: grpc.aio.Server | None = None
        self._certificate: grpc.ServerCertificateConfiguration | None = None
        self._fetched: grpc.ServerCertificateConfiguration | None = None

    async def listen(self, path: Path) -> None:
        """Bind the socket. A stale file is replaced, one on which somebody answers is not. Raises ListenError."""
        try:
            await asyncio.to_thread(_prepare_socket, path)
        except OSError as error:
            raise ListenError(f"failed to listen on control API address {path}: {error.strerror or error}") from error
        self._server = grpc.aio.server(handlers=handlers(self._services, self._gate, self._streams), options=_OPTIONS)
        credentials = grpc.dynamic_ssl_server_credentials(_certificate(self._security.current), self._fetch)
        try:
            _bind(self._server, path, credentials)
        except (RuntimeError, OSError) as error:
            raise ListenError(f"failed to listen on control API address {path}: {error}") from error
        self._path = path
        await self._server.start()

    async def run(self) -> None:
        """Serve until cancelled; then let calls end for up to eight seconds and remove the socket."""
        if self._server is None:
            raise RuntimeError("listen() comes before run()")
        log.info("listening for local connections", addr=str(self._path), proto="unix")
        undo = self._security.subscribe(self._on_credentials)
        self._on_credentials(self._security.current)
        try:
            # Not the server's own wait_for_termination(): cancelling that breaks the stop() that follows.
            await asyncio.Event().wait()
        finally:
            undo()
            await self.close()

    async def close(self) -> None:
        """What `run()` does at its end; for a server that was bound and never ran. May be called twice."""
        self._door.close()
        if self._server is not None:
            await self._streams.end(STREAMS_SECONDS)
            await self._server.stop(STOP_SECONDS)
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            self._path = None

    def _on_credentials(self, credentials: Credentials) -> None:
        self._certificate = _certificate(credentials)

    def _fetch(self) -> Any:
        """Called by gRPC, in a thread of its own, at every handshake; None means that nothing changed.

        Nothing is taken away here: a certificate that arrives in the same moment would be lost, and the old one shown until it expires.
        """
        newest = self._certificate
        if newest is self._fetched:
            return None
        self._fetched = newest
        return newest


def split_address(address: str, what: str = "listen address") -> tuple[str, int]:
    """`host:port`, `:port` or `[v6]:port` as host and port. Raises InvalidArgument that calls the address `what`."""
    host, separator, port = address.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not separator or not port.isdecimal() or int(port) > 65535 or (":" in host and bare == host):
        raise InvalidArgument(f"missing or invalid {what} {address}; give it as host:port")
    return bare, int(port)


def _urgent(services: Sequence[Service], gate: Gate, streams: Streams) -> dict[str, dict[str, Any]]:
    """The handlers of the urgent methods, by service and name."""
    found = {service.descriptor.full_name: service for service in services}
    return {
        name: {method: handler for method, handler in method_handlers(found[name], gate, streams).items() if method in urgent}
        for name, urgent in _URGENT.items()
        if name in found
    }


def _bind(server: grpc.aio.Server, path: Path, credentials: grpc.ServerCredentials) -> None:
    server.add_secure_port(f"unix:{path}", credentials)
    path.chmod(0o600)


def _certificate(credentials: Credentials) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(credentials.key_pem, credentials.cert_pem)])


def _prepare_socket(path: Path) -> None:
    """Make the place free for a socket. Raises ListenError when it is not, OSError when it cannot be looked at."""
    if len(os.fsencode(path)) > _UNIX_PATH_MAX:
        raise ListenError(
            f"control API socket {path}: the path is longer than {_UNIX_PATH_MAX} bytes; choose a shorter --listen-control-api"
        )
    ensure_directory(path.parent, 0o700)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ListenError(f"control API socket {path}: a file that is no socket is there; remove it or choose another --listen-control-api")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except TimeoutError:
            pass  # its queue is full: somebody is there
    raise ListenError(f"control API socket {path}: another process answers there; stop it or choose another --listen-control-api")
