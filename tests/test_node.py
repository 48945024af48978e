"""The node process with stand-ins for manager and agent: identity, restart, joining, role changes, stop."""

# ruff: noqa: SIM117 - one cluster, one node: a block each reads better
from __future__ import annotations

import asyncio
import contextlib
import socket
import stat
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from pyswarm.api import v1 as api
from pyswarm.api.swarmkit import ca_pb2
from pyswarm.ca import csr, tokens
from pyswarm.ca.keystore import KeyStore
from pyswarm.clock import SystemClock, Timer
from pyswarm.errors import InvalidArgument, SwarmError
from pyswarm.node import AgentParts, ManagerParts, Node, NodeConfig
from pyswarm.node_state import Settings, StateDirectory, StateDirectoryError
from pyswarm.rpc.binder import bind
from pyswarm.rpc.caller import MANAGER, WORKER, Caller
from pyswarm.rpc.remotes import RemotePeer
from pyswarm.rpc.server import RemoteServer
from tests.rpc.pki import CLUSTER, Authority, manager_security, remote_port, until


class HastyClock(SystemClock):
    """The real time, with retries and delays of a few seconds cut short."""

    async def sleep(self, seconds: float) -> None:
        """Not for long, unless it would be for very long."""
        await super().sleep(_cut(seconds))

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """As `sleep`."""
        return super().call_later(_cut(seconds), callback)


def _cut(seconds: float) -> float:
    return seconds if seconds > 30 else min(seconds, 0.01)


class FakeExecutor:
    """Only what the node itself touches."""

    closed = False

    async def close(self) -> None:
        """Note it."""
        self.closed = True


@dataclass
class FakeManager:
    """A manager that runs until cancelled or removed, or fails."""

    parts: ManagerParts
    failure: BaseException | None = None
    removed: asyncio.Event = field(default_factory=asyncio.Event)
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    running: bool = False

    async def run(self) -> None:
        """Until cancelled or removed."""
        if self.failure is not None:
            raise self.failure
        self.running = True
        (self.parts.config.state_dir / "raft" / "wal-pyswarm").mkdir(parents=True, exist_ok=True)
        (self.parts.config.state_dir / "raft" / "wal-pyswarm" / "1").write_text("entry")
        try:
            self.ready.set()
            await self.removed.wait()
        finally:
            self.running = False

    def metrics(self) -> list[Metric]:
        """One number."""
        return [GaugeMetricFamily("swarm_manager_leader", "", value=1.0)]


@dataclass
class FakeAgent:
    """An agent that runs until cancelled."""

    parts: AgentParts
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    running: bool = False

    async def run(self) -> None:
        """Until cancelled."""
        self.running = True
        try:
            self.ready.set()
            await asyncio.Event().wait()
        finally:
            self.running = False


@dataclass
class News:
    """What a session says."""

    node: api.Node | None = None
    root_pem: bytes = b""


class World:
    """Starts nodes and keeps their parts at hand."""

    def __init__(self) -> None:
        self.managers: list[FakeManager] = []
        self.agents: list[FakeAgent] = []
        self.executor = FakeExecutor()
        self.manager_failure: BaseException | None = None

    def node(self, config: NodeConfig) -> Node:
        """A node with stand-ins."""
        executor: Any = self.executor
        return Node(config, executor, HastyClock(), manager=self._manager, agent=self._agent)

    def _manager(self, parts: ManagerParts) -> FakeManager:
        self.managers.append(FakeManager(parts, self.manager_failure))
        return self.managers[-1]

    def _agent(self, parts: AgentParts) -> FakeAgent:
        self.agents.append(FakeAgent(parts))
        return self.agents[-1]

    @contextlib.asynccontextmanager
    async def running(self, config: NodeConfig) -> AsyncIterator[Node]:
        """A node that became ready; stopped in good order at the end."""
        node = self.node(config)
        task = asyncio.create_task(node.run())
        ready = asyncio.create_task(node.ready.wait())
        await asyncio.wait([task, ready], return_when=asyncio.FIRST_COMPLETED, timeout=20)
        ready.cancel()
        if task.done():
            await task
        try:
            yield node
        finally:
            node.stop()
            await task


@pytest.fixture
def world() -> World:
    """Where nodes run."""
    return World()


