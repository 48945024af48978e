"""Transactions: an overlay on the committed tables that sees its own changes (spec/store-and-raft, sections 5 to 7)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, Protocol

from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.errors import Unknown
from pyswarm.manager.store.events import Action
from pyswarm.manager.store.rules import Exists, NameConflict, NoKind, NotExist, SequenceConflict
from pyswarm.manager.store.tables import (
    AnyOf,
    Exact,
    Kind,
    Schema,
    Selector,
    Stored,
    T,
    Table,
    copy_of,
)

if TYPE_CHECKING:
    from pyswarm.manager.store.store import Store


ACTION_OVERHEAD = 16
"""What an object needs in a log entry besides its own bytes, at most."""


class Reading(Protocol[T]):
    """What can be read of a table, committed or inside a transaction."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[T]: ...
    def __contains__(self, object_id: str) -> bool: ...
    def get(self, object_id: str) -> T | None: ...  # noqa: D102 - as Table.get
    def find(self, selector: Selector) -> list[T]: ...  # noqa: D102 - as Table.find


class View(Protocol):
    """The tables to read: the store itself or a transaction. What deciding code takes as argument."""

    @property
    def nodes(self) -> Reading[api.Node]: ...  # noqa: D102
    @property
    def services(self) -> Reading[api.Service]: ...  # noqa: D102
    @property
    def networks(self) -> Reading[api.Network]: ...  # noqa: D102
    @property
    def tasks(self) -> Reading[api.Task]: ...  # noqa: D102
    @property
    def clusters(self) -> Reading[api.Cluster]: ...  # noqa: D102
    @property
    def secrets(self) -> Reading[api.Secret]: ...  # noqa: D102
    @property
    def resources(self) -> Reading[api.Resource]: ...  # noqa: D102
    @property
    def extensions(self) -> Reading[api.Extension]: ...  # noqa: D102
    @property
    def configs(self) -> Reading[api.Config]: ...  # noqa: D102
    @property
    def volumes(self) -> Reading[api.Volume]: ...  # noqa: D102


@dataclass(slots=True)
class Change:
    """One action of a transaction: what goes into the log entry and, once committed, into the table."""

    kind: Kind
    action: Action
    obj: Stored
    size: int = 0
    """Bytes that it adds to a log entry; unknown for what comes from one."""


@dataclass(frozen=True, slots=True)
class Savepoint:
    """A place to roll back to."""

    changes: int
    undo: int


CHECKED = {Kind.RESOURCE, Kind.VOLUME}
"""What is looked at beyond its id and name before it is stored."""


class TxTable(Generic[T]):
    """A table inside a transaction: the committed one with this transaction's changes on top."""

    def __init__(self, tx: Tx, base: Table[T]) -> None:
        self._tx = tx
        self._base = base
        self.schema: Schema[T] = base.schema
        self._kind = base.schema.kind
        self._own: dict[str, T] = {}
        self._listed: Table[T] | None = None
        self._hidden: set[str] = set()

    def __len__(self) -> int:
        return len(self._base) + len(self._own) - sum(1 for i in self._hidden if i in self._base)

    def __iter__(self) -> Iterator[T]:
        yield from (o for o in self._base if o.id not in self._hidden)
        yield from self._own.values()

    def __contains__(self, object_id: str) -> bool:
        return self.get(object_id) is not None

    def get(self, object_id: str) -> T | None:
        """The object with this id as this transaction sees it."""
        own = self._own.get(object_id)
        if own is not None or object_id in self._hidden:
            return own
        return self._base.get(object_id)

    def find(self, selector: Selector) -> list[T]:
        """The selected objects as this transaction sees them, in the same order as the committed table gives."""
        if isinstance(selector, AnyOf):
            return list({o.id: o for part in selector.parts for o in self.find(part)}.values())
        base, hidden = self._base, self._hidden
        found = [obj for i in base.ids(selector) if i not in hidden and (obj := base.get(i)) is not None] if hidden else base.find(selector)
        own = self._find_own(selector) if self._own else []
        if own:
            found = sorted(found + own, key=lambda o: self.schema.order(o, selector))
        return found

    def _find_own(self, selector: Selector) -> list[T]:
        """Its own objects are indexed when they are first asked for: most transactions only write."""
        if self._listed is None:
            self._listed = Table(self.schema)
            for obj in self._own.values():
                self._listed.put(obj)
        return self._listed.find(selector)

    def create(self, obj: T) -> T:
        """Store a copy with fresh Meta; returns the copy. Raises NameConflict, Exists, NoKind."""
        self._check_name(obj)
        if obj.id in self:
            raise Exists
        if self._kind in CHECKED:
            self._tx.check_kind(obj)
        stored = copy_of(obj)
        self._stamp(stored)
        self._set(stored)
        self._note(Action.CREATE, stored)
        return stored

    def update(self, obj: T) -> T:
        """Replace by a copy with fresh Meta; returns the copy.

        Raises NotExist; SequenceConflict when `obj` was made from another version than the stored one; NameConflict; Unknown for
        extensions, which never change.
        """
        if self._kind is Kind.EXTENSION:
            raise Unknown("extensions are immutable")
        old = self.get(obj.id)
        if old is None:
            raise NotExist
        if old.meta.version.index != obj.meta.version.index:
            raise SequenceConflict
        if self.schema.unique_name and self.schema.name(old) != self.schema.name(obj):
            self._check_name(obj)
        if self._kind in CHECKED:
            self._tx.check_kind(obj)
        stored = copy_of(obj)
        self._stamp(stored)
        self._set(stored)
        self._note(Action.UPDATE, stored)
        return stored

    def delete(self, object_id: str) -> T:
        """Remove; returns what was there. Raises NotExist; Unknown for an extension that resources use."""
        old = self.get(object_id)
        if old is None:
            raise NotExist
        self._tx.check_unused(old)
        self._remember(object_id)
        self._drop(object_id)
        self._hidden.add(object_id)
        self._note(Action.REMOVE, old)
        return old

    def _note(self, action: Action, obj: T) -> None:
        self._tx.changes.append(Change(self._kind, action, obj, obj.ByteSize() + ACTION_OVERHEAD))

    def _check_name(self, obj: T) -> None:
        if not self.schema.unique_name or (name := self.schema.name(obj)) is None:
            return
        if self.schema.kind is Kind.EXTENSION and name in list(Kind):
            raise NameConflict
        if any(other.id != obj.id for other in self.find(Exact("name", name.lower()))):
            raise NameConflict

    def _stamp(self, obj: T) -> None:
        meta = obj.meta
        meta.version.index = self._tx.version
        meta.updated_at.CopyFrom(self._tx.now)
        if not meta.HasField("created_at"):
            meta.created_at.CopyFrom(self._tx.now)

    def _set(self, obj: T) -> None:
        self._remember(obj.id)
        self._put(obj)
        self._hidden.add(obj.id)

    def _put(self, obj: T) -> None:
        self._own[obj.id] = obj
        if self._listed is not None:
            self._listed.put(obj)

    def _drop(self, object_id: str) -> None:
        self._own.pop(object_id, None)
        if self._listed is not None:
            self._listed.drop(object_id)

    def _remember(self, object_id: str) -> None:
        self._tx.undo.append((self, object_id, self._own.get(object_id), object_id in self._hidden))

    def restore(self, object_id: str, own: Any, hidden: bool) -> None:
        """Undo one step; rollback only."""
        if own is None:
            self._drop(object_id)
        else:
            self._put(own)
        if not hidden:
            self._hidden.discard(object_id)


