"""Tables: objects by id, and the indexes that find them (spec/store-and-raft, sections 3 and 4)."""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from google.protobuf.message import Message

from pyswarm.api import tasks as task_facts
from pyswarm.api import v1 as api
from pyswarm.manager.store.rules import InvalidFind

Stored: TypeAlias = (
    api.Node | api.Service | api.Network | api.Task | api.Cluster | api.Secret | api.Resource | api.Extension | api.Config | api.Volume
)
Move: TypeAlias = tuple[str, "Key", "Key"]
"""An index, and the keys under which it listed an object before and lists it now."""
T = TypeVar("T", bound=Stored)
M = TypeVar("M", bound=Message)
Key: TypeAlias = Hashable | frozenset[Hashable] | None
"""Under which key an index lists an object: one, several, or none."""
Index: TypeAlias = dict[Hashable, str | set[str]]
"""Ids by key. Most keys of most indexes have one object: a set for each would be most of what a table weighs."""


class Kind(enum.StrEnum):
    """The tables; the value is the kind's name in the watch API and the field of `StoreAction`."""

    NODE = "node"
    SERVICE = "service"
    NETWORK = "network"
    TASK = "task"
    CLUSTER = "cluster"
    SECRET = "secret"  # noqa: S105 - the table's name
    RESOURCE = "resource"
    EXTENSION = "extension"
    CONFIG = "config"
    VOLUME = "volume"


@dataclass(frozen=True, slots=True)
class Everything:
    """Selects all."""


@dataclass(frozen=True, slots=True)
class Exact:
    """Selects the objects that an index lists under `key`."""

    index: str
    key: Hashable


@dataclass(frozen=True, slots=True)
class Prefix:
    """Selects by the beginning of an id, a name or (with `under`) a custom value."""

    index: str
    prefix: str
    under: str | None = None


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Selects what any part selects."""

    parts: tuple[Everything | Exact | Prefix | AnyOf, ...]


Selector: TypeAlias = Everything | Exact | Prefix | AnyOf


def copy_of(obj: M) -> M:
    """A private copy to edit; stored objects themselves are frozen."""
    twin = type(obj)()
    twin.CopyFrom(obj)
    return twin


@dataclass(frozen=True, slots=True)
class Schema(Generic[T]):
    """What distinguishes one table from another."""

    kind: Kind
    message: Callable[[], T]
    plural: str
    name: Callable[[T], str | None]
    annotations: Callable[[T], api.Annotations]
    unique_name: bool = True
    indexes: tuple[str, ...] = ()
    index_keys: Callable[[T], tuple[Key, ...]] = lambda _obj: ()
    name_prefix: bool = True
    quick_moves: Callable[[T, T], Iterable[Move] | None] = lambda _old, _new: None

    @property
    def all_indexes(self) -> tuple[str, ...]:
        """The names of the indexes, those that every table has first."""
        return "name", "custom", *self.indexes

    def keys(self, obj: T) -> tuple[Key, ...]:
        """For every index, in order, where it lists the object. Asked for each write: to be quick."""
        name = self.name(obj)
        custom = self.annotations(obj).indices
        return (
            None if name is None else name.lower(),
            frozenset((entry.key, entry.val) for entry in custom) if custom else None,
            *self.index_keys(obj),
        )

    def moves(self, old: T, new: T) -> Iterable[Move]:
        """The indexes that list an object otherwise after an update."""
        quick = self.quick_moves(old, new)
        if quick is not None:
            return quick
        pairs = zip(self.all_indexes, self.keys(old), self.keys(new), strict=True)
        return [(index, before, after) for index, before, after in pairs if before != after]

    def order(self, obj: T, selector: Everything | Exact | Prefix) -> tuple[str, str]:
        """Where an object stands in a selector's result: by index key, then by id."""
        match selector:
            case Prefix("name", _, None):
                return (self.name(obj) or "").lower(), obj.id
            case Prefix(_, prefix, str() as under):
                values = (i.val for i in self.annotations(obj).indices if i.key == under and i.val.startswith(prefix))
                return min(values, default=""), obj.id
        return "", obj.id


