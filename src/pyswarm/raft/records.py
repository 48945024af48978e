"""Records of a log segment: how they look in bytes, and what damage to them means. Pure.

    magic 4 | crc of the header 4 | crc of the payload 4 | payload length 4 | kind 1, zero 3
    number 8 | batch 8 | index 8 | term 8 | payload

All little-endian. `number` counts records through all segments without a gap; `batch` is the number of the first record of the write that
carried this one. Because a batch is written only after the one before is synced, a good record of a later batch proves that everything
before it had reached the disk: damage in front of it is not a crash's doing.
"""

from __future__ import annotations

import enum
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

MAGIC = b"\xc5wj\x1a"
_HEADER = struct.Struct("<4sIIIB3xQQQQ")
_CHECKED = struct.Struct("<IIB3xQQQQ")
_CONTEXT = struct.Struct("<BQQQ")
SIZE = _HEADER.size
SECTOR = 512


class Kind(enum.IntEnum):
    """What a record says."""

    IDENTITY = 1
    """Head of a segment: a SealedHeader in clear. The only unencrypted payload."""
    ENTRY = 2
    """An entry (index, term); payload is the command."""
    TRUNCATE = 3
    """Entries above `index` are gone."""
    HARD_STATE = 4
    """Term, and as payload a HardState; `index` is a commit hint."""
    COMMIT = 5
    """Everything up to `index` was known to be committed. A hint: losing it is harmless."""
    START = 6
    """The log now consists of exactly the two entries of the payload, a LogStart."""
    SNAPSHOT = 7
    """In a snapshot file: the state after entry `index`, a LogSnapshot. Not written any more."""
    PART = 8
    """The same in parts, one record each, see `raft.parts`; an empty one ends the file."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record as found in a file; `payload` is still sealed."""

    kind: int
    number: int
    batch: int
    index: int
    term: int
    payload: bytes
    end: int
    """Offset of the byte behind it."""


@dataclass(frozen=True, slots=True)
class Damage:
    """Where the readable records end, and whether an interrupted write explains it (`torn`) or not."""

    offset: int
    torn: bool
    what: str


def context(kind: int, number: int, index: int, term: int) -> bytes:
    """The associated data under which a payload is sealed."""
    return _CONTEXT.pack(kind, number, index, term)


def encode(kind: int, number: int, batch: int, index: int, term: int, payload: bytes) -> bytes:
    """One record, ready to be appended."""
    checked = _CHECKED.pack(zlib.crc32(payload), len(payload), kind, number, batch, index, term)
    return b"%b%b%b%b" % (MAGIC, zlib.crc32(checked).to_bytes(4, "little"), checked, payload)


def parse(data: bytes, offset: int) -> Record | None:
    """The record that starts at `offset`, or None if there is no intact one."""
    length = _length(data, offset)
    if length is None or offset + SIZE + length > len(data):
        return None
    _, _, payload_crc, _, kind, number, batch, index, term = _HEADER.unpack_from(data, offset)
    payload = data[offset + SIZE : offset + SIZE + length]
    if zlib.crc32(payload) != payload_crc:
        return None
    return Record(kind, number, batch, index, term, payload, offset + SIZE + length)


def scan(data: bytes, number: int | None) -> tuple[list[Record], Damage | None]:
    """All records up to the end or the first damage. `number` is the expected number of the first record; None accepts any."""
    records: list[Record] = []
    offset = 0
    while offset < len(data):
        record = parse(data, offset)
        if record is None:
            return records, judge(data, offset, number)
        if number is not None and record.number != number:
            return records, Damage(offset, torn=False, what=f"record {record.number} where record {number} must be")
        records.append(record)
        number, offset = record.number + 1, record.end
    return records, None


def judge(data: bytes, offset: int, number: int | None) -> Damage:
    """What an unreadable record at `offset` means.

    A crash leaves a file short, or with whole sectors of zeros where pages never arrived, and only in the last batch. Anything else is rot.
    """
    for later in _records_after(data, offset):
        if number is None or later.batch > number:
            return Damage(offset, torn=False, what="an unreadable record is followed by records that were written after it was safe")
    length = _length(data, offset)
    if len(data) - offset < SIZE or (length is not None and offset + SIZE + length > len(data)):
        return Damage(offset, torn=True, what="the last record is incomplete")
    end = len(data) if length is None else offset + SIZE + length
    if _has_hole(data, offset, end):
        return Damage(offset, torn=True, what="parts of the last write never arrived")
    return Damage(offset, torn=False, what="the last record is complete but its checksum is wrong")


def _length(data: bytes, offset: int) -> int | None:
    """Payload length according to an intact header at `offset`."""
    if len(data) - offset < SIZE or not data.startswith(MAGIC, offset):
        return None
    crc = int.from_bytes(data[offset + 4 : offset + 8], "little")
    if zlib.crc32(data[offset + 8 : offset + SIZE]) != crc:
        return None
    return int.from_bytes(data[offset + 12 : offset + 16], "little")


def _records_after(data: bytes, offset: int) -> Iterator[Record]:
    position = data.find(MAGIC, offset + 1)
    while position >= 0:
        record = parse(data, position)
        if record is not None:
            yield record
        position = data.find(MAGIC, position + 1 if record is None else record.end)


def _has_hole(data: bytes, start: int, end: int) -> bool:
    """Whether a sector's share of data[start:end] is all zeros."""
    while start < end:
        stop = min(end, (start // SECTOR + 1) * SECTOR)
        if not any(data[start:stop]):
            return True
        start = stop
    return False
