"""When a member stands for election: after a silence, and only when a majority says beforehand that it would vote. Decides, never waits."""

from __future__ import annotations

import random

from pyswarm.raft.core import Core
from pyswarm.raft.journal import Journal
from pyswarm.raft.messages import PreVote
from pyswarm.raft.peers import Peers
from pyswarm.raft.presence import Patience
from pyswarm.raft.traffic import Traffic


class Election:
    """One member's own election timer; the library's never fires (spec/store-and-raft, section 21.9).

    The question before the election is repeated each tick: it changes nothing anywhere, so asking too early costs nothing. When an election
    has no winner the next one comes sooner, for then there is no leader that could be disturbed.
    """

    def __init__(self, core: Core, journal: Journal, traffic: Traffic, peers: Peers, election_tick: int, chance: random.Random) -> None:
        self._core = core
        self._journal = journal
        self._traffic = traffic
        self._peers = peers
        self._patience = Patience(election_tick, chance)
        self._asked = -1
        self._stood = False

    def consider(self, member: bool) -> None:
        """Stand, or ask, if it is time. `member`: whether the table names this one, or its log does; who is named by neither never stands.

        What the log says counts before it is known to be committed, as for the others' votes (Ongaro, section 4.1): after a restart that is
        known of nothing behind the snapshot, and this member's log may be the only one with which anybody can be elected.
        """
        core = self._core
        if core.leading or not member:
            return
        if self._stood and not core.campaigning:
            self._stood = False
            self._patience.draw()
        silence = self._traffic.silent_ticks
        if not core.voters:
            self._stand()
        elif silence < self._patience.within(alone=not self._peers.is_up(core.leader_id)):
            self._asked = -1
        elif 2 * (len(self._traffic.pre_grants(core.term + 1) & core.voters) + 1) > len(core.voters) + 1:
            self._stand()
        elif self._asked != silence:
            self._asked = silence
            _, index, term = self._journal.last
            for voter in sorted(core.voters):
                self._traffic.send(voter, PreVote(core.term + 1, index, term))

    def _stand(self) -> None:
        self._patience.draw_short()
        self._traffic.silent_ticks = 0
        self._asked = -1
        self._stood = True
        self._core.campaign()
