"""What PySyncObj gets to see of a message, and what is answered in its place. Pure.

The library believes every message: it counts votes instead of collecting them, truncates on any append, takes over commit indexes
unverified, and credits acknowledgements of other terms (spec/store-and-raft, section 21.4, S1-S4). Here each message is judged against
the receiver's own log and state; what is delivered cannot make the library do any of that. One function per rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Protocol

from pyswarm.raft.commands import PICKLED_TYPES
from pyswarm.raft.messages import (
    Ack,
    Append,
    CampaignNow,
    Echo,
    GrantVote,
    HigherTerm,
    Message,
    Nudge,
    Piece,
    PieceReceived,
    PreGrant,
    PreVote,
    Probe,
    RequestVote,
)


class LogView(Protocol):
    """The receiver's visible log."""

    @property
    def first(self) -> int:
        """Index of the first entry."""
        ...

    @property
    def last_index(self) -> int:
        """Index of the last entry."""
        ...

    def term_at(self, index: int) -> int | None:
        """Term of an entry, None outside first … last."""
        ...


@dataclass(slots=True)
class View:
    """What the receiver knows when a message arrives. One is made for each, so it is not frozen: that would cost most of the judgement."""

    own_id: int
    term: int
    committed: int
    leading: bool
    leader_id: int
    leader_alive: bool
    """An append of the present leader was accepted within the election time-out."""
    campaigning: bool
    is_member: bool
    voters: AbstractSet[int]
    """The other voters."""
    removed: AbstractSet[int]
    matched: Mapping[int, int]
    """Per member that is sent entries: up to where its log is known to equal this one."""
    votes: AbstractSet[int]
    """Whose votes were counted in this term."""
    reached: AbstractSet[int]
    """Whom messages of this member reach: their own service answered."""
    log: LogView


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do with a message. `deliver` goes to the library first, then `reply` is sent back."""

    deliver: Message | None = None
    reply: Message | None = None
    fatal: str = ""
    """The logs contradict each other below the commit index: this process must stop."""
    alarm: str = ""
    """Worth a line in the log: the sender does what no correct member does."""


DROP = Verdict()
REMOVED_TEXT = "raft: member was removed from the cluster"


def receive(view: View, sender: int, message: Message) -> Verdict:
    """Judge a message from an authenticated member. Each kind has its rule below."""
    if sender in view.removed:
        return DROP  # the transport has told it, on whatever stream this came
    match message:
        case PreVote():
            return question(view, sender, message)
        case PreGrant():
            wanted = message.term == view.term + 1 and sender in view.voters and not view.leading
        case RequestVote():
            wanted = election(view, sender, message)
        case GrantVote():
            wanted = new_vote(view, sender, message)
        case Ack():
            return acknowledgement(view, sender, message)
        case PieceReceived():
            wanted = message.term == view.term and sender in view.matched
        case Append() | Nudge() | Piece() | Probe():
            return of_a_leader(view, message)
        case Echo():
            wanted = view.leading and message.term == view.term and sender in view.voters
        case CampaignNow():
            wanted = message.term == view.term and sender == view.leader_id and view.is_member
        case HigherTerm():
            # a vote request that nobody can grant: the library adopts the term, steps down, and does nothing else
            known = sender in view.voters or sender in view.matched
            return Verdict(RequestVote(message.term, 0, -1)) if known and message.term > view.term else DROP
    return Verdict(message) if wanted else DROP


def may_lead(view: View, sender: int) -> bool:
    """A stranger may not, nor a member that cannot be reached: it would be elected, and nobody could follow it."""
    return sender in view.voters and sender in view.reached


def question(view: View, sender: int, message: PreVote) -> Verdict:
    """Yes to who would get a vote now. One that is behind learns the term, or its only up-to-date log could never win."""
    if not may_lead(view, sender):
        return DROP
    if message.term <= view.term:
        return Verdict(reply=HigherTerm(view.term))
    last = view.log.last_index
    behind = (message.last_term, message.last_index) < (view.log.term_at(last) or 0, last)
    return DROP if behind or view.leading or view.leader_alive else Verdict(reply=PreGrant(message.term))


def election(view: View, sender: int, message: RequestVote) -> bool:
    """Whether somebody may stand: a voter that can be reached, while no leader lives or when that leader itself wants it."""
    return may_lead(view, sender) and (message.transfer or not (view.leading or view.leader_alive))


def new_vote(view: View, sender: int, message: GrantVote) -> bool:
    """Votes are collected, not counted: one of each voter, in the term it was asked for (S1)."""
    return view.campaigning and message.term == view.term and sender in view.voters and sender not in view.votes


def acknowledgement(view: View, sender: int, message: Ack) -> Verdict:
    """What a follower has counts in the term in which it said so, and only up to what this log holds (S4)."""
    matched = view.matched.get(sender)
    if not view.leading or message.term != view.term or matched is None or message.next_index - 1 > view.log.last_index:
        return DROP
    if message.reset and message.next_index <= matched:
        # below what it acknowledged: either an old answer, or it lost entries. Probing on from match + 1 is right in the first case,
        # and in the second never counts what is gone, because it will be refused again.
        return Verdict(replace(message, next_index=matched + 1, success=False))
    return Verdict(message)


def of_a_leader(view: View, message: Append | Nudge | Piece | Probe) -> Verdict:
    """An older one learns the present term; a second one in the own term cannot be."""
    if message.term < view.term:
        return Verdict(reply=HigherTerm(view.term))
    if view.leading and message.term == view.term:
        return Verdict(alarm="a second leader in this member's own term")
    match message:
        case Append():
            return new_entries(view, message)
        case Nudge():
            return Verdict(sign_of_life(view, message))
        case Piece():
            return Verdict(message)
        case Probe():
            # of a term that is not known here yet: it will be asked again
            return Verdict(reply=Echo(message.term, message.number)) if message.term == view.term else DROP


def sign_of_life(view: View, message: Nudge) -> Nudge:
    """Without entries to compare, the leader's commit index says nothing about what is in this log (S3)."""
    return replace(message, commit=min(message.commit, view.committed))


