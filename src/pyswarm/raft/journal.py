"""The log on this manager's disk: append-only segments of encrypted records, one sync per group of entries.

PySyncObj sees a list of (command, index, term) with a few methods of its own naming (spec/store-and-raft, section 21.6). What it never
learns: truncation is a record, not an edit; a snapshot's installation is one record; more entries are kept than it asked for, so that slow
followers need no snapshot; and nothing is on disk before `sync` says so, except term and vote, which are when `setCurrentTerm` returns.

A failed write is final: the journal refuses everything afterwards, and the node ends without having acknowledged what was not synced.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import structlog
from cryptography.exceptions import InvalidTag

from pyswarm.api.private import raft_pb2
from pyswarm.raft import commands, records
from pyswarm.raft.disk import Disk
from pyswarm.raft.errors import CorruptJournal, JournalFailed
from pyswarm.raft.records import Kind, Record
from pyswarm.raft.vault import Cipher, Identity, Vault

log = structlog.get_logger(__name__)

Entry = tuple[bytes, int, int]
"""Command, index, term: the shape PySyncObj uses."""

SEGMENT_BYTES = 16 << 20
SPARE_SEGMENT_BYTES = 1 << 20
"""When a snapshot makes old entries disposable, a segment at least this large is closed so that it can go."""
_NAME = re.compile(r"([0-9a-f]{16})-[0-9a-f]{16}\.wal")
_HEAD_RECORDS = 2


@dataclass(slots=True)
class Segment:
    """A file of the log. `highest` is the largest index any of its entry records has (0: none)."""

    name: str
    number: int
    size: int
    highest: int = 0


class Journal:
    """See the module. Made by `create` or `open_existing`; used by one thread at a time."""

    def __init__(self, disk: Disk, vault: Vault) -> None:
        self._disk = disk
        self._vault = vault
        self._entries: list[Entry] = []
        self._hidden = 0
        self._term = 0
        self._voted_for: str | None = None
        self._commit = 1
        self._commit_written = 1
        self._segments: list[Segment] = []
        self._cipher: Cipher | None = None
        self._next_record = 1
        self._pending: list[tuple[Kind, int, int, bytes]] = []
        self._doomed: list[str] = []
        self._durable = 0
        self._roll = False
        self._failed: BaseException | None = None
        self.spare_entries = 0
        """How many entries more than asked for `deleteEntriesTo` keeps in memory."""

    @classmethod
    def create(cls, disk: Disk, vault: Vault, first: bytes = commands.NO_OP) -> Journal:
        """A new log in an empty directory, durable when it returns.

        `first` is the command of entry 1, which PySyncObj never replicates nor applies: room for what only this manager must know.
        """
        journal = cls(disk, vault)
        journal.add(first, 1, 0)
        journal.sync()
        return journal

    @classmethod
    def open_existing(cls, disk: Disk, vault: Vault) -> Journal | None:
        """The log in the directory, None if there is none yet. Raises StorageError when it cannot be used as it is."""
        journal = cls(disk, vault)
        names = [n for n in disk.names() if _NAME.fullmatch(n)]
        if not names:
            return None
        for name in names:
            journal._load(name, last=name == names[-1])
        if not journal._entries:
            raise CorruptJournal(disk.path / names[-1], 0, "the log holds no entries")
        journal._commit = journal._commit_written = max(1, min(journal._commit, journal._entries[-1][1]))
        journal._durable = journal._entries[-1][1]
        return journal

    # --- loading

    def _load(self, name: str, *, last: bool) -> None:
        file = str(self._disk.path / name)
        data = self._disk.read(name)
        number = int(name[:16], 16)
        if self._segments and number != self._segments[-1].number + 1:
            raise CorruptJournal(file, 0, f"the segment before it, number {number - 1:x}, is missing")
        found, damage = records.scan(data, self._next_record if self._segments else None)
        if len(found) < _HEAD_RECORDS or found[0].kind != Kind.IDENTITY:
            raise CorruptJournal(file, damage.offset if damage else 0, damage.what if damage else "it has no header")
        segment = Segment(name, number, found[-1].end)
        self._segments.append(segment)
        self._cipher = self._vault.open_file(found[0].payload, file)
        start = 0
        for record in found:
            if record.kind != Kind.IDENTITY:
                self._replay(record, segment, self._cipher, start)
            start = record.end
        self._next_record = found[-1].number + 1
        if damage is not None:
            if not (damage.torn and last):
                raise CorruptJournal(file, damage.offset, damage.what)
            self._cut(segment, data, damage)

    def _replay(self, record: Record, segment: Segment, cipher: Cipher, start: int) -> None:
        file = self._disk.path / segment.name
        try:
            payload = cipher.open(record.payload, records.context(record.kind, record.number, record.index, record.term))
        except InvalidTag:
            raise CorruptJournal(file, start, "a record was changed or moved") from None
        match record.kind:
            case Kind.ENTRY:
                if self._entries and record.index != self._entries[-1][1] + 1:
                    raise CorruptJournal(file, start, f"entry {record.index} does not follow entry {self._entries[-1][1]}")
                self._entries.append((payload, record.index, record.term))
                segment.highest = max(segment.highest, record.index)
            case Kind.TRUNCATE:
                if self._entries:
                    del self._entries[max(0, record.index + 1 - self._entries[0][1]) :]
            case Kind.HARD_STATE:
                state = raft_pb2.HardState.FromString(payload)
                self._term, self._voted_for = state.term, state.voted_for or None
                self._commit = record.index
            case Kind.COMMIT:
                self._commit = record.index
            case Kind.START:
                origin = raft_pb2.LogStart.FromString(payload)
                self._entries = [_entry(origin.prev), _entry(origin.last)]
                segment.highest = max(segment.highest, record.index)
            case _:
                raise CorruptJournal(file, start, f"a record has the unknown kind {record.kind}")

    def _cut(self, segment: Segment, data: bytes, damage: records.Damage) -> None:
        """Drop what an interrupted write left behind; a copy is kept beside it when there is room."""
        log.warning("cut an interrupted write off the raft log", file=segment.name, offset=damage.offset, bytes=len(data) - damage.offset)
        try:
            self._disk.create(segment.name + ".torn", data[damage.offset :])
        except OSError as exc:
            log.warning("no copy of the cut bytes could be kept", file=segment.name, error=str(exc))
        self._disk.truncate(segment.name, damage.offset)
        segment.size = damage.offset

    # --- what PySyncObj sees

    def __len__(self) -> int:
        return len(self._entries) - self._hidden

    @overload
    def __getitem__(self, item: int) -> Entry: ...
    @overload
    def __getitem__(self, item: slice) -> list[Entry]: ...
    def __getitem__(self, item: int | slice) -> Entry | list[Entry]:
        if self._hidden == 0:
            return self._entries[item]
        if isinstance(item, slice):
            return self._entries[self._hidden :][item]
        return self._entries[item] if item < 0 else self._entries[item + self._hidden]

    def add(self, command: bytes, idx: int, term: int) -> None:
        """Append an entry; durable after the next `sync`."""
        self._check()
        self._entries.append((command, idx, term))
        self._pending.append((Kind.ENTRY, idx, term, command))

    def deleteEntriesFrom(self, entryFrom: int) -> None:  # noqa: N802, N803 - PySyncObj's names
        """Drop the entries from list position `entryFrom` on."""
        self._check()
        if entryFrom >= len(self):
            return
        first = self._entries[self._hidden + entryFrom]
        del self._entries[self._hidden + entryFrom :]
        self._pending.append((Kind.TRUNCATE, first[1] - 1, 0, b""))
        self._durable = min(self._durable, first[1] - 1)

    def deleteEntriesTo(self, entryTo: int) -> None:  # noqa: N802, N803 - PySyncObj's names
        """Entries before list position `entryTo` are in a snapshot; all but the `spare_entries` newest of them leave memory."""
        self._drop_before(self._hidden + entryTo - self.spare_entries)

    def clear(self) -> None:
        """Not done in two steps here: see `restart`."""
        raise RuntimeError("a raft log is never empty; use restart")

    def setCurrentTerm(self, term: int, votedForNodeId: str | None) -> None:  # noqa: N802, N803 - PySyncObj's names
        """Store term and vote; durable, with everything added before, when this returns."""
        self._check()
        if (term, votedForNodeId) == (self._term, self._voted_for):
            return
        self._term, self._voted_for = term, votedForNodeId
        self._pending.append((Kind.HARD_STATE, self._commit, term, self._hard_state()))
        self.sync()

    def getCurrentTerm(self) -> int:  # noqa: N802 - PySyncObj's name
        """The stored term."""
        return self._term

    def getVotedForNodeId(self) -> str | None:  # noqa: N802 - PySyncObj's name
        """Who got this member's vote in that term."""
        return self._voted_for

    def setRaftCommitIndex(self, raftCommitIndex: int) -> None:  # noqa: N802, N803 - PySyncObj's names
        """Remember how far the log is committed; goes to disk with the next write, for it is only a hint."""
        self._commit = raftCommitIndex

    def getRaftCommitIndex(self) -> int:  # noqa: N802 - PySyncObj's name
        """The last known commit index, never beyond the log; 1 when unknown."""
        return max(1, min(self._commit, self._entries[-1][1])) if self._entries else 1

    def onOneSecondTimer(self) -> None:  # noqa: N802 - PySyncObj's name
        """Nothing is due by time."""

    def _destroy(self) -> None:
        """PySyncObj's way to say close; whoever opened the journal closes it."""

    # --- what the wrapper uses

    @property
    def identity(self) -> Identity:
        """Whose log it is."""
        return self._vault.identity

    @property
    def dirty(self) -> bool:
        """Whether `sync` has something to do that others may depend on."""
        return bool(self._pending)

    @property
    def durable_index(self) -> int:
        """The last entry that is safe on disk."""
        return self._durable

    @property
    def last(self) -> Entry:
        """The newest entry."""
        return self._entries[-1]

    @property
    def first(self) -> int:
        """Index of the first visible entry."""
        return self._entries[self._hidden][1]

    @property
    def last_index(self) -> int:
        """Index of the newest entry."""
        return self._entries[-1][1]

    def term_at(self, index: int) -> int | None:
        """Term of a visible entry; None for others."""
        entry = self.at(index)
        return entry[2] if entry is not None and index >= self.first else None

    def at(self, index: int) -> Entry | None:
        """The entry with a log index, also among hidden ones; None when it is not there."""
        position = index - self._entries[0][1]
        return self._entries[position] if 0 <= position < len(self._entries) else None

    def batch(self, index: int, size: int) -> list[Entry]:
        """Entries from `index` on, until they have `size` bytes together; at least one if there is one."""
        taken: list[Entry] = []
        position = index - self._entries[0][1]
        while position < len(self._entries) and size > 0:
            taken.append(self._entries[position])
            size -= len(taken[-1][0])
            position += 1
        return taken

    def view_from(self, start: raft_pb2.LogStart) -> None:
        """Show the log as it continues from a snapshot: first visible entry = `start.prev`.

        Entries before stay hidden until `reveal`. A log that does not contain both entries (it is older than the snapshot, or contradicts
        it) restarts with exactly these two, durably at the next `sync`. Raises CorruptJournal when entries are missing in between.
        """
        prev, last = _entry(start.prev), _entry(start.last)
        first = self._entries[0][1]
        if first == last[1] and self.at(first) == last:
            self._entries.insert(0, prev)
        elif first > prev[1]:
            file = self._disk.path / self._segments[0].name
            raise CorruptJournal(file, 0, f"it begins with entry {first}, but the newest usable snapshot ends at entry {last[1]}")
        if self.at(prev[1]) != prev or self.at(last[1]) != last:
            if self._entries[-1][1] > last[1]:
                log.warning("the raft log contradicts the newest snapshot and gives way", snapshot=last[1], last=self._entries[-1][1])
            self.restart(prev, last)
            return
        self._hidden = prev[1] - self._entries[0][1]
        excess = self._hidden - self.spare_entries
        if excess > 0:
            self._drop_before(excess)
            self._hidden = self.spare_entries

    def reveal(self) -> None:
        """Show what `view_from` hid."""
        self._hidden = 0

    def restart(self, prev: Entry, last: Entry) -> None:
        """Forget all entries; the log continues from a snapshot that ends with these two. One record, so no crash can split it."""
        self._check()
        self._entries = [prev, last]
        self._hidden = 0
        origin = raft_pb2.LogStart(prev=_message(prev), last=_message(last))
        self._pending.append((Kind.START, last[1], last[2], origin.SerializeToString()))
        self._durable = 0

    def release(self, index: int) -> None:
        """Entries before `index` are no longer needed on disk. Whole segments go, at the next `sync`.

        A large active segment is closed by the next write, so that its turn comes too.
        """
        keep = index if not self._entries else min(index, self._entries[0][1])
        while len(self._segments) > 1 and self._segments[0].highest < keep:
            self._doomed.append(self._segments.pop(0).name)
        self._roll = self._roll or (bool(self._segments) and self._segments[-1].size >= SPARE_SEGMENT_BYTES)

    def sync(self) -> None:
        """Make everything so far durable. Raises JournalFailed, now and ever after, when the disk refuses."""
        self._check()
        try:
            if self._pending:
                self._write(self._take())
            if self._doomed:
                for name in self._doomed:
                    self._disk.remove(name)
                self._doomed = []
        except OSError as exc:
            self._failed = exc
            raise JournalFailed(f"writing the raft log in {self._disk.path} failed: {exc}. Repair or free the disk, restart") from exc
        self._durable = self._entries[-1][1]

    def close(self) -> None:
        """Write what is pending, the commit hint included, and let go of the files."""
        try:
            if self._failed is None:
                if self._commit != self._commit_written:
                    self._pending.append((Kind.COMMIT, self._commit, 0, b""))
                self.sync()
        finally:
            self._disk.close()

    # --- writing

    def _take(self) -> list[tuple[Kind, int, int, bytes]]:
        batch, self._pending = self._pending, []
        if self._commit != self._commit_written and batch[-1][0] != Kind.COMMIT:
            batch.append((Kind.COMMIT, self._commit, 0, b""))
        return batch

    def _write(self, batch: Sequence[tuple[Kind, int, int, bytes]]) -> None:
        highest = max((i for k, i, _, _ in batch if k in {Kind.ENTRY, Kind.START}), default=0)
        first = self._next_record
        if not self._segments or self._roll or self._segments[-1].size >= SEGMENT_BYTES:
            head = self._head(first)
            data = head + b"".join(self._encode(first, *item) for item in batch)
            self._start_segment(data)
        else:
            data = b"".join(self._encode(first, *item) for item in batch)
            self._disk.append(self._segments[-1].name, data)
            self._disk.sync(self._segments[-1].name)
        self._segments[-1].size += len(data)
        self._segments[-1].highest = max(self._segments[-1].highest, highest)
        self._commit_written = self._commit

    def _head(self, batch: int) -> bytes:
        """What every segment starts with. From here on records are sealed with the new segment's cipher."""
        header, self._cipher = self._vault.new_file()
        head = records.encode(Kind.IDENTITY, batch, batch, 0, 0, header)
        self._next_record += 1
        return head + self._encode(batch, Kind.HARD_STATE, self._commit_written, self._term, self._hard_state())

    def _start_segment(self, data: bytes) -> None:
        """A new file comes into being with its first batch in it, in one step: there is no moment at which it is half there."""
        number = self._segments[-1].number + 1 if self._segments else 1
        name = f"{number:016x}-{self._entries[-1][1]:016x}.wal"
        self._disk.create(name, data)
        self._segments.append(Segment(name, number, 0))
        self._roll = False

    def _encode(self, batch: int, kind: Kind, index: int, term: int, payload: bytes) -> bytes:
        if self._cipher is None:
            raise RuntimeError("no segment is open")
        number = self._next_record
        self._next_record += 1
        sealed = self._cipher.seal(payload, records.context(kind, number, index, term))
        return records.encode(kind, number, batch, index, term, sealed)

    def _hard_state(self) -> bytes:
        return raft_pb2.HardState(term=self._term, voted_for=self._voted_for or "").SerializeToString()

    def _drop_before(self, position: int) -> None:
        if position > 0:
            del self._entries[:position]
            self._hidden = 0

    def _check(self) -> None:
        if self._failed is not None:
            raise JournalFailed("the raft log failed earlier and takes nothing more; restart this manager") from self._failed


def _entry(message: raft_pb2.LogEntry) -> Entry:
    return message.command, message.index, message.term


def _message(entry: Entry) -> raft_pb2.LogEntry:
    return raft_pb2.LogEntry(command=entry[0], index=entry[1], term=entry[2])
