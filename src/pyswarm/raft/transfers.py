"""Sending a snapshot to a member that is too far behind for entries, and receiving one.

Pieces are numbered, belong to one attempt, and carry the digest of the whole: a piece that is lost, repeated, or from an earlier attempt
can delay a transfer, never corrupt one. At most `WINDOW` pieces are under way per member.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from google.protobuf.message import DecodeError

from pyswarm.api.private import raft_pb2
from pyswarm.raft import parts
from pyswarm.raft.messages import Piece

log = structlog.get_logger(__name__)

PIECE_BYTES = 1 << 20
WINDOW = 8
HELD_ENTRIES = 100_000
"""A bound for memory: who is slower than this many entries gets another snapshot."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A snapshot in memory for as long as somebody needs it."""

    index: int
    term: int
    data: bytes
    digest: bytes

    @classmethod
    def of(cls, snapshot: raft_pb2.LogSnapshot) -> Loaded:
        """The plain snapshot, ready to be cut: members do not share their data keys. Blocking when it is large."""
        data = b"".join(parts.split(*parts.apart(snapshot)))
        return cls(snapshot.start.last.index, snapshot.start.last.term, data, hashlib.sha256(data).digest())


@dataclass(slots=True)
class Transfer:
    """One attempt for one member."""

    number: int
    loaded: Loaded
    sent: int = 0
    confirmed: int = 0
    idle_ticks: int = 0

    @property
    def total(self) -> int:
        """Pieces in all."""
        return max(1, -(-len(self.loaded.data) // PIECE_BYTES))

    @property
    def complete(self) -> bool:
        """Whether all of it was sent. The entries behind it are wanted next, when the member has it installed."""
        return self.sent >= self.total


class Sender:
    """The leader's side, for all members. `newest` is the index of the newest snapshot on disk."""

    def __init__(self, chance: random.Random, newest: Callable[[], int]) -> None:
        self._chance = chance
        self._newest = newest
        self._loaded: Loaded | None = None
        self._transfers: dict[int, Transfer] = {}
        self.wanted = False
        """Whether somebody waits for the newest snapshot to be loaded."""
        self.fresh = False
        """Whether it has just been, so that sending can begin."""
        self._unused_ticks = 0

    def provide(self, loaded: Loaded) -> None:
        """The snapshot that was wanted."""
        self._loaded, self.wanted, self.fresh = loaded, False, True
        self._unused_ticks = 0

    def next_piece(self, member: int) -> tuple[Piece, bool] | None:
        """The next piece, without a term, and whether it is the last; None when the window is full or nothing is loaded yet."""
        transfer = self._transfers.get(member)
        if transfer is None or transfer.complete:
            if self._loaded is None or self._loaded.index < self._newest():
                self.wanted = self._newest() > 0
                return None
            transfer = self._transfers[member] = Transfer(self._chance.getrandbits(63), self._loaded)
        if transfer.sent - transfer.confirmed >= WINDOW:
            return None
        number, whole = transfer.sent, transfer.loaded
        transfer.sent += 1
        data = whole.data[number * PIECE_BYTES : (number + 1) * PIECE_BYTES]
        piece = Piece(0, transfer.number, number, transfer.total, whole.index, whole.term, whole.digest, data)
        return piece, transfer.complete

    def confirm(self, member: int, number: int, count: int) -> None:
        """A member has so many pieces of an attempt."""
        transfer = self._transfers.get(member)
        if transfer is not None and transfer.number == number and count > transfer.confirmed:
            transfer.confirmed = min(count, transfer.sent)
            transfer.idle_ticks = 0

    def acknowledged(self, member: int, index: int) -> None:
        """A member has the log up to `index`."""
        transfer = self._transfers.get(member)
        if transfer is not None and index >= transfer.loaded.index:
            del self._transfers[member]

    def held(self, applied: int) -> int:
        """How many entries up to `applied` must stay: those behind a snapshot that somebody is getting, or it would have to get another."""
        oldest = min((t.loaded.index for t in self._transfers.values()), default=applied)
        return min(applied - oldest, HELD_ENTRIES)

    def rest(self) -> None:
        """Somebody else leads."""
        self._transfers.clear()

    def cancel(self, member: int) -> None:
        """The connection to a member is gone, or a new attempt is due: the next one starts from the beginning."""
        self._transfers.pop(member, None)

    def count_tick(self, limit: int) -> None:
        """A tick has passed: give up on attempts without progress for `limit` ticks, and forget what nobody needs."""
        under_way = {member: transfer for member, transfer in self._transfers.items() if not transfer.complete}
        for member, transfer in under_way.items():
            transfer.idle_ticks += 1
            if transfer.idle_ticks > limit:
                log.warning("snapshot transfer makes no progress, starting again", member=f"{member:x}", confirmed=transfer.confirmed)
                self.cancel(member)
        self._unused_ticks = 0 if under_way else self._unused_ticks + 1
        if self._unused_ticks > limit:
            self._loaded = None


@dataclass(frozen=True, slots=True)
class Arrived:
    """All pieces of a snapshot that is said to end with entry (index, term); nobody has looked at it yet."""

    index: int
    term: int
    digest: bytes
    data: tuple[bytes, ...]

    def open(self) -> raft_pb2.LogSnapshot | None:
        """The snapshot, if it is what it claims to be. Blocking when it is large."""
        data = b"".join(self.data)
        try:
            snapshot = parts.read(data) if hashlib.sha256(data).digest() == self.digest else None
        except DecodeError:
            snapshot = None
        last = snapshot.start.last if snapshot is not None else None
        if last is None or (last.index, last.term) != (self.index, self.term):
            log.error("received snapshot is damaged and was dropped", index=self.index)
            return None
        return snapshot


class Receiver:
    """The follower's side: one attempt at a time, the newest."""

    def __init__(self) -> None:
        self._number = 0
        self._parts: dict[int, bytes] = {}

    @property
    def count(self) -> int:
        """Pieces of the present attempt that are here."""
        return len(self._parts)

    def add(self, piece: Piece) -> Arrived | None:
        """Take a piece; the whole, once it is complete."""
        if piece.transfer != self._number:
            self._number, self._parts = piece.transfer, {}
        self._parts[piece.number] = piece.data
        if len(self._parts) < piece.total:
            return None
        arrived = Arrived(piece.index, piece.index_term, piece.digest, tuple(self._parts[i] for i in sorted(self._parts)))
        self._number, self._parts = 0, {}
        return arrived
