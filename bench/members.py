"""Raft members in this one process, over real gRPC on loopback without TLS; a header stands in for certificates."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc.aio
from google.protobuf.descriptor import MethodDescriptor

from pyswarm.api import v1 as api
from pyswarm.api.private import raft_pb2
from pyswarm.clock import SystemClock
from pyswarm.raft.log import StateMachine
from pyswarm.raft.node import RaftNode, RaftSettings
from pyswarm.rpc.binder import bind, handlers
from pyswarm.rpc.caller import MANAGER, Caller

_HEADER = "x-node-id"


class _Gate:
    """Believes the header."""

    async def admit(self, method: MethodDescriptor, context: Any, refused_by: str | None = None) -> Caller:  # noqa: ARG002 - Gate's shape
        """See Gate."""
        return Caller(node_id=str(dict(context.invocation_metadata())[_HEADER]), roles=(MANAGER,))


class _Signed:
    """A channel whose streams carry the header."""

    def __init__(self, addr: str, node_id: str) -> None:
        self._channel = grpc.aio.insecure_channel(addr)
        self._node_id = node_id

    def stream_stream(self, *args: Any, **kwargs: Any) -> Callable[[], Any]:
        """See grpc.aio.Channel."""
        multi: Any = self._channel.stream_stream(*args, **kwargs)
        return lambda: multi(metadata=((_HEADER, self._node_id),))

    async def close(self, grace: float | None) -> None:
        """See grpc.aio.Channel."""
        await self._channel.close(grace)


class Member:
    """One member with its state machine. `config` may be changed while it runs."""

    def __init__(self, name: str, directory: Path, machine: StateMachine) -> None:
        self.name = name
        self.machine = machine
        self.config = api.RaftConfig(snapshot_interval=0)
        self.node = RaftNode(
            node_id=name, cluster_id="bench", directory=directory / name, machine=machine, data_key=b"k" * 32, clock=SystemClock(),
            settings=RaftSettings(), config=lambda: self.config, connect=lambda addr: _Signed(addr, name),  # type: ignore[arg-type,return-value]
        )  # fmt: skip
        self._server = grpc.aio.server()
        service = bind(raft_pb2.DESCRIPTOR.services_by_name["RaftTransport"], self.node.transport)
        self._server.add_generic_rpc_handlers(handlers([service], _Gate()))
        self.addr = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._running: asyncio.Task[None] | None = None

    async def start(self, leader: RaftNode | None = None) -> None:
        """Take part: as founder or with what the directory holds, or as one that joins `leader`. Returns when it leads, or is a member."""
        await self._server.start()
        self.node.advertise(self.addr)
        known = await self.node.has_state()
        if leader is not None and not known:
            self.node.adopt(await leader.join(self.name, self.addr))
        won = asyncio.Event()
        self.node.on_leadership(lambda leads: won.set() if leads else None)
        self._running = asyncio.create_task(self.node.run())
        await (self.node.joined() if leader is not None else won.wait())

    async def stop(self) -> None:
        """Stop at once."""
        await self._server.stop(None)
        if self._running is not None:
            self._running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._running