def new_entries(view: View, message: Append) -> Verdict:
    """Only a real conflict cuts anything, and only what was compared is acknowledged or committed (S2)."""
    alarm = _malformed(message)
    if alarm:
        return Verdict(alarm=alarm)
    message = _skip_covered(view, message)
    log = view.log
    prev, last = message.prev_index, log.last_index
    if log.term_at(prev) != message.prev_term:
        return Verdict(Nudge(message.term, 0), Ack(message.term, view.committed + 1, reset=True))
    position = 0
    while position < len(message.entries) and log.term_at(message.entries[position][1]) == message.entries[position][2]:
        position += 1
    rest = message.entries[position:]
    if rest:
        return _conflict_or_growth(view, message, rest)
    end = prev + len(message.entries)
    if end == last:
        term = message.entries[-1][2] if message.entries else message.prev_term
        return Verdict(replace(message, prev_index=last, prev_term=term, entries=()))
    return Verdict(Nudge(message.term, min(message.commit, end)), Ack(message.term, end + 1, success=True))


def _conflict_or_growth(view: View, message: Append, rest: tuple[tuple[bytes, int, int], ...]) -> Verdict:
    """Entries that are missing here or differ: hand over exactly those, so that exactly the conflict is cut."""
    first = rest[0][1]
    if first <= view.committed:
        own = view.log.term_at(first)
        return Verdict(
            fatal=f"entry {first} is committed here with term {own}, the leader of term {message.term} has it with term {rest[0][2]}"
        )
    before = view.log.term_at(first - 1)
    return Verdict(replace(message, prev_index=first - 1, prev_term=-1 if before is None else before, entries=rest))


def _skip_covered(view: View, message: Append) -> Append:
    """Entries at or below the first visible one are in the own snapshot, which is committed: begin behind them."""
    first = view.log.first
    end = message.prev_index + len(message.entries)
    if message.prev_index >= first or end < first:
        return message
    term = view.log.term_at(first)
    entries = tuple(e for e in message.entries if e[1] > first)
    return replace(message, prev_index=first, prev_term=-1 if term is None else term, entries=entries)


def _malformed(message: Append) -> str:
    for offset, (command, index, term) in enumerate(message.entries, 1):
        if index != message.prev_index + offset:
            return "entries are not consecutive"
        if term > message.term:
            return "an entry is newer than its leader"
        if not command or command[0] in PICKLED_TYPES:
            return "an entry holds a pickle, or nothing"
    return ""
