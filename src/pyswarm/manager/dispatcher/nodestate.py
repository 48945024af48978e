"""What a node becomes when it registers, falls silent, or gets a new leader (spec/dispatcher-agent-node, section 5).

Each function returns an edited copy to store, or None when nothing would change.
"""

from __future__ import annotations

from pyswarm.api import v1 as api
from pyswarm.manager.store import copy_of

READY, DOWN, UNKNOWN, DISCONNECTED = (
    api.NodeStatus.READY,
    api.NodeStatus.DOWN,
    api.NodeStatus.UNKNOWN,
    api.NodeStatus.DISCONNECTED,
)
NEW_LEADER = 'Node moved to "unknown" state due to leadership change in cluster'
SILENT = "heartbeat failure"
NEVER_BACK = 'heartbeat failure for node in "unknown" state'


def awaits_takeover(node: api.Node) -> bool:
    """Whether a new leader must hear from the node before it trusts its state. Nodes that are down stay down."""
    return node.status.state != DOWN


def taken_over(node: api.Node) -> api.Node | None:
    """A new leader has not heard from it yet."""
    return _with_state(node, UNKNOWN, NEW_LEADER) if awaits_takeover(node) else None


def ready(node: api.Node, description: api.NodeDescription | None, remote_addr: str) -> api.Node | None:
    """It registered or resumed its session from `remote_addr` (`host:port`; when that is not known the stored address stays)."""
    changed = copy_of(node)
    changed.status.state = READY
    changed.status.message = ""
    host = host_of(remote_addr)
    if host:
        changed.status.addr = host
    if description is not None:
        changed.description.CopyFrom(description)
    return None if changed == node else changed


def down(node: api.Node, *, registered: bool) -> api.Node | None:
    """Its grace is over. `registered` tells whether it ever spoke to this leader."""
    return _with_state(node, DOWN, SILENT if registered else NEVER_BACK)


def host_of(addr: str) -> str:
    """The host of `host:port` or `[v6]:port`; empty when there is no port, as nothing certain is known then."""
    host, separator, port = addr.rpartition(":")
    if not separator or not port.isdecimal():
        return ""
    return host.removeprefix("[").removesuffix("]")


def _with_state(node: api.Node, state: api.NodeStatus.State.ValueType, message: str) -> api.Node | None:
    if node.HasField("status") and node.status.state == state and node.status.message == message:
        return None
    changed = copy_of(node)
    changed.status.state = state
    changed.status.message = message
    return changed
