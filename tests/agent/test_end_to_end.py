"""Dispatcher and agents together: in one process on virtual time, and once over gRPC on a Unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from pyswarm.agent.agent import Agent
from pyswarm.agent.client import Connection
from pyswarm.agent.disk import InlineDisk
from pyswarm.agent.executor.fake import FakeExecutor, FakeHost, Script
from pyswarm.api import v1 as api
from pyswarm.api.swarmkit import dispatcher_pb2
from pyswarm.ca.credentials import SecurityConfig
from pyswarm.clock import SystemClock
from pyswarm.errors import SwarmError, Unavailable
from pyswarm.manager.dispatcher import DispatcherService
from pyswarm.manager.store import Commit, Store
from pyswarm.rpc.binder import bind, handlers
from pyswarm.rpc.caller import WORKER, Caller
from pyswarm.rpc.remotes import RemotePeer, Remotes
from tests.agent.fakes import FakeBroker, credentials
from tests.manager.dispatcher.support import S, change, cluster, create, node, task
from tests.support.clock import VirtualClock, settle
from tests.support.log import MemoryLog, running_store
from tests.support.logs import WithoutLogs

N = api.NodeStatus


class Network:
    """Between one node and the managers: calls the service directly, or nothing while it is cut."""

    def __init__(self, node_id: str) -> None:
        self.caller = Caller(node_id=node_id, organization="o", roles=(WORKER,), remote_addr="10.0.0.1:5000")
        self.service: DispatcherService | None = None
        self.cut = False

    def client(self, _connection: Connection) -> DirectClient:
        """What the agent gets instead of a gRPC client."""
        return DirectClient(self)


class DirectClient(WithoutLogs):
    """A dispatcher client without sockets. A cut fails every call and every message."""

    def __init__(self, network: Network) -> None:
        self._network = network

    def _service(self) -> DispatcherService:
        if self._network.cut or self._network.service is None:
            raise Unavailable("connection refused")
        return self._network.service

    async def _stream(self, name: str, request: Any) -> AsyncGenerator[Any, None]:
        async with contextlib.aclosing(getattr(self._service(), name)(request, self._network.caller)) as stream:
            async for message in stream:
                self._service()
                yield message

    def session(self, request: api.SessionRequest) -> AsyncGenerator[api.SessionMessage, None]:
        """Session."""
        return self._stream("Session", request)

    def assignments(self, request: api.AssignmentsRequest) -> AsyncGenerator[api.AssignmentsMessage, None]:
        """Assignments."""
        return self._stream("Assignments", request)

    def tasks(self, request: api.TasksRequest) -> AsyncGenerator[api.TasksMessage, None]:
        """Tasks."""
        return self._stream("Tasks", request)

    async def heartbeat(self, request: api.HeartbeatRequest) -> api.HeartbeatResponse:
        """Heartbeat."""
        return await self._service().Heartbeat(request, self._network.caller)

    async def update_task_status(self, request: api.UpdateTaskStatusRequest) -> api.UpdateTaskStatusResponse:
        """UpdateTaskStatus."""
        return await self._service().UpdateTaskStatus(request, self._network.caller)

    async def update_volume_status(self, request: api.UpdateVolumeStatusRequest) -> api.UpdateVolumeStatusResponse:
        """UpdateVolumeStatus."""
        return await self._service().UpdateVolumeStatus(request, self._network.caller)

    async def close(self, success: bool) -> None:
        """Nothing to close."""


class Cluster:
    """One manager at a time and one node, in one process."""

    def __init__(self, store: Store, clock: VirtualClock, path: Path) -> None:
        self.store = store
        self.clock = clock
        self.path = path
        self.network = Network("n1")
        self.host = FakeHost()
        self.security = SecurityConfig(credentials(), clock)
        self.broker = FakeBroker()

    @contextlib.asynccontextmanager
    async def manager(self) -> AsyncIterator[DispatcherService]:
        """A leader's dispatcher."""
        service = DispatcherService(self.store, MemoryLog(self.store), self.clock, node_id="m1", rng=random.Random(2))
        running = asyncio.create_task(service.run())
        await settle()
        self.network.service = service
        try:
            yield service
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            self.network.service = None

    @contextlib.asynccontextmanager
    async def daemon(self, script: Script = Script()) -> AsyncIterator[Agent]:  # noqa: B008 - frozen
        """One life of the node's daemon."""
        agent = Agent(
            security=self.security,
            broker=self.broker,
            executor=FakeExecutor(self.clock, script, self.host),
            database=self.path,
            clock=self.clock,
            hostname="node-1",
            client=self.network.client,
            rng=random.Random(3),
            disk=InlineDisk(),
        )
        running = asyncio.create_task(agent.run())
        await self.clock.advance(1)
        try:
            yield agent
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def assign(self, *ids: str) -> None:
        """What orchestrator and scheduler do: tasks come to be, and are given to the node."""
        await create(self.store, *(task(i, S.PENDING) for i in ids))
        for i in ids:
            await change(self.store, api.Task(id=i), edit=lambda t: setattr(t.status, "state", S.ASSIGNED))
        await self.clock.advance(1)

    def state(self, task_id: str) -> int:
        """As stored."""
        found = self.store.tasks.get(task_id)
        assert found is not None
        return found.status.state

    @property
    def node_state(self) -> int:
        """As stored."""
        found = self.store.nodes.get("n1")
        assert found is not None
        return found.status.state


