"""Two of three managers are lost for good: the third goes on alone, with real processes."""

from __future__ import annotations

import pathlib
import subprocess
from collections.abc import Callable

import pytest
from tools.cluster import BIN, Cluster, until

from tests.cluster.test_managers import leader, managers

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
FORCE = "--force-new-cluster"


def refused(*flags: str) -> str:
    """The one line of a daemon that refuses."""
    done = subprocess.run([str(BIN / "pyswarmd"), *flags, FORCE], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode in {1, 2}, done.stderr
    return next(line for line in done.stderr.splitlines() if line.startswith("Error: "))


def image(directory: pathlib.Path) -> dict[str, bytes]:
    """Every byte below a directory."""
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_a_lost_majority(new_cluster: Callable[[int], Cluster]) -> None:
    """Data, identity and tokens stay; new managers join, also at a follower; an old one that comes back is told, and disturbs nobody.

    [cli 99; store 75, 79]
    """
    cluster = new_cluster(0)
    cluster.ask("cluster", "update", "default", "--heartbeatperiod", "1s")
    token = cluster.token("Manager")
    for name in ("node-2", "node-3"):
        cluster.join(name, token, control=True)
    cluster.await_ready(3)
    until("three managers are members", lambda: len(managers(cluster)) == 3)
    cluster.ask("service", "create", "--name", "redis", "--image", "x", "--replicas", "0", "--label", "value=kept")
    identity = cluster.ask("cluster", "ls"), cluster.nodes()["node-2"][0]
    cluster.socket = cluster.socket_of("node-2")
    until("the write is everywhere", lambda: "kept" in cluster.ask("service", "inspect", "redis"))
    for name in ("node-1", "node-3"):
        cluster.kill(name)
    cluster.terminate("node-2")

    cluster.start("node-2", FORCE)
    cluster.await_manager()
    until("it leads", lambda: leader(cluster) == "node-2")
    assert "kept" in cluster.ask("service", "inspect", "redis")
    assert (cluster.ask("cluster", "ls"), cluster.nodes()["node-2"][0]) == identity
    assert managers(cluster) == {"node-1": "UNKNOWN", "node-2": "REACHABLE *", "node-3": "UNKNOWN"}
    assert cluster.token("Manager") == token

    # Killed at once and started without the flag it is still alone, not one of three.
    cluster.kill("node-2")
    cluster.start("node-2")
    cluster.await_manager()
    until("it leads", lambda: leader(cluster) == "node-2")
    cluster.ask("node", "rm", "node-3", "--force")
    cluster.remote = cluster.remotes["node-2"]
    cluster.join("node-4", token, control=True)
    until("node-4 is a member", lambda: managers(cluster).get("node-4") == "REACHABLE")
    cluster.remote = cluster.remotes["node-4"]
    cluster.join("node-5", token, control=True)
    until("new managers are members", lambda: sorted(managers(cluster).values()) == ["REACHABLE", "REACHABLE", "REACHABLE *", "UNKNOWN"])

    cluster.start("node-1")
    log = cluster.root / "node-1.log"
    until("the old one is told", lambda: "this manager was removed from the cluster" in log.read_text())
    until("it forgot its log", lambda: not (cluster.root / "node-1" / "raft").exists())
    assert leader(cluster) == "node-2"
    cluster.ask("service", "update", "redis", "--label", "value=after")
    cluster.socket = cluster.socket_of("node-5")
    assert "after" in cluster.ask("service", "inspect", "redis")
    cluster.stop()


def test_where_it_makes_no_sense(small: Cluster, new_cluster: Callable[[int], Cluster], tmp_path: pathlib.Path) -> None:
    """Refused in one line: nothing kept there, a worker's directory, one in use, together with --join-addr. Nothing changes."""
    process = ("--executor", "process")
    assert "holds no manager's log" in refused("-d", str(tmp_path / "none"), *process)
    assert not (tmp_path / "none").exists()
    assert "leave out --join-addr" in refused("-d", str(tmp_path / "none"), "--join-addr", "127.0.0.1:1", *process)
    assert "is in use by another pyswarmd" in refused("-d", str(small.root / "node-1"), *process)
    cluster = new_cluster(1)
    cluster.stop()
    before = image(cluster.root / "node-2")
    assert "holds no manager's log" in refused("-d", str(cluster.root / "node-2"))
    assert image(cluster.root / "node-2") == before


def test_a_locked_manager(new_cluster: Callable[[int], Cluster]) -> None:
    """Without the unlock key nothing happens; with it the cluster begins anew."""
    cluster = new_cluster(0)
    cluster.join("node-2", cluster.token("Manager"), control=True)
    until("two managers are members, and known by name", lambda: managers(cluster).keys() == {"node-1", "node-2"})
    cluster.ask("cluster", "update", "default", "--autolock")
    key = cluster.ask("cluster", "unlock-key", "default").split()[-1]
    until("its key file is locked", lambda: b"ENCRYPTED" in (cluster.root / "node-1" / "certificates" / "swarm-node.key").read_bytes())
    for name in ("node-2", "node-1"):
        cluster.terminate(name)
    directory = cluster.root / "node-1"
    before = image(directory / "raft")
    assert "--unlock-key" in refused("-d", str(directory))
    wrong = key[:9] + ("A" if key[9] != "A" else "B") + key[10:]
    assert "--unlock-key" in refused("-d", str(directory), "--unlock-key", wrong)
    assert image(directory / "raft") == before
    cluster.start("node-1", FORCE, "--unlock-key", key)
    cluster.await_manager()
    until("it leads", lambda: leader(cluster) == "node-1")
    assert managers(cluster) == {"node-1": "REACHABLE *", "node-2": "UNKNOWN"}
    cluster.stop()
