"""What a commit tells those who listen."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pyswarm.manager.store.tables import Kind, Stored


class Action(enum.IntEnum):
    """What happened to an object; values as in the wire's StoreActionKind."""

    CREATE = 1
    UPDATE = 2
    REMOVE = 3


class Event(NamedTuple):
    """One change. `obj` is the stored message (the removed one for REMOVE), `old` the one before an update. Both are frozen."""

    kind: Kind
    action: Action
    obj: Stored
    old: Stored | None = None


@dataclass(frozen=True, slots=True)
class Commit:
    """All changes of one log entry, in the order they were made. `index` is the entry's."""

    index: int
    events: Sequence[Event]
