"""Keys for the networks between nodes: gossip and IPsec (spec/ca-and-security, section 25). Runs on the leader only.

The decisions are functions from a cluster object to a changed copy; `KeyManager` drives them. Dispatchers pass the keys on to the nodes.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from typing import TypeAlias

import structlog

from pyswarm.api import v1 as api
from pyswarm.ca.signer import default_cluster
from pyswarm.clock import Clock, wait_for
from pyswarm.errors import InvalidArgument
from pyswarm.manager.store import Commit, Kind, Store, Tx, copy_of
from pyswarm.raft.log import ProposalError

log = structlog.get_logger(__name__)

GOSSIP = "networking:gossip"
IPSEC = "networking:ipsec"
SUBSYSTEMS = (GOSSIP, IPSEC)
RING_SIZE = 3
ROTATION_SECONDS = 12 * 3600.0
RETRY_SECONDS = 5.0
_KEY_BYTES = 16
_CLOCK_BYTES = 2

RandomBytes: TypeAlias = Callable[[int], bytes]


def _new_key(cluster: api.Cluster, subsystem: str, random_bytes: RandomBytes) -> api.EncryptionKey:
    """A key one tick later than all before it."""
    cluster.encryption_key_lamport_clock += 1
    return api.EncryptionKey(
        subsystem=subsystem,
        algorithm=api.EncryptionKey.Algorithm.AES_128_GCM,
        key=random_bytes(_KEY_BYTES),
        lamport_time=cluster.encryption_key_lamport_clock,
    )


def with_first_keys(cluster: api.Cluster, subsystems: Sequence[str], random_bytes: RandomBytes) -> api.Cluster | None:
    """The cluster with a full ring for every subsystem that has none; None when nothing is missing."""
    missing = [name for name in subsystems if not any(key.subsystem == name for key in cluster.network_bootstrap_keys)]
    if not missing:
        return None
    changed = copy_of(cluster)
    if not changed.encryption_key_lamport_clock:
        changed.encryption_key_lamport_clock = int.from_bytes(random_bytes(_CLOCK_BYTES), "big")
    for name in missing:
        changed.network_bootstrap_keys.extend(_new_key(changed, name, random_bytes) for _ in range(RING_SIZE))
    return changed


def with_rotated_keys(cluster: api.Cluster, subsystems: Sequence[str], random_bytes: RandomBytes) -> api.Cluster:
    """The cluster with a new key in each ring, the oldest dropped; rings come out whole, oldest key first."""
    changed = copy_of(cluster)
    kept = [copy_of(key) for key in cluster.network_bootstrap_keys if key.subsystem not in subsystems]
    for name in subsystems:
        ring = sorted((copy_of(key) for key in cluster.network_bootstrap_keys if key.subsystem == name), key=lambda key: key.lamport_time)
        kept += [*ring[max(0, len(ring) - RING_SIZE + 1) :], _new_key(changed, name, random_bytes)]
    del changed.network_bootstrap_keys[:]
    changed.network_bootstrap_keys.extend(kept)
    return changed


class KeyManager:
    """`run()` until leadership ends. A rotation falls due twelve hours after this node began to lead, then every twelve hours."""

    def __init__(
        self, store: Store, clock: Clock, subsystems: Sequence[str] = SUBSYSTEMS, random_bytes: RandomBytes = secrets.token_bytes
    ) -> None:
        unknown = [name for name in subsystems if name not in SUBSYSTEMS]
        if unknown:
            raise InvalidArgument(f"unknown key subsystem {unknown[0]}")
        self._store = store
        self._clock = clock
        self._subsystems = tuple(subsystems)
        self._random_bytes = random_bytes

    async def run(self) -> None:
        """Give the cluster its first keys as soon as it exists, then rotate, until cancelled."""
        due = self._clock.monotonic() + ROTATION_SECONDS
        await self._cluster_exists()
        await self._commit(lambda cluster: with_first_keys(cluster, self._subsystems, self._random_bytes))
        while True:
            await self._clock.sleep(due - self._clock.monotonic())
            due += ROTATION_SECONDS
            await self._commit(lambda cluster: with_rotated_keys(cluster, self._subsystems, self._random_bytes))
            log.info("network keys rotated")

    async def _cluster_exists(self) -> None:
        created = asyncio.Event()

        def on_commit(commit: Commit) -> None:
            if any(event.kind is Kind.CLUSTER for event in commit.events):
                created.set()

        undo = self._store.on_commit(on_commit)
        try:
            while default_cluster(self._store) is None:
                created.clear()
                await wait_for(created, self._clock, None)
        finally:
            undo()

    async def _commit(self, change: Callable[[api.Cluster], api.Cluster | None]) -> None:
        """Apply a decision to the cluster object, repeating while the log cannot take it."""

        def write(tx: Tx) -> None:
            cluster = default_cluster(tx)
            changed = change(cluster) if cluster is not None else None
            if changed is not None:
                tx.clusters.update(changed)

        while True:
            try:
                await self._store.update(write)
            except ProposalError as error:
                log.warning("network keys not stored", error=error.message)
                await self._clock.sleep(RETRY_SECONDS)
            else:
                return
