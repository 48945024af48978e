"""What tasks print, with real processes."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tools.cluster import BIN, Cluster, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]
SCRIPT = "echo out $V; echo err $V >&2; exec sleep 1000"


@contextmanager
def following(cluster: Cluster, out: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A `logs -f` whose two streams go to `out` and `out.err`."""
    with out.open("wb") as stdout, out.with_suffix(".err").open("wb") as stderr:
        # Tests that run in the background of a shell inherit from it that interrupts are ignored.
        command = ["env", "--default-signal=INT", str(BIN / "pyswarmctl"), "-s", str(cluster.socket), *words]
        follower = subprocess.Popen(command, stdout=stdout, stderr=stderr, stdin=subprocess.DEVNULL)
    try:
        yield follower
    finally:
        follower.kill()
        follower.wait()


def test_followed_across_an_update(new_cluster: Callable[[int], Cluster], tmp_path: Path) -> None:
    """A follower sees what tasks on two nodes have printed, what those that replace them print, and ends when the service is gone; an
    interrupt ends it too. [cli 75, 76] [dispatcher 154, 155]
    """
    cluster = new_cluster(1)
    command = ("--image", "none", "--command", "/bin/sh", "--args=-c", "--args", SCRIPT)
    cluster.ask("service", "create", "--name", "web", "--replicas", "2", "--env", "V=1", *command)
    out, one = tmp_path / "service", tmp_path / "task"
    first = cluster.ask("task", "ls", "-q").split()[0]
    with following(cluster, out, "service", "logs", "-f", "web") as service, following(cluster, one, "task", "logs", "-f", first) as task:
        until("the past is read", lambda: len(out.read_text().splitlines()) == 2 and one.read_text())
        task.send_signal(signal.SIGINT)
        assert task.wait(20) == 130
        cluster.ask("service", "update", "web", "--env", "V=2")
        until("the new tasks are read", lambda: len(out.read_text().splitlines()) == 4)
        read = [sorted(path.read_text().splitlines()) for path in (out, out.with_suffix(".err"))]
        assert read == expected(cluster)
        cluster.ask("service", "rm", "web")
        assert service.wait(20) == 0
        assert len(out.read_text().splitlines()) == 4


def expected(cluster: Cluster) -> list[list[str]]:
    """What both generations wrote to stdout and to stderr, by where they ran."""
    generations = [(row[1], row[4], 2 if row[2] == "RUNNING" else 1) for row in cluster.rows("task", "ls", "--all")]
    return [sorted(f"{task}@{node}❯ {stream} {value}" for task, node, value in generations) for stream in ("out", "err")]  # noqa: RUF001
