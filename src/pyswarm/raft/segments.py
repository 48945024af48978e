"""The files of the log: numbered segments of sealed records, each begun in one step with its first records in it. Blocking.

Nothing here knows what the records mean; the journal does.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import structlog
from cryptography.exceptions import InvalidTag

from pyswarm.raft import records
from pyswarm.raft.disk import Disk
from pyswarm.raft.errors import CorruptJournal
from pyswarm.raft.records import Damage, Kind, Record
from pyswarm.raft.vault import Cipher, Vault

log = structlog.get_logger(__name__)

SEGMENT_BYTES = 16 << 20
SPARE_SEGMENT_BYTES = 1 << 20
"""When a snapshot makes old entries disposable, a segment at least this large is closed so that it can go."""
_NAME = re.compile(r"([0-9a-f]{16})-[0-9a-f]{16}\.wal")
_TORN = ".torn"
_HEAD_RECORDS = 2


@dataclass(frozen=True, slots=True)
class Item:
    """A record to write, or one that was read: `place` then says where, for messages to people."""

    kind: int
    index: int
    term: int
    payload: bytes
    place: tuple[str, int] = ("", 0)


@dataclass(slots=True)
class Segment:
    """A file of the log. `highest` is the largest index of an entry in it (0: none)."""

    name: str
    number: int
    size: int
    highest: int = 0


class Segments:
    """See the module."""

    def __init__(self, disk: Disk, vault: Vault) -> None:
        self.disk = disk
        self._vault = vault
        self._segments: list[Segment] = []
        self._cipher: Cipher | None = None
        self._next_record = 1
        self._doomed: list[str] = []
        self._roll = False
        self._rekeyed = 0
        self._sweep = False

    @property
    def empty(self) -> bool:
        """Whether there are no files."""
        return not self._segments

    @property
    def oldest(self) -> str:
        """Where the log begins, for messages to people."""
        return str(self.disk.path / self._segments[0].name) if self._segments else str(self.disk.path)

    def load(self) -> Iterator[Item]:
        """All records in order. Raises CorruptJournal and the vault's errors; an interrupted last write is cut off."""
        names = [n for n in self.disk.names() if _NAME.fullmatch(n)]
        for name in names:
            yield from self._load(name, last=name == names[-1])

    def _load(self, name: str, *, last: bool) -> Iterator[Item]:
        file = str(self.disk.path / name)
        data = self.disk.read(name)
        number = int(name[:16], 16)
        if self._segments and number != self._segments[-1].number + 1:
            raise CorruptJournal(file, 0, f"the segment before it, number {number - 1:x}, is missing")
        found, damage = records.scan(data, self._next_record if self._segments else None)
        if len(found) < _HEAD_RECORDS or found[0].kind != Kind.IDENTITY:
            raise CorruptJournal(file, damage.offset if damage else 0, damage.what if damage else "it has no header")
        segment = Segment(name, number, found[-1].end)
        self._cipher = self._vault.open_file(found[0].payload, file)
        if damage is not None and not (damage.torn and last):
            raise CorruptJournal(file, damage.offset, damage.what)
        self._segments.append(segment)
        for before, record in itertools.pairwise(found):
            item = _open(self._cipher, record, (file, before.end))
            segment.highest = max(segment.highest, _entry_index(item))
            yield item
        self._next_record = found[-1].number + 1
        if damage is not None:
            self._cut(segment, data, damage)

    def _cut(self, segment: Segment, data: bytes, damage: Damage) -> None:
        """Drop what an interrupted write left behind; a copy is kept beside it when there is room."""
        log.warning("cut an interrupted write off the raft log", file=segment.name, offset=damage.offset, bytes=len(data) - damage.offset)
        try:
            self.disk.create(segment.name + _TORN, data[damage.offset :])
        except OSError as exc:
            log.warning("no copy of the cut bytes could be kept", file=segment.name, error=str(exc))
        self.disk.truncate(segment.name, damage.offset)
        segment.size = damage.offset

    def write(self, batch: Sequence[Item], state: Item, newest: int) -> None:
        """Make a batch durable. A new segment starts with `state` and has `newest`, the last index, in its name. Raises OSError."""
        first = self._next_record
        if self.empty or self._roll or self._segments[-1].size >= SEGMENT_BYTES:
            data = self._head(first, state) + b"".join(self._encode(first, item) for item in batch)
            self._start(data, newest)
        else:
            data = b"".join(self._encode(first, item) for item in batch)
            self.disk.append(self._segments[-1].name, data)
            self.disk.sync(self._segments[-1].name)
        segment = self._segments[-1]
        segment.size += len(data)
        segment.highest = max(segment.highest, *(_entry_index(item) for item in batch))

    def release(self, index: int) -> None:
        """Entries before `index` are no longer needed: whole segments go with `delete_released`, a large active one is closed first."""
        while len(self._segments) > 1 and self._segments[0].highest < index:
            self._doomed.append(self._segments.pop(0).name)
        self._roll = self._roll or (not self.empty and self._segments[-1].size >= SPARE_SEGMENT_BYTES)

    def rekey(self) -> None:
        """Begin a new segment with the next write: from there on the vault's newest key is in use."""
        self._rekeyed = self._segments[-1].number + 1
        self._roll = True

    def release_older_keys(self) -> None:
        """Segments from before the last `rekey`, and what was cut off them, go with `delete_released`; entries stay in memory."""
        while self._segments[0].number < self._rekeyed:
            self._doomed.append(self._segments.pop(0).name)
        self._sweep = True

    def delete_released(self) -> None:
        """Delete what was released, oldest first. Raises OSError."""
        if self._sweep:
            self._doomed += [n for n in self.disk.names() if n.endswith(_TORN)]
            self._sweep = False
        while self._doomed:
            self.disk.remove(self._doomed[0])
            del self._doomed[0]

    def _head(self, batch: int, state: Item) -> bytes:
        """What every segment starts with. From here on records are sealed with the new segment's cipher."""
        header, self._cipher = self._vault.new_file()
        head = records.encode(Kind.IDENTITY, batch, batch, 0, 0, header)
        self._next_record += 1
        return head + self._encode(batch, state)

    def _start(self, data: bytes, newest: int) -> None:
        number = self._segments[-1].number + 1 if self._segments else 1
        name = f"{number:016x}-{newest:016x}.wal"
        self.disk.create(name, data)
        self._segments.append(Segment(name, number, 0))
        self._roll = False

    def _encode(self, batch: int, item: Item) -> bytes:
        if self._cipher is None:
            raise RuntimeError("no segment is open")
        number = self._next_record
        self._next_record += 1
        sealed = self._cipher.seal(item.payload, records.context(item.kind, number, item.index, item.term))
        return records.encode(item.kind, number, batch, item.index, item.term, sealed)


def _open(cipher: Cipher, record: Record, place: tuple[str, int]) -> Item:
    try:
        payload = cipher.open(record.payload, records.context(record.kind, record.number, record.index, record.term))
    except InvalidTag:
        raise CorruptJournal(*place, "a record was changed or moved") from None
    return Item(record.kind, record.index, record.term, payload, place)


def _entry_index(item: Item) -> int:
    return item.index if item.kind in {Kind.ENTRY, Kind.START} else 0
