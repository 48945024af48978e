"""The managers' private service, and all links of one member together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping

import structlog

from pyswarm.api.private import raft_pb2
from pyswarm.clock import Clock
from pyswarm.errors import Aborted, FailedPrecondition, InvalidArgument, NotFound, PermissionDenied, Unavailable
from pyswarm.raft import codec
from pyswarm.raft.filter import REMOVED_TEXT
from pyswarm.raft.links import Connect, Host, Link
from pyswarm.raft.messages import Message
from pyswarm.raft.resident import Resident
from pyswarm.rpc.caller import Caller

log = structlog.get_logger(__name__)


class RaftTransportService:
    """Implements `pyswarm.v1.RaftTransport`: who may talk to this member, and what is heard.

    The caller's certificate says that it is a manager of this cluster; here its claim to a raft id is checked against its node id. One that
    is not known is let in: it may have joined while this member was away, and the entry that says so is what it brings.
    """

    def __init__(self, cluster_id: str, resident: Resident) -> None:
        self._cluster_id = cluster_id
        self._resident = resident
        self._epochs: dict[int, int] = {}
        self.guests: dict[int, str] = {}
        """Where those are reached who talk to this member at present, by raft id; replaced, never changed."""
        self._streams = 0

    async def Talk(  # noqa: N802 - the service's name
        self, requests: AsyncIterator[raft_pb2.Envelope], caller: Caller
    ) -> AsyncIterator[raft_pb2.Welcome]:
        """Hear a member out. Ends with an error when it may not, or no longer, talk here."""
        hello = await _first(requests)
        own = self._admit(hello, caller.node_id)
        yield raft_pb2.Welcome(raft_id=own)
        if not own:
            raise FailedPrecondition("raft: node is not yet part of a raft cluster")
        if hello.to_raft_id != own:
            raise FailedPrecondition(f"raft: member {hello.to_raft_id:x} is not here")
        sender = hello.from_raft_id
        self._streams += 1
        stream = self._epochs[sender] = self._streams
        if hello.addr:
            self.guests = {**self.guests, sender: hello.addr}
        try:
            self._resident.appeared(sender)
            async for envelope in requests:
                if self._epochs.get(sender) != stream:
                    raise Aborted("raft: a newer stream took the place of this one")
                self._check(sender, caller.node_id)
                try:
                    message = codec.decode(envelope)
                except codec.BadMessage as error:
                    raise InvalidArgument(f"raft: {error}") from error
                await self._resident.received(sender, message)
        finally:
            if self._epochs.get(sender) == stream:
                del self._epochs[sender]
                self.guests = {raft_id: addr for raft_id, addr in self.guests.items() if raft_id != sender}

    def _admit(self, hello: raft_pb2.Hello, node_id: str) -> int:
        own = self._resident.own_id
        if own is None:
            raise Unavailable("raft: node is starting or stopping")
        if hello.cluster_id != self._cluster_id:
            raise PermissionDenied(f"raft: manager of cluster {hello.cluster_id}, this is cluster {self._cluster_id}")
        if not hello.from_raft_id or (own and hello.from_raft_id == own):
            raise InvalidArgument("raft: the sender's raft id is missing or not its own")
        self._check(hello.from_raft_id, node_id)
        self._resident.check_era(hello.from_raft_id, hello.era)
        return own

    def _check(self, sender: int, node_id: str) -> None:
        table = self._resident.table
        if self._resident.own_id is None:
            raise Unavailable("raft: node is starting or stopping")
        if sender in table.removed:
            raise NotFound(REMOVED_TEXT)
        member = table.members.get(sender)
        if member is not None and member.node_id != node_id:
            raise PermissionDenied(f"raft: member {sender:x} is node {member.node_id}, not {node_id}")


async def _first(requests: AsyncIterator[raft_pb2.Envelope]) -> raft_pb2.Hello:
    async for envelope in requests:
        if envelope.WhichOneof("content") == "hello":
            return envelope.hello
        break
    raise InvalidArgument("raft: a stream begins with a greeting")


class Network:
    """All links of one member; follows the members' table and whoever else talks to it."""

    def __init__(self, host: Host, connect: Connect, clock: Clock) -> None:
        self._host = host
        self._connect = connect
        self._clock = clock
        self._links: dict[int, tuple[Link, asyncio.Task[None]]] = {}
        self._group: asyncio.TaskGroup | None = None

    def open(self, group: asyncio.TaskGroup) -> None:
        """Let links run in a task group, which must be cancelled to end them."""
        self._group = group

    def send(self, messages: Iterable[tuple[int, Message]]) -> None:
        """Send what can be sent."""
        for raft_id, message in messages:
            found = self._links.get(raft_id)
            if found is not None and found[0].up:
                found[0].send(codec.encode(message))

    def hurry(self, raft_id: int) -> None:
        """A member was heard of."""
        found = self._links.get(raft_id)
        if found is not None:
            found[0].hurry()

    def follow(self, wanted: Mapping[int, str], said: Mapping[int, str]) -> None:
        """Have exactly one link to each of these, by raft id and address. `said`: where some say themselves that they are."""
        for raft_id, (link, task) in list(self._links.items()):
            if wanted.get(raft_id) != link.addr:
                link.stop()
                task.cancel()
                del self._links[raft_id]
        for raft_id, addr in wanted.items():
            if raft_id not in self._links and self._group is not None:
                link = Link(raft_id, addr, self._host, self._connect, self._clock)
                self._links[raft_id] = link, self._group.create_task(link.run(), name=f"raft link {raft_id:x}")
        for raft_id, (link, _) in self._links.items():
            link.said = said.get(raft_id, "")
