"""What services live through on nodes of our own, with containers."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from docker import APIClient
from tools.cluster import BIN, Cluster, until
from tools.engine import Engine

from tests.support.stories import CREATE, Kind, drain_under_load, places, tasks, update_that_rolls_back

pytestmark = [pytest.mark.docker, pytest.mark.cluster, pytest.mark.timeout(240)]
KIND = Kind(("--image", "busybox:latest"), ("--image", "nowhere.invalid/none:1"))


@pytest.fixture(scope="module")
def cluster(engine: Engine) -> Iterator[Cluster]:
    """A manager and a worker that share an engine, with quick heartbeats; left as they are found."""
    root = Path(tempfile.mkdtemp(prefix="psw-", dir="/tmp"))  # short: it holds a socket
    cluster = Cluster(root, ("--executor", "docker", "--engine-addr", engine.address))
    try:
        cluster.found()
        cluster.ask("cluster", "update", "default", "--heartbeatperiod", "1s")
        cluster.join("node-2", cluster.token())
        cluster.await_ready(2)
        yield cluster
    finally:
        cluster.stop()
        remove_containers(engine)
        shutil.rmtree(root, ignore_errors=True)


def remove_containers(engine: Engine) -> None:
    """Whatever a failed test left: the engine is shared."""
    with closing(APIClient(engine.address, version="auto")) as client:
        for container in client.containers(all=True, filters={"label": "com.docker.swarm.task"}):
            client.remove_container(container["Id"], force=True)


def containers(engine: Engine, service: str) -> dict[str, str]:
    """Node by task, for the containers of a service that run."""
    with closing(APIClient(engine.address, version="auto")) as client:
        found = client.containers(filters={"label": f"com.docker.swarm.service.name={service}"})
    return {c["Labels"]["com.docker.swarm.task.id"]: c["Labels"]["com.docker.swarm.node.id"] for c in found}


def test_a_worker_fails(cluster: Cluster, engine: Engine) -> None:
    """Tasks of a killed daemon run elsewhere; when it is back its superseded containers go, and what runs is what should."""
    cluster.ask(*CREATE, "web", *KIND.sound, "--replicas", "4")
    until("four run on both", lambda: cluster.replicas("web") == "4/4" and {*places(cluster, "web").values()} == {"node-1", "node-2"})
    worker = cluster.nodes()["node-2"][0]
    lost = {task for task, node in containers(engine, "web").items() if node == worker}
    cluster.kill("node-2")
    until("node-2 is DOWN", lambda: cluster.nodes()["node-2"][3] == "DOWN")
    until("four run elsewhere", lambda: {*places(cluster, "web").values()} == {"node-1"} and cluster.replicas("web") == "4/4")
    assert lost <= containers(engine, "web").keys()
    cluster.start("node-2")
    cluster.await_ready(2)
    assert cluster.nodes()["node-2"][0] == worker
    until("superseded containers are gone", lambda: containers(engine, "web").keys() == places(cluster, "web").keys())
    assert not lost & places(cluster, "web").keys()
    cluster.ask("service", "rm", "web")
    until("nothing is left", lambda: not tasks(cluster, "web.") and not containers(engine, "web"))


def test_drain_under_load(cluster: Cluster, engine: Engine) -> None:
    """A node is emptied while users write; what runs elsewhere goes on undisturbed, and no container is left."""
    drain_under_load(cluster, KIND, replicas=6)
    until("no container is left", lambda: not containers(engine, "steady"))


def test_bad_image_is_rolled_back(cluster: Cluster) -> None:
    """An update to an image that cannot be had stops at its first task and rolls itself back."""
    update_that_rolls_back(cluster, KIND)


def test_a_job_completes(cluster: Cluster, tmp_path: Path) -> None:
    """Containers run to their end as often as asked; the one that fails is tried again."""
    script = "mkdir /marks/first 2>/dev/null && exit 3; mktemp /marks/done.XXXXXX"
    flags = ("--mode", "replicated-job", "--replicas", "4", "--max-concurrent", "2", "--bind", f"{tmp_path}:/marks")
    cluster.ask(*CREATE, "sums", *KIND.sound, *flags, "--command", "sh", "--args", f'"-c","{script}"')
    until("four are complete", lambda: "(4/4 completed)" in cluster.replicas("sums"))
    assert sorted(row[3].split()[0] for row in tasks(cluster, "sums.")) == [*["COMPLETE"] * 4, "FAILED"]
    assert len(list(tmp_path.glob("done.*"))) == 4
    cluster.ask("service", "rm", "sums")
    until("nothing is left", lambda: not tasks(cluster, "sums."))


def test_logs_across_an_update(cluster: Cluster, tmp_path: Path) -> None:
    """A follower sees what containers on both nodes printed, and what those printed that replace them, each line once."""
    script = ("--command", "sh", "--args=-c", "--args", "echo out $V; trap 'exit 0' TERM; sleep 1000 & wait")
    cluster.ask(*CREATE, "talk", *KIND.sound, "--env", "V=1", "--replicas", "2", *script)
    out = tmp_path / "out"
    command = [str(BIN / "pyswarmctl"), "-s", str(cluster.socket), "service", "logs", "-f", "talk"]
    with out.open("wb") as both, subprocess.Popen(command, stdout=both, stderr=both, stdin=subprocess.DEVNULL) as follower:
        try:
            until("the past is read", lambda: said(out) == ["out 1"] * 2)
            cluster.ask("service", "update", "talk", "--env", "V=2")
            until("the new containers are read", lambda: said(out) == ["out 1"] * 2 + ["out 2"] * 2)
            cluster.ask("service", "rm", "talk")
            assert follower.wait(30) == 0
        finally:
            follower.kill()
    assert said(out) == ["out 1"] * 2 + ["out 2"] * 2
    until("nothing is left", lambda: not tasks(cluster, "talk."))


def said(out: Path) -> list[str]:
    """The lines without who wrote them, in order."""
    return [line.partition("❯ ")[2] for line in out.read_text().splitlines()]  # noqa: RUF001
