"""Cluster volumes in containers: a real daemon, a real engine, a real storage plugin."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tools.cluster import Cluster, until
from tools.engine import Engine

from tests.docker.test_services import remove_containers
from tests.support import csidriver

pytestmark = [pytest.mark.docker, pytest.mark.cluster, pytest.mark.timeout(120)]
WRITE = (
    "echo $TURN >> /srv/data/log; (echo no >> /srv/read/log) 2>/dev/null || echo read-only >> /srv/data/log; "
    "trap 'exit 0' TERM; sleep 1000 & wait"
)


@pytest.fixture
def cluster(engine: Engine) -> Iterator[Cluster]:
    """One node with the engine and a storage plugin."""
    root = Path(tempfile.mkdtemp(prefix="psw-", dir="/tmp"))  # short: it holds sockets
    plugin = ("--csi-plugin", f"store=unix://{root}/csi")
    made = Cluster(root, ("--executor", "docker", "--engine-addr", engine.address, *plugin))
    with csidriver.process(root / "storage", {"csi-node-1": root / "csi"}):
        try:
            made.found()
            made.await_ready(1)
            yield made
        finally:
            made.stop()
            remove_containers(engine)
            shutil.rmtree(root, ignore_errors=True)


def test_a_container_gets_its_volumes(cluster: Cluster) -> None:
    """Each is mounted where it is wanted, read-only if asked for; kept over an update; given back and deleted in the end."""
    log = cluster.root / "storage" / "csi-data" / "log"

    def says(*words: str) -> None:
        until(f"the volume has {words}", lambda: log.exists() and log.read_text().split() == [*words])

    for name in ("data", "read"):
        cluster.ask("volume", "create", name, "--driver", "store", "--sharing", "all")
    cluster.ask(*("service", "create", "--name", "writer", "--image", "busybox:latest", "--env", "TURN=one", "--restart-delay", "0s"),
                *("--cluster-volume", "data:/srv/data", "--cluster-volume", "read:/srv/read:ro"),
                *("--command", "sh", "--args", f'-c,"{WRITE}"'))  # fmt: skip
    says("one", "read-only")
    until("it runs", lambda: cluster.replicas("writer") == "1/1")
    cluster.ask("service", "update", "writer", "--env", "TURN=two")
    says("one", "read-only", "two", "read-only")
    cluster.ask("service", "rm", "writer")
    until("the volumes are given back", lambda: {row[5] for row in cluster.rows("volume", "ls")} == {"free"})
    for name in ("data", "read"):
        cluster.ask("volume", "rm", name)
    until("the volumes are gone", lambda: not cluster.rows("volume", "ls"))
    assert not log.exists()
