"""Which members can be reached right now, and what the library is told about that. Pure bookkeeping of one member."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from pyswarm.raft.core import Core
from pyswarm.raft.traffic import Traffic


class Peers:
    """Connections come and go at any time; the library hears of them for voters and learners only, and never misses an end."""

    def __init__(self, core: Core, traffic: Traffic, patience: int) -> None:
        self._core = core
        self._traffic = traffic
        self._patience = patience
        self._ticks = 0
        self._up: dict[int, int] = {}
        self._voters: set[int] = set()
        self._learners: set[int] = set()

    def link_up(self, raft_id: int) -> None:
        """Messages to a member can be sent from now on."""
        self._up[raft_id] = self._ticks
        self._traffic.reached.add(raft_id)
        self._traffic.heard[raft_id] = 0

    def link_down(self, raft_id: int) -> None:
        """Messages to a member are lost from now on, also those under way."""
        self._up.pop(raft_id, None)
        self._traffic.reached.discard(raft_id)
        self._end(raft_id)

    def _end(self, raft_id: int) -> None:
        if raft_id in self._voters:
            self._voters.discard(raft_id)
            self._core.disconnected(raft_id)
        if raft_id in self._learners:
            self._learners.discard(raft_id)
            self._core.learner_disconnected(raft_id)

    def is_up(self, raft_id: int) -> bool:
        """Whether messages can be sent to a member."""
        return raft_id in self._up

    def count_tick(self) -> None:
        """A tick of time has passed."""
        self._ticks += 1

    def align(self, learners: Iterable[int]) -> None:
        """Tell the library what has changed. `learners`: who is to be sent the log without having a vote."""
        voters = self._core.voters
        wanted = set(learners) - voters
        for raft_id in (self._voters - voters) | (self._learners - wanted):
            self._end(raft_id)
        for raft_id in (voters & self._up.keys()) - self._voters:
            self._voters.add(raft_id)
            self._core.connected(raft_id)
        for raft_id in (wanted & self._up.keys()) - self._learners:
            self._learners.add(raft_id)
            self._core.learner_connected(raft_id)

    def reachable(self) -> AbstractSet[int]:
        """Members with a connection; on a leader, who hears from everybody all the time, only those that answer."""
        if not self._core.leading:
            return set(self._up)
        return {i for i in self._up if self._traffic.heard.get(i, 0) <= self._patience}

    def longest(self) -> int:
        """The voter that has been reachable for longest; 0 if there is none."""
        candidates = self.reachable() & self._core.voters
        return min(candidates, key=lambda i: (self._up[i], i), default=0)