class ToyCA:
    """A certificate authority of one token per role."""

    def __init__(self, authority: Authority) -> None:
        self.authority = authority
        self.worker_token = tokens.generate(authority.root.bundle)
        self.manager_token = tokens.generate(authority.root.bundle)
        self.roles: dict[str, str] = {}
        self._requests: dict[str, bytes] = {}

    async def GetRootCACertificate(  # noqa: N802
        self, request: api.GetRootCACertificateRequest, caller: Caller
    ) -> api.GetRootCACertificateResponse:
        """The bundle."""
        return api.GetRootCACertificateResponse(certificate=self.authority.root.bundle)

    async def GetUnlockKey(self, request: api.GetUnlockKeyRequest, caller: Caller) -> api.GetUnlockKeyResponse:  # noqa: N802
        """Not locked."""
        return api.GetUnlockKeyResponse()

    async def IssueNodeCertificate(  # noqa: N802
        self, request: api.IssueNodeCertificateRequest, caller: Caller
    ) -> api.IssueNodeCertificateResponse:
        """By token, or for a member who renews."""
        known = {self.worker_token: WORKER, self.manager_token: MANAGER}
        node_id = caller.node_id or f"node-{len(self.roles) + 1}"
        if not caller.node_id:
            if request.token not in known:
                raise InvalidArgument("A valid join token is necessary to join this cluster")
            self.roles[node_id] = known[request.token]
        self._requests[node_id] = request.csr
        return api.IssueNodeCertificateResponse(node_id=node_id)

    async def NodeCertificateStatus(  # noqa: N802
        self, request: api.NodeCertificateStatusRequest, caller: Caller
    ) -> api.NodeCertificateStatusResponse:
        """Signed at once."""
        csr_pem = self._requests[request.node_id]
        chain = self.authority.root.sign_csr(csr_pem, request.node_id, self.roles[request.node_id], CLUSTER, 7200.0, time.time())
        status = api.IssuanceStatus(state=api.IssuanceStatus.ISSUED)
        return api.NodeCertificateStatusResponse(status=status, certificate=api.Certificate(csr=csr_pem, certificate=chain, status=status))


@contextlib.asynccontextmanager
async def cluster(directory: Path) -> AsyncIterator[tuple[ToyCA, RemoteServer]]:
    """Something to join."""
    toy = ToyCA(Authority())
    services = [bind(ca_pb2.DESCRIPTOR.services_by_name[name], toy) for name in ("CA", "NodeCA")]
    async with remote_port(manager_security(toy.authority), services, directory / "rpc") as server:
        yield toy, server


def config(directory: Path, **settings: Any) -> NodeConfig:
    """A configuration with a state directory that does not exist yet."""
    return NodeConfig(directory / "state", Settings(listen_control_api=str(directory / "swarm.sock"), **settings))


async def failure_of(node: Node) -> SwarmError:
    """Why a node ends."""
    with pytest.raises(SwarmError) as failure:
        await asyncio.wait_for(node.run(), 20)
    assert "\n" not in failure.value.message
    return failure.value


async def test_first_start_founds_a_cluster(world: World, tmp_path: Path) -> None:
    """Without join address a node founds a cluster: manager with the new root, agent on its socket. [dispatcher 181]"""
    async with world.running(config(tmp_path)) as node:
        (manager,), (agent,) = world.managers, world.agents
        assert (await manager.parts.signing_root()).signer is not None
        assert not manager.parts.join
        assert agent.parts.broker.local == tmp_path / "swarm.sock"
        assert agent.parts.security.current.node_id == node.node_id
        assert agent.running
    state = tmp_path / "state"
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert stat.S_IMODE((state / "certificates" / "swarm-node.key").stat().st_mode) == 0o600
    assert not manager.running
    assert not agent.running
    assert world.executor.closed
    assert not (state / "certificates" / ".founding").exists()


async def test_restart_keeps_identity_and_settings(world: World, tmp_path: Path) -> None:
    """The next start is the same node, with the settings of the first."""
    async with world.running(config(tmp_path, hostname="one", listen_remote_api="127.0.0.1:7")) as first:
        pass
    saved = StateDirectory(tmp_path / "state").load_settings()
    assert saved is not None
    assert (saved.hostname, saved.listen_remote_api) == ("one", "127.0.0.1:7")
    async with world.running(NodeConfig(tmp_path / "state", saved)) as second:
        assert second.node_id == first.node_id
        assert not world.managers[-1].parts.join


async def test_one_daemon_per_directory(world: World, tmp_path: Path) -> None:
    """A second daemon on the same directory is refused by name and changes nothing."""
    async with world.running(config(tmp_path)):
        error = await failure_of(World().node(config(tmp_path)))
        assert isinstance(error, StateDirectoryError)
        assert f"state directory {tmp_path / 'state'} is in use by another pyswarmd (process " in error.message
    async with world.running(config(tmp_path)):
        pass


async def test_unusable_directory(world: World, tmp_path: Path) -> None:
    """A directory that cannot be made is named, with the flag that helps."""
    (tmp_path / "file").write_text("")
    error = await failure_of(world.node(NodeConfig(tmp_path / "file" / "state")))
    assert f"cannot use state directory {tmp_path / 'file' / 'state'}" in error.message
    assert "--state-dir" in error.message


