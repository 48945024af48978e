"""The remote port over real sockets: who gets in, as whom, and what happens to those who do not."""

# ruff: noqa: SIM117 - one server, one client, one failure: a block each reads better
from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import grpc
import grpc.aio
import pytest

from pyswarm.api import v1 as api
from pyswarm.api.swarmkit.ca_pb2_grpc import CAStub
from pyswarm.api.swarmkit.control_pb2_grpc import ControlStub
from pyswarm.api.swarmkit.dispatcher_pb2_grpc import DispatcherStub
from pyswarm.ca.credentials import Credentials
from pyswarm.clock import SystemClock
from pyswarm.errors import InvalidArgument
from pyswarm.rpc import channel, tls
from pyswarm.rpc.caller import MANAGER, WORKER, Caller
from pyswarm.rpc.front import Front, Limits
from pyswarm.rpc.server import INNER_SERVERS, ListenError, RemoteServer, split_address
from tests.rpc.pki import Authority, Leader, Toy, manager_security, remote_port, toy_services, until

Inner = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(scope="module")
def authority() -> Authority:
    """The cluster's root."""
    return Authority()


SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
SETTINGS_ACK = bytes([0, 0, 0, 4, 1, 0, 0, 0, 0])
"""HTTP/2 frames without content."""


@pytest.fixture
def toy() -> Toy:
    """What answers behind the port."""
    return Toy()


@pytest.fixture
async def server(authority: Authority, toy: Toy, tmp_path: Path) -> AsyncIterator[RemoteServer]:
    """A running remote port."""
    async with remote_port(manager_security(authority), toy_services(toy), tmp_path / "rpc") as running:
        yield running


async def whoami(opened: grpc.aio.Channel, *, patient: bool = False) -> bytes:
    """Whom the port takes the channel's owner for. `patient`: a handshake that fails is tried again."""
    answer = await CAStub(opened).GetRootCACertificate(api.GetRootCACertificateRequest(), timeout=10, wait_for_ready=patient)
    return bytes(answer.certificate)


def client_context(
    authority: Authority, credentials: Credentials | None, version: ssl.TLSVersion, alpn: Sequence[str] = ("h2",)
) -> ssl.SSLContext:
    """A plain TLS client, for what gRPC does not show."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=authority.root.bundle.decode())
    if alpn:
        context.set_alpn_protocols(list(alpn))
    context.minimum_version = context.maximum_version = version
    if credentials is not None:
        tls.load_key_pair(context, credentials.cert_pem, credentials.key_pem)
    return context


@pytest.mark.parametrize(("node", "role"), [("worker-1", WORKER), ("manager-2", MANAGER)])
async def test_identity_is_the_certificates(authority: Authority, toy: Toy, server: RemoteServer, node: str, role: str) -> None:
    """A member is known by its certificate's CN, OU and O and by its real address. [ca 183]"""
    async with channel.connect(server.address, authority.issue(node, role)) as opened:
        await DispatcherStub(opened).Heartbeat(api.HeartbeatRequest(), timeout=10)
    (caller,) = toy.callers
    assert (caller.node_id, caller.roles, caller.organization) == (node, (role,), "cluster-1")
    assert caller.remote_addr.startswith("127.0.0.1:")
    assert not caller.remote_addr.endswith(":0")


async def test_without_certificate_only_insecure_methods(authority: Authority, server: RemoteServer) -> None:
    """Without a certificate the insecure methods work and the others answer with the well-known nested text. [ca 28, 158]"""
    async with channel.connect_anonymous(server.address, authority.root.bundle) as opened:
        assert await whoami(opened) == b"|"
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await DispatcherStub(opened).Heartbeat(api.HeartbeatRequest(), timeout=10)
    assert failure.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert failure.value.details() == (
        "Permission denied: unauthorized peer role: rpc error: code = PermissionDenied desc = no client certificates in request"
    )


async def test_worker_may_not_control(authority: Authority, server: RemoteServer) -> None:
    """A worker's certificate does not open the manager's services. [ca 159; control 158 in part]"""
    async with channel.connect(server.address, authority.issue("worker-1", WORKER)) as opened:
        with pytest.raises(grpc.aio.AioRpcError, match=r"not part of OUs: \[swarm-manager\]"):
            await ControlStub(opened).ListNodes(api.ListNodesRequest(), timeout=10)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_failed_verification_sends_an_alert(authority: Authority, server: RemoteServer, version: ssl.TLSVersion) -> None:
    """A certificate of another root or an expired one ends in the TLS alert that says so, not in a reset. [ca 28, 188]"""
    host, port = split_address(server.address)
    cases = {
        "unknown ca": Authority().issue("worker-1", WORKER),
        "certificate expired": authority.issue("worker-1", WORKER, expiry=3600, age=90_000),
    }
    for wanted, credentials in cases.items():
        context = client_context(authority, credentials, version)

        def talk(context: ssl.SSLContext = context) -> str:
            with socket.create_connection((host, port), timeout=10) as plain:
                try:
                    with context.wrap_socket(plain, server_hostname="swarm-manager") as secure:
                        secure.recv(1)
                except ssl.SSLError as error:
                    return str(error.reason).lower().replace("_", " ")
            return "no alert"

        assert wanted in await asyncio.to_thread(talk)


