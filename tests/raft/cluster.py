"""Several raft nodes in one process, over real gRPC on the loopback. A header stands in for certificates."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from google.protobuf.descriptor import MethodDescriptor

from pyswarm.api import v1 as api
from pyswarm.api.private import raft_pb2
from pyswarm.clock import SystemClock
from pyswarm.raft.log import Joined, ProposalError
from pyswarm.raft.node import RaftNode, RaftSettings
from pyswarm.rpc.binder import bind, handlers
from pyswarm.rpc.caller import MANAGER, Caller
from tests.raft.nodes import KEY, Recorder, create

HEADER = "x-node-id"
SETTINGS = RaftSettings()


class TrustingGate:
    """Believes the header."""

    async def admit(self, method: MethodDescriptor, context: Any, refused_by: str | None = None) -> Caller:
        """See Gate."""
        metadata = dict(context.invocation_metadata())
        return Caller(node_id=str(metadata[HEADER]), roles=(MANAGER,))


class Roads:
    """Which box's words reach which: pairs of addresses. What is said into a cut is lost, and the stream breaks once the road is mended."""

    def __init__(self) -> None:
        self.cut: set[tuple[str, str]] = set()

    def block(self, sender: Box, *receivers: Box) -> None:
        """Nothing that `sender` says arrives any more."""
        self.cut |= {(sender.addr, receiver.addr) for receiver in receivers}

    def part(self, one: Box, *others: Box) -> None:
        """Nothing in either direction."""
        for other in others:
            self.cut |= {(one.addr, other.addr), (other.addr, one.addr)}


class _Call:
    """A stream over a road that may be cut."""

    def __init__(self, call: Any, roads: Roads, way: tuple[str, str]) -> None:
        self._call = call
        self._roads = roads
        self._way = way
        self._lost = bool({way, way[::-1]} & roads.cut)

    async def write(self, message: Any) -> None:
        """See grpc.aio.StreamStreamCall."""
        if self._way in self._roads.cut:
            self._lost = True
        elif self._lost:
            raise asyncio.InvalidStateError("the road was cut in between")
        else:
            await self._call.write(message)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)


class _Signed:
    """A channel whose streams carry the header."""

    def __init__(self, addr: str, box: Box) -> None:
        self._channel = grpc.aio.insecure_channel(addr)
        self._box = box
        self._way = (box.addr, addr)

    def stream_stream(self, *args: Any, **kwargs: Any) -> Callable[[], Any]:
        """See grpc.aio.Channel."""
        multi: Any = self._channel.stream_stream(*args, **kwargs)
        return lambda: _Call(multi(metadata=((HEADER, self._box.name),)), self._box.roads, self._way)

    async def close(self, grace: float | None) -> None:
        """See grpc.aio.Channel."""
        await self._channel.close(grace)