@pytest.fixture
async def swarm(store: Store, clock: VirtualClock, tmp_path: Path) -> Cluster:
    """A cluster object, a node object, a task database's path."""
    await create(store, cluster(), node())
    return Cluster(store, clock, tmp_path / "tasks.db")


async def test_task_life(swarm: Cluster) -> None:
    """Assigned, running, told to stop, gone: the store follows every step, and the container is removed with the object."""
    seen: list[int] = []
    async with swarm.manager(), swarm.daemon():
        assert swarm.node_state == N.READY
        swarm.store.on_commit(lambda c: seen.extend(e.obj.status.state for e in c.events if isinstance(e.obj, api.Task)))
        await swarm.assign("t")
        assert swarm.state("t") == S.RUNNING
        stored = swarm.store.tasks.get("t")
        assert stored is not None
        assert (stored.status.applied_by, stored.status.container.container_id) == ("m1", "t")
        await change(swarm.store, api.Task(id="t"), desired_state=S.SHUTDOWN)
        await swarm.clock.advance(1)
        assert swarm.state("t") == S.SHUTDOWN
        assert seen == sorted(seen)
        await swarm.store.update(lambda tx: tx.tasks.delete("t"))
        await swarm.clock.advance(1)
        assert swarm.host.containers == {}


async def test_secrets_arrive(swarm: Cluster) -> None:
    """A task that names a secret and a config gets them with the assignment."""
    async with swarm.manager(), swarm.daemon() as agent:
        await create(swarm.store, api.Secret(id="s", spec=api.SecretSpec(data=b"hush")), api.Config(id="c"))
        made = task("t", S.PENDING)
        made.spec.container.secrets.add(secret_id="s")
        made.spec.container.configs.add(config_id="c")
        await create(swarm.store, made)
        await change(swarm.store, made, edit=lambda t: setattr(t.status, "state", S.ASSIGNED))
        await swarm.clock.advance(1)
        assert agent._worker.dependencies.of(made).secret("s").spec.data == b"hush"
        assert agent._worker.dependencies.of(made).config("c").id == "c"


async def test_lost_and_found(swarm: Cluster) -> None:
    """A node cut off is DOWN after its grace, its tasks untouched; back again it is READY with the same tasks."""
    async with swarm.manager(), swarm.daemon():
        await swarm.assign("a", "b")
        calls = len(swarm.host.calls)
        swarm.network.cut = True
        await swarm.clock.advance(10)
        assert swarm.node_state == N.READY
        await swarm.clock.advance(10)
        assert swarm.node_state == N.DOWN
        assert swarm.state("a") == S.RUNNING
        swarm.host.end("b", 1)
        await swarm.clock.advance(1)
        swarm.network.cut = False
        await swarm.clock.advance(10)
        assert swarm.node_state == N.READY
        assert swarm.state("a") == S.RUNNING
        assert swarm.state("b") == S.FAILED
        assert swarm.host.calls[calls:] == []


async def test_short_cut_goes_unnoticed(swarm: Cluster) -> None:
    """A node back within its grace was never DOWN."""
    states: list[int] = []
    async with swarm.manager(), swarm.daemon():
        swarm.store.on_commit(lambda c: states.extend(e.obj.status.state for e in c.events if isinstance(e.obj, api.Node)))
        for _ in range(5):
            swarm.network.cut = True
            await swarm.clock.advance(4)
            swarm.network.cut = False
            await swarm.clock.advance(15)
        assert set(states) <= {N.READY}


