"""The door to the leader: which services must run there, and what happens while this node does not lead.

Today a cluster has one manager, so a call either runs here or has to wait until this node leads. With several managers the same door passes
calls on over `LeaderDirectory.leader_channel()` (spec/dispatcher-agent-node, section 12).
"""

from __future__ import annotations

from typing import Protocol

import grpc
import grpc.aio

from pyswarm.clock import Clock
from pyswarm.errors import ResourceExhausted, Unimplemented, Unknown
from pyswarm.rpc.authorize import REDIRECT, Metadata

PROXIED_REMOTE = frozenset({"CA", "NodeCA", "Dispatcher", "RaftMembership", "ResourceAllocator", "LogBroker"})
"""Services that a call on the remote port reaches on the leader; the others answer from local state."""

PROXIED_LOCAL = frozenset({"CA", "NodeCA", "Control", "Logs", "Dispatcher", "ResourceAllocator", "LogBroker"})
"""The same for the control socket."""

NOT_ON_LOCAL = frozenset({"Raft", "RaftMembership"})
"""Services the control socket does not have."""

NO_LEADER = (
    "The swarm does not have a leader. It's possible that too few managers are online. Make sure more than half of the managers are online."
)

_GRACE_SECONDS = 10.0
_POLL_SECONDS = 0.25


class LeaderDirectory(Protocol):
    """What the log knows about leadership."""

    @property
    def is_leader(self) -> bool:
        """This node leads and is caught up."""
        ...

    def leader_channel(self) -> grpc.aio.Channel | None:
        """A channel to the leader, made with this manager's certificate; None when no leader is known or it is this node."""
        ...


class LeaderDoor:
    """Lets a call through once it may run here."""

    def __init__(self, directory: LeaderDirectory, clock: Clock) -> None:
        self._directory = directory
        self._clock = clock
        self._leaderless_since: float | None = None

    async def pass_through(self, metadata: Metadata, remote_addr: str) -> None:
        """Return when this node leads.

        Raises Unknown with the well-known sentence when there has been no leader for ten seconds (the caller's own deadline may end the
        wait earlier), ResourceExhausted when the call was passed on before.
        """
        while not self._directory.is_leader:
            if self._directory.leader_channel() is not None:
                if metadata.get(REDIRECT):
                    raise ResourceExhausted(f"more than one redirect to leader from: [{' '.join(metadata[REDIRECT])}]")
                raise Unimplemented(f"another manager leads; passing calls on is not implemented yet (call from {remote_addr})")
            now = self._clock.monotonic()
            if self._leaderless_since is None:
                self._leaderless_since = now
            if now - self._leaderless_since > _GRACE_SECONDS:
                raise Unknown(NO_LEADER)
            await self._clock.sleep(_POLL_SECONDS)
        self._leaderless_since = None
