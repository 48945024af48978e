"""The constraint language."""

from __future__ import annotations

import pytest

from pyswarm.api import v1 as api
from pyswarm.errors import InvalidArgument, SwarmError, Unknown
from pyswarm.manager import constraints


def node() -> api.Node:
    """A worker with labels, a platform and an address."""
    n = api.Node(id="n1", role=api.NodeRole.WORKER)
    n.spec.annotations.labels["Zone"] = "East"
    n.description.hostname = "Host-1"
    n.description.platform.os = "linux"
    n.description.platform.architecture = "x86_64"
    n.description.engine.labels["disk"] = "ssd"
    n.status.addr = "10.1.2.3"
    return n


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("node.id==N1", True),
        ("node.id!=n1", False),
        ("node.hostname == host-1", True),
        ("node.role==worker", True),
        ("NODE.ROLE!=manager", True),
        ("node.labels.Zone==east", True),
        ("node.labels.zone==east", False),
        ("node.labels.zone!=east", True),
        ("engine.labels.disk==SSD", True),
        ("node.platform.arch==amd64", False),
        ("node.ip==10.1.2.3", True),
        ("node.ip==10.1.0.0/16", True),
        ("node.ip==10.1.2.9/16", True),
        ("node.ip!=10.2.0.0/16", True),
        ("node.ip==::ffff:10.1.2.3", True),
        ("node.ip==fd00::/8", False),
        ("node.ip!=fd00::/8", True),
        ("node.ip==nonsense", False),
        ("node.ip!=nonsense", False),
        ("other.key==x", False),
        ("other.key!=x", False),
        ("node.labels.!=x", False),
    ],
)
def test_matching(expression: str, expected: bool) -> None:
    """An expression matches by key without case, value without case and as a whole; unknown keys never match."""
    assert constraints.matches(constraints.parse([expression]), node()) is expected


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("", "constraint expected one operator from ==, !="),
        ("node.id=x", "constraint expected one operator from ==, !="),
        ("a!=b==c", "key 'a!=b' is invalid"),
        ("1a==x", "key '1a' is invalid"),
        ("a==x", "key 'a' is invalid"),
        ("node.id==", "value '' is invalid"),
        ("node.id==a,b", "value 'a,b' is invalid"),
        ("node.id==é", "value 'é' is invalid"),
    ],
)
def test_grammar(expression: str, text: str) -> None:
    """A malformed expression is refused with the text clients know."""
    with pytest.raises(Unknown, match=None) as caught:
        constraints.parse([expression])
    assert caught.value.message == text


@pytest.mark.parametrize("expression", ["node.ip==300.1.1.1", "node.name==x", "engine.labels.!=x", "node.role==boss"])
def test_what_can_never_match_is_refused_for_users(expression: str) -> None:
    """A user is told at once about a constraint that no node could ever satisfy."""
    with pytest.raises(InvalidArgument):
        constraints.check([expression])


@pytest.mark.parametrize(
    "expression", ["NODE.role == Manager", "node.ip!=10.0.0.0/8", "node.labels.a!=b", "engine.labels.a==b", "node.id==x"]
)
def test_what_can_match_is_accepted_of_users(expression: str) -> None:
    """Roles without case, subnets, labels and ids are what constraints are for."""
    assert [c.key for c in constraints.check([expression])] == [expression.replace("!", "=").split("==")[0].strip()]


def test_letters_are_folded_one_by_one() -> None:
    """A letter that stands for two is not those two; one that is another letter's capital is."""
    marked = node()
    marked.spec.annotations.labels["street"] = "Stra\u00dfe"
    assert not constraints.matches(constraints.parse(["node.labels.street==strasse"]), marked)
    marked.spec.annotations.labels["street"] = "5\u212a"
    assert constraints.matches(constraints.parse(["node.labels.street==5k"]), marked)


def test_a_missing_address_is_in_no_subnet() -> None:
    """A node without address satisfies `!=` and no `==`."""
    bare = api.Node(id="n")
    assert not constraints.matches(constraints.parse(["node.ip==10.0.0.0/8"]), bare)
    assert constraints.matches(constraints.parse(["node.ip!=10.0.0.0/8"]), bare)


def test_unparsable_placement_constrains_nothing() -> None:
    """A stored placement that cannot be parsed holds no task back."""
    assert constraints.node_matches(node(), api.Placement(constraints=["broken"]))
    assert issubclass(Unknown, SwarmError)