async def test_daemon_restart_adopts(swarm: Cluster) -> None:
    """A restarted daemon adopts its containers: no second start, the node never DOWN, statuses as before."""
    async with swarm.manager():
        async with swarm.daemon():
            await swarm.assign("t")
        calls = len(swarm.host.calls)
        commits: list[Commit] = []
        swarm.store.on_commit(commits.append)
        async with swarm.daemon():
            assert swarm.state("t") == S.RUNNING
            assert swarm.host.calls[calls:] == ["wait t"]
            assert swarm.node_state == N.READY
        assert commits == []  # a repetition of what the store knows costs no write


async def test_ended_while_the_daemon_was_away(swarm: Cluster) -> None:
    """A container that ended meanwhile is reported by the next daemon; tasks removed meanwhile are gone."""
    async with swarm.manager():
        async with swarm.daemon():
            await swarm.assign("ended", "removed")
        swarm.host.end("ended", 2)
        await swarm.store.update(lambda tx: tx.tasks.delete("removed"))
        async with swarm.daemon():
            await swarm.clock.advance(1)
            assert swarm.state("ended") == S.FAILED
            assert set(swarm.host.containers) == {"ended"}


async def test_lost_state_directory(swarm: Cluster) -> None:
    """A daemon whose database is gone finds the containers of its tasks and removes all others."""
    async with swarm.manager():
        async with swarm.daemon():
            await swarm.assign("kept", "stray")
        await swarm.store.update(lambda tx: tx.tasks.delete("stray"))
        for file in swarm.path.parent.iterdir():
            file.unlink()
        calls = len(swarm.host.calls)
        async with swarm.daemon():
            await swarm.clock.advance(1)
            assert set(swarm.host.containers) == {"kept"}
            assert swarm.state("kept") == S.RUNNING
            assert "start stray" not in swarm.host.calls[calls:]


async def test_leader_change(swarm: Cluster) -> None:
    """A new leader finds the node UNKNOWN, soon READY again; tasks run throughout and new ones arrive."""
    async with swarm.daemon():
        async with swarm.manager():
            await swarm.clock.advance(10)
            await swarm.assign("a")
        await swarm.clock.advance(3)
        calls = len(swarm.host.calls)
        async with swarm.manager():
            assert swarm.node_state == N.UNKNOWN
            await swarm.clock.advance(9)
            assert swarm.node_state == N.READY
            assert swarm.host.calls[calls:] == []
            await swarm.assign("b")
            assert (swarm.state("a"), swarm.state("b")) == (S.RUNNING, S.RUNNING)


async def test_renewed_certificate(swarm: Cluster) -> None:
    """Renewal resumes the session: same id, the store learns the new issuer, tasks assigned around it all run."""
    async with swarm.manager() as service, swarm.daemon():
        leadership = service._leadership
        assert leadership is not None
        before = leadership.registry._entries["n1"].session_id
        await create(swarm.store, *(task(f"t{n}", S.PENDING) for n in range(20)))
        for number in range(20):
            await change(swarm.store, api.Task(id=f"t{number}"), edit=lambda t: setattr(t.status, "state", S.ASSIGNED))
            if number % 5 == 0:
                swarm.security._publish(credentials(cert=b"c%d" % number, issuer=b"i%d" % number))
            await swarm.clock.advance(0.05)
        await swarm.clock.advance(2)
        assert {swarm.state(f"t{n}") for n in range(20)} == {S.RUNNING}
        assert leadership.registry._entries["n1"].session_id == before
        found = swarm.store.nodes.get("n1")
        assert found is not None
        assert found.description.tls_info.cert_issuer_subject == b"i15"
        assert sorted(c for c in swarm.host.calls if c.startswith("start")) == sorted(f"start t{n}" for n in range(20))


async def test_random_cuts_and_restarts_converge(swarm: Cluster) -> None:
    """Whatever is cut and restarted, states in the store never fall, and in the end all tasks run, each container started once."""
    rng = random.Random(11)
    highest: dict[str, int] = {}

    def watch(commit: Commit) -> None:
        for event in commit.events:
            if isinstance(event.obj, api.Task):
                state = event.obj.status.state
                assert state >= highest.get(event.obj.id, 0)
                highest[event.obj.id] = state

    swarm.store.on_commit(watch)
    script = Script(prepare_seconds=0.3, start_seconds=0.2)
    for life in range(6):
        async with swarm.manager(), swarm.daemon(script):
            await swarm.assign(*(f"t{life}-{n}" for n in range(3)))
            for _ in range(3):
                swarm.network.cut = rng.random() < 0.5
                await swarm.clock.advance(rng.random() * 10)
            swarm.network.cut = False
    async with swarm.manager(), swarm.daemon(script):
        await swarm.clock.advance(30)
        assert {t.status.state for t in swarm.store.tasks} == {S.RUNNING}
        assert len([c for c in swarm.host.containers.values() if c.started_at is not None]) == 18


