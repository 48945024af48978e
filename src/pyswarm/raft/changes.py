"""What only a leader does about members: one change at a time, learners until they have caught up, handing leadership over.

Decides in the leader's rounds, never waits. Everything here is forgotten when leadership ends; nothing of it needs to survive.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass

import structlog

from pyswarm.api import v1 as api
from pyswarm.errors import FailedPrecondition, InvalidArgument
from pyswarm.raft import commands
from pyswarm.raft.core import Core
from pyswarm.raft.journal import Journal
from pyswarm.raft.log import ProposalError
from pyswarm.raft.membership import Change, Membership
from pyswarm.raft.messages import CampaignNow
from pyswarm.raft.peers import Peers
from pyswarm.raft.proposals import Proposals
from pyswarm.raft.traffic import Traffic

log = structlog.get_logger(__name__)

CLOSE = 8
"""A learner that lacks at most so many entries has caught up."""
PATIENCE = 20
"""Election time-outs after which a learner that says nothing is given up."""


@dataclass(slots=True)
class Learner:
    """A manager that is sent the log and has no vote yet."""

    member: api.RaftMember
    silent_ticks: int = 0


@dataclass(slots=True)
class Handover:
    """Leadership is on its way to a member."""

    target: int
    ticks: int = 0
    sent: bool = False


class Changes:
    """See the module."""

    def __init__(
        self,
        core: Core,
        journal: Journal,
        membership: Membership,
        traffic: Traffic,
        peers: Peers,
        proposals: Proposals,
        election_tick: int,
    ) -> None:
        self._core = core
        self._journal = journal
        self._membership = membership
        self._traffic = traffic
        self._peers = peers
        self._proposals = proposals
        self._election_tick = election_tick
        self._queue: deque[tuple[Change, asyncio.Future[int]]] = deque()
        self._last = 0
        self._handover: Handover | None = None
        self.learners: dict[int, Learner] = {}

    # --- asking

    @property
    def handing_over(self) -> bool:
        """Whether proposals must wait because leadership is on its way to somebody else."""
        return self._handover is not None

    @property
    def waiting(self) -> bool:
        """Whether a change could be appended now."""
        return bool(self._queue) and self._free and self._handover is None

    def can_remove(self, raft_id: int) -> bool:
        """Whether those who remain, as far as they are reachable, are a majority of what would be left (spec section 14.2)."""
        members = self._membership.members.keys()
        here = (self._peers.reachable() & members) | {self._journal.identity.raft_id}
        return len(here - {raft_id}) >= (len(members) - 1) // 2 + 1

    # --- wishes

    def submit(self, change: Change, done: asyncio.Future[int]) -> None:
        """Have a change proposed as soon as no other is under way; `done` fails with InvalidArgument if it does not fit by then."""
        self._queue.append((change, done))

    def admit(self, member: api.RaftMember) -> None:
        """Begin to send somebody the log; it becomes a voter when it has caught up."""
        known = self.learners.get(member.raft_id)
        if known is None or known.member != member:
            log.info("a manager is being brought up to date", member=f"{member.raft_id:x}", node_id=member.node_id, addr=member.addr)
            self.learners[member.raft_id] = Learner(member)
            self._traffic.voters_changed = True

    def dismiss(self, raft_id: int) -> None:
        """Have nothing to do with a learner any more."""
        if self.learners.pop(raft_id, None) is not None:
            self._traffic.voters_changed = True

    def hand_over(self) -> int:
        """Begin to let the longest reachable member lead; its id. Raises FailedPrecondition."""
        if self._handover is None:
            target = self._peers.longest()
            if not target:
                raise FailedPrecondition("failed to get longest-active member: failed to find longest active peer")
            log.info("handing leadership over", target=f"{target:x}")
            self._handover = Handover(target)
        return self._handover.target

    def recommend(self) -> None:
        """This member stepped down because it hears no majority. The others may still hear it: the best of them need not wait any longer.

        Where nobody hears it, or another leads already, nothing comes of it: the filter takes this from the present leader only.
        """
        matched = self._core.matched
        there = sorted(i for i in self._core.voters if self._peers.is_up(i))
        if best := max(there, key=lambda i: matched.get(i, 0), default=0):
            self._traffic.send(best, CampaignNow(self._core.term))

    # --- rounds

    def work(self) -> None:
        """Once per round of an announced leader, before anything is sent."""
        self._check_handover()
        if self._handover is not None:
            return
        while self._queue and self._free:
            change, done = self._queue.popleft()
            if done.done():
                continue
            try:
                self._membership.check(change)
            except InvalidArgument as error:
                done.set_exception(error)
                continue
            index = self._proposals.append_now(self._core, commands.membership(change), done)
            if change.kind in {Change.ADD, Change.REMOVE}:
                self._last = index
        self._promote()

    @property
    def _free(self) -> bool:
        """Nobody's vote is being given or taken: two such changes at a time could make two majorities (section 21.4, S11)."""
        return self._core.applied >= self._last

    def _promote(self) -> None:
        matched = self._core.matched
        for raft_id, learner in list(self.learners.items()):
            if raft_id in self._membership.members or raft_id in self._membership.removed:
                self.dismiss(raft_id)
            elif self._free and matched.get(raft_id, 0) >= max(2, self._journal.last_index - CLOSE):
                log.info("a manager has caught up and gets its vote", member=f"{raft_id:x}", index=self._journal.last_index)
                del self.learners[raft_id]
                # never both at once: a learner's end would take the voter's place in the library's tables with it
                self._peers.align(self.learners)
                self._last, _ = self._core.append(commands.membership(Change(kind=Change.ADD, member=learner.member)))
                self._peers.align(self.learners)

    def _check_handover(self) -> None:
        handover = self._handover
        if handover is None:
            return
        if handover.target not in self._peers.reachable() or handover.ticks > self._election_tick:
            log.warning("leadership was not taken over, carrying on", target=f"{handover.target:x}")
            self._handover = None
        elif not handover.sent and self._core.matched.get(handover.target) == self._journal.last_index:
            handover.sent = True
            self._traffic.send(handover.target, CampaignNow(self._core.term))

    def count_tick(self) -> None:
        """A tick of time has passed."""
        if self._handover is not None:
            self._handover.ticks += 1
        for raft_id, learner in list(self.learners.items()):
            learner.silent_ticks += 1
            learner.silent_ticks = min(learner.silent_ticks, self._traffic.heard.get(raft_id, learner.silent_ticks))
            if learner.silent_ticks > PATIENCE * self._election_tick:
                log.warning("a manager that was to join does not answer and is given up", member=f"{raft_id:x}")
                self.dismiss(raft_id)

    def resign(self, error: ProposalError) -> None:
        """Leadership is gone."""
        for _, done in self._queue:
            if not done.done():
                done.set_exception(error)
        self._queue.clear()
        self._handover = None
        for raft_id in list(self.learners):
            self.dismiss(raft_id)

    def contacts(self) -> Collection[api.RaftMember]:
        """Who must be reached beside the members."""
        return [learner.member for learner in self.learners.values()]
