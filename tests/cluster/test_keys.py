"""Locking managers, with real processes: unlock keys and data keys change under writes, and what is stopped meanwhile copes."""

from __future__ import annotations

import pathlib
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Self

import pytest
from tools.cluster import BIN, Cluster, until

from pyswarm.ca import dek, pem, records, unlock

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]
MANAGERS = ("node-1", "node-2", "node-3")
LOCKED = "node is locked, and needs a valid unlock key"
LONGEST_WRITE_SECONDS = 8.0
"""One command of its own process, on a machine that also runs other tests."""


@pytest.fixture(scope="module")
def shared(new_cluster: Callable[[int], Cluster]) -> Iterator[Cluster]:
    """Three managers."""
    made = new_cluster(0)
    token = made.token("Manager")
    for name in MANAGERS[1:]:
        made.join(name, token, control=True)
    yield made
    made.stop()


@pytest.fixture
def cluster(shared: Cluster) -> Cluster:
    """Three managers, not locked: each test leaves them so, though one may be starting."""
    shared.await_ready(3)
    until("three managers are members", lambda: [row[5] for row in shared.nodes().values()].count("REACHABLE") == 2)
    return shared


class Writer:
    """Writes through the first manager until told to stop; remembers failures and how long each write took."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.failures: list[str] = []
        self.seconds: list[float] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.1):
            begun = time.monotonic()
            done = self._cluster.run("service", "update", "quiet", "--label", f"number={len(self.seconds)}")
            self.seconds.append(time.monotonic() - begun)
            if done.returncode:
                self.failures.append(done.stderr)


def key_block(cluster: Cluster, name: str) -> pem.Block:
    """A node's key as it is on disk."""
    return next(iter(pem.scan((cluster.root / name / "certificates" / "swarm-node.key").read_bytes())))


def data_keys(cluster: Cluster, name: str, key: str = "") -> dek.DataKeys | None:
    """The data keys in a node's key file, None when the unlock key does not open them."""
    try:
        return dek.read(key_block(cluster, name).headers, unlock.parse(key) if key else b"")
    except records.CannotDecryptError:
        return None


def settled(cluster: Cluster, name: str, key: str) -> bool:
    """Whether the file is under this unlock key, and no change of the data key is open."""
    keys = data_keys(cluster, name, key)
    return keys is not None and keys == dek.DataKeys(keys.current)


def unlock_key(cluster: Cluster, *flags: str) -> str:
    """Change the cluster and ask for its key."""
    cluster.ask("cluster", "update", "default", *flags)
    return cluster.ask("cluster", "unlock-key", "default").split()[-1]


def refused(cluster: Cluster, name: str, *flags: str) -> None:
    """Starting a node ends with the one sentence and changes nothing."""
    before = key_block(cluster, name)
    done = subprocess.run(
        [str(BIN / "pyswarmd"), "-d", str(cluster.root / name), *flags], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert LOCKED in done.stderr.splitlines()[-1]
    assert key_block(cluster, name) == before


def unlocked(cluster: Cluster) -> None:
    """Autolock off: every manager's key file is open again."""
    assert unlock_key(cluster, "--autolock=false") == "auto-locked"
    for name in MANAGERS:
        until(f"{name} is open", lambda name=name: settled(cluster, name, ""))  # type: ignore[misc]
        assert key_block(cluster, name).label == pem.PRIVATE_KEY


def raft_files(cluster: Cluster, name: str) -> set[pathlib.Path]:
    """Everything of a manager's log."""
    return {path for path in (cluster.root / name / "raft").rglob("*") if path.is_file()}


def test_keys_change_under_writes(cluster: Cluster) -> None:
    """Lock, rotate, unlock three managers: all follow, no write fails or waits, one that was down needs its old key once.

    [ca 118, 119, 121; store 115; cli 34, 95]
    """
    cluster.ask("service", "create", "--name", "quiet", "--image", "x", "--replicas", "0", "--command", "true")
    before = {name: data_keys(cluster, name) for name in MANAGERS}
    files = {name: raft_files(cluster, name) for name in MANAGERS}
    with Writer(cluster) as writer:
        old = unlock_key(cluster, "--autolock")
        for name in MANAGERS:
            until(f"{name} is locked", lambda name=name: settled(cluster, name, old))  # type: ignore[misc]
            assert data_keys(cluster, name, old) != before[name]
            assert not files[name] & raft_files(cluster, name)
        cluster.terminate("node-3")
        refused(cluster, "node-3")
        new = unlock_key(cluster, "--rotate-unlock-key")
        assert new != old
        until("node-2 follows", lambda: settled(cluster, "node-2", new))
        refused(cluster, "node-3", "--unlock-key", new)
        cluster.start("node-3", "--unlock-key", old)
        until("node-3 caught up", lambda: settled(cluster, "node-3", new))
        cluster.terminate("node-3")
        refused(cluster, "node-3", "--unlock-key", old)
        cluster.start("node-3", "--unlock-key", new)
        unlocked(cluster)
    assert not writer.failures
    assert max(writer.seconds) < LONGEST_WRITE_SECONDS
    cluster.terminate("node-2")
    cluster.start("node-2")
    cluster.await_ready(3)


def test_a_demoted_manager_forgets_its_keys(cluster: Cluster) -> None:
    """Its log and data keys are gone, its new key is not locked, the version stays; promoted again it has a new data key. [store 114]"""
    key = unlock_key(cluster, "--autolock")
    until("node-3 is locked", lambda: settled(cluster, "node-3", key))
    before = data_keys(cluster, "node-3", key)
    cluster.ask("node", "demote", "node-3")
    until("it forgot", lambda: set(key_block(cluster, "node-3").headers) == {"kek-version"})
    until("its key is not locked", lambda: key_block(cluster, "node-3").label == pem.PRIVATE_KEY)
    assert not (cluster.root / "node-3" / "raft").exists()
    cluster.ask("node", "promote", "node-3")
    until("it is a locked manager again", lambda: settled(cluster, "node-3", key))
    assert data_keys(cluster, "node-3", key) != before
    unlocked(cluster)