class Table(Generic[T]):
    """Objects of one kind. Reading is all that code outside the store may do.

    Results come in the order of the index key, then of the id; objects are the stored ones: read, never change.
    """

    def __init__(self, schema: Schema[T]) -> None:
        self.schema = schema
        self._objects: dict[str, T] = {}
        self._indexes: dict[str, Index] = {i: {} for i in schema.all_indexes}

    def __len__(self) -> int:
        return len(self._objects)

    def __iter__(self) -> Iterator[T]:
        """All objects in no particular order, without copying; do not write while iterating."""
        return iter(self._objects.values())

    def __contains__(self, object_id: str) -> bool:
        return object_id in self._objects

    def get(self, object_id: str) -> T | None:
        """The object with this id, if there is one."""
        return self._objects.get(object_id)

    def find(self, selector: Selector) -> list[T]:
        """The selected objects. Raises InvalidFind for a selector this table has no index for."""
        return [self._objects[i] for i in self.ids(selector)]

    def ids(self, selector: Selector) -> list[str]:
        """The ids of the selected objects, in order."""
        match selector:
            case Exact(index, key):
                return sorted(_ids(self._index(index).get(key)))
            case Everything():
                return sorted(self._objects)
            case Prefix("id", prefix, None):
                return sorted(i for i in self._objects if i.startswith(prefix))
            case Prefix(index, prefix, under):
                return self._ids_by_prefix(index, prefix, under)
            case AnyOf(parts):
                return list(dict.fromkeys(i for part in parts for i in self.ids(part)))

    def unordered(self, selector: Selector) -> list[str]:
        """As `ids`, in no particular order: sorting is most of the cost where there are very many."""
        return list(_ids(self._index(selector.index).get(selector.key))) if isinstance(selector, Exact) else self.ids(selector)

    def count(self, first: Selector, *others: Selector) -> int:
        """How many objects all of these select, without looking at them. Raises InvalidFind for what no index answers."""
        listed = self._listed(first)
        for selector in others:
            listed = listed & self._listed(selector)
        return len(listed)

    def _listed(self, selector: Selector) -> AbstractSet[str]:
        if not isinstance(selector, Exact):
            raise InvalidFind
        found: str | AbstractSet[str] = self._index(selector.index).get(selector.key, frozenset())
        return {found} if isinstance(found, str) else found

    def _ids_by_prefix(self, index: str, prefix: str, under: str | None) -> list[str]:
        if index == "name" and not self.schema.name_prefix:
            raise InvalidFind
        keys: list[Any] = [k for k in self._index(index) if _key_matches(k, prefix, under)]
        return list(dict.fromkeys(i for key in sorted(keys) for i in sorted(_ids(self._index(index)[key]))))

    def _index(self, index: str) -> Index:
        try:
            return self._indexes[index]
        except KeyError:
            raise InvalidFind from None

    def put(self, obj: T) -> T | None:
        """Insert or replace; returns what was there before. Store only."""
        object_id = obj.id
        old = self._objects.get(object_id)
        self._objects[object_id] = obj
        if old is None:
            for listed, key in zip(self._indexes.values(), self.schema.keys(obj), strict=True):
                if key is not None:
                    _list(listed, object_id, key)
            return None
        for index, before, after in self.schema.moves(old, obj):
            listed = self._indexes[index]
            _unlist(listed, object_id, before)
            _list(listed, object_id, after)
        return old

    def drop(self, object_id: str) -> T | None:
        """Delete; returns what was there. Store only."""
        old = self._objects.pop(object_id, None)
        if old is not None:
            for listed, key in zip(self._indexes.values(), self.schema.keys(old), strict=True):
                _unlist(listed, object_id, key)
        return old

    def take_over(self, other: Table[T]) -> None:
        """Have the content of another table of this kind, which must not be used any more. Store only."""
        self._objects, self._indexes = other._objects, other._indexes

    def contents(self) -> dict[str, T]:
        """A shallow copy: an immutable view, since the objects are frozen."""
        return dict(self._objects)


def _ids(listed: str | set[str] | None) -> Collection[str]:
    return () if listed is None else (listed,) if isinstance(listed, str) else listed


def _list(index: Index, object_id: str, key: Key) -> None:
    if isinstance(key, frozenset):
        for one in key:
            _list(index, object_id, one)
        return
    if key is None:
        return
    known = index.setdefault(key, object_id)
    if isinstance(known, set):
        known.add(object_id)
    elif known != object_id:
        index[key] = {known, object_id}


def _unlist(index: Index, object_id: str, key: Key) -> None:
    if isinstance(key, frozenset):
        for one in key:
            _unlist(index, object_id, one)
        return
    if key is None:
        return
    known = index[key]
    if isinstance(known, set) and len(known) > 1:
        known.discard(object_id)
    else:
        del index[key]


def _key_matches(key: Hashable, prefix: str, under: str | None) -> bool:
    if under is None:
        return isinstance(key, str) and key.startswith(prefix)
    return isinstance(key, tuple) and key[0] == under and key[1].startswith(prefix)


def _runtime(spec: api.TaskSpec) -> Key:
    return task_facts.runtime_name(spec) or None


def _networks(spec: api.TaskSpec) -> Key:
    return frozenset(n.target for n in spec.networks) if spec.networks else None


def _dependencies(spec: api.TaskSpec) -> tuple[Key, Key]:
    """The secrets and the configs that a container is given."""
    if not spec.HasField("container"):
        return None, None
    secrets, configs = spec.container.secrets, spec.container.configs
    return (
        frozenset(s.secret_id for s in secrets) if secrets else None,
        frozenset(c.config_id for c in configs) if configs else None,
    )


