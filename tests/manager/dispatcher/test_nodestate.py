"""What becomes of nodes, as a table."""

from __future__ import annotations

import pytest

from pyswarm.api import v1 as api
from pyswarm.manager.dispatcher import nodestate

N = api.NodeStatus


def node(state: N.State.ValueType, message: str = "m", addr: str = "1.1.1.1") -> api.Node:
    """A node with a status."""
    return api.Node(id="n", status=N(state=state, message=message, addr=addr))


@pytest.mark.parametrize(("state", "moved"), [(N.READY, True), (N.DISCONNECTED, True), (N.UNKNOWN, True), (N.DOWN, False)])
def test_new_leader_doubts_all_but_the_down(state: N.State.ValueType, moved: bool) -> None:
    """READY and DISCONNECTED nodes become UNKNOWN with the leadership message, DOWN ones stay untouched. [dispatcher 32]"""
    after = nodestate.taken_over(node(state))
    assert (after is not None) == moved
    if after is not None:
        assert after.status == N(state=N.UNKNOWN, message=nodestate.NEW_LEADER, addr="1.1.1.1")


def test_taking_over_twice_changes_nothing() -> None:
    """A node that is on trial already is not written again."""
    once = nodestate.taken_over(node(N.READY))
    assert once is not None
    assert nodestate.taken_over(once) is None


def test_node_that_was_never_heard_is_marked_too() -> None:
    """A node object without any status gets one, though its state is UNKNOWN already."""
    after = nodestate.taken_over(api.Node(id="n"))
    assert after is not None
    assert after.status.message == nodestate.NEW_LEADER


def test_ready_keeps_what_is_not_told() -> None:
    """Without description the stored one stays; without a usable address too. [dispatcher 18, 19]"""
    before = node(N.DOWN)
    before.description.hostname = "h"
    after = nodestate.ready(before, None, "unknown")
    assert after is not None
    assert after.status == N(state=N.READY, addr="1.1.1.1")
    assert after.description.hostname == "h"
    assert nodestate.ready(after, None, "unknown") is None


def test_down_keeps_address_and_description() -> None:
    """Only state and message change; the message tells whether the node ever spoke to this leader. [dispatcher 38]"""
    before = node(N.READY)
    before.description.hostname = "h"
    silent = nodestate.down(before, registered=True)
    assert silent is not None
    assert silent.status == N(state=N.DOWN, message="heartbeat failure", addr="1.1.1.1")
    assert silent.description.hostname == "h"
    never = nodestate.down(before, registered=False)
    assert never is not None
    assert never.status.message == 'heartbeat failure for node in "unknown" state'


@pytest.mark.parametrize(
    ("addr", "host"),
    [("10.1.2.3:5000", "10.1.2.3"), ("[fe80::1]:1", "fe80::1"), ("nothing", ""), ("", ""), ("unix:", ""), ("host:port", "")],
)
def test_host_of(addr: str, host: str) -> None:
    """Only an address with a port tells a host."""
    assert nodestate.host_of(addr) == host