async def test_foreign_certificate_is_refused_by_grpc(server: RemoteServer, authority: Authority) -> None:
    """A bad certificate is not treated as none: not even an insecure method answers. [ca 183]"""
    foreign = Authority().issue("worker-1", WORKER)
    opened = grpc.aio.secure_channel(
        server.address,
        grpc.ssl_channel_credentials(authority.root.bundle, foreign.key_pem, foreign.cert_pem),
        options=[("grpc.ssl_target_name_override", "swarm-manager"), ("grpc.use_local_subchannel_pool", 1)],
    )
    async with opened:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await whoami(opened)
    assert failure.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("says", "understood"), [(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SETTINGS, True), (b"GET / HTTP/1.1\r\n\r\n", False)]
)
async def test_peers_must_speak_http2(authority: Authority, server: RemoteServer, says: bytes, understood: bool) -> None:
    """Without ALPN it is the first bytes that count: settings for HTTP/2 are acknowledged, whoever speaks HTTP/1.1 is hung up on.

    Docker Engines up to 20.10 offer no ALPN once they have renewed their certificate.
    """
    context = client_context(authority, None, ssl.TLSVersion.TLSv1_3, alpn=())
    host, port = split_address(server.address)

    def talk() -> bool:
        with socket.create_connection((host, port), timeout=10) as plain, context.wrap_socket(plain, server_hostname="swarm-ca") as secure:
            assert secure.selected_alpn_protocol() is None
            secure.sendall(says)
            received = b""
            while SETTINGS_ACK not in received and (more := secure.recv(100)):
                received += more
            return SETTINGS_ACK in received

    assert await asyncio.to_thread(talk) is understood


async def test_old_tls_is_refused(authority: Authority, server: RemoteServer) -> None:
    """TLS 1.2 works with the strong suites only; anything older fails."""
    host, port = split_address(server.address)
    context = client_context(authority, None, ssl.TLSVersion.TLSv1_2)
    context.set_ciphers("AES128-SHA")

    def talk() -> None:
        with socket.create_connection((host, port), timeout=10) as plain:
            context.wrap_socket(plain, server_hostname="swarm-ca")

    with pytest.raises(ssl.SSLError):
        await asyncio.to_thread(talk)


async def test_identities_never_mix(authority: Authority, server: RemoteServer) -> None:
    """Many connections at once with different certificates and none: each call is its own owner's; nothing is remembered after. [ca 184]"""
    names = [f"worker-{number}" for number in range(20)]
    opened = [channel.connect(server.address, authority.issue(name, WORKER)) for name in names]
    opened += [channel.connect_anonymous(server.address, authority.root.bundle) for _ in range(5)]
    expected = [f"{name}|swarm-worker".encode() for name in names] + [b"|"] * 5
    for _ in range(3):
        assert await asyncio.gather(*(whoami(one) for one in opened)) == expected
    for one in opened:
        await one.close(None)
    front = server._front
    await until(lambda: front.connections == 0 and not front._peers)


async def test_nobody_gets_around_the_front(tmp_path: Path, server: RemoteServer) -> None:
    """A call on the private socket is refused, insecure methods included; its directory is private. [ca 185]"""
    directory = tmp_path / "rpc"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    # Path names in socket addresses are short; the test's directory may be long.
    with contextlib.chdir(directory):
        async with grpc.aio.insecure_channel("unix:inner-0.sock") as opened:
            with pytest.raises(grpc.aio.AioRpcError) as failure:
                await whoami(opened)
    assert failure.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert failure.value.details() == "Permission denied: no peer info"


