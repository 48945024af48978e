"""The door to the leader: which services must run there, who leads, and how long a call waits for it.

Rules: spec/dispatcher-agent-node, section 12. Passing a call on is the business of `rpc/relay`. Differences to the reference, on purpose:

* A call is handed to a leader only over a connection that stands, so a leader that cannot be reached has certainly not seen it.
* A call that was passed on before is refused with a proof that nothing ran, also for the services that a follower's remote port otherwise
  answers itself: the sender asked for the leader.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import grpc
import grpc.aio

from pyswarm.clock import Clock, wait_for
from pyswarm.errors import ResourceExhausted, Unavailable, Unknown

PROXIED_REMOTE = frozenset({"CA", "NodeCA", "Dispatcher", "RaftMembership", "ResourceAllocator", "LogBroker"})
"""Services that a call on the remote port reaches on the leader; the others answer from local state."""

PROXIED_LOCAL = frozenset({"CA", "NodeCA", "Control", "Logs", "Dispatcher", "ResourceAllocator", "LogBroker"})
"""The same for the control socket."""

NOT_ON_LOCAL = frozenset({"Raft", "RaftMembership"})
"""Services the control socket does not have."""

NO_LEADER = (
    "The swarm does not have a leader. It's possible that too few managers are online. Make sure more than half of the managers are online."
)

LEADERLESS_SECONDS = 10.0
"""Ten ticks of the reference: without a leader for longer, waiting for one is pointless."""

HERE = ""
"""In place of a node id: this manager."""

_RECHECK_SECONDS = 1.0
_CONNECTING_SECONDS = 0.05
_UNREACHABLE_SECONDS = 10.0
_NEWS_SECONDS = 2.0


class LeaderDirectory(Protocol):
    """What is known about leadership. Event loop only."""

    @property
    def is_leader(self) -> bool:
        """This node leads and is caught up."""
        ...

    def leader(self) -> tuple[str, str] | None:
        """Node id and address of the manager that leads, this one included; None while none is known."""
        ...

    def leader_channel(self) -> grpc.aio.Channel | None:
        """A channel to the leader, made with this manager's certificate; None when no leader is known or it is this node."""
        ...

    @property
    def changed(self) -> asyncio.Event:
        """Set when anything said here changes next; a new event then takes its place. So: take it, look, wait for it."""
        ...

    def leaderless(self) -> bool:
        """There has been no leader for so long that waiting is pointless."""
        ...


@dataclass(frozen=True, slots=True)
class Leader:
    """Another manager that leads, and the standing connection to it."""

    node_id: str
    addr: str
    channel: grpc.aio.Channel


class NotHere(ResourceExhausted):
    """A call that was passed on before came to a manager that does not lead. It certainly did not run."""

    def __init__(self, senders: Sequence[str]) -> None:
        super().__init__(f"more than one redirect to leader from: [{' '.join(senders)}]")


class LeaderDoor:
    """Tells where a call runs, once that is known."""

    def __init__(self, directory: LeaderDirectory, clock: Clock) -> None:
        self._directory = directory
        self._clock = clock

    async def find(self, senders: Sequence[str] = (), refused_by: str | None = None) -> Leader | None:
        """The leader to pass a call on to, connected; None: the call runs here.

        `senders` is what the call's `redirect` metadata says. `refused_by` names the manager that was thought to lead and just said that it
        does not: news are then waited for first, for two seconds.

        Raises Unknown with the well-known sentence when there has been no leader for too long, Unavailable when the leader cannot be
        reached for ten seconds, NotHere when another manager leads and the call was passed on before. The caller's own deadline may
        end the wait earlier.
        """
        if refused_by is not None:
            await self._news(refused_by)
        give_up: float | None = None
        while True:
            changed = self._directory.changed
            if self._directory.is_leader:
                return None
            leader = self._elsewhere()
            if leader is None:
                if self._directory.leaderless():
                    raise Unknown(NO_LEADER)
                await wait_for(changed, self._clock, _RECHECK_SECONDS)
                continue
            if senders:
                raise NotHere(senders)
            if _stands(leader.channel):
                return leader
            now = self._clock.monotonic()
            give_up = give_up or now + _UNREACHABLE_SECONDS
            if now >= give_up:
                raise Unavailable(f"manager {leader.node_id} leads but cannot be reached at {leader.addr} from here; the call was not made")
            # A connection that comes to stand is no news in the directory.
            await wait_for(changed, self._clock, _CONNECTING_SECONDS)

    async def _news(self, refused_by: str) -> None:
        """Wait until somebody else leads, or nobody, or for two seconds: a leader may be unsure of itself only for a moment."""
        end = self._clock.monotonic() + _NEWS_SECONDS
        while True:
            changed = self._directory.changed
            left = end - self._clock.monotonic()
            if left <= 0 or self._leading() != refused_by:
                return
            await wait_for(changed, self._clock, left)

    def _leading(self) -> str | None:
        if self._directory.is_leader:
            return HERE
        leader = self._directory.leader()
        return leader[0] if leader is not None else None

    def _elsewhere(self) -> Leader | None:
        leader, channel = self._directory.leader(), self._directory.leader_channel()
        return Leader(*leader, channel) if leader is not None and channel is not None else None


def _stands(channel: grpc.aio.Channel) -> bool:
    """Whether calls would leave at once; if not, connecting is begun."""
    try:
        return channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY
    except grpc.aio.UsageError:
        return False  # closed meanwhile