async def test_join_and_restart_without_flags(world: World, tmp_path: Path) -> None:
    """A token and an address make a worker; afterwards neither is needed. [dispatcher 184] [dispatcher 193]"""
    async with cluster(tmp_path) as (toy, server):
        joining = replace(config(tmp_path), join_addr=server.address, join_token=toy.worker_token)
        async with world.running(joining) as node:
            assert node.node_id == "node-1"
            assert not world.managers
            assert world.agents[0].parts.broker.local is None
            assert list(world.agents[0].parts.broker.remotes.weights()) == [RemotePeer("", server.address)]
        async with world.running(config(tmp_path)) as again:
            assert again.node_id == "node-1"
            assert list(world.agents[1].parts.broker.remotes.weights()) == [RemotePeer("", server.address)]
        key = tmp_path / "state" / "certificates" / "swarm-node.key"
        before = key.read_bytes()
        async with world.running(replace(joining, join_token="SWMTKN-1-" + "0" * 50 + "-" + "0" * 25)):
            assert key.read_bytes() == before


@pytest.mark.parametrize(
    ("token", "text"),
    [
        (lambda toy: "garbage", "invalid join token; copy the whole token"),
        (lambda toy: "", "A valid join token is necessary to join this cluster; the one given is missing"),
        (lambda toy: toy.worker_token[:-25] + "0" * 25, "A valid join token is necessary to join this cluster; the one given is missing"),
        (lambda toy: tokens.generate(Authority().root.bundle), "the token is another cluster's"),
    ],
)
async def test_bad_tokens(world: World, tmp_path: Path, token: Callable[[ToyCA], str], text: str) -> None:
    """A malformed, missing, wrong or foreign token: one line, and nothing is left behind. [dispatcher 194]"""
    async with cluster(tmp_path) as (toy, server):
        joining = replace(config(tmp_path), join_addr=server.address, join_token=token(toy))
        error = await failure_of(world.node(joining))
        assert error.message.startswith(f"cannot join the cluster at {server.address}: ")
        assert text in error.message
        assert {path.name for path in (tmp_path / "state").iterdir()} == {"daemon.lock"}
        async with world.running(replace(joining, join_token=toy.worker_token)):
            pass


async def test_nobody_to_join(world: World, tmp_path: Path) -> None:
    """An address where nobody listens is named. [dispatcher 184; cli 93]"""
    joining = replace(config(tmp_path), join_addr="127.0.0.1:1", join_token=tokens.generate(Authority().root.bundle))
    error = await failure_of(world.node(joining))
    assert "cannot join the cluster at 127.0.0.1:1: " in error.message
    assert "--join-addr" in error.message


async def test_directory_of_another_cluster(world: World, tmp_path: Path) -> None:
    """Who asks for another cluster than the one on disk is told so; the disk stays as it is. [dispatcher 193; ca 79 in part]"""
    async with world.running(config(tmp_path)):
        pass
    root = tmp_path / "state" / "certificates" / "swarm-root-ca.crt"
    before = root.read_bytes()
    async with cluster(tmp_path) as (toy, server):
        error = await failure_of(world.node(replace(config(tmp_path), join_addr=server.address, join_token=toy.worker_token)))
        assert "belong to another cluster" in error.message
        assert root.read_bytes() == before


async def test_stop_while_joining(world: World, tmp_path: Path) -> None:
    """A stop ends a join that would go on for long."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        node = world.node(replace(config(tmp_path), join_addr=address, join_token=tokens.generate(Authority().root.bundle)))
        task = asyncio.create_task(node.run())
        await until((tmp_path / "state").exists)
        node.stop()
        await asyncio.wait_for(task, 10)
    assert {path.name for path in (tmp_path / "state").iterdir()} == {"daemon.lock"}


async def test_locked_node(world: World, tmp_path: Path) -> None:
    """A locked node says how to unlock it; with the key it starts. [dispatcher 183]"""
    async with world.running(replace(config(tmp_path), autolock=True)):
        key = world.managers[0].parts.keystore.kek
        assert len(key) == 32
    error = await failure_of(world.node(config(tmp_path)))
    assert error.message.startswith("node is locked, and needs a valid unlock key")
    assert "--unlock-key" in error.message
    async with world.running(replace(config(tmp_path), unlock_key=key)):
        pass


async def test_manager_failure_ends_the_node(world: World, tmp_path: Path) -> None:
    """What stops the manager stops the node, with its reason."""
    world.manager_failure = BaseExceptionGroup("", [SwarmError("failed to listen on remote API address 127.0.0.1:7: in use")])
    error = await failure_of(world.node(config(tmp_path)))
    assert error.message == "manager stopped: failed to listen on remote API address 127.0.0.1:7: in use"
    assert world.executor.closed


async def test_demotion_stops_the_manager(world: World, tmp_path: Path) -> None:
    """A worker's certificate ends the manager, removes its log and keeps the agent. [dispatcher 189; store 114]"""
    async with world.running(config(tmp_path)) as node:
        (manager,) = world.managers
        root = await manager.parts.signing_root()
        security = manager.parts.security
        me = security.current
        request, key = csr.generate()
        chain = root.sign_csr(request, me.node_id, WORKER, me.organization, 7200.0, time.time())
        security.replace_certificate(chain, key)
        await until(lambda: not (tmp_path / "state" / "raft").exists())
        assert not manager.running
        assert world.agents[0].running
        assert world.agents[0].parts.broker.local is None
        assert KeyStore(tmp_path / "state" / "certificates").data_keys() is None
        assert node.ready.is_set()


