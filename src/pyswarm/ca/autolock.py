"""Keeps a manager's key file encrypted as the cluster wants it (spec/ca-and-security, section 17). Every manager, leader or not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from pyswarm.api import v1 as api
from pyswarm.ca import unlock
from pyswarm.ca.keystore import KeyFileError, KeyStore, LockedError, MissingFileError
from pyswarm.ca.signer import default_cluster
from pyswarm.clock import Clock, wait_for
from pyswarm.errors import SwarmError
from pyswarm.manager.store import Commit, Kind, Store

log = structlog.get_logger(__name__)

RETRY_SECONDS = 5.0


class Autolock:
    """Follows the cluster object. `run()` until cancelled.

    `on_locked` is called, on the loop, after the key file went from plain to encrypted: data keys and the certificate's key were readable
    on disk until then, so the log should rotate its key and the node renew its certificate.
    """

    def __init__(self, store: Store, keystore: KeyStore, clock: Clock, on_locked: Callable[[], None]) -> None:
        self._store = store
        self._keystore = keystore
        self._clock = clock
        self._on_locked = on_locked
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Apply the present key, then every later one. A full disk or the like is logged and tried again."""
        undo = self._store.on_commit(self._on_commit)
        try:
            while True:
                self._changed.clear()
                done = await self._apply()
                await wait_for(self._changed, self._clock, None if done else RETRY_SECONDS)
        finally:
            undo()

    def _on_commit(self, commit: Commit) -> None:
        if any(event.kind is Kind.CLUSTER and isinstance(event.obj, api.Cluster) for event in commit.events):
            self._changed.set()

    async def _apply(self) -> bool:
        """Re-encrypt if needed; False when that should be tried again."""
        cluster = default_cluster(self._store)
        if cluster is None:
            return True
        try:
            result = await asyncio.to_thread(self._keystore.rotate_kek, unlock.kek_of(cluster))
        except (SwarmError, OSError) as error:
            log.error("key file not encrypted as the cluster wants it", error=str(error))
            return not isinstance(error, OSError | LockedError | MissingFileError | KeyFileError)
        if result.updated:
            log.info("key file encrypted anew", version=cluster.meta.version.index, locked=bool(self._keystore.kek))
        if result.locked:
            self._on_locked()
        return True