class Box:
    """One manager: directory and address stay, the node comes and goes."""

    def __init__(self, name: str, directory: Path, config: api.RaftConfig, settings: RaftSettings, roads: Roads) -> None:
        self.name = name
        self.directory = directory
        self.config = config
        self.settings = settings
        self.roads = roads
        self.port = 0
        self.key = KEY
        self.machine = Recorder()
        self.removed = 0
        self.force_new_cluster = False
        self.node: RaftNode
        self._server: grpc.aio.Server | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def addr(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    async def open(self) -> bool:
        """Serve the port; whether there is a log already."""
        self.machine = Recorder()
        self.node = RaftNode(
            node_id=self.name,
            cluster_id="cluster-1",
            directory=self.directory,
            machine=self.machine,
            data_key=self.key,
            clock=SystemClock(),
            settings=self.settings,
            config=lambda: self.config,
            connect=lambda addr: _Signed(addr, self),  # type: ignore[arg-type,return-value]
            force_new_cluster=self.force_new_cluster,
        )
        self.node.on_removed(self._count_removed)
        await self.listen()
        self.node.advertise(self.addr)
        return await self.node.has_state()

    async def listen(self) -> None:
        """Serve the port, the same as before if there was one."""
        self._server = grpc.aio.server()
        service = bind(raft_pb2.DESCRIPTOR.services_by_name["RaftTransport"], self.node.transport)
        self._server.add_generic_rpc_handlers(handlers([service], TrustingGate()))
        self.port = self._server.add_insecure_port(self.addr)
        await self._server.start()

    async def close_port(self) -> None:
        """Go on without a server: nobody can call."""
        if self._server is not None:
            await self._server.stop(None)

    def _count_removed(self) -> None:
        self.removed += 1

    async def begin(self, joined: Joined | None = None) -> None:
        """Take part."""
        if joined is not None:
            self.node.adopt(joined)
        self._task = asyncio.create_task(self.node.run())
        await self.node.started()

    async def start(self) -> None:
        """Open and begin with what is there, or found."""
        await self.open()
        await self.begin()

    @property
    def running(self) -> bool:
        """Whether it takes part."""
        return self._task is not None and not self._task.done()

    async def stop(self) -> None:
        """Stop at once, without a word to the others."""
        if self._server is not None:
            await self._server.stop(None)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._server = self._task = None


class Cluster:
    """Boxes by number; the first founds."""

    def __init__(self, directory: Path, config: api.RaftConfig | None = None, settings: RaftSettings = SETTINGS) -> None:
        self._directory = directory
        self._config = config or api.RaftConfig()
        self._settings = settings
        self.roads = Roads()
        self.boxes: list[Box] = []
        self.acknowledged: list[str] = []

    def add(self) -> Box:
        """One more box, off."""
        name = f"node-{len(self.boxes)}"
        box = Box(name, self._directory / name, self._config, self._settings, self.roads)
        self.boxes.append(box)
        return box

    async def found(self, size: int) -> None:
        """The first box, and the others joined."""
        first = self.add()
        await first.start()
        await self.leader()
        for _ in range(size - 1):
            await self.join(self.add())

    async def join(self, box: Box) -> None:
        """Open a box with an empty directory and make it a member."""
        assert not await box.open()
        await box.begin(await (await self.leader()).node.join(box.name, box.addr))
        async with asyncio.timeout(10):
            await box.node.joined()

    async def leader(self) -> Box:
        """Who leads, once somebody does."""
        async with asyncio.timeout(10):
            while True:
                for box in self.boxes:
                    if box.running and box.node.is_leader:
                        return box
                await asyncio.sleep(0.005)

    async def write(self, name: str) -> None:
        """Write through whoever leads; tried again only when it certainly did not happen."""
        async with asyncio.timeout(20):
            while True:
                box = await self.leader()
                try:
                    await box.node.propose(create(name))
                except ProposalError as error:
                    if error.uncertain:
                        return
                    await asyncio.sleep(0.01)
                else:
                    self.acknowledged.append(name)
                    return

    async def equal(self, boxes: Iterable[Box] | None = None) -> None:
        """Wait until all that run have everything acknowledged, once and in one order."""
        watched = [b for b in boxes or self.boxes if b.running]
        await until(lambda: all(set(self.acknowledged) <= set(b.machine.names) for b in watched), 15)
        await until(lambda: len({tuple(b.machine.names) for b in watched}) == 1)
        for box in watched:
            assert len(set(box.machine.names)) == len(box.machine.names)

    async def stop(self) -> None:
        """Everything off."""
        await asyncio.gather(*(box.stop() for box in self.boxes))


@contextlib.asynccontextmanager
async def cluster(directory: Path, size: int, config: api.RaftConfig | None = None) -> AsyncIterator[Cluster]:
    """A cluster for the length of a `with` block."""
    made = Cluster(directory, config)
    try:
        await made.found(size)
        yield made
    finally:
        await made.stop()


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Wait for something that other tasks bring about."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in several nodes, without an event in common
            await asyncio.sleep(0.005)