async def test_promotion_and_demotion(world: World, tmp_path: Path) -> None:
    """A desired role leads to a new certificate, that to a manager which asks others for membership; and back. [dispatcher 187; ca 89]"""
    async with cluster(tmp_path) as (toy, server):
        async with world.running(replace(config(tmp_path), join_addr=server.address, join_token=toy.worker_token)) as node:
            (agent,) = world.agents
            await change_role(toy, agent, node.node_id, MANAGER)
            await until(lambda: bool(world.managers) and world.managers[0].running)
            assert agent.parts.security.current.role == MANAGER
            assert world.managers[0].parts.join
            assert world.managers[0].parts.other_manager() == server.address
            await change_role(toy, agent, node.node_id, WORKER)
            await until(lambda: not world.managers[0].running)
            assert agent.running


async def test_removed_from_the_log(world: World, tmp_path: Path) -> None:
    """A manager that the others removed forgets the log, learns its role, and never founds a cluster of its own."""
    async with cluster(tmp_path) as (toy, server):
        async with world.running(replace(config(tmp_path), join_addr=server.address, join_token=toy.worker_token)) as node:
            (agent,) = world.agents
            await change_role(toy, agent, node.node_id, MANAGER)
            await until(lambda: bool(world.managers) and world.managers[0].running)
            toy.roles[node.node_id] = WORKER
            world.managers[0].removed.set()
            await until(lambda: agent.parts.security.current.role == WORKER or len(world.managers) > 1)
            assert not world.managers[0].running
            assert all(manager.parts.join for manager in world.managers)
            await until(lambda: not (tmp_path / "state" / "raft").exists())
            assert agent.running


async def change_role(toy: ToyCA, agent: FakeAgent, node_id: str, role: str) -> None:
    """What the cluster does: it wants another role, gives it, and tells the node."""
    toy.roles[node_id] = role
    wanted = api.NodeRole.MANAGER if role == MANAGER else api.NodeRole.WORKER
    await agent.parts.on_change(News(api.Node(id=node_id, spec=api.NodeSpec(desired_role=wanted))))


async def test_rotation_forces_a_renewal(world: World, tmp_path: Path) -> None:
    """A node object in state ROTATE makes the node renew, keeping its role. [dispatcher 196]"""
    async with cluster(tmp_path) as (toy, server):
        async with world.running(replace(config(tmp_path), join_addr=server.address, join_token=toy.worker_token)) as node:
            security = world.agents[0].parts.security
            before = security.current.cert_pem
            status = api.IssuanceStatus(state=api.IssuanceStatus.ROTATE)
            await world.agents[0].parts.on_change(News(api.Node(id=node.node_id, certificate=api.Certificate(status=status))))
            await until(lambda: security.current.cert_pem != before)
            assert security.current.role == WORKER


async def test_new_root_from_the_session(world: World, tmp_path: Path) -> None:
    """A bundle that validates the own certificate is trusted and saved, any other ignored. [dispatcher 186] [ca 148]"""
    file = tmp_path / "state" / "certificates" / "swarm-root-ca.crt"
    async with world.running(config(tmp_path)):
        (agent,) = world.agents
        own = file.read_bytes()
        other = Authority().root.bundle
        await agent.parts.on_change(News(root_pem=own + other))
        assert file.read_bytes() == own + other
        assert agent.parts.security.current.root_pem == own + other
        for useless in (other, b"garbage"):
            await agent.parts.on_change(News(root_pem=useless))
            assert file.read_bytes() == own + other


async def test_broken_files_are_named(world: World, tmp_path: Path) -> None:
    """Unreadable settings or peers stop the start with the file's name."""
    async with world.running(config(tmp_path)):
        pass
    state = tmp_path / "state"
    (state / "state.json").write_text("{")
    assert str(state / "state.json") in (await failure_of(world.node(config(tmp_path)))).message
    for broken in ("{", '{"version": 9}', '{"version": 1, "hostname": 5}', '{"version": 1, "colour": "red"}', "[]"):
        (state / "settings.json").write_text(broken)
        with pytest.raises(StateDirectoryError, match=str(state / "settings.json")):
            StateDirectory(state).load_settings()
