"""When a node can no longer be relied on."""

from __future__ import annotations

from pyswarm.api import v1 as api


def is_down(node: api.Node | None) -> bool:
    """Nothing on it will report again: it is gone, or declared down."""
    return node is None or node.status.state == api.NodeStatus.DOWN


def is_drained(node: api.Node | None) -> bool:
    """Its operator wants it empty."""
    return node is not None and node.spec.availability == api.NodeSpec.DRAIN


def eligibility_changed(node: api.Node, old: api.Node | None) -> bool:
    """Something changed on which it depends whether tasks may be there: state, availability, and what constraints can name."""
    return not (
        old is not None
        and old.status.state == node.status.state
        and old.status.addr == node.status.addr
        and old.spec == node.spec
        and old.role == node.role
        and old.description == node.description
    )


def is_invalid(node: api.Node | None) -> bool:
    """Tasks must leave it: missing, down or drained. Paused, unknown and disconnected nodes keep theirs."""
    return is_down(node) or is_drained(node)
