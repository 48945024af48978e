"""What a watch request selects: entries are alternatives, the filters of one must all hold (spec/store-and-raft, section 9)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from pyswarm.api import v1 as api
from pyswarm.errors import InvalidArgument
from pyswarm.manager.store import Action, Event, Kind
from pyswarm.manager.store.tables import SCHEMAS, Schema

Test: TypeAlias = Callable[[Any], bool]
"""Of a stored object."""

ACTIONS = {
    Action.CREATE: api.WatchActionKind.WATCH_ACTION_CREATE,
    Action.UPDATE: api.WatchActionKind.WATCH_ACTION_UPDATE,
    Action.REMOVE: api.WatchActionKind.WATCH_ACTION_REMOVE,
}
"""How the request and the answer call what happened; a request's are bits that may be combined."""

_GROUPS = {
    "id": "id",
    "id_prefix": "id",
    "name": "name",
    "name_prefix": "name",
    "custom": "custom",
    "custom_prefix": "custom",
    "service_id": "service",
    "slot": "service",
}
"""Filters that cannot stand beside each other; any other cannot stand beside itself."""

_TABLES = {kind.value: kind for kind in Kind if kind is not Kind.RESOURCE}
_ANYWHERE = frozenset({"id", "id_prefix", "name", "name_prefix", "custom", "custom_prefix"})
_ONLY = {
    Kind.TASK: frozenset({"service_id", "node_id", "slot", "desired_state"}),
    Kind.NODE: frozenset({"role", "membership"}),
}


def selected(entries: Iterable[api.WatchRequest.WatchEntry]) -> Callable[[Event], bool]:
    """Whether an event is one that the entries ask for; without entries none is. Raises InvalidArgument."""
    alternatives: dict[Kind, list[Callable[[Event], bool]]] = {}
    for entry in entries:
        kind, test = _entry(entry)
        alternatives.setdefault(kind, []).append(test)

    def wanted(event: Event) -> bool:
        return any(test(event) for test in alternatives.get(event.kind, ()))

    return wanted


def _entry(entry: api.WatchRequest.WatchEntry) -> tuple[Kind, Callable[[Event], bool]]:
    if not entry.kind:
        raise InvalidArgument("no kind of object specified")
    actions = {action for action, bit in ACTIONS.items() if entry.action & bit}
    if not actions:
        raise InvalidArgument("unrecognized action")
    # Whatever is no table's name is a kind of resource, "resource" included.
    kind = _TABLES.get(entry.kind, Kind.RESOURCE)
    tests = _filters(entry.filters, kind)
    if kind is Kind.RESOURCE:
        wanted = entry.kind
        tests.append(lambda obj: obj.kind == wanted)
    return kind, lambda event: event.action in actions and all(test(event.obj) for test in tests)


def _filters(filters: Iterable[api.SelectBy], kind: Kind) -> list[Test]:
    taken: set[str] = set()
    tests = []
    for one in filters:
        by = one.WhichOneof("By")
        if by is None:
            raise InvalidArgument("a filter without a condition")
        if by not in _ANYWHERE | _ONLY.get(kind, frozenset()):
            raise InvalidArgument(f"the filter {by} does not apply to objects of kind {kind}")
        value = getattr(one, by)
        group = _GROUPS.get(by, by)
        if group in taken:
            raise InvalidArgument("conflicting filters specified")
        if value != "":
            taken.add(group)
        tests.append(_test(by, value, SCHEMAS[kind]))
    return tests


def _test(by: str, value: Any, schema: Schema[Any]) -> Test:
    match by:
        case "id":
            return lambda obj: bool(obj.id == value)
        case "id_prefix":
            return lambda obj: bool(obj.id.startswith(value))
        case "name":
            return lambda obj: _name(obj, schema) == value
        case "name_prefix":
            return lambda obj: (name := _name(obj, schema)) is not None and name.startswith(value)
        case "custom":
            return lambda obj: any(i.key == value.index and i.val == value.value for i in schema.annotations(obj).indices)
        case "custom_prefix":
            return lambda obj: any(i.key == value.index and i.val.startswith(value.value) for i in schema.annotations(obj).indices)
        case "slot":
            return lambda obj: bool(obj.service_id == value.service_id and obj.slot == value.slot)
        case "membership":
            return lambda obj: bool(obj.spec.membership == value)
    return lambda obj: bool(getattr(obj, by) == value)


def _name(obj: Any, schema: Schema[Any]) -> str | None:
    """Case counts, unlike in the store's indexes; a task has the name that was given to it, not the one it is shown with."""
    return obj.annotations.name if schema.kind is Kind.TASK else schema.name(obj)
