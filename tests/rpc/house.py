"""Several managers in one process: real sockets, one root, and a log that knows only who leads."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import ServiceDescriptor

from pyswarm.api import v1 as api
from pyswarm.api.private import auth_pb2
from pyswarm.api.swarmkit import ca_pb2, control_pb2, dispatcher_pb2, health_pb2, logbroker_pb2, watch_pb2
from pyswarm.ca.credentials import SecurityConfig
from pyswarm.clock import Clock, SystemClock
from pyswarm.raft.log import Member
from pyswarm.rpc import channel
from pyswarm.rpc.binder import Service, bind
from pyswarm.rpc.caller import MANAGER, Caller
from pyswarm.rpc.managers import Managers
from pyswarm.rpc.server import ControlServer, RemoteServer
from tests.rpc.pki import Authority
from tests.support.clock import VirtualClock


class View:
    """What one manager's log says about members and leadership; `raft.log.Log` as far as rpc asks."""

    def __init__(self, own_id: str) -> None:
        self.own_id = own_id
        self.leader = ""
        self.sure = True
        self.addresses: dict[str, str] = {}
        self._listeners: list[Callable[[], None]] = []
        self.applied_index = 0

    @property
    def is_leader(self) -> bool:
        """Leading and caught up."""
        return self.leader == self.own_id and self.sure

    def members(self) -> Sequence[Member]:
        """As set."""
        return [Member(n, node_id, addr, leader=node_id == self.leader) for n, (node_id, addr) in enumerate(self.addresses.items(), 1)]

    def on_leadership(self, callback: Callable[[bool], None]) -> Callable[[], None]:
        """Called when the test says that something changed."""
        return self._listen(lambda: callback(self.is_leader))

    def on_members(self, callback: Callable[[Sequence[Member]], None]) -> Callable[[], None]:
        """Called when the test says that something changed."""
        return self._listen(lambda: callback(self.members()))

    def elect(self, node_id: str) -> None:
        """This manager learns who leads; empty: nobody."""
        self.leader = node_id
        self.tell()

    def tell(self) -> None:
        """Call everybody back."""
        for listener in tuple(self._listeners):
            listener()

    async def propose(self, request: api.InternalRaftRequest, proposal: Any | None = None) -> int:
        """Not asked."""
        raise NotImplementedError

    async def read_barrier(self) -> None:
        """Not asked."""
        raise NotImplementedError

    def history(self, after: int) -> list[tuple[int, api.InternalRaftRequest]]:
        """Not asked."""
        raise NotImplementedError

    def _listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)


@dataclass
class Actor:
    """What a manager's services do: remember, answer, fail or hang as told."""

    name: str
    callers: list[Caller] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)
    hang: bool = False
    started: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    reading: asyncio.Event = field(default_factory=asyncio.Event)
    produced: int = 0
    received: list[str] = field(default_factory=list)

    async def _act(self, caller: Caller) -> None:
        self.callers.append(caller)
        self.started.set()
        try:
            if self.errors:
                raise self.errors.pop(0)
            if self.hang:
                await asyncio.Event().wait()
        finally:
            self.ended.set()

    async def Heartbeat(self, request: api.HeartbeatRequest, caller: Caller) -> api.HeartbeatResponse:  # noqa: N802
        """Unary, for members."""
        await self._act(caller)
        return api.HeartbeatResponse()

    async def ListNodes(self, request: api.ListNodesRequest, caller: Caller) -> api.ListNodesResponse:  # noqa: N802
        """Unary, of the control service; says who answered."""
        await self._act(caller)
        return api.ListNodesResponse(nodes=[api.Node(id=self.name)])

    async def RemoveNode(self, request: api.RemoveNodeRequest, caller: Caller) -> api.RemoveNodeResponse:  # noqa: N802
        """Unary, with more than one log entry."""
        await self._act(caller)
        return api.RemoveNodeResponse()

    async def GetRootCACertificate(  # noqa: N802
        self, request: api.GetRootCACertificateRequest, caller: Caller
    ) -> api.GetRootCACertificateResponse:
        """Unary, for everybody."""
        await self._act(caller)
        return api.GetRootCACertificateResponse(certificate=self.name.encode())

    async def Session(self, request: api.SessionRequest, caller: Caller) -> AsyncIterator[api.SessionMessage]:  # noqa: N802
        """Streams: big messages without end if asked with a session id, else two, then an error if there is one, else silence."""
        self.callers.append(caller)
        try:
            while request.session_id:
                yield api.SessionMessage(session_id="x" * 100_000)
                self.produced += 1
            for text in ("one", "two"):
                yield api.SessionMessage(session_id=text)
            if self.errors:
                raise self.errors.pop(0)
            await asyncio.Event().wait()
        finally:
            self.ended.set()

    async def PublishLogs(self, request: AsyncIterator[api.PublishLogsMessage], caller: Caller) -> api.PublishLogsResponse:  # noqa: N802
        """Takes a stream, once `reading` is set."""
        self.callers.append(caller)
        self.started.set()
        try:
            await self.reading.wait()
            async for message in request:
                self.received.append(message.subscription_id)
                if self.errors:
                    raise self.errors.pop(0)
        finally:
            self.ended.set()
        return api.PublishLogsResponse()

    async def Talk(self, request: AsyncIterator[api.HeartbeatRequest], caller: Caller) -> AsyncIterator[api.HeartbeatRequest]:  # noqa: N802
        """Answers each message with its own."""
        self.callers.append(caller)
        try:
            async for message in request:
                yield api.HeartbeatRequest(session_id=f"{self.name}: {message.session_id}")
        finally:
            self.ended.set()