def _service_keys(service: api.Service) -> tuple[Key, ...]:
    task = service.spec.task
    return _runtime(task), _networks(task) or frozenset(n.target for n in service.spec.networks), *_dependencies(task)


def _task_keys(task: api.Task) -> tuple[Key, ...]:
    spec, service, volumes = task.spec, task.service_id, task.volumes
    return (
        _runtime(spec),
        service,
        task.node_id,
        (service, task.slot),
        task.desired_state,
        task.status.state,
        _networks(spec),
        *_dependencies(spec),
        frozenset(v.id for v in volumes) if volumes else None,
    )


def _task_moves(old: api.Task, new: api.Task) -> Iterable[Move] | None:
    """What most updates are: a task goes from state to state. None for those that change more."""
    if old.spec != new.spec or old.annotations != new.annotations or old.volumes != new.volumes or old.service_id != new.service_id:
        return None
    moves: list[Move] = []
    if old.status.state != new.status.state:
        moves.append(("task_state", old.status.state, new.status.state))
    if old.desired_state != new.desired_state:
        moves.append(("desired_state", old.desired_state, new.desired_state))
    slot, node = old.slot != new.slot, old.node_id != new.node_id
    if slot:
        moves.append(("slot", (old.service_id, old.slot), (new.service_id, new.slot)))
    if node:
        moves.append(("node", old.node_id, new.node_id))
    if slot or (node and not new.slot) or old.service_annotations.name != new.service_annotations.name:
        moves.append(("name", task_facts.display_name(old).lower(), task_facts.display_name(new).lower()))
    return moves


def _volume_keys(volume: api.Volume) -> tuple[Key, ...]:
    return volume.spec.group, volume.spec.driver.name


NODE: Schema[api.Node] = Schema(
    Kind.NODE,
    api.Node,
    "nodes",
    name=lambda n: n.description.hostname if n.HasField("description") else None,
    annotations=lambda n: n.spec.annotations,
    unique_name=False,
    indexes=("role", "membership"),
    index_keys=lambda n: (n.role, n.spec.membership),
)
SERVICE: Schema[api.Service] = Schema(
    Kind.SERVICE,
    api.Service,
    "services",
    name=lambda s: s.spec.annotations.name,
    annotations=lambda s: s.spec.annotations,
    indexes=("runtime", "network", "secret", "config"),
    index_keys=_service_keys,
)
NETWORK: Schema[api.Network] = Schema(
    Kind.NETWORK, api.Network, "networks", name=lambda n: n.spec.annotations.name, annotations=lambda n: n.spec.annotations
)
TASK: Schema[api.Task] = Schema(
    Kind.TASK,
    api.Task,
    "tasks",
    name=task_facts.display_name,
    annotations=lambda t: t.annotations,
    unique_name=False,
    indexes=("runtime", "service", "node", "slot", "desired_state", "task_state", "network", "secret", "config", "volume"),
    index_keys=_task_keys,
    quick_moves=_task_moves,
)
CLUSTER: Schema[api.Cluster] = Schema(
    Kind.CLUSTER, api.Cluster, "clusters", name=lambda c: c.spec.annotations.name, annotations=lambda c: c.spec.annotations
)
SECRET: Schema[api.Secret] = Schema(
    Kind.SECRET, api.Secret, "secrets", name=lambda s: s.spec.annotations.name, annotations=lambda s: s.spec.annotations
)
RESOURCE: Schema[api.Resource] = Schema(
    Kind.RESOURCE,
    api.Resource,
    "resources",
    name=lambda r: r.annotations.name,
    annotations=lambda r: r.annotations,
    indexes=("kind",),
    index_keys=lambda r: (r.kind,),
)
EXTENSION: Schema[api.Extension] = Schema(
    Kind.EXTENSION,
    api.Extension,
    "extensions",
    name=lambda e: e.annotations.name,
    annotations=lambda e: e.annotations,
    name_prefix=False,
)
CONFIG: Schema[api.Config] = Schema(
    Kind.CONFIG, api.Config, "configs", name=lambda c: c.spec.annotations.name, annotations=lambda c: c.spec.annotations
)
VOLUME: Schema[api.Volume] = Schema(
    Kind.VOLUME,
    api.Volume,
    "volumes",
    name=lambda v: v.spec.annotations.name,
    annotations=lambda v: v.spec.annotations,
    indexes=("group", "driver"),
    index_keys=_volume_keys,
)

SCHEMAS: Mapping[Kind, Schema[Any]] = {
    schema.kind: schema for schema in (NODE, SERVICE, NETWORK, TASK, CLUSTER, SECRET, RESOURCE, EXTENSION, CONFIG, VOLUME)
}
