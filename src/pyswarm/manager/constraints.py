"""Placement constraints: `node.labels.zone == east` (spec/scheduling-and-allocation, section 10).

Pure. Used where a service is validated, and by scheduler, global orchestrator, updater and constraint enforcer.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

from pyswarm.api import v1 as api
from pyswarm.errors import InvalidArgument, Unknown

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]+")
_VALUE = re.compile(r"[A-Za-z0-9:\-_.*()?+\[\]\\^$|/ \t\n\f\r]+")
_NODE_LABEL = "node.labels."
_ENGINE_LABEL = "engine.labels."
_PLAIN_KEYS = frozenset({"node.id", "node.hostname", "node.ip", "node.role", "node.platform.os", "node.platform.arch"})


_ROLES = frozenset({"worker", "manager"})


@dataclass(frozen=True, slots=True)
class Constraint:
    """One parsed expression. `key` as typed; `wanted` False for `!=`."""

    key: str
    value: str
    wanted: bool

    def __str__(self) -> str:
        return f"{self.key}{'==' if self.wanted else '!='}{self.value}"


def parse(expressions: Iterable[str]) -> tuple[Constraint, ...]:
    """Parse all expressions; the first bad one raises Unknown with the text clients know."""
    return _parse(tuple(expressions))


@functools.lru_cache(maxsize=4096)
def _parse(expressions: tuple[str, ...]) -> tuple[Constraint, ...]:
    return tuple(_parse_one(e) for e in expressions)


def _parse_one(expression: str) -> Constraint:
    for operator in ("==", "!="):
        key, found, value = expression.partition(operator)
        if found:
            break
    else:
        raise Unknown("constraint expected one operator from ==, !=")
    key, value = key.strip(), value.strip()
    if not _KEY.fullmatch(key):
        raise Unknown(f"key '{key}' is invalid")
    if not _VALUE.fullmatch(value):
        raise Unknown(f"value '{value}' is invalid")
    return Constraint(key, value, operator == "==")


def check(expressions: Iterable[str]) -> tuple[Constraint, ...]:
    """Parse for a user, and refuse what would match no node whatever the nodes are.

    The reference accepts unknown keys and malformed addresses and then silently rejects every node. Raises Unknown for the grammar and
    InvalidArgument for those.
    """
    constraints = parse(expressions)
    for c in constraints:
        key = c.key.lower()
        label = key.startswith((_NODE_LABEL, _ENGINE_LABEL)) and key not in {_NODE_LABEL, _ENGINE_LABEL}
        if key not in _PLAIN_KEYS and not label:
            known = ", ".join(sorted(_PLAIN_KEYS))
            raise InvalidArgument(f"constraint key '{c.key}' is unknown: use {known}, node.labels.<label> or engine.labels.<label>")
        if key == "node.role" and c.value.lower() not in _ROLES:
            raise InvalidArgument(f"constraint value '{c.value}' for node.role is no role: use worker or manager")
        if key == "node.ip" and _network(c.value) is None:
            raise InvalidArgument(f"constraint value '{c.value}' for node.ip is neither an IP address nor a CIDR")
    return constraints


def matches(constraints: Iterable[Constraint], node: api.Node) -> bool:
    """Whether a node satisfies every constraint."""
    return not violated(constraints, node)


def violated(constraints: Iterable[Constraint], node: api.Node) -> str:
    """The first constraint that a node does not satisfy; empty when it satisfies all."""
    return next((str(c) for c in constraints if not _matches_one(c, node)), "")


def node_matches(node: api.Node, placement: api.Placement) -> bool:
    """Whether a node satisfies a placement's constraints."""
    return not unmet(node, placement)


def unmet(node: api.Node, placement: api.Placement) -> str:
    """The first of a placement's constraints that a node does not satisfy; empty for none. An unparsable list constrains nothing."""
    if not placement.constraints:
        return ""
    try:
        constraints = parse(placement.constraints)
    except Unknown:
        return ""
    return violated(constraints, node)


def _matches_one(constraint: Constraint, node: api.Node) -> bool:
    key = constraint.key.lower()
    if key == "node.ip":
        return _ip_matches(constraint, node.status.addr)
    actual = _actual(key, constraint.key, node)
    if actual is None:
        return False
    return (_folded(actual) == _folded(constraint.value)) == constraint.wanted


def _folded(text: str) -> str:
    """Without case, character by character: what a single one stands for is never several."""
    if text.isascii():
        return text.lower()
    return "".join(folded if len(folded := character.casefold()) == 1 else character for character in text)


def _actual(key: str, typed: str, node: api.Node) -> str | None:
    """What the node has for a key; None for a key that no node has."""
    match key:
        case "node.id":
            return node.id
        case "node.hostname":
            return node.description.hostname
        case "node.role":
            return "manager" if node.role == api.NodeRole.MANAGER else "worker"
        case "node.platform.os":
            return node.description.platform.os
        case "node.platform.arch":
            return node.description.platform.architecture
    if key.startswith(_NODE_LABEL) and key != _NODE_LABEL:
        return node.spec.annotations.labels.get(typed[len(_NODE_LABEL) :], "")
    if key.startswith(_ENGINE_LABEL) and key != _ENGINE_LABEL:
        return node.description.engine.labels.get(typed[len(_ENGINE_LABEL) :], "")
    return None


def _ip_matches(constraint: Constraint, addr: str) -> bool:
    network = _network(constraint.value)
    if network is None:
        return False
    address = _address(addr)
    inside = address is not None and address.version == network.version and address in network
    return inside == constraint.wanted


@functools.lru_cache(maxsize=1024)
def _network(value: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """An address as a network of one, or a CIDR with any host bits; None for anything else."""
    single = _address(value)
    try:
        return ipaddress.ip_network(single if single is not None else value, strict=False)
    except ValueError:
        return None


@functools.lru_cache(maxsize=65536)
def _address(value: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
