"""The member that lives in this process, as its network sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pyswarm.api.private import raft_pb2
from pyswarm.errors import FailedPrecondition
from pyswarm.raft.membership import Membership
from pyswarm.raft.messages import Message
from pyswarm.raft.replica import Replica

CROWD = 1024
"""So many messages may wait to be handled before those who bring more have to wait."""


class Resident:
    """Implements `links.Host`. Between the network's tasks and the rounds of the replica, all on one event loop."""

    def __init__(self, cluster_id: str, wake: Callable[[], None], removed: Callable[[], None]) -> None:
        self._cluster_id = cluster_id
        self._wake = wake
        self._removed = removed
        self._epoch = 0
        self._room = asyncio.Event()
        self._newcomers: list[int] = []
        self.addr = ""
        """Where this member is reached."""
        self.replica: Replica | None = None
        """Set while the member takes part."""
        self.empty = False
        """Whether it is known that there is no log here (yet)."""

    # --- what the service asks

    @property
    def own_id(self) -> int | None:
        """This member's raft id, 0 without a log, None when that is not known yet, or any more."""
        if self.replica is not None:
            return self.replica.raft_id
        return 0 if self.empty else None

    @property
    def table(self) -> Membership:
        """The members, and who is gone; empty without a log."""
        return self.replica.membership if self.replica is not None else Membership()

    def check_era(self, raft_id: int, era: int) -> None:
        """Raise FailedPrecondition for one from before this cluster began anew, whom the manager that did so may never have heard of.

        It may believe that it leads, for it knows this member; nothing that it says must be heard.
        """
        replica = self.replica
        if replica is None or era == replica.membership.era or raft_id in replica.membership.members or raft_id in replica.contacts:
            return
        if replica.membership.era:
            raise FailedPrecondition(
                f"raft: member {raft_id:x} does not know that this cluster began anew from one manager (--force-new-cluster): "
                "unless it is just joining, delete its raft directory and let it join again"
            )

    def appeared(self, raft_id: int) -> None:
        """A member began to talk."""
        self._newcomers.append(raft_id)
        self._wake()

    async def received(self, raft_id: int, message: Message) -> None:
        """A message arrived. Returns when there is room for the next one from there."""
        replica = self.replica
        if replica is None:
            return
        replica.traffic.put(raft_id, message)
        self._wake()
        if replica.traffic.waiting > CROWD:
            self._room.clear()
            await self._room.wait()

    # --- what the rounds ask

    def newcomers(self) -> list[int]:
        """Who began to talk since the last time."""
        found, self._newcomers = self._newcomers, []
        return found

    def make_room(self) -> None:
        """Everything that arrived has been handled."""
        self._room.set()

    # --- what links ask

    def greeting(self, raft_id: int) -> raft_pb2.Hello:
        """See Host; raft id 0 greets whoever is there."""
        self._epoch += 1
        hello = raft_pb2.Hello(cluster_id=self._cluster_id, to_raft_id=raft_id, epoch=self._epoch, addr=self.addr)
        if self.replica is not None:
            hello.from_raft_id = self.replica.raft_id
            hello.last_index, hello.last_term = self.replica.end_of_log
            hello.era = self.replica.membership.era
        return hello

    def link_up(self, raft_id: int) -> None:
        """See Host."""
        if self.replica is not None:
            self.replica.peers.link_up(raft_id)
            self._wake()

    def link_down(self, raft_id: int) -> None:
        """See Host."""
        if self.replica is not None:
            self.replica.peers.link_down(raft_id)
            self._wake()

    def told_removed(self) -> None:
        """See Host."""
        self._removed()
