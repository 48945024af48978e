"""The door to the leader: which services must run there, who leads, and how long a call waits for it.

Rules: spec/dispatcher-agent-node, section 12. Passing a call on is the business of `rpc/relay`. Differences to the reference, on purpose:

* A call is handed to a leader only over a connection that stands, so a leader that cannot be reached has certainly not seen it.
* A call that was passed on before is refused with a proof that nothing ran, also for the services that a follower's remote port otherwise
  answers itself: the sender asked for the leader.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from typing import Protocol

import grpc
import grpc.aio

from pyswarm.clock import Clock, wait_for
from pyswarm.errors import ResourceExhausted, Unavailable, Unknown

PROXIED_REMOTE = frozenset({"CA", "NodeCA", "Dispatcher", "RaftMembership", "ResourceAllocator", "LogBroker"})
"""Services that a call on the remote port reaches on the leader; the others answer from local state."""

PROXIED_LOCAL = frozenset({"CA", "NodeCA", "Control", "Logs", "Dispatcher", "ResourceAllocator", "LogBroker", "Why"})
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


class Line:
    """A connection to another manager, kept by whoever keeps connections, and whether calls run on it."""

    def __init__(self, node_id: str, addr: str, channel: grpc.aio.Channel) -> None:
        self.node_id = node_id
        self.addr = addr
        self.idle = asyncio.Event()
        self.idle.set()
        self._channel = channel
        self._calls = 0

    @contextlib.contextmanager
    def in_use(self) -> Iterator[grpc.aio.Channel]:
        """The channel, for one call: until the block ends the line is not idle."""
        self._calls += 1
        self.idle.clear()
        try:
            yield self._channel
        finally:
            self._calls -= 1
            if not self._calls:
                self.idle.set()

    def stands(self) -> bool:
        """Whether calls would leave at once; if not, connecting is begun."""
        return self._channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY

    async def close(self) -> None:
        """For good; calls on it are cancelled."""
        await self._channel.close(None)


class LeaderDirectory(Protocol):
    """What is known about leadership. Event loop only."""

    @property
    def is_leader(self) -> bool:
        """This node leads and is caught up."""
        ...

    def leader(self) -> tuple[str, str] | None:
        """Node id and address of the manager that leads, this one included; None while none is known."""
        ...

    def leader_line(self) -> Line | None:
        """The connection to the leader, made with this manager's certificate; None when no leader is known or it is this node."""
        ...

    @property
    def changed(self) -> asyncio.Event:
        """Set when anything said here changes next; a new event then takes its place. So: take it, look, wait for it."""
        ...

    def leaderless(self) -> bool:
        """There has been no leader for so long that waiting is pointless."""
        ...


class NotHere(ResourceExhausted):
    """A call that was passed on before came to a manager that does not lead. It certainly did not run."""

    def __init__(self, senders: Sequence[str]) -> None:
        super().__init__(f"more than one redirect to leader from: [{' '.join(senders)}]")


class Stopping(Unavailable):
    """This manager stops and does not lead. A call that waited for a leader here certainly did not run."""

    def __init__(self) -> None:
        super().__init__("this manager is stopping; the call was not made")


class LeaderDoor:
    """Tells where a call runs, once that is known."""

    def __init__(self, directory: LeaderDirectory, clock: Clock) -> None:
        self._directory = directory
        self._clock = clock
        self._closed = asyncio.Event()

    def close(self) -> None:
        """The server stops: calls that still wait for a leader end at once, with Stopping."""
        self._closed.set()

    async def find(self, senders: Sequence[str] = (), refused_by: str | None = None) -> Line | None:
        """The standing connection on which to pass a call on to the leader; None: the call runs here.

        `senders` is what the call's `redirect` metadata says. `refused_by` names the manager that was thought to lead and just said that it
        does not: news are then waited for first, for two seconds.

        Raises Unknown with the well-known sentence when there has been no leader for too long, NotHere when another manager leads and the
        call was passed on before, Unavailable when the leader cannot be reached for ten seconds, Stopping when this manager ends. The
        caller's own deadline may end the wait earlier.
        """
        if refused_by is not None:
            await self._news(refused_by)
        give_up: float | None = None
        while True:
            changed = self._directory.changed
            if self._directory.is_leader:
                return None
            if self._closed.is_set():
                raise Stopping
            line = self._directory.leader_line()
            if line is None:
                if self._directory.leaderless():
                    raise Unknown(NO_LEADER)
                await wait_for(changed, self._clock, _RECHECK_SECONDS, until=self._closed)
                continue
            if senders:
                raise NotHere(senders)
            if line.stands():
                return line
            now = self._clock.monotonic()
            give_up = give_up or now + _UNREACHABLE_SECONDS
            if now >= give_up:
                raise Unavailable(f"manager {line.node_id} leads but cannot be reached at {line.addr} from here; the call was not made")
            # A connection that comes to stand is no news in the directory.
            await wait_for(changed, self._clock, _CONNECTING_SECONDS, until=self._closed)

    async def _news(self, refused_by: str) -> None:
        """Wait until somebody else leads, or nobody, or for two seconds: a leader may be unsure of itself only for a moment."""
        end = self._clock.monotonic() + _NEWS_SECONDS
        while True:
            changed = self._directory.changed
            left = end - self._clock.monotonic()
            if left <= 0 or self._leading() != refused_by or self._closed.is_set():
                return
            await wait_for(changed, self._clock, left, until=self._closed)

    def _leading(self) -> str | None:
        if self._directory.is_leader:
            return HERE
        leader = self._directory.leader()
        return leader[0] if leader is not None else None
