"""What a SessionMessage changes for this node: a function of the message and of what was known (spec/dispatcher-agent-node, section 18)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pyswarm.api import v1 as api
from pyswarm.api.stable import same_node
from pyswarm.rpc.remotes import RemotePeer


@dataclass(frozen=True, slots=True)
class NodeChange:
    """News for the node: its object as the cluster has it (None: unchanged), a root bundle to trust (empty: unchanged)."""

    node: api.Node | None
    root_pem: bytes

    def __bool__(self) -> bool:
        return self.node is not None or bool(self.root_pem)


@dataclass(frozen=True, slots=True)
class Known:
    """What earlier messages said."""

    node: api.Node | None = None
    keys: tuple[api.EncryptionKey, ...] = ()


@dataclass(frozen=True, slots=True)
class News:
    """What to do about a message."""

    known: Known
    managers: Sequence[tuple[RemotePeer, int]]
    """Managers that can be reached, with their weights."""
    gone: Sequence[RemotePeer]
    """Peers to forget."""
    change: NodeChange
    keys: Sequence[api.EncryptionKey] | None
    """The whole new set of network keys; None: unchanged."""


def read(message: api.SessionMessage, known: Known, trusted_root: bytes, peers: Collection[RemotePeer]) -> News:
    """Compare a message with what is known. `trusted_root` is the bundle in use, `peers` the managers remembered so far.

    A list without any reachable manager forgets nobody: that would leave the node without a way back.
    """
    managers = [(RemotePeer(m.peer.node_id, m.peer.addr), m.weight) for m in message.managers if m.peer.addr]
    listed = {peer for peer, _ in managers}
    node = _new_node(message, known)
    root = message.RootCA if message.RootCA and message.RootCA != trusted_root else b""
    keys = _new_keys(message, known)
    return News(
        known=Known(node or known.node, known.keys if keys is None else keys),
        managers=managers,
        gone=[peer for peer in peers if peer not in listed] if listed else [],
        change=NodeChange(node, root),
        keys=keys,
    )


def _new_node(message: api.SessionMessage, known: Known) -> api.Node | None:
    if not message.HasField("node"):
        return None
    return None if known.node is not None and same_node(known.node, message.node) else message.node


def _new_keys(message: api.SessionMessage, known: Known) -> tuple[api.EncryptionKey, ...] | None:
    """Keys are compared as a set: one that was withdrawn matters as much as a new one."""
    keys = tuple(message.network_bootstrap_keys)
    if not keys or {_identity(k) for k in keys} == {_identity(k) for k in known.keys}:
        return None
    return keys


def _identity(key: api.EncryptionKey) -> tuple[str, int]:
    return key.subsystem, key.lamport_time
