"""What a log entry says: one type byte and the content of that type. Pure.

Types 1 and 2 mean something to PySyncObj (empty entry, change of the voters); the others are opaque to it. Types 0 and 3 are its pickles
and are refused wherever they turn up.
"""

from __future__ import annotations

import enum

from google.protobuf.message import DecodeError

from pyswarm.api import v1 as api
from pyswarm.api.private import raft_pb2


class Type(enum.IntEnum):
    """First byte of a command."""

    NO_OP = 1
    VOTERS = 2
    """A MembershipChange (ADD, REMOVE) that changes who votes, from the moment it is appended."""
    STORE = 100
    """An InternalRaftRequest."""
    FACTS = 101
    """A MembershipChange that leaves the voters alone, or (RESET) has been prepared by other means."""
    BARRIER = 102
    """Nothing. Not written any more; logs may hold some."""


PICKLED_TYPES = frozenset({0, 3})

NO_OP = bytes([Type.NO_OP])
_STORE = bytes([Type.STORE])


class BadCommand(ValueError):
    """A log entry that this version cannot read."""


def store(request: bytes) -> bytes:
    """The entry for a serialised InternalRaftRequest."""
    return _STORE + request


def membership(change: raft_pb2.MembershipChange) -> bytes:
    """The entry for a change of the members' table."""
    kind = raft_pb2.MembershipChange
    voters = change.kind in {kind.ADD, kind.REMOVE}
    return bytes([Type.VOTERS if voters else Type.FACTS]) + change.SerializeToString()


def parse_request(command: bytes) -> api.InternalRaftRequest:
    """The store's actions in an entry of type STORE. Raises BadCommand."""
    try:
        return api.InternalRaftRequest.FromString(command[1:])
    except DecodeError as exc:
        raise BadCommand("a log entry does not hold a readable store request") from exc


def parse_membership(command: bytes) -> raft_pb2.MembershipChange | None:
    """The change in an entry of type VOTERS or FACTS; None for other types. Raises BadCommand."""
    if not command or command[0] not in {Type.VOTERS, Type.FACTS}:
        return None
    try:
        return raft_pb2.MembershipChange.FromString(command[1:])
    except DecodeError as exc:
        raise BadCommand("membership: cannot unmarshal configuration change") from exc