# --- over gRPC


class OpenGate:
    """Lets everybody in as node n1."""

    async def admit(self, _method: object, _context: object) -> Caller:
        """No questions asked."""
        return Caller(node_id="n1", organization="o", roles=(WORKER,), remote_addr="10.0.0.1:5000")


class SocketBroker:
    """Connects to a Unix socket."""

    def __init__(self, address: str) -> None:
        self.remotes = Remotes()
        self.remotes.observe(RemotePeer("m1", "127.0.0.1:4242"), 10)
        self._address = address

    async def select(self) -> SocketConnection:
        """A fresh channel."""
        return SocketConnection(grpc.aio.insecure_channel(self._address))


class SocketConnection:
    """A channel and nothing more."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel

    async def close(self, success: bool) -> None:
        """Close it."""
        await self.channel.close(None)


async def until(condition: Any) -> None:
    """Poll: sockets and threads are involved."""
    async with asyncio.timeout(15):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_over_grpc(tmp_path: Path) -> None:
    """The same services and agent over a real gRPC server: a task runs, a renewal resumes, a dying dispatcher is survived."""
    clock = SystemClock()
    async with running_store(clock) as store:
        await create(store, cluster(), node())
        service = DispatcherService(store, MemoryLog(store), clock, node_id="m1", rng=random.Random(1))
        descriptor = dispatcher_pb2.DESCRIPTOR.services_by_name["Dispatcher"]
        server = grpc.aio.server(handlers=handlers([bind(descriptor, service)], OpenGate()))
        address = f"unix:{tmp_path}/d.sock"
        server.add_insecure_port(address)
        await server.start()
        security = SecurityConfig(credentials(), clock)
        host = FakeHost()
        agent = Agent(
            security=security,
            broker=SocketBroker(address),
            executor=FakeExecutor(clock, host=host),
            database=tmp_path / "t.db",
            clock=clock,
        )
        leading, running = asyncio.create_task(service.run()), asyncio.create_task(agent.run())
        try:
            await asyncio.wait_for(agent.ready.wait(), 10)
            await create(store, task("t", S.PENDING))
            await change(store, api.Task(id="t"), edit=lambda t: setattr(t.status, "state", S.ASSIGNED))
            await until(lambda: _state(store, "t") == S.RUNNING)
            security._publish(credentials(cert=b"renewed", issuer=b"new"))
            await until(lambda: _issuer(store) == b"new")
            leading.cancel()
            await asyncio.gather(leading, return_exceptions=True)
            states: list[int] = []
            store.on_commit(lambda c: states.extend(e.obj.status.state for e in c.events if isinstance(e.obj, api.Node)))
            leading = asyncio.create_task(service.run())
            await until(lambda: states == [N.UNKNOWN, N.READY])
            await change(store, api.Task(id="t"), desired_state=S.SHUTDOWN)
            await until(lambda: _state(store, "t") == S.SHUTDOWN)
            assert host.calls.count("start t") == 1
        finally:
            for one in (running, leading):
                one.cancel()
            await asyncio.gather(running, leading, return_exceptions=True)
            await server.stop(None)


async def test_grpc_errors_are_named(tmp_path: Path) -> None:
    """What a manager answers arrives as the exception that names it, also when nobody answers."""
    from pyswarm.agent.client import GrpcDispatcherClient

    client = GrpcDispatcherClient(SocketConnection(grpc.aio.insecure_channel(f"unix:{tmp_path}/nobody.sock")))
    with pytest.raises(Unavailable):
        await client.heartbeat(api.HeartbeatRequest())
    with pytest.raises(SwarmError):
        await anext(client.assignments(api.AssignmentsRequest()))
    await client.close(success=False)


def _node(store: Store) -> api.Node:
    found = store.nodes.get("n1")
    assert found is not None
    return found


def _issuer(store: Store) -> bytes:
    return _node(store).description.tls_info.cert_issuer_subject


def _state(store: Store, task_id: str) -> int:
    found = store.tasks.get(task_id)
    return found.status.state if found is not None else -1
