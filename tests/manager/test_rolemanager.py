"""From the desired role to the observed one."""

from __future__ import annotations

from pyswarm.api import v1 as api
from pyswarm.manager.changes import Update
from pyswarm.manager.rolemanager import RETRY_SECONDS, RoleManager
from pyswarm.manager.store import Action, Event, Kind, copy_of
from tests.support.loops import new_store, settle

MANAGER, WORKER = api.NodeRole.MANAGER, api.NodeRole.WORKER


def node(node_id: str, role: api.NodeRole.ValueType, desired: api.NodeRole.ValueType) -> api.Node:
    """A node on its way."""
    return api.Node(id=node_id, role=role, spec=api.NodeSpec(desired_role=desired))


def test_promotion_is_a_word() -> None:
    """The observed role follows at once; who is to be what it is is left alone. [dispatcher 180 in part; ca 168 in part]"""
    store = new_store(node("a", WORKER, MANAGER), node("b", MANAGER, MANAGER), node("c", WORKER, WORKER))
    (change,) = settle(RoleManager(lambda _: False), store, 5.0)
    assert isinstance(change, Update)
    assert change.obj == node("a", MANAGER, MANAGER)


def test_demotion_waits_for_the_log() -> None:
    """A member of the log stays a manager, and is looked at again; once it is out it becomes a worker, also if that was asked before.

    [dispatcher 180 in part; ca 168 in part, 169 in part]
    """
    members = {"a"}
    loop = RoleManager(lambda node_id: node_id in members)
    store = new_store(node("a", MANAGER, WORKER))
    (key,) = loop.everything(store)
    decision = loop.decide(store, key, 5.0)
    assert (list(decision.changes), decision.wake) == ([], 5.0 + RETRY_SECONDS)
    members.clear()
    (change,) = loop.decide(store, key, 10.0).changes
    assert isinstance(change, Update)
    assert change.obj == node("a", WORKER, WORKER)


def test_every_change_of_a_node_counts() -> None:
    """Removed nodes have no role, and other objects none either."""
    loop, one = RoleManager(lambda _: False), node("a", WORKER, MANAGER)
    assert list(loop.on_event(Event(Kind.NODE, Action.UPDATE, one, copy_of(one)))) == ["a"]
    assert list(loop.on_event(Event(Kind.NODE, Action.REMOVE, one))) == []
    assert list(loop.on_event(Event(Kind.SERVICE, Action.CREATE, api.Service(id="a")))) == []
    assert loop.decide(new_store(), "a", 1.0).changes == ()