async def test_heartbeats_overtake(authority: Authority, tmp_path: Path) -> None:
    """A heartbeat does not wait behind the other calls that came before it on its connection."""
    answered: list[str] = []

    class Busy(Toy):
        async def GetRootCACertificate(  # noqa: N802
            self, request: api.GetRootCACertificateRequest, caller: Caller
        ) -> api.GetRootCACertificateResponse:
            answered.append("other")
            return await super().GetRootCACertificate(request, caller)

        async def Heartbeat(self, request: api.HeartbeatRequest, caller: Caller) -> api.HeartbeatResponse:  # noqa: N802
            answered.append("beat")
            return await super().Heartbeat(request, caller)

    async with remote_port(manager_security(authority), toy_services(Busy()), tmp_path / "rpc") as server:
        async with channel.connect(server.address, authority.issue("worker-1", WORKER)) as opened:
            await whoami(opened)
            beat = DispatcherStub(opened).Heartbeat
            await asyncio.gather(*(whoami(opened) for _ in range(300)), beat(api.HeartbeatRequest(), timeout=10))
    assert answered.index("beat") < len(answered) - 50


async def test_connections_are_dealt_out(authority: Authority, toy: Toy, tmp_path: Path) -> None:
    """The servers behind the front share the connections, and each of them knows who is who."""
    async with remote_port(manager_security(authority), toy_services(toy), tmp_path / "rpc") as server:
        names = [f"worker-{number}" for number in range(2 * INNER_SERVERS + 1)]
        async with contextlib.AsyncExitStack() as stack:
            opened = [await stack.enter_async_context(channel.connect(server.address, authority.issue(name, WORKER))) for name in names]
            beats = (DispatcherStub(one).Heartbeat(api.HeartbeatRequest(), timeout=10) for one in opened)
            await asyncio.gather(*beats)
    assert sorted(caller.node_id for caller in toy.callers) == sorted(names)


async def test_certificate_swap(authority: Authority, toy: Toy, tmp_path: Path) -> None:
    """After a renewal old connections live on and new ones get the new chain. [ca 186]"""
    security = manager_security(authority)
    async with remote_port(security, toy_services(toy), tmp_path / "rpc") as server:
        async with channel.connect_anonymous(server.address, authority.root.bundle) as before:
            assert await whoami(before) == b"|"
            renewed = authority.issue("manager-1", MANAGER)
            security.replace_certificate(renewed.cert_pem, renewed.key_pem)
            assert await whoami(before) == b"|"
            host, port = split_address(server.address)
            leaf = await asyncio.to_thread(ssl.get_server_certificate, (host, port), timeout=10)
            assert leaf.encode().strip() == renewed.cert_pem.strip()


async def test_dropped_root_is_no_longer_trusted(authority: Authority, toy: Toy, tmp_path: Path) -> None:
    """When a root leaves the bundle, certificates under it alone stop working for new connections. [ca 186]"""
    security = manager_security(authority)
    other = Authority()
    async with remote_port(security, toy_services(toy), tmp_path / "rpc") as server:
        stranger = other.issue("worker-9", WORKER)
        both = Credentials(**{**_fields(stranger), "root_pem": authority.root.bundle})
        security.replace_root(authority.root.bundle + other.root.bundle)
        async with channel.connect(server.address, both) as opened:
            assert await whoami(opened) == b"worker-9|swarm-worker"
        security.replace_root(authority.root.bundle)
        async with channel.connect(server.address, both) as opened:
            with pytest.raises(grpc.aio.AioRpcError):
                await whoami(opened)


def _fields(credentials: Credentials) -> dict[str, object]:
    return {name: getattr(credentials, name) for name in Credentials.__dataclass_fields__}


async def test_stalled_handshake_is_cut(authority: Authority, toy: Toy, tmp_path: Path) -> None:
    """Who connects and says nothing is cut after the time-out; others are served meanwhile, also when they have to queue. [ca 187]"""
    limits = Limits(handshake_seconds=1.0, handshakes=1)
    async with remote_port(manager_security(authority), toy_services(toy), tmp_path / "rpc", limits=limits) as server:
        host, port = split_address(server.address)
        reader, writer = await asyncio.open_connection(host, port)
        await until(lambda: server._front.connections == 1)
        async with channel.connect_anonymous(server.address, authority.root.bundle) as opened:
            assert await whoami(opened, patient=True) == b"|"
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()


async def test_too_many_connections(authority: Authority, toy: Toy, tmp_path: Path) -> None:
    """Above the limit a connection is cut at once."""
    async with remote_port(manager_security(authority), toy_services(toy), tmp_path / "rpc", limits=Limits(connections=1)) as server:
        host, port = split_address(server.address)
        first, keep = await asyncio.open_connection(host, port)
        await until(lambda: server._front.connections == 1)
        second, writer = await asyncio.open_connection(host, port)
        with contextlib.suppress(ConnectionError):
            assert await second.read() == b""
        assert not first.at_eof()
        keep.close()
        writer.close()


