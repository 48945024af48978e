"""The control socket: whoever may open the file may call, with a pinned certificate or with the cluster's root."""

# ruff: noqa: SIM117 - one server, one client, one failure: a block each reads better
from __future__ import annotations

import asyncio
import contextlib
import socket
import stat
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from pyswarm.api import v1 as api
from pyswarm.api.swarmkit import raft_pb2
from pyswarm.api.swarmkit.control_pb2_grpc import ControlStub
from pyswarm.api.swarmkit.dispatcher_pb2_grpc import DispatcherStub
from pyswarm.ca.credentials import SecurityConfig
from pyswarm.clock import SystemClock
from pyswarm.rpc import channel
from pyswarm.rpc.binder import bind
from pyswarm.rpc.caller import MANAGER, Caller
from pyswarm.rpc.leaf import fetch_leaf
from pyswarm.rpc.server import ControlServer, ListenError
from tests.rpc.pki import Authority, Leader, Toy, manager_security, toy_services


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory with a name short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="ps-") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def authority() -> Authority:
    """The cluster's root."""
    return Authority()


def control(security: SecurityConfig, toy: Toy) -> ControlServer:
    """A control socket that serves `toy`."""
    raft = bind(raft_pb2.DESCRIPTOR.services_by_name["Raft"], toy)
    return ControlServer(
        services=[*toy_services(toy), raft],
        security=security,
        directory=Leader(),
        remote_addr=lambda: "192.0.2.7:4242",
        clock=SystemClock(),
    )


@contextlib.asynccontextmanager
async def serving(path: Path, security: SecurityConfig, toy: Toy) -> AsyncIterator[ControlServer]:
    """A running control socket."""
    server = control(security, toy)
    await server.listen(path)
    running = asyncio.create_task(server.run())
    await asyncio.sleep(0)
    try:
        yield server
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_local_caller_counts_as_this_manager(authority: Authority, directory: Path) -> None:
    """A call without certificate is the manager's own, from its advertised address; the file is the owner's and goes away at the end."""
    toy = Toy()
    security = manager_security(authority)
    path = directory / "new" / "swarm.sock"
    async with serving(path, security, toy):
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        async with channel.connect_local(path, security.current) as opened:
            await ControlStub(opened).ListNodes(api.ListNodesRequest(), timeout=10)
    assert toy.callers == [Caller("manager-1", "cluster-1", (MANAGER,), "192.0.2.7:4242", local=True)]
    assert not path.exists()


async def test_pinned_client(authority: Authority, directory: Path) -> None:
    """A client that knows no root pins the certificate shown and is served. [ca 189]"""
    toy = Toy()
    async with serving(directory / "swarm.sock", manager_security(authority), toy):
        async with await channel.connect_unverified(f"unix:{directory}/swarm.sock") as opened:
            await DispatcherStub(opened).Heartbeat(api.HeartbeatRequest(), timeout=10)
    assert toy.callers[0].local


async def test_raft_is_not_on_the_socket(authority: Authority, directory: Path) -> None:
    """Raft services answer on the remote port only."""
    security = manager_security(authority)
    async with serving(directory / "swarm.sock", security, Toy()):
        async with channel.connect_local(directory / "swarm.sock", security.current) as opened:
            call = opened.unary_unary("/docker.swarmkit.v1.Raft/ResolveAddress")
            with pytest.raises(grpc.aio.AioRpcError) as failure:
                await call(b"", timeout=10)
    assert failure.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_renewed_certificate_is_shown(authority: Authority, directory: Path) -> None:
    """After a renewal new clients see the new certificate, and old connections live on."""
    security = manager_security(authority)
    path = directory / "swarm.sock"
    async with serving(path, security, Toy()):
        async with channel.connect_local(path, security.current) as opened:
            await ControlStub(opened).ListNodes(api.ListNodesRequest(), timeout=10)
            renewed = authority.issue("manager-1", MANAGER)
            security.replace_certificate(renewed.cert_pem, renewed.key_pem)
            assert (await asyncio.to_thread(fetch_leaf, f"unix:{path}")).strip() == renewed.cert_pem.strip()
            await ControlStub(opened).ListNodes(api.ListNodesRequest(), timeout=10)


async def test_live_socket_is_refused(authority: Authority, directory: Path) -> None:
    """A socket on which a process answers is not taken from it."""
    security = manager_security(authority)
    path = directory / "swarm.sock"
    async with serving(path, security, Toy()):
        second = control(security, Toy())
        with pytest.raises(ListenError, match=f"{path}: another process answers there; .*--listen-control-api"):
            await second.listen(path)
        await second.close()
        assert path.exists()


async def test_stale_socket_is_replaced(authority: Authority, directory: Path) -> None:
    """A socket left by a process that died is replaced. [dispatcher 178]"""
    security = manager_security(authority)
    path = directory / "swarm.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with serving(path, security, Toy()), channel.connect_local(path, security.current) as opened:
        await ControlStub(opened).ListNodes(api.ListNodesRequest(), timeout=10)


async def test_other_files_are_not_touched(authority: Authority, directory: Path) -> None:
    """A file that is no socket stays, and so does one whose directory cannot be made; names that are too long are refused."""
    path = directory / "swarm.sock"
    path.write_text("mine")
    with pytest.raises(ListenError, match="no socket is there"):
        await control(manager_security(authority), Toy()).listen(path)
    assert path.read_text() == "mine"
    with pytest.raises(ListenError, match="failed to listen on control API address"):
        await control(manager_security(authority), Toy()).listen(path / "below" / "swarm.sock")
    with pytest.raises(ListenError, match="longer than 107 bytes"):
        await control(manager_security(authority), Toy()).listen(directory / ("x" * 120))


async def test_plaintext_is_not_spoken(authority: Authority, directory: Path) -> None:
    """The socket speaks TLS only, as peers' command lines expect."""
    async with serving(directory / "swarm.sock", manager_security(authority), Toy()):
        async with grpc.aio.insecure_channel(f"unix:{directory}/swarm.sock") as opened:
            with pytest.raises(grpc.aio.AioRpcError):
                await ControlStub(opened).ListNodes(api.ListNodesRequest(), timeout=3)
