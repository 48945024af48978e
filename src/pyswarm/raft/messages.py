"""What members say to each other, as values. Pure.

The library speaks in dictionaries; those stay inside `core`. Everything between there and the wire is one of these.
"""

from __future__ import annotations

from dataclasses import dataclass

from pyswarm.raft.journal import Entry


@dataclass(frozen=True, slots=True)
class RequestVote:
    """A candidate asks. `transfer` marks an election that the leader itself asked for."""

    term: int
    last_index: int
    last_term: int
    transfer: bool = False


@dataclass(frozen=True, slots=True)
class GrantVote:
    """The answer to a candidate; refusals are silent."""

    term: int


@dataclass(frozen=True, slots=True)
class Append:
    """A leader's entries behind (prev_index, prev_term); none for a heartbeat."""

    term: int
    commit: int
    prev_index: int
    prev_term: int
    entries: tuple[Entry, ...] = ()


@dataclass(frozen=True, slots=True)
class Nudge:
    """A leader that has nothing to append: it lives, and so much is committed."""

    term: int
    commit: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Part `number` of `total` of a snapshot that ends with entry (index, index_term). `digest` is the SHA-256 of the whole."""

    term: int
    transfer: int
    number: int
    total: int
    index: int
    index_term: int
    digest: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class PieceReceived:
    """So far `count` pieces of a transfer are here. Keeps the leader from counting a busy follower as gone."""

    term: int
    transfer: int
    count: int


@dataclass(frozen=True, slots=True)
class Ack:
    """A follower's answer: `success` says its log equals the leader's below `next_index`; `reset` asks to continue from there.

    `term` is the follower's term when it answered: an answer to one leadership must never count in another.
    """

    term: int
    next_index: int
    reset: bool = False
    success: bool = False


@dataclass(frozen=True, slots=True)
class CampaignNow:
    """The leader hands over."""

    term: int


@dataclass(frozen=True, slots=True)
class HigherTerm:
    """The answer to a leader of an older term."""

    term: int


@dataclass(frozen=True, slots=True)
class PreVote:
    """Would there be a vote for this member in `term`, the next one? Asking changes nothing anywhere."""

    term: int
    last_index: int
    last_term: int


@dataclass(frozen=True, slots=True)
class PreGrant:
    """Yes; refusals are silent."""

    term: int


@dataclass(frozen=True, slots=True)
class Probe:
    """A leader asks whether its term is still everybody's; `number` tells its rounds of asking apart."""

    term: int
    number: int


@dataclass(frozen=True, slots=True)
class Echo:
    """It was, when the question of this number arrived. A member that knows a newer term answers with that instead."""

    term: int
    number: int


OURS = PreVote | PreGrant | Probe | Echo
"""Handled without PySyncObj, which knows nothing of them."""

Message = RequestVote | GrantVote | Append | Nudge | Piece | PieceReceived | Ack | CampaignNow | HigherTerm | OURS

EARLY = (Append, Nudge, Piece, Probe, Echo)
"""What may leave before the sender's own disk is synced: a leader's entries become durable in parallel everywhere; a term that a member
has is on its disk already."""
