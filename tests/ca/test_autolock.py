"""Following the cluster's unlock key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from pyswarm.api import v1 as api
from pyswarm.ca import autolock, dek, unlock
from pyswarm.ca.autolock import Autolock
from pyswarm.ca.keystore import KeyStore, Rekeyed
from pyswarm.ca.root import RootCA
from pyswarm.manager.store import Store
from tests.ca import pki
from tests.ca.cluster import create_cluster, edit_cluster, running
from tests.support.clock import VirtualClock, settle

ROOT = RootCA.create(now=VirtualClock().now())


class WatchedKeyStore(KeyStore):
    """Remembers what offered keys changed."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.offers: list[Rekeyed] = []

    def rotate_kek(self, candidate: unlock.KEK) -> Rekeyed:
        """See KeyStore."""
        self.offers.append(super().rotate_kek(candidate))
        return self.offers[-1]


class Manager:
    """A manager's key file beside a cluster."""

    def __init__(self, store: Store, clock: VirtualClock, directory: Path) -> None:
        self.store = store
        self.clock = clock
        self.keystore = WatchedKeyStore(directory)
        pair = pki.issue(ROOT, now=clock.now())
        self.keystore.write(pair.cert_pem, pair.key_pem)
        self.keystore.update_data_keys(lambda _: dek.DataKeys(b"data"))
        self.locked = 0

    def on_locked(self) -> None:
        """Count."""
        self.locked += 1

    async def lock(self, key: bytes) -> None:
        """Make the cluster's key this one, empty for none, and wait for the offer of it."""

        def edit(cluster: api.Cluster) -> None:
            cluster.spec.encryption_config.auto_lock_managers = bool(key)
            unlock.update_keys(cluster, rotate=True, new_key=lambda: key)

        await self.edit(edit)

    async def edit(self, change: Callable[[api.Cluster], object]) -> None:
        """Change the cluster, and wait until its key was offered."""
        before = len(self.keystore.offers)
        await edit_cluster(self.store, change)
        await until(lambda: len(self.keystore.offers) > before)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for the thread that writes the key file, and for what follows on the loop."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - thread and loop have no event in common
            await asyncio.sleep(0.001)
    await settle()


@pytest.fixture
async def manager(store: Store, clock: VirtualClock, tmp_path: Path) -> AsyncIterator[Manager]:
    """A manager that follows the cluster."""
    await create_cluster(store, ROOT)
    made = Manager(store, clock, tmp_path)
    async with running(Autolock(store, made.keystore, clock, made.on_locked).run()):
        await until(lambda: len(made.keystore.offers) == 1)
        yield made


async def test_locking_and_unlocking(manager: Manager) -> None:
    """The key file follows the cluster's key; only locking tells that secrets were readable before [ca 116] [ca 118] [ca 119].

    [dispatcher 176; store 14, 115]
    """
    await manager.lock(b"a" * 32)
    assert (manager.keystore.kek, manager.locked) == (b"a" * 32, 1)
    assert manager.keystore.data_keys() == dek.DataKeys(b"data", needs_rotation=True)
    await manager.lock(b"b" * 32)
    assert (manager.keystore.kek, manager.locked) == (b"b" * 32, 1)
    await manager.lock(b"")
    assert (manager.keystore.kek, manager.locked) == (b"", 1)
    assert KeyStore(manager.keystore.directory).read()


async def test_other_changes(manager: Manager) -> None:
    """Cluster updates that leave the key alone do not touch the file [ca 116]."""
    await manager.lock(b"a" * 32)
    path = manager.keystore.directory / "swarm-node.key"
    before = path.read_bytes()
    await manager.edit(lambda cluster: cluster.spec.annotations.labels.update({"x": "y"}))
    assert path.read_bytes() == before


async def test_full_disk(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the file cannot be written it is tried again."""
    with monkeypatch.context() as patch:

        def refuse(_store: KeyStore, _candidate: object) -> Rekeyed:
            manager.keystore.offers.append(Rekeyed())
            raise OSError(28, "No space left on device")

        patch.setattr(KeyStore, "rotate_kek", refuse)
        await manager.lock(b"a" * 32)
    assert manager.keystore.kek == b""
    await manager.clock.advance(autolock.RETRY_SECONDS)
    await until(lambda: manager.keystore.offers[-1].updated)
    assert manager.keystore.kek == b"a" * 32
