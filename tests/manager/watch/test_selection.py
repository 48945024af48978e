"""What a watch request selects."""

from __future__ import annotations

import pytest

from pyswarm.api import v1 as api
from pyswarm.manager.store import Action, Event, Kind, Stored
from pyswarm.manager.watch.selection import selected
from tests.manager.control.support import IA, refused

A = api.WatchActionKind
By = api.SelectBy
S = api.TaskState


def entry(kind: str, action: int = A.WATCH_ACTION_CREATE, *filters: By) -> api.WatchRequest.WatchEntry:
    """One alternative of a request."""
    return api.WatchRequest.WatchEntry(kind=kind, action=action, filters=filters)  # type: ignore[arg-type] # bits may be combined


def node(hostname: str = "", role: api.NodeRole.ValueType = api.NodeRole.WORKER, index: str = "") -> api.Node:
    """A node with one custom index; without a description when it has no hostname."""
    made = api.Node(id="n1", role=role)
    if hostname:
        made.description.hostname = hostname
    if index:
        made.spec.annotations.indices.add(key="myindex", val=index)
    return made


def is_seen(obj: Stored, *entries: api.WatchRequest.WatchEntry, action: Action = Action.CREATE) -> bool:
    """Whether a request with these entries is told."""
    return selected(entries)(Event(Kind(type(obj).__name__.lower()), action, obj))


def test_entries_are_alternatives_and_filters_add_up() -> None:
    """A node is seen when all filters of any one entry hold. [store 54] [control 126]"""
    custom = By(custom=api.SelectByCustom(index="myindex", value="myval"))
    east = entry("node", A.WATCH_ACTION_CREATE, By(name_prefix="east"), custom)
    managers = entry("node", A.WATCH_ACTION_CREATE, By(role=api.NodeRole.MANAGER))
    assert is_seen(node(role=api.NodeRole.MANAGER), east, managers)
    assert not is_seen(node(), east, managers)
    assert not is_seen(node(index="myval"), east, managers)
    assert not is_seen(node("west-40", index="myval"), east, managers)
    assert is_seen(node("east-95", index="myval"), east, managers)


@pytest.mark.parametrize("action", list(Action))
@pytest.mark.parametrize("mask", range(1, 8))
def test_actions_are_bits(action: Action, mask: int) -> None:
    """An event is seen when the bit of its action is set, whatever others are. [store 55]"""
    bit = {Action.CREATE: 1, Action.UPDATE: 2, Action.REMOVE: 4}[action]
    assert is_seen(node(), entry("node", mask), action=action) == bool(mask & bit)


def test_unknown_bits_beside_known_ones() -> None:
    """Bits without a meaning do no harm beside one that has one."""
    assert is_seen(node(), entry("node", 1 | 64))


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (entry(""), "no kind of object specified"),
        (entry("node", 0), "unrecognized action"),
        (entry("node", 8), "unrecognized action"),
        (entry("node", 1, By(id="a"), By(id_prefix="a")), "conflicting filters specified"),
        (entry("node", 1, By(name="a"), By(name_prefix="b")), "conflicting filters specified"),
        (entry("service", 1, By(name="a"), By(name="a")), "conflicting filters specified"),
        (entry("task", 1, By(slot=api.SelectBySlot(service_id="s", slot=1)), By(service_id="s")), "conflicting filters specified"),
        (entry("task", 1, By(service_id="s"), By(slot=api.SelectBySlot(service_id="s", slot=1))), "conflicting filters specified"),
        (entry("task", 1, By(custom=api.SelectByCustom(index="i")), By(custom_prefix=api.SelectByCustom(index="j"))), "conflicting"),
        (entry("task", 1, By(node_id="n"), By(node_id="m")), "conflicting filters specified"),
        (entry("task", 1, By(desired_state=S.RUNNING), By(desired_state=S.RUNNING)), "conflicting filters specified"),
        (entry("node", 1, By(role=api.NodeRole.WORKER), By(role=api.NodeRole.MANAGER)), "conflicting filters specified"),
        (entry("node", 1, By(service_id="s")), "the filter service_id does not apply to objects of kind node"),
        (entry("service", 1, By(referenced_secret_id="s")), "the filter referenced_secret_id does not apply to objects of kind service"),
        (entry("node", 1, By()), "a filter without a condition"),
    ],
)
def test_requests_that_mean_nothing(wrong: api.WatchRequest.WatchEntry, text: str) -> None:
    """A kind, an action and filters that fit are demanded, also of an entry beside good ones. [store 59] [control 130]"""
    with refused(IA, text):
        selected([entry("node"), wrong])


def test_an_empty_value_takes_no_place() -> None:
    """An earlier filter with an empty string does not conflict, but holds as well."""
    both = entry("service", 1, By(id_prefix=""), By(id="s1"))
    assert is_seen(api.Service(id="s1"), both)
    assert not is_seen(api.Service(id="s2"), both)


def test_other_kinds_are_resources() -> None:
    """What is no table's name selects resources of exactly that kind. [store 59] [control 130]"""
    mine = entry("mykind")
    assert is_seen(api.Resource(id="r", kind="mykind"), mine)
    assert not is_seen(api.Resource(id="r", kind="other"), mine)
    assert not is_seen(api.Resource(id="r", kind="mykind"), entry("resource"))
    assert is_seen(api.Resource(id="r", kind="resource"), entry("resource"))
    assert not is_seen(node(), mine)


def task(**fields: object) -> api.Task:
    """A task of web, slot 2, on n1."""
    return api.Task(id="t1", service_id="web", slot=2, node_id="n1", desired_state=S.RUNNING, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("condition", "seen"),
    [
        (By(id="t1"), True),
        (By(id="T1"), False),
        (By(id_prefix="t"), True),
        (By(id_prefix="u"), False),
        (By(service_id="web"), True),
        (By(service_id="db"), False),
        (By(node_id="n1"), True),
        (By(node_id="n2"), False),
        (By(slot=api.SelectBySlot(service_id="web", slot=2)), True),
        (By(slot=api.SelectBySlot(service_id="web", slot=1)), False),
        (By(slot=api.SelectBySlot(service_id="db", slot=2)), False),
        (By(desired_state=S.RUNNING), True),
        (By(desired_state=S.SHUTDOWN), False),
        (By(custom_prefix=api.SelectByCustom(index="a", value="b")), True),
        (By(custom_prefix=api.SelectByCustom(index="a", value="c")), False),
        (By(custom=api.SelectByCustom(index="a", value="b")), False),
        (By(name="Given"), True),
        (By(name="given"), False),
        (By(name_prefix="Giv"), True),
    ],
)
def test_conditions_on_tasks(condition: By, seen: bool) -> None:
    """Each filter looks at its own field, with regard to case; a task's name is the one it was given."""
    one = task(annotations=api.Annotations(name="Given", indices=[api.IndexEntry(key="a", val="bcd")]))
    assert is_seen(one, entry("task", 1, condition)) is seen


def test_membership_of_nodes() -> None:
    """A node is found by its membership."""
    pending = api.Node(id="n", spec=api.NodeSpec(membership=api.NodeSpec.Membership.PENDING))
    accepted = api.Node(id="n", spec=api.NodeSpec(membership=api.NodeSpec.Membership.ACCEPTED))
    wanted = entry("node", 1, By(membership=api.NodeSpec.Membership.ACCEPTED))
    assert is_seen(accepted, wanted)
    assert not is_seen(pending, wanted)


def test_nothing_asked_for() -> None:
    """Without entries nothing is seen."""
    assert not is_seen(node())