@contextlib.asynccontextmanager
async def bare_front(authority: Authority, directory: Path, inner: Inner) -> AsyncIterator[tuple[Front, str, int]]:
    """A front whose inner server is a plain stream server instead of gRPC."""
    with contextlib.chdir(directory):
        listening = await asyncio.start_unix_server(inner, "inner.sock", limit=65536)
        front = Front(tls.server_context(authority.issue("manager-1", MANAGER)), ["inner.sock"], SystemClock())
        host, port = await front.listen("127.0.0.1", 0)
        running = asyncio.create_task(front.run())
        try:
            yield front, host, port
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            front.close()
            listening.close()
            await until(lambda: front.connections == 0 and not front._peers)


async def test_slow_readers_are_not_buffered_for(authority: Authority, tmp_path: Path) -> None:
    """Ten MiB each way past somebody who does not read: the front holds little, and all arrives once they read. [ca 187]"""
    size = 10 * 1024 * 1024
    reading = asyncio.Event()
    received = asyncio.Event()

    async def inner(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"x" * size)
        await reading.wait()
        assert len(await reader.readexactly(size)) == size
        received.set()
        await reader.read()
        writer.close()

    async with bare_front(authority, tmp_path, inner) as (front, host, port):
        context = client_context(authority, None, ssl.TLSVersion.TLSv1_3)
        reader, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname="swarm-manager", limit=65536)
        writer.write(b"y" * size)
        await until(lambda: bool(front._peers))
        (leg,) = front._legs
        await until(lambda: leg._inner is not None and not leg._inner.transport.is_reading() and not leg.transport.is_reading())
        assert leg._inner is not None
        assert leg.transport.get_write_buffer_size() < 1024 * 1024
        assert leg._inner.transport.get_write_buffer_size() < 1024 * 1024
        reading.set()
        assert len(await reader.readexactly(size)) == size
        await asyncio.wait_for(received.wait(), 10)
        writer.close()
        await writer.wait_closed()


async def test_removed_node_is_disconnected(authority: Authority, toy: Toy, tmp_path: Path) -> None:
    """A blacklisted node is refused, and its standing connections can be cut. [ca 160; dispatcher 175]"""
    removed: set[str] = set()
    async with remote_port(manager_security(authority), toy_services(toy), tmp_path / "rpc", blacklist=lambda: removed) as server:
        async with channel.connect(server.address, authority.issue("worker-1", WORKER)) as opened:
            stream = DispatcherStub(opened).Session(api.SessionRequest())
            assert (await stream.read()).session_id == "worker-1"
            assert (await stream.read()).session_id == "second"
            removed.add("worker-1")
            assert server.disconnect("worker-1") == 1
            with pytest.raises(grpc.aio.AioRpcError):
                await stream.read()
        async with channel.connect(server.address, authority.issue("worker-1", WORKER)) as opened:
            with pytest.raises(grpc.aio.AioRpcError, match="node worker-1 was removed from swarm"):
                await DispatcherStub(opened).Heartbeat(api.HeartbeatRequest(), timeout=10, wait_for_ready=True)


async def test_port_in_use(authority: Authority, toy: Toy, tmp_path: Path, server: RemoteServer) -> None:
    """A port somebody else has is named, with the flag that helps."""
    with pytest.raises(ListenError, match=f"remote API address {server.address}: .*--listen-remote-api"):
        async with remote_port_at(authority, toy, tmp_path / "second", server.address):
            pass


@contextlib.asynccontextmanager
async def remote_port_at(authority: Authority, toy: Toy, directory: Path, address: str) -> AsyncIterator[RemoteServer]:
    """A remote port bound to `address`, not running."""
    server = RemoteServer(
        services=toy_services(toy),
        security=manager_security(authority),
        directory=Leader(),
        blacklist=tuple,
        inner_directory=directory,
        clock=SystemClock(),
    )
    await server.listen(address)
    yield server
    await server.close()


@pytest.mark.parametrize("address", ["", "4242", "host:", "host:x", "1.2.3.4:99999", "::1:4242"])
def test_bad_listen_address(address: str) -> None:
    """What is no host:port is refused by name."""
    with pytest.raises(InvalidArgument, match=f"missing or invalid listen address {address}"):
        split_address(address)


def test_good_listen_address() -> None:
    """An empty host and IPv6 in brackets are fine."""
    assert split_address(":4242") == ("", 4242)
    assert split_address("[::1]:4242") == ("::1", 4242)
    assert split_address("0.0.0.0:0") == ("0.0.0.0", 0)
