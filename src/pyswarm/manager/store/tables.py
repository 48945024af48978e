"""Tables: objects by id, and the indexes that find them (spec/store-and-raft, sections 3 and 4)."""

from __future__ import annotations

import enum
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from google.protobuf.message import Message

from pyswarm.api import tasks as task_facts
from pyswarm.api import v1 as api
from pyswarm.errors import Unknown
from pyswarm.manager.store.rules import InvalidFind

Stored: TypeAlias = (
    api.Node | api.Service | api.Network | api.Task | api.Cluster | api.Secret | api.Resource | api.Extension | api.Config | api.Volume
)
T = TypeVar("T", bound=Stored)
M = TypeVar("M", bound=Message)
Keys: TypeAlias = Iterable[Hashable]


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
    indexes: Mapping[str, Callable[[T], Keys]] | None = None
    name_prefix: bool = True

    def keys(self, obj: T) -> dict[str, Keys]:
        """Every index with the keys under which it lists the object."""
        name = self.name(obj)
        found: dict[str, Keys] = {"name": () if name is None else (name.lower(),)}
        found["custom"] = {(entry.key, entry.val) for entry in self.annotations(obj).indices}
        for index, keys_of in (self.indexes or {}).items():
            found[index] = keys_of(obj)
        return found

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
        self._indexes: dict[str, dict[Hashable, set[str]]] = {i: {} for i in ("name", "custom", *(schema.indexes or ()))}

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
                return sorted(self._index(index).get(key, ()))
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
        return list(self._index(selector.index).get(selector.key, ())) if isinstance(selector, Exact) else self.ids(selector)

    def count(self, first: Selector, *others: Selector) -> int:
        """How many objects all of these select, without looking at them. Raises InvalidFind for what no index answers."""
        listed = self._listed(first)
        for selector in others:
            listed = listed & self._listed(selector)
        return len(listed)

    def _listed(self, selector: Selector) -> set[str] | frozenset[str]:
        if not isinstance(selector, Exact):
            raise InvalidFind
        return self._index(selector.index).get(selector.key, frozenset())

    def _ids_by_prefix(self, index: str, prefix: str, under: str | None) -> list[str]:
        if index == "name" and not self.schema.name_prefix:
            raise InvalidFind
        keys: list[Any] = [k for k in self._index(index) if _key_matches(k, prefix, under)]
        return list(dict.fromkeys(i for key in sorted(keys) for i in sorted(self._index(index)[key])))

    def _index(self, index: str) -> dict[Hashable, set[str]]:
        try:
            return self._indexes[index]
        except KeyError:
            raise InvalidFind from None

    def put(self, obj: T) -> T | None:
        """Insert or replace; returns what was there before. Store only."""
        old = self._objects.get(obj.id)
        fresh = self.schema.keys(obj)
        if old is not None:
            self._unlist(old, keep=fresh)
        self._objects[obj.id] = obj
        for index, keys in fresh.items():
            listed = self._indexes[index]
            for key in keys:
                listed.setdefault(key, set()).add(obj.id)
        return old

    def drop(self, object_id: str) -> T | None:
        """Delete; returns what was there. Store only."""
        old = self._objects.pop(object_id, None)
        if old is not None:
            self._unlist(old, keep={})
        return old

    def _unlist(self, obj: T, keep: Mapping[str, Keys]) -> None:
        for index, keys in self.schema.keys(obj).items():
            listed, kept = self._indexes[index], keep.get(index, ())
            for key in keys:
                if key in kept:
                    continue
                ids = listed[key]
                ids.discard(obj.id)
                if not ids:
                    del listed[key]

    def take_over(self, other: Table[T]) -> None:
        """Have the content of another table of this kind, which must not be used any more. Store only."""
        self._objects, self._indexes = other._objects, other._indexes

    def contents(self) -> dict[str, T]:
        """A shallow copy: an immutable view, since the objects are frozen."""
        return dict(self._objects)


def _key_matches(key: Hashable, prefix: str, under: str | None) -> bool:
    if under is None:
        return isinstance(key, str) and key.startswith(prefix)
    return isinstance(key, tuple) and key[0] == under and key[1].startswith(prefix)


def _runtime(spec: api.TaskSpec) -> Keys:
    name = task_facts.runtime_name(spec)
    return (name,) if name else ()


def _networks(service: api.Service) -> Keys:
    wanted = service.spec.task.networks or service.spec.networks
    return {n.target for n in wanted}


def _secrets(spec: api.TaskSpec) -> Keys:
    return {s.secret_id for s in spec.container.secrets} if spec.HasField("container") else ()


def _configs(spec: api.TaskSpec) -> Keys:
    return {c.config_id for c in spec.container.configs} if spec.HasField("container") else ()


def _volume_driver(volume: api.Volume) -> Keys:
    if not volume.spec.HasField("driver"):
        raise Unknown("missing value for index 'driver'")
    return (volume.spec.driver.name,)


NODE: Schema[api.Node] = Schema(
    Kind.NODE,
    api.Node,
    "nodes",
    name=lambda n: n.description.hostname if n.HasField("description") else None,
    annotations=lambda n: n.spec.annotations,
    unique_name=False,
    indexes={"role": lambda n: (n.role,), "membership": lambda n: (n.spec.membership,)},
)
SERVICE: Schema[api.Service] = Schema(
    Kind.SERVICE,
    api.Service,
    "services",
    name=lambda s: s.spec.annotations.name,
    annotations=lambda s: s.spec.annotations,
    indexes={
        "runtime": lambda s: _runtime(s.spec.task),
        "network": _networks,
        "secret": lambda s: _secrets(s.spec.task),
        "config": lambda s: _configs(s.spec.task),
    },
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
    indexes={
        "runtime": lambda t: _runtime(t.spec),
        "service": lambda t: (t.service_id,),
        "node": lambda t: (t.node_id,),
        "slot": lambda t: ((t.service_id, t.slot),),
        "desired_state": lambda t: (t.desired_state,),
        "task_state": lambda t: (t.status.state,),
        "network": lambda t: {n.target for n in t.spec.networks},
        "secret": lambda t: _secrets(t.spec),
        "config": lambda t: _configs(t.spec),
        "volume": lambda t: {v.id for v in t.volumes},
    },
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
    indexes={"kind": lambda r: (r.kind,)},
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
    indexes={"group": lambda v: (v.spec.group,), "driver": _volume_driver},
)

SCHEMAS: Mapping[Kind, Schema[Any]] = {
    schema.kind: schema for schema in (NODE, SERVICE, NETWORK, TASK, CLUSTER, SECRET, RESOURCE, EXTENSION, CONFIG, VOLUME)
}
