"""Cluster volumes, end to end: real daemons, a real storage plugin in a process of its own, real processes that write."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tools.cluster import Cluster, until

from tests.cluster.conftest import PROCESS
from tests.support import csidriver

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

SECRET = "geheim-5f1c"
WRITE = 'echo "$TURN" >> "$PYSWARM_VOLUMES_DIR/data/log"; sleep 1000'


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A manager and a worker, each with a plugin of the same storage system below `storage`."""
    made = Cluster(tmp_path, PROCESS)
    sockets = {f"csi-{name}": tmp_path / f"{name}.csi" for name in ("node-1", "node-2")}
    with csidriver.process(tmp_path / "storage", sockets):
        try:
            made.executor = (*PROCESS, "--csi-plugin", f"store=unix://{sockets['csi-node-1']}")
            made.found()
            made.executor = (*PROCESS, "--csi-plugin", f"store=unix://{sockets['csi-node-2']}")
            made.join("node-2", made.token())
            made.await_ready(2)
            yield made
        finally:
            made.stop()


def test_a_volume_follows_its_task(cluster: Cluster, tmp_path: Path) -> None:
    """Made, mounted, kept over update and restart, moved by a drain, given back, and deleted when nobody uses it any more."""
    log = tmp_path / "storage" / "csi-data" / "log"
    secret = tmp_path / "secret"
    secret.write_text(SECRET)

    def status() -> str:
        return next((row[5] for row in cluster.rows("volume", "ls")), "none")

    def where() -> str:
        [(_, name)] = cluster.places().items() if len(cluster.places()) == 1 else [("", "")]
        return name

    def turns(*expected: str) -> None:
        until(f"the log says {expected}", lambda: log.exists() and log.read_text().split() == [*expected])

    cluster.ask("secret", "create", "pw", "--file", str(secret))
    cluster.ask("volume", "create", "data", "--driver", "store", "--secret", "password=pw")
    until("the volume is made", lambda: status() == "free")
    cluster.ask("service", "create", "--name", "writer", "--image", "none", "--cluster-volume", "data:data", "--env", "TURN=one",
                "--restart-delay", "0s", "--command", "sh", "--args", f'-c,"{WRITE.replace(chr(34), chr(34) * 2)}"')  # fmt: skip
    turns("one")
    until("the service runs", lambda: cluster.replicas("writer") == "1/1")
    assert status() == "on 1 node"
    assert "PUBLISHED" in cluster.ask("volume", "inspect", "data")
    assert "volume is still in use" in cluster.run("volume", "rm", "data").stderr

    cluster.ask("service", "update", "writer", "--env", "TURN=two")
    turns("one", "two")
    until("the update is over", lambda: cluster.replicas("writer") == "1/1" and where())

    cluster.kill("node-1")
    cluster.start("node-1", *("--listen-control-api", str(cluster.socket)))
    cluster.await_manager()
    cluster.await_ready(2)
    until("the service runs on", lambda: cluster.replicas("writer") == "1/1" and where())

    before = where()
    cluster.ask("node", "drain", before)
    turns("one", "two", "two")
    other = "node-2" if before == "node-1" else "node-1"
    until("the volume followed", lambda: where() == other and f"{other} " in cluster.ask("volume", "inspect", "data").split("Message")[1])

    cluster.ask("volume", "update", "data", "--availability", "drain")
    until("the volume is given back", lambda: status() == "free")
    until("its user waits and says why", lambda: "cannot mount volume data (drained)" in cluster.run("task", "why", "writer").stdout)
    cluster.ask("service", "rm", "writer")
    cluster.ask("volume", "rm", "data")
    until("the volume is gone", lambda: status() == "none")
    assert not log.parent.exists()
    for daemon_log in tmp_path.glob("*.log"):
        assert SECRET not in daemon_log.read_text()
