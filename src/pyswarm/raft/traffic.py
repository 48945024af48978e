"""Everything between the consensus core and the network of one member: what comes in is judged, what goes out waits for the disk."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace

import structlog

from pyswarm.raft import filter as screen
from pyswarm.raft.core import Core
from pyswarm.raft.errors import LogDiverged
from pyswarm.raft.filter import Verdict, View
from pyswarm.raft.journal import Journal
from pyswarm.raft.membership import Membership
from pyswarm.raft.messages import (
    EARLY,
    Ack,
    Append,
    CampaignNow,
    Echo,
    GrantVote,
    Message,
    Nudge,
    Piece,
    PieceReceived,
    PreGrant,
    PreVote,
    Probe,
    RequestVote,
)
from pyswarm.raft.reads import Reads
from pyswarm.raft.transfers import Arrived, Receiver, Sender

log = structlog.get_logger(__name__)

Judge = Callable[[View, int, Message], Verdict]


class Traffic:
    """Implements `core.Outlet`; `attach` the core before use.

    `judge` is the message filter; tests put none in its place to show what it is for.
    """

    def __init__(
        self, own_id: int, journal: Journal, membership: Membership, sender: Sender, reads: Reads, judge: Judge = screen.receive
    ) -> None:
        self._own_id = own_id
        self._journal = journal
        self._membership = membership
        self._sender = sender
        self._reads = reads
        self._judge = judge
        self._receiver = Receiver()
        self._inbox: deque[tuple[int, Message]] = deque()
        self._early: list[tuple[int, Message]] = []
        self._held: list[tuple[int, Message]] = []
        self._votes: tuple[int, set[int]] = (0, set())
        self._transfer_term = 0
        self._pre_grants: tuple[int, set[int]] = (0, set())
        self.heard: dict[int, int] = {}
        """Per member that ever spoke: ticks since it last did."""
        self.reached: set[int] = set()
        """Whom messages reach at present."""
        self.voters_changed = True
        """Whether the core's voters may have changed since this was last reset."""
        self.silent_ticks = 0
        """Ticks since something of a live leader was accepted, or a vote was given."""
        self.leader_within = 0
        """How many silent ticks a leader may leave before it no longer counts as alive."""
        self.arrived: Arrived | None = None
        """A complete snapshot that waits to be looked at, written and installed."""
        self.installing = False
        self.push = False
        """Whether the leader should send at once: a member made room for more."""

    def attach(self, core: Core) -> None:
        """Say which core this serves."""
        self._core = core

    # --- out

    def send(self, raft_id: int, message: Message) -> None:
        """See Outlet."""
        if isinstance(message, RequestVote) and message.term == self._transfer_term:
            message = replace(message, transfer=True)
        if isinstance(message, GrantVote):
            self.silent_ticks = 0
        (self._early if isinstance(message, EARLY) else self._held).append((raft_id, message))

    def connect(self, raft_id: int) -> None:  # noqa: ARG002 - Outlet's shape
        """See Outlet. Connections follow the members' table and the log, not the core."""
        self.voters_changed = True

    def disconnect(self, raft_id: int) -> None:  # noqa: ARG002 - Outlet's shape
        """See Outlet."""
        self.voters_changed = True

    def take(self, *, synced: bool) -> list[tuple[int, Message]]:
        """What may leave now: with `synced` everything, else only what does not rest on this member's disk."""
        out, self._early = self._early, []
        if synced:
            out += self._held
            self._held = []
        return out

    # --- in

    def put(self, sender: int, message: Message) -> None:
        """A message arrived from an authenticated member."""
        self.heard[sender] = 0
        self._inbox.append((sender, message))

    def count_tick(self) -> None:
        """A tick of time has passed."""
        self.silent_ticks += 1
        for member in self.heard:
            self.heard[member] += 1

    def pre_grants(self, term: int) -> set[int]:
        """Who would vote for this member in `term`."""
        return self._pre_grants[1] if self._pre_grants[0] == term else set()

    @property
    def waiting(self) -> int:
        """How many messages wait to be handled."""
        return len(self._inbox)

    def handle_all(self) -> None:
        """Judge and deliver everything that arrived. Raises LogDiverged."""
        while self._inbox:
            self._handle(*self._inbox.popleft())

    def _handle(self, sender: int, message: Message) -> None:
        verdict = self._judge(self._view(), sender, message)
        if verdict.fatal:
            raise LogDiverged(f"{verdict.fatal}: the managers' logs have diverged; stopping before more harm is done")
        if verdict.alarm:
            log.error("raft message refused", sender=f"{sender:x}", reason=verdict.alarm)
        if verdict.deliver is not None:
            self._deliver(sender, verdict.deliver)
        if verdict.reply is not None:
            self._reply(sender, verdict.reply)

    def _deliver(self, sender: int, message: Message) -> None:
        match message:
            case Piece():
                self.silent_ticks = 0
                self._core.receive(sender, Nudge(message.term, 0))
                self._take_piece(sender, message)
                return
            case PieceReceived():
                self._core.heard(sender)
                self._sender.confirm(sender, message.transfer, message.count)
                self.push = True
                return
            case PreVote() | Probe():
                return
            case Echo():
                self._reads.echo(sender, message.number)
                return
            case PreGrant():
                self._pre_grants = (message.term, self.pre_grants(message.term) | {sender})
                return
            case Append() | Nudge():
                self.silent_ticks = 0
            case Ack() if message.success:
                self._sender.acknowledged(sender, message.next_index - 1)
            case GrantVote():
                self._counted(message.term).add(sender)
            case CampaignNow():
                self._transfer_term = message.term + 1
            case _:
                pass
        self._core.receive(sender, message)

    def _reply(self, sender: int, message: Message) -> None:
        if self.installing and isinstance(message, Ack) and message.reset:
            message = PieceReceived(message.term, 0, 0)  # more entries will fit as soon as the snapshot is in
        self.send(sender, message)

    def _take_piece(self, sender: int, piece: Piece) -> None:
        """Collect; a snapshot of what is here already is answered with where to go on instead (section 21.4, S8)."""
        if self.contains(piece.index, piece.index_term):
            self.send(sender, Ack(piece.term, piece.index + 1, success=True))
            return
        if not self.installing:
            self.arrived = self._receiver.add(piece) or self.arrived
        self.send(sender, PieceReceived(piece.term, piece.transfer, piece.number + 1))

    def contains(self, index: int, term: int) -> bool:
        """Whether everything up to an entry is applied or in the log."""
        return index <= self._core.applied or self._journal.term_at(index) == term

    def _counted(self, term: int) -> set[int]:
        if self._votes[0] != term:
            self._votes = (term, set())
        return self._votes[1]

    def _view(self) -> View:
        core = self._core
        return View(
            own_id=self._own_id,
            term=core.term,
            committed=core.committed,
            leading=core.leading,
            leader_id=core.leader_id,
            leader_alive=bool(core.leader_id) and self.silent_ticks < self.leader_within,
            campaigning=core.campaigning,
            is_member=self._own_id in self._membership.members,
            voters=core.voters,
            removed=self._membership.removed,
            matched=core.matched,
            votes=self._counted(core.term),
            reached=self.reached,
            log=self._journal,
        )
