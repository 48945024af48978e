"""Cuts the connections of nodes that were removed from the cluster. Every manager, leader or not.

The blacklist in the cluster object refuses every new call; but streams opened before would go on, and a removed node would hear of its
tasks, and of the cluster's keys, for as long as it does not reconnect.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import structlog

from pyswarm.api import v1 as api
from pyswarm.ca.signer import default_cluster
from pyswarm.manager.store import Commit, Kind, Store

log = structlog.get_logger(__name__)


class Door(Protocol):
    """Where nodes are connected: `rpc.server.RemoteServer`."""

    def disconnect(self, node_id: str) -> int:
        """Cut a node's connections; returns how many."""
        ...


class Expulsion:
    """Follows the cluster object between `start` and the undo that it returns."""

    def __init__(self, store: Store, door: Door) -> None:
        self._store = store
        self._door = door
        self._known: frozenset[str] = frozenset()

    def start(self) -> Callable[[], None]:
        """Cut who is removed from now on. Returns undo."""
        self._known = self._blacklist()
        return self._store.on_commit(self._on_commit)

    def _blacklist(self) -> frozenset[str]:
        cluster = default_cluster(self._store)
        return frozenset(cluster.blacklisted_certificates) if cluster is not None else frozenset()

    def _on_commit(self, commit: Commit) -> None:
        if not any(event.kind is Kind.CLUSTER and isinstance(event.obj, api.Cluster) for event in commit.events):
            return
        before, self._known = self._known, self._blacklist()
        for node_id in sorted(self._known - before):
            connections = self._door.disconnect(node_id)
            if connections:
                log.info("connections of a removed node are cut", node=node_id, connections=connections)
