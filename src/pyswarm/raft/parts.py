"""A snapshot as bytes, made and read in parts. Pure.

The bytes are a LogSnapshot. One of a hundred thousand tasks takes the interpreter a good part of a second to write or to read in one
call, in whatever thread, and nothing else runs meanwhile: no call, no heartbeat. Protobuf lets a message be written as several, one behind
the other, each with some of the content; here each has at most some hundred kilobytes, and between two parts others get their turn.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.message import DecodeError

from pyswarm.api import v1 as api
from pyswarm.api.private import raft_pb2

PART_BYTES = 256 << 10
"""A part ends with the object that reaches this size."""


def split(head: raft_pb2.LogSnapshot, store: api.StoreSnapshot) -> Iterator[bytes]:
    """The parts of `head` with `store` in it; both are left as they are."""
    yield head.SerializeToString(deterministic=True)
    for field, objects in store.ListFields():
        part: Any = api.StoreSnapshot()
        size = 0
        for one in objects:
            getattr(part, field.name).append(one)
            size += one.ByteSize()
            if size >= PART_BYTES:
                yield _part(part)
                part, size = api.StoreSnapshot(), 0
        if size:
            yield _part(part)


def apart(snapshot: raft_pb2.LogSnapshot) -> tuple[raft_pb2.LogSnapshot, api.StoreSnapshot]:
    """A snapshot without its store, and the store."""
    head = raft_pb2.LogSnapshot(start=snapshot.start, era=snapshot.era)
    head.snapshot.version = snapshot.snapshot.version
    if snapshot.snapshot.HasField("membership"):
        head.snapshot.membership.CopyFrom(snapshot.snapshot.membership)
    return head, snapshot.snapshot.store


def _part(store: api.StoreSnapshot) -> bytes:
    return raft_pb2.LogSnapshot(snapshot=api.Snapshot(store=store)).SerializeToString(deterministic=True)


def read(data: bytes) -> raft_pb2.LogSnapshot:
    """The snapshot whose parts, together, are `data`. Raises DecodeError."""
    snapshot, begin, position = raft_pb2.LogSnapshot(), 0, 0
    while position < len(data):
        position = _end_of_field(data, position)
        if position - begin >= PART_BYTES or position == len(data):
            snapshot.MergeFromString(data[begin:position])
            begin = position
    return snapshot


def _end_of_field(data: bytes, position: int) -> int:
    """Where the field that begins at `position` ends. All fields of a LogSnapshot are messages or numbers."""
    tag, position = _varint(data, position)
    if tag & 7 == 2:
        length, position = _varint(data, position)
        position += length
    elif tag & 7 == 0:
        _, position = _varint(data, position)
    else:
        raise DecodeError("a snapshot holds a field of a kind it cannot have")
    if position > len(data):
        raise DecodeError("a snapshot ends within a field")
    return position


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(data) and shift < 64:
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7
    raise DecodeError("a snapshot ends within a number")
