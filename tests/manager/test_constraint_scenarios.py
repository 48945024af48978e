"""The constraint language on nodes of every kind."""

from __future__ import annotations

import pytest

from pyswarm.api import v1 as api
from pyswarm.errors import Unknown
from pyswarm.manager import constraints


def holds(*expressions: str, node: api.Node | None = None, **kwargs: str) -> bool:
    """Whether all expressions hold for a node made of an id, hostname, addr, or given."""
    made = node or api.Node(id=kwargs.get("id", "n"))
    made.description.hostname = made.description.hostname or kwargs.get("hostname", "")
    made.status.addr = made.status.addr or kwargs.get("addr", "")
    return constraints.matches(constraints.parse(expressions), made)


@pytest.mark.parametrize(
    "expression",
    ["", " ", "nodeabc", "node ~ abc", "1node==a2", "no de== node1", "no*de==node1", "==node1", "node==", "node== ", "no$de==node1",
     "a==b", "node.id==a,b", "x!=y==z"],
)  # fmt: skip
def test_what_is_no_expression(expression: str) -> None:
    """Operator, key and value must be there and well formed. [scheduling 57]"""
    with pytest.raises(Unknown):
        constraints.parse([expression])


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (" node == node1", ("node", "node1", True)),
        ("NoDe==node1", ("NoDe", "node1", True)),
        ("no.de==node1", ("no.de", "node1", True)),
        ("_node!=_node1", ("_node", "_node1", False)),
        ("node==[a-b]+c*(n|b)/", ("node", "[a-b]+c*(n|b)/", True)),
        ("node==node 1", ("node", "node 1", True)),
    ],
)
def test_what_is_an_expression(expression: str, expected: tuple[str, str, bool]) -> None:
    """Blanks around key and value do not count; the key stays as typed. [scheduling 58]"""
    (parsed,) = constraints.parse([expression])
    assert (parsed.key, parsed.value, parsed.wanted) == expected


@pytest.mark.parametrize(
    ("value", "matching", "other"),
    [("foo", ["foo", "FOO"], ["fo", "fooE"]), ("f*o", ["f*o", "F*o"], ["fo", "foo"]), ("f.-$o", ["f.-$o"], ["f.-$", "fx-$o", "f.-$oo"])],
)
def test_values_are_compared_literally(value: str, matching: list[str], other: list[str]) -> None:
    """In full and without case; no character has a meaning of its own. [scheduling 59]"""
    for hostname in [*matching, *other]:
        assert holds(f"node.hostname=={value}", hostname=hostname) is (hostname in matching)
        assert holds(f"node.hostname!={value}", hostname=hostname) is (hostname in other)


@pytest.mark.parametrize("expression", ["node.abc.bcd == high", "node.abc.bcd != high", "node.labels. == x", "node.labels. != x"])
def test_unknown_keys_match_nothing(expression: str) -> None:
    """Neither wanted nor unwanted. [scheduling 60]"""
    assert not holds(expression)


@pytest.mark.parametrize(("hostname", "expected"), [("", True), ("node-2", True), ("node-1", False), ("NODe-1", False)])
def test_hostname(hostname: str, expected: bool) -> None:
    """A node without hostname has another one. [scheduling 61]"""
    assert holds("node.hostname != node-1", hostname=hostname) is expected


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("== 186.17.9.41", True), ("!= 186.17.9.41", False), ("== 186.17.9.42", False), ("== 186.17.9.4/24", True),
        ("== 186.17.8.41/24", False), ("== 186.17.9.41/34", False), ("!= 266.17.9.41", False), ("!= 0.0.0.0", True),
        ("== not_ip_addr", False),
    ],
)  # fmt: skip
def test_ipv4(expression: str, expected: bool) -> None:
    """An address or a subnet; what is neither matches nothing. [scheduling 62]"""
    assert holds(f"node.ip {expression}", addr="186.17.9.41") is expected


def test_an_empty_address_constrains_nothing() -> None:
    """It cannot be parsed, so no node is refused because of it. [scheduling 62]"""
    assert constraints.node_matches(api.Node(id="n"), api.Placement(constraints=["node.ip == "]))


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("== 2001:db8::2", True), ("== 2001:db8:0::2", True), ("== 2001:db8::/64", True), ("!= 2001:db9::/64", True),
        ("!= 2001:db8::2/128", False), ("== 2001:db9::/64", False),
    ],
)  # fmt: skip
def test_ipv6(expression: str, expected: bool) -> None:
    """However it is written. [scheduling 63]"""
    assert holds(f"node.ip {expression}", addr="2001:db8::2") is expected


def test_no_address() -> None:
    """A node without address is nowhere. [scheduling 64]"""
    assert not holds("node.ip == 0.0.0.0")
    assert holds("node.ip != 0.0.0.0")


def test_id_and_role() -> None:
    """Ids match in full; roles are those observed. [scheduling 65]"""
    assert [holds("node.id == nodeid-1", id=i) for i in ("nodeid-1", "nodeid-1-extra", "nodeid-")] == [True, False, False]
    promoted = api.Node(id="n", role=api.NodeRole.WORKER)
    promoted.spec.desired_role = api.NodeRole.MANAGER
    assert holds("node.role == worker", node=promoted)
    assert not holds("node.role == manager", node=promoted)
    assert not holds("node.role == worker-manager", node=promoted)


def test_platform() -> None:
    """Names of architectures are not translated here. [scheduling 66]"""
    assert not holds("node.platform.os == linux")
    linux, windows = api.Node(id="l"), api.Node(id="w")
    linux.description.platform.MergeFrom(api.Platform(os="linux", architecture="x86_64"))
    windows.description.platform.os = "windows"
    assert holds("node.platform.os == linux", node=linux)
    assert not holds("node.platform.os == linux", node=windows)
    assert not holds("node.platform.arch == amd64", node=linux)
    assert holds("node.platform.arch != amd64", node=linux)


def labelled(labels: dict[str, str] | None = None, engine: dict[str, str] | None = None) -> api.Node:
    """A node with node and engine labels."""
    made = api.Node(id="n")
    made.spec.annotations.labels.update(labels or {})
    made.description.engine.labels.update(engine or {})
    return made


def test_labels() -> None:
    """Node and engine labels are apart; a label that is not there has no value; names are case-sensitive. [scheduling 67]"""
    assert holds("node.labels.security == high", node=labelled({"security": "high"}))
    assert not holds("node.labels.security == high", node=labelled(engine={"security": "high"}))
    assert not holds("engine.labels.security == high", node=labelled({"security": "high"}))
    assert not holds("node.labels.Security == high", node=labelled({"security": "high"}))
    assert holds("engine.labels.disk != ssd", node=labelled())
    assert holds("engine.labels.disk != ssd", node=labelled({"disk": "ssd"}, {"other": "ssd"}))
    assert not holds("engine.labels.disk != ssd", node=labelled(engine={"disk": "ssd"}))


def test_all_must_hold() -> None:
    """One that fails is enough. [scheduling 68]"""
    both = ["node.hostname == node-1", "engine.labels.operatingsystem != Ubuntu 14.04"]
    node = labelled({"security": "low"}, {"operatingsystem": "ubuntu 15.10"})
    assert holds(*both, node=node, hostname="node-1")
    assert not holds(*both, "node.labels.security == high", node=node)
    node.spec.annotations.labels["security"] = "high"
    assert holds(*both, "node.labels.security == high", node=node)
    node.description.engine.labels["operatingsystem"] = "ubuntu 14.04"
    assert not holds(*both, node=node)
