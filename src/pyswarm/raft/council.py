"""What others may ask of a raft node: writes and reads, who the members are, and changes to that."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import grpc.aio
import structlog

from pyswarm.api import v1 as api
from pyswarm.clock import Clock
from pyswarm.errors import DeadlineExceeded, FailedPrecondition, SwarmError, Unknown
from pyswarm.raft.commands import Type, parse_request
from pyswarm.raft.filter import REMOVED_TEXT
from pyswarm.raft.links import Connect, Refused, probe
from pyswarm.raft.log import Compacted, Joined, LostLeadership, Member, NodeStopped, shortage
from pyswarm.raft.membership import Change
from pyswarm.raft.replica import Replica
from pyswarm.raft.resident import Resident
from pyswarm.telemetry import RAFT_TRANSACTION, timing

C = TypeVar("C")
log = structlog.get_logger(__name__)

PROBE_SECONDS = 5.0
TRANSFER_SECONDS = 25.0
HAND_OVER_SECONDS = 2.0
LOOK_SECONDS = 0.02
"""How often to look whether somebody else leads by now."""


class Council:
    """Implements `Log` on a replica that somebody else (`RaftNode`) keeps going."""

    def __init__(self, cluster_id: str, clock: Clock, connect: Connect | None) -> None:
        self._clock = clock
        self._connect = connect
        self._replica: Replica | None = None
        self._stopped = False
        self._removed = False
        self._member_count = 0
        self._leadership_listeners: list[Callable[[bool], None]] = []
        self._member_listeners: list[Callable[[Sequence[Member]], None]] = []
        self._removed_listeners: list[Callable[[], None]] = []
        self._joining = asyncio.Lock()
        self._chance = random.SystemRandom()
        self._wake = asyncio.Event()
        self._resident = Resident(cluster_id, self._wake.set, self._tell_removed)

    @property
    def applied_index(self) -> int:
        """See Log; 0 before the node started."""
        return self._replica.applied if self._replica else 0

    @property
    def is_leader(self) -> bool:
        """See Log."""
        return self._replica is not None and self._replica.leads

    @property
    def raft_id(self) -> int:
        """This member's raft id; 0 before the node started."""
        return self._replica.raft_id if self._replica else 0

    async def propose(self, request: api.InternalRaftRequest, proposal: Any | None = None) -> int:
        """See Log. When the caller is cancelled, an entry not yet appended is dropped; an appended one takes its course."""
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._alive().submit(request, proposal, done)
        self._wake.set()
        with timing(RAFT_TRANSACTION):
            return await done

    async def read_barrier(self) -> None:
        """See Log."""
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._alive().submit_read(done)
        if not done.done():
            self._wake.set()
        await done

    def history(self, after: int) -> Iterator[tuple[int, api.InternalRaftRequest]]:
        """See Log."""
        replica = self._alive()
        if after > replica.applied:
            raise Unknown("versions are out of order")
        kept = replica.entries(after + 1, replica.applied)
        if kept is None:
            raise Compacted
        return ((index, parse_request(command)) for command, index, _ in kept if command[0] == Type.STORE)

    # --- who is there

    def members(self) -> Sequence[Member]:
        """See Log; empty before the node started."""
        return self._replica.members() if self._replica else ()

    def leader(self) -> Member | None:
        """See Log."""
        return next((m for m in self.members() if m.leader), None)

    def on_leadership(self, callback: Callable[[bool], None]) -> Callable[[], None]:
        """See Log. Also before `run`; when this node leads already, `callback(True)` is called at once."""
        undo = _subscribe(self._leadership_listeners, callback)
        if self.is_leader:
            callback(True)
        return undo

    def on_members(self, callback: Callable[[Sequence[Member]], None]) -> Callable[[], None]:
        """See Log. Also before `run`."""
        return _subscribe(self._member_listeners, callback)

    def on_removed(self, callback: Callable[[], None]) -> Callable[[], None]:
        """See Log. Also before `run`; when it is known already, the callback is called at once."""
        if self._removed:
            callback()
        return _subscribe(self._removed_listeners, callback)

    # --- changes

    async def join(self, node_id: str, addr: str) -> Joined:
        """See Log.

        Who lives at `addr` is asked first: a manager that still has its log keeps its raft id; one that lost it gets a new one, after the
        old one is removed, because votes and acknowledgements it once gave are forgotten (spec/store-and-raft, section 21.4, S14).
        """
        async with self._joining:
            self._leading()
            found = await self._visit(addr)
            replica = self._leading()
            known = next((m for m in replica.membership.members.values() if m.node_id == node_id), None)
            waiting = next((m for m in replica.changes.contacts() if m.node_id == node_id), None)
            if known is not None and found != known.raft_id:
                log.warning("a manager lost its log and gets a new raft id", node_id=node_id, old=f"{known.raft_id:x}")
                await self.remove(known.raft_id)
                replica, known = self._leading(), None
            if known is not None:
                if known.addr != addr:
                    await self._change(Change.UPDATE, api.RaftMember(raft_id=known.raft_id, node_id=node_id, addr=addr))
                return self._answer(known.raft_id)
            if found in replica.membership.removed:
                raise FailedPrecondition(f"{REMOVED_TEXT}: delete its raft directory and join again")
            raft_id = found or self._chance.randrange(1, 1 << 63)
            if waiting is not None and waiting.raft_id != raft_id:
                if not found:
                    raft_id = waiting.raft_id  # it has not begun yet: the answer that named its raft id was lost
                else:
                    replica.changes.dismiss(waiting.raft_id)
            replica.changes.admit(api.RaftMember(raft_id=raft_id, node_id=node_id, addr=addr))
            self._wake.set()
            return self._answer(raft_id)

    async def remove(self, raft_id: int) -> None:
        """See Log."""
        replica = self._leading()
        if raft_id in replica.membership.removed:
            return
        if raft_id == replica.raft_id and len(replica.membership.members) > 1:
            await self.transfer_leadership()
            raise LostLeadership
        if raft_id in replica.changes.learners:
            replica.changes.dismiss(raft_id)
            return
        member = replica.membership.members.get(raft_id)
        if member is not None and (missing := shortage(self.members(), member.node_id)):
            raise FailedPrecondition(f"raft: member cannot be removed, because removing it may result in loss of quorum: {missing}")
        await self._change(Change.REMOVE, member or api.RaftMember(raft_id=raft_id))

    def can_remove(self, raft_id: int) -> bool:
        """See Log; False before the node started."""
        return self._replica is not None and self._replica.changes.can_remove(raft_id)

    async def transfer_leadership(self) -> None:
        """See Log."""
        replica = self._leading()
        until = self._clock.monotonic() + TRANSFER_SECONDS
        while True:
            if replica.leads and not self._stopped:
                replica.changes.hand_over()
                self._wake.set()
            elif replica.leader_id not in {0, replica.raft_id} or self._stopped:
                return
            if self._clock.monotonic() > until:
                raise DeadlineExceeded("raft: leadership could not be handed over in time")
            await self._clock.sleep(LOOK_SECONDS)

    async def hand_over(self) -> None:
        """Let another member lead before this one stops, if that works at once. Never raises."""
        if not self.is_leader or len(self.members()) < 2:
            return
        try:
            async with asyncio.timeout(HAND_OVER_SECONDS):
                await self.transfer_leadership()
        except (SwarmError, TimeoutError) as error:
            log.warning("stopping without having handed leadership over", reason=str(error) or "time is up")

    # --- inside

    async def _visit(self, addr: str) -> int:
        """Who lives at an address: a raft id, or 0. Raises FailedPrecondition."""
        if self._connect is None:
            raise FailedPrecondition("raft: this manager has no network")
        try:
            return await probe(self._connect, addr, self._resident.greeting(0), PROBE_SECONDS)
        except (Refused, TimeoutError, grpc.aio.AioRpcError, OSError) as error:
            reason = error.details() if isinstance(error, grpc.aio.AioRpcError) else str(error) or "no answer in time"
            raise FailedPrecondition(
                f"could not connect to prospective new cluster member using its advertised address: {reason}"
            ) from error

    def _answer(self, raft_id: int) -> Joined:
        replica = self._leading()
        return Joined(raft_id, replica.members(), sorted(replica.membership.removed))

    async def _change(self, kind: Change.Kind.ValueType, member: api.RaftMember) -> None:
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._leading().changes.submit(Change(kind=kind, member=member), done)
        self._wake.set()
        await done

    def _alive(self) -> Replica:
        if self._replica is None or self._stopped:
            raise NodeStopped
        return self._replica

    def _leading(self) -> Replica:
        """The replica, if it leads."""
        if self._replica is None or self._stopped:
            raise FailedPrecondition("raft: node is not yet part of a raft cluster")
        if not self._replica.leads:
            raise LostLeadership
        return self._replica

    def _tell_leadership(self, leads: bool) -> None:
        for listener in tuple(self._leadership_listeners):
            listener(leads)

    def _tell_members(self, members: Sequence[Member]) -> None:
        if len(members) != self._member_count:
            self._member_count = len(members)
            log.info("managers of this cluster", members=len(members), may_fail=(len(members) - 1) // 2)
        for listener in tuple(self._member_listeners):
            listener(members)

    def _tell_removed(self) -> None:
        if not self._removed:
            self._removed = True
            log.warning("this manager was removed from the cluster", raft_id=f"{self.raft_id:x}")
            for listener in tuple(self._removed_listeners):
                listener()


def _subscribe(listeners: list[C], callback: C) -> Callable[[], None]:
    listeners.append(callback)

    def undo() -> None:
        if callback in listeners:
            listeners.remove(callback)

    return undo