class Tx:
    """One transaction: the same tables as the store, plus `create`, `update` and `delete` on each.

    `version` is the log's applied index when it began and becomes the version of all it writes; `now` the leader's wall clock.
    """

    def __init__(self, store: Store, version: int, now: float) -> None:
        self.version = version
        self.now = times.timestamp(now)
        self.changes: list[Change] = []
        self.undo: list[tuple[TxTable[Any], str, Any, bool]] = []
        self._store = store

    @cached_property
    def nodes(self) -> TxTable[api.Node]:
        """Node objects as this transaction sees them."""
        return TxTable(self, self._store.nodes)

    @cached_property
    def services(self) -> TxTable[api.Service]:
        """Service objects as this transaction sees them."""
        return TxTable(self, self._store.services)

    @cached_property
    def networks(self) -> TxTable[api.Network]:
        """Network objects as this transaction sees them."""
        return TxTable(self, self._store.networks)

    @cached_property
    def tasks(self) -> TxTable[api.Task]:
        """Task objects as this transaction sees them."""
        return TxTable(self, self._store.tasks)

    @cached_property
    def clusters(self) -> TxTable[api.Cluster]:
        """Cluster objects as this transaction sees them."""
        return TxTable(self, self._store.clusters)

    @cached_property
    def secrets(self) -> TxTable[api.Secret]:
        """Secret objects as this transaction sees them."""
        return TxTable(self, self._store.secrets)

    @cached_property
    def resources(self) -> TxTable[api.Resource]:
        """Resource objects as this transaction sees them."""
        return TxTable(self, self._store.resources)

    @cached_property
    def extensions(self) -> TxTable[api.Extension]:
        """Extension objects as this transaction sees them."""
        return TxTable(self, self._store.extensions)

    @cached_property
    def configs(self) -> TxTable[api.Config]:
        """Config objects as this transaction sees them."""
        return TxTable(self, self._store.configs)

    @cached_property
    def volumes(self) -> TxTable[api.Volume]:
        """Volume objects as this transaction sees them."""
        return TxTable(self, self._store.volumes)

    def savepoint(self) -> Savepoint:
        """Where a rollback may return to."""
        return Savepoint(len(self.changes), len(self.undo))

    def rollback(self, to: Savepoint) -> None:
        """Forget everything since the savepoint."""
        while len(self.undo) > to.undo:
            table, object_id, own, hidden = self.undo.pop()
            table.restore(object_id, own, hidden)
        del self.changes[to.changes :]

    def check_kind(self, obj: Stored) -> None:
        """A resource needs an extension of its kind, a volume a driver. Raises NoKind, Unknown."""
        if isinstance(obj, api.Volume) and not obj.spec.HasField("driver"):
            raise Unknown("missing value for index 'driver'")
        if isinstance(obj, api.Resource) and not self.extensions.find(Exact("name", obj.kind.lower())):
            raise NoKind

    def check_unused(self, obj: Stored) -> None:
        """An extension that resources use stays. Raises Unknown."""
        if isinstance(obj, api.Extension):
            name = obj.annotations.name.lower()
            if any(r.kind.lower() == name for r in self.resources):
                raise Unknown("cannot delete extension because objects of this type exist in the data store")
