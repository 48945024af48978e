"""How a manager becomes a member of a log that others keep (spec/store-and-raft, section 11).

It asks any manager, which passes the question on to the leader. Asking again is harmless: a member gets its old raft id, and its address in
the members' table follows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
import structlog

from pyswarm.api import v1 as api
from pyswarm.api.swarmkit import raft_pb2_grpc
from pyswarm.ca.connect import from_rpc
from pyswarm.ca.credentials import SecurityConfig
from pyswarm.cancellation import heeded
from pyswarm.clock import Clock
from pyswarm.errors import Code, FailedPrecondition, SwarmError
from pyswarm.raft.log import Joined, LostLeadership, Member
from pyswarm.rpc import channel, reach

log = structlog.get_logger(__name__)

JOIN_SECONDS = 25.0
"""How long one request may take, the leader's way back to this manager included."""

FIRST_PAUSE = 0.25
LAST_PAUSE = 4.0
REFUSALS = 5
"""So many answers that no waiting will change end the attempt."""

_PASSING = frozenset({Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.RESOURCE_EXHAUSTED, Code.ABORTED, Code.CANCELLED})


class Joiner:
    """Asks for membership."""

    def __init__(self, security: SecurityConfig, whom: Callable[[], str], own_address: Callable[[], str], clock: Clock) -> None:
        """`whom` names the address of another manager, each time maybe another, and raises SwarmError when it knows none."""
        self._security = security
        self._whom = whom
        self._own_address = own_address
        self._clock = clock

    async def join(self) -> Joined:
        """Ask until a leader says yes.

        What passes (no leader, nobody there) is waited out, however long; raises FailedPrecondition after five real refusals.
        """
        pause, refused = FIRST_PAUSE, 0
        while True:
            try:
                return await self.ask()
            except SwarmError as error:
                refused += not passing(error)
                if refused >= REFUSALS:
                    raise FailedPrecondition(f"can't initialize raft node: {error.message}") from error
                log.warning("not a member of the log yet", error=error.message)
            await self._clock.sleep(pause)
            pause = min(2 * pause, LAST_PAUSE)

    async def ask(self) -> Joined:
        """Ask once. Raises SwarmError."""
        whom = self._whom()
        own = self._own_address()
        if reach.is_wildcard(own):
            own = reach.seen_from(own, whom)
        log.info("asking to become a member of the log", manager=whom, addr=own)
        opened = channel.connect(whom, self._security.current)
        stub: Any = raft_pb2_grpc.RaftMembershipStub(opened)
        try:
            with heeded():
                answer: api.JoinResponse = await stub.Join(api.JoinRequest(addr=own), timeout=JOIN_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error) from error
        finally:
            await opened.close(None)
        members = [Member(raft_id=m.raft_id, node_id=m.node_id, addr=m.addr) for m in answer.members]
        return Joined(answer.raft_id, members, list(answer.removed_members))


def passing(error: SwarmError) -> bool:
    """Whether the same question may be answered otherwise later: nobody leads or answers, or the leader just changed."""
    # The reference has no code for "no leader", and ours says the same: unknown.
    return error.code in _PASSING or "does not have a leader" in error.message or LostLeadership().message in error.message