def _talking() -> ServiceDescriptor:
    """A service with a method streamed both ways, which the contract does not have; its name makes it one that is passed on."""
    file = descriptor_pb2.FileDescriptorProto(name="tests/talk.proto", package="tests", syntax="proto3")
    file.dependency.append(dispatcher_pb2.DESCRIPTOR.name)
    file.dependency.append(auth_pb2.DESCRIPTOR.name)
    message = ".docker.swarmkit.v1.HeartbeatRequest"
    method = file.service.add(name="LogBroker").method.add(
        name="Talk", input_type=message, output_type=message, client_streaming=True, server_streaming=True
    )
    method.options.Extensions[auth_pb2.tls_authorization].roles.append(MANAGER)
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return pool.FindServiceByName("tests.LogBroker")


TALKING = _talking()


def services(actor: Actor) -> list[Service]:
    """`actor` behind the services it answers some methods of."""
    described = [
        dispatcher_pb2.DESCRIPTOR.services_by_name["Dispatcher"],
        ca_pb2.DESCRIPTOR.services_by_name["CA"],
        control_pb2.DESCRIPTOR.services_by_name["Control"],
        health_pb2.DESCRIPTOR.services_by_name["Health"],
        logbroker_pb2.DESCRIPTOR.services_by_name["LogBroker"],
        watch_pb2.DESCRIPTOR.services_by_name["Watch"],
        TALKING,
    ]
    return [bind(descriptor, actor) for descriptor in described]


@dataclass
class Node:
    """One manager's edge."""

    name: str
    security: SecurityConfig
    view: View
    actor: Actor
    managers: Managers
    remote: RemoteServer
    control: ControlServer
    socket: Path
    blacklist: set[str]
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def stop(self) -> None:
        """Everything ends, politely."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


class House:
    """Managers that know each other."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        self.authority = Authority()
        self.nodes: dict[str, Node] = {}
        self._directory = directory
        self._clock = clock

    async def add(self, name: str, *, announce: bool = True) -> Node:
        """Start a manager and, unless told otherwise, introduce it to the others."""
        security = SecurityConfig(self.authority.issue(name, MANAGER), SystemClock())
        view, actor, blacklist = View(name), Actor(name), set[str]()
        managers = Managers(view, security, self._clock)
        offered = services(actor)

        def listed() -> Collection[str]:
            return blacklist

        remote = RemoteServer(
            services=offered,
            security=security,
            directory=managers,
            blacklist=listed,
            inner_directory=self._directory / name,
            clock=self._clock,
        )
        control = ControlServer(
            services=offered, security=security, directory=managers, remote_addr=lambda: remote.address, clock=self._clock
        )
        node = Node(name, security, view, actor, managers, remote, control, self._directory / f"{name}.sock", blacklist)
        await remote.listen("127.0.0.1:0")
        await control.listen(node.socket)
        node.tasks = [asyncio.create_task(work()) for work in (remote.run, control.run, managers.run)]
        self.nodes[name] = node
        if announce:
            self.introduce()
        return node

    def introduce(self) -> None:
        """Everybody learns everybody's address."""
        for node in self.nodes.values():
            node.view.addresses = {other.name: other.remote.address for other in self.nodes.values()}
            node.view.tell()

    def elect(self, name: str) -> None:
        """Everybody learns who leads."""
        for node in self.nodes.values():
            node.view.elect(name)

    def dial(self, node: Node, name: str = "worker-1", role: str = "swarm-worker") -> grpc.aio.Channel:
        """A channel to a manager's remote port, with a certificate of that name and role; without a name: none."""
        if not name:
            return channel.connect_anonymous(node.remote.address, self.authority.root.bundle)
        return channel.connect(node.remote.address, self.authority.issue(name, role))

    def dial_socket(self, node: Node) -> grpc.aio.Channel:
        """A channel to a manager's control socket."""
        return channel.connect_local(node.socket, node.security.current)


@contextlib.asynccontextmanager
async def house(*names: str, clock: Clock | None = None) -> AsyncIterator[House]:
    """Managers of these names, of which the first leads."""
    # Not tmp_path: socket paths must be short.
    with tempfile.TemporaryDirectory(prefix="ps-") as directory:
        built = House(Path(directory), clock or SystemClock())
        try:
            for name in names:
                await built.add(name)
            built.elect(names[0])
            yield built
        finally:
            await asyncio.gather(*(node.stop() for node in built.nodes.values()))


async def passing(clock: VirtualClock, work: asyncio.Task[Any], step: float = 0.25) -> float:
    """Let virtual time go by until `work` is done, with a little real time for the sockets; returns how much went by."""
    begin = clock.now()
    async with asyncio.timeout(20):
        while not work.done():
            await clock.advance(step)
            await asyncio.sleep(0.005)
    return clock.now() - begin
