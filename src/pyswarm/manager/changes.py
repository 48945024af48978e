"""What a decision asks for: plain values that tests compare and the driver applies."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from pyswarm.api import v1 as api
from pyswarm.manager.orchestrator import tasklife
from pyswarm.manager.store import Kind, Stored, Tx


@dataclass(frozen=True, slots=True)
class Create:
    """Store a new object."""

    obj: Stored


@dataclass(frozen=True, slots=True)
class Update:
    """Replace an object by this edited copy of it."""

    obj: Stored


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove an object."""

    kind: Kind
    object_id: str


Change: TypeAlias = Create | Update | Delete

_TABLES = {kind.name.capitalize(): kind.value + "s" for kind in Kind}


def apply(tx: Tx, changes: Iterable[Change]) -> None:
    """Write changes in a transaction. Raises what the store's rules raise, and IllegalStep for a task that nobody may move like that."""
    for change in changes:
        if not isinstance(change, Delete) and isinstance(change.obj, api.Task):
            tasklife.check(tx.tasks.get(change.obj.id), change.obj)
        write(tx, change)


def write(tx: Tx, change: Change) -> None:
    """Write one change, whoever wants it: others than control loops may move tasks otherwise. Raises what the store's rules raise."""
    match change:
        case Create(obj):
            _table(tx, type(obj).__name__).create(obj)
        case Update(obj):
            _table(tx, type(obj).__name__).update(obj)
        case Delete(kind, object_id):
            _table(tx, kind.name.capitalize()).delete(object_id)


def _table(tx: Tx, message: str) -> Any:
    return getattr(tx, _TABLES[message])
