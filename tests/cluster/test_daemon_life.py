"""A daemon's directory, its locks and its warnings, with real processes."""

from __future__ import annotations

import os
import pathlib
import signal
import stat
import subprocess
import time
from collections.abc import Iterator

import pytest
from tools.cluster import BIN, Cluster, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]
GENERIC = ("--generic-node-resources", "fpga=2,gpu=UUID1,gpu=UUID2")


@pytest.fixture
def alone(tmp_path: pathlib.Path) -> Iterator[Cluster]:
    """A cluster that is not started yet."""
    cluster = Cluster(tmp_path, ("--executor", "process"))
    yield cluster
    cluster.stop()


def ended(cluster: Cluster, number: signal.Signals) -> int:
    """Send a signal to node-1; its exit status."""
    daemon = cluster.daemons.pop("node-1")
    daemon.send_signal(number)
    return daemon.wait(20)


def test_what_a_first_start_leaves(alone: Cluster) -> None:
    """The node says that it is ready, answers, and keeps its state to itself. [cli 92]"""
    alone.found()
    alone.await_ready(1)
    assert 'msg="node is ready"' in (alone.root / "node-1.log").read_text()
    state = alone.root / "node-1"
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    for name in ("state.json", "certificates/swarm-node.key", "certificates/swarm-root-ca.crt", "worker", "raft"):
        assert (state / name).exists(), name
    for path in [p for p in state.rglob("*") if p.is_file()]:
        assert not path.stat().st_mode & 0o077 or path.suffix == ".crt" or "tasks" in path.parts, path


def test_generic_resources_of_a_node(alone: Cluster) -> None:
    """What the daemon is told is what node inspect lists. [cli 42]"""
    alone.executor = (*alone.executor, *GENERIC)
    alone.found()
    alone.await_ready(1)
    shown = [line.split() for line in alone.ask("node", "inspect", "node-1").splitlines()]
    assert [words[-1] for words in shown if words[0] in {"fpga", "gpu"}] == ["2", "UUID1", "UUID2"]


def test_locked_manager(alone: Cluster) -> None:
    """A locked manager starts with its key only, and says so otherwise. [cli 95]"""
    alone.start("node-1", "--listen-control-api", str(alone.socket), "--listen-remote-api", alone.remote, "--autolock", *alone.executor)
    alone.await_manager()
    key = alone.ask("cluster", "unlock-key", "x").split()[-1]
    assert key.startswith("SWMKEY-1-")
    assert ended(alone, signal.SIGTERM) == 0
    wrong = "SWMKEY-1-" + "A" * 43
    for flags in ((), ("--unlock-key", wrong)):
        done = subprocess.run(
            [str(BIN / "pyswarmd"), "-d", str(alone.root / "node-1"), *flags], capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 1
        assert "node is locked, and needs a valid unlock key" in done.stderr.splitlines()[-1]
    alone.start("node-1", "--unlock-key", key)
    alone.await_manager()


def test_the_lock_can_be_taken_off(alone: Cluster) -> None:
    """With autolock off again the next start needs no key. [cli 34]"""
    alone.start("node-1", "--listen-control-api", str(alone.socket), "--listen-remote-api", alone.remote, "--autolock", *alone.executor)
    alone.await_manager()
    alone.ask("cluster", "update", "default", "--autolock=false")
    assert alone.ask("cluster", "unlock-key", "x") == "Managers not auto-locked\n"
    key_file = alone.root / "node-1" / "certificates" / "swarm-node.key"
    until("the key file is open", lambda: b"ENCRYPTED" not in key_file.read_bytes())
    assert ended(alone, signal.SIGTERM) == 0
    alone.start("node-1")
    alone.await_manager()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_tasks_outlive_their_daemon(alone: Cluster, number: signal.Signals) -> None:
    """A daemon that is told to stop leaves its tasks running, removes its socket, and adopts them when it comes back. [cli 96]"""
    alone.found()
    alone.ask("service", "create", "--name", "web", "--image", "x", "--replicas", "2", "--command", "sleep", "--args", "1000")
    until("both run", lambda: alone.replicas("web") == "2/2")
    places = alone.places()
    pids = [int(alone.ask("task", "inspect", task).split("Pid")[1].split()[1]) for task in places]
    assert ended(alone, number) == 0
    assert not alone.socket.exists()
    for pid in pids:
        os.kill(pid, 0)
    alone.start("node-1")
    alone.await_manager()
    alone.await_ready(1)
    until("both run", lambda: alone.replicas("web") == "2/2")
    time.sleep(0.5)
    assert alone.places() == places
    for pid in pids:
        os.kill(pid, 0)
