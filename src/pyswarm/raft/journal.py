"""The log on this manager's disk: append-only segments of encrypted records, one sync per group of entries.

PySyncObj sees a list of (command, index, term) with a few methods of its own naming (spec/store-and-raft, section 21.6). What it never
learns: truncation is a record, not an edit; a snapshot's installation is one record; more entries are kept than it asked for, so that slow
followers need no snapshot; and nothing is on disk before `sync` says so, except term and vote, which are when `setCurrentTerm` returns.

A failed write is final: the journal refuses everything afterwards, and the node ends without having acknowledged what was not synced.
"""

from __future__ import annotations

import structlog

from pyswarm.api.private import raft_pb2
from pyswarm.raft import commands
from pyswarm.raft.disk import Disk
from pyswarm.raft.errors import CorruptJournal, JournalFailed
from pyswarm.raft.records import Kind
from pyswarm.raft.segments import Item, Segments
from pyswarm.raft.vault import Identity, Vault
from pyswarm.raft.window import Entry, Window

__all__ = ["Entry", "Journal"]

log = structlog.get_logger(__name__)


class Journal(Window):
    """See the module. Made by `create` or `open_existing`; used by one thread at a time."""

    def __init__(self, disk: Disk, vault: Vault) -> None:
        super().__init__()
        self.segments = Segments(disk, vault)
        """The files."""
        self.keys = vault
        """What encrypts them."""
        self._term = 0
        self._voted_for: str | None = None
        self._commit = 1
        self._commit_written = 1
        self._pending: list[Item] = []
        self.durable_index = 0
        """The last entry that is safe on disk."""
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
        for item in journal.segments.load():
            journal._replay(item)
        if journal.segments.empty:
            return None
        if not journal._entries:
            raise CorruptJournal(journal.segments.oldest, 0, "the log holds no entries")
        journal._commit = journal._commit_written = max(1, min(journal._commit, journal.last_index))
        journal.durable_index = journal.last_index
        return journal

    def _replay(self, item: Item) -> None:
        match item.kind:
            case Kind.ENTRY:
                if self._entries and item.index != self.last_index + 1:
                    raise CorruptJournal(*item.place, f"entry {item.index} does not follow entry {self.last_index}")
                self._entries.append((item.payload, item.index, item.term))
            case Kind.TRUNCATE:
                if self._entries:
                    del self._entries[max(0, item.index + 1 - self.first) :]
            case Kind.HARD_STATE:
                state = raft_pb2.HardState.FromString(item.payload)
                self._term, self._voted_for = state.term, state.voted_for or None
                self._commit = item.index
            case Kind.COMMIT:
                self._commit = item.index
            case Kind.START:
                origin = raft_pb2.LogStart.FromString(item.payload)
                self._entries = [_entry(origin.prev), _entry(origin.last)]
            case _:
                raise CorruptJournal(*item.place, f"a record has the unknown kind {item.kind}")

    # --- what PySyncObj sees, beside the list

    def add(self, command: bytes, idx: int, term: int) -> None:
        """Append an entry; durable after the next `sync`."""
        self._check()
        self._entries.append((command, idx, term))
        self._pending.append(Item(Kind.ENTRY, idx, term, command))

    def deleteEntriesFrom(self, entryFrom: int) -> None:  # noqa: N802, N803 - PySyncObj's names
        """Drop the entries from list position `entryFrom` on."""
        self._check()
        if entryFrom >= len(self):
            return
        first = self._entries[self._hidden + entryFrom]
        del self._entries[self._hidden + entryFrom :]
        self._pending.append(Item(Kind.TRUNCATE, first[1] - 1, 0, b""))
        self.durable_index = min(self.durable_index, first[1] - 1)

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
        self._pending.append(self._hard_state())
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
        return self.keys.identity

    @property
    def dirty(self) -> bool:
        """Whether `sync` has something to do that others may depend on."""
        return bool(self._pending)

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
            raise CorruptJournal(self.segments.oldest, 0, f"it begins with entry {first}, the newest usable snapshot ends at {last[1]}")
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

    def restart(self, prev: Entry, last: Entry) -> None:
        """Forget all entries; the log continues from a snapshot that ends with these two. One record, so no crash can split it."""
        self._check()
        self._entries = [prev, last]
        self._hidden = 0
        origin = raft_pb2.LogStart(prev=_message(prev), last=_message(last))
        self._pending.append(Item(Kind.START, last[1], last[2], origin.SerializeToString()))
        self.durable_index = 0

    def release(self, index: int) -> None:
        """Entries before `index` are no longer needed on disk, unless they are in memory. Files go at the next `sync`."""
        self.segments.release(min(index, self._entries[0][1]))

    def rekey(self) -> None:
        """Go on in a new segment, under the vault's newest key; it opens with the last entry once more.

        So it, and a snapshot that ends with that entry or a later one, need nothing from before.
        """
        self._check()
        command, index, term = self._entries[-1]
        self._pending += [Item(Kind.TRUNCATE, index - 1, 0, b""), Item(Kind.ENTRY, index, term, command)]
        self.segments.rekey()

    def sync(self) -> None:
        """Make everything so far durable. Raises JournalFailed, now and ever after, when the disk refuses."""
        self._check()
        batch, self._pending = self._pending, []
        if batch and self._commit != self._commit_written:
            batch.append(Item(Kind.COMMIT, self._commit, 0, b""))
        try:
            if batch:
                self.segments.write(batch, self._hard_state(), self.last_index)
                self._commit_written = self._commit
            self.segments.delete_released()
        except BaseException as exc:
            self._failed = exc  # whatever it was: records have been numbered that are not there
            if not isinstance(exc, OSError):
                raise
            path = self.segments.disk.path
            raise JournalFailed(f"writing the raft log in {path} failed: {exc}. Repair or free the disk, restart") from exc
        self.durable_index = self.last_index

    def close(self) -> None:
        """Write what is pending, the commit hint included, and let go of the files."""
        try:
            if self._failed is None:
                if not self._pending and self._commit != self._commit_written:
                    self._pending.append(Item(Kind.COMMIT, self._commit, 0, b""))
                    self._commit_written = self._commit
                self.sync()
        finally:
            self.segments.disk.close()

    def _hard_state(self) -> Item:
        state = raft_pb2.HardState(term=self._term, voted_for=self._voted_for or "")
        return Item(Kind.HARD_STATE, self._commit, self._term, state.SerializeToString())

    def _check(self) -> None:
        if self._failed is not None:
            raise JournalFailed("the raft log failed earlier and takes nothing more; restart this manager") from self._failed


def _entry(message: raft_pb2.LogEntry) -> Entry:
    return message.command, message.index, message.term


def _message(entry: Entry) -> raft_pb2.LogEntry:
    return raft_pb2.LogEntry(command=entry[0], index=entry[1], term=entry[2])
