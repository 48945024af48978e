"""Daemons that are away for a while: their processes run on, and whoever comes back goes on where it left off."""

from __future__ import annotations

import contextlib
import json
import pathlib
import signal
import time
from collections.abc import Callable, Iterator

import pytest
from tools.cluster import Cluster, until

from tests.cluster.conftest import Shared, clusters

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]
SLEEP = ("--command", "sleep", "--args", "1000")


def processes(cluster: Cluster, *nodes: str) -> dict[str, int]:
    """Pid by task, of the processes that run below the directories of some nodes, all by default. Asks no daemon."""
    found = {}
    for name in nodes or [path.name for path in cluster.root.iterdir() if path.is_dir()]:
        for path in (cluster.root / name / "worker" / "tasks").glob("*/state.json"):
            pid = json.loads(path.read_bytes())["child"][0]
            if lives(pid):
                found[path.parent.name] = pid
    return found


def lives(pid: int) -> bool:
    """Neither gone nor only waiting to be reaped."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def stop(cluster: Cluster, name: str) -> None:
    """SIGTERM, and a good end."""
    daemon = cluster.daemons.pop(name)
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(20) == 0


ENDS: dict[str, Callable[[Cluster, str], None]] = {"SIGTERM": stop, "SIGKILL": Cluster.kill}


def log_of(cluster: Cluster, name: str) -> str:
    """What a daemon said so far, in all its lives."""
    return (cluster.root / f"{name}.log").read_text()


@contextlib.contextmanager
def three_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A manager and two workers."""
    with clusters(tmp_path_factory) as make:
        yield make(2)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared[Cluster]]:
    """For `cluster`."""
    made = Shared(lambda: three_nodes(tmp_path_factory))
    yield made
    made.end()


@pytest.fixture
def cluster(shared: Shared[Cluster], request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Three nodes, and nothing that runs; each test leaves them so."""
    yield from shared.lend(request)


def remove(cluster: Cluster, *services: str) -> None:
    """Remove services; that ends their tasks."""
    for name in services:
        cluster.ask("service", "rm", name)
    until("all tasks are gone", lambda: not cluster.rows("task", "ls", "--all") and not processes(cluster))


def test_worker_comes_back_before_its_manager(cluster: Cluster) -> None:
    """A worker started without its manager keeps its tasks running; when the manager returns it is the node it was, and so are they.
    [dispatcher 193] [dispatcher 197]
    """
    cluster.ask("service", "create", "--name", "web", "--image", "x", "--replicas", "3", *SLEEP)
    until("three run", lambda: cluster.replicas("web") == "3/3")
    places, pids, nodes = cluster.places(), processes(cluster), cluster.nodes()
    assert set(pids) == set(places)
    cluster.kill("node-1")
    cluster.kill("node-2")
    said = len(log_of(cluster, "node-2"))
    cluster.start("node-2")
    until("its tasks are adopted", lambda: "tasks resumed" in log_of(cluster, "node-2")[said:])
    until("it looks for the manager", lambda: log_of(cluster, "node-2")[said:].count("no session with a manager") >= 3)
    assert processes(cluster) == pids
    cluster.start("node-1")
    cluster.await_manager()
    cluster.await_ready(3)
    until("three run", lambda: cluster.replicas("web") == "3/3")
    assert cluster.places() == places
    assert processes(cluster) == pids
    assert {name: row[0] for name, row in cluster.nodes().items()} == {name: row[0] for name, row in nodes.items()}
    # Still so once every node has been heard, and nobody has anything left to sweep.
    time.sleep(2)
    assert (cluster.places(), processes(cluster)) == (places, pids)
    remove(cluster, "web")


@pytest.mark.parametrize("how", ENDS)
def test_end_of_a_task_without_its_daemon(cluster: Cluster, tmp_path: pathlib.Path, how: str) -> None:
    """A task that ends while its daemon is down is reported with its exit code when it is back, and replaced; others are adopted."""
    there = ("--image", "x", "--constraint", "node.hostname==node-2")
    flag = tmp_path / "flag"
    script = f"while ! [ -e {flag} ]; do sleep 0.1; done; exit 7"
    cluster.ask("service", "create", "--name", "brief", *there, "--command", "sh", "--args", f"-c,{script}")
    cluster.ask("service", "create", "--name", "long", *there, *SLEEP)
    until("both run", lambda: cluster.replicas("brief") == cluster.replicas("long") == "1/1")
    (brief,) = (row[0] for row in cluster.rows("task", "ls") if row[1].startswith("brief."))
    pids = processes(cluster)
    ENDS[how](cluster, "node-2")
    assert processes(cluster) == pids
    flag.touch()
    until("it ended", lambda: not lives(pids[brief]))
    flag.unlink()
    cluster.start("node-2")
    until("it is replaced", lambda: brief not in cluster.places() and cluster.replicas("brief") == "1/1")
    report = [line.split() for line in cluster.ask("task", "inspect", brief).splitlines()]
    assert ["ExitCode", ":", "7"] in report, report
    assert ["Last", "State", ":", "FAILED"] in report, report
    (long,) = set(pids) - {brief}
    assert processes(cluster)[long] == pids[long]
    remove(cluster, "brief", "long")


def test_neighbours(cluster: Cluster, new_cluster: Callable[[int], Cluster]) -> None:
    """Two clusters on one machine: what one sweeps away, however its daemons end, is none of the other's."""
    ours, theirs = new_cluster(1), cluster
    for made in (ours, theirs):
        made.ask("service", "create", "--name", "web", "--image", "x", "--replicas", "4", *SLEEP)
        until("four run", lambda: made.replicas("web") == "4/4")  # noqa: B023 - awaited
    before = processes(theirs)
    assert len(before) == 4
    ours.kill("node-2")
    ours.ask("service", "rm", "web")
    until("only the dead daemon's tasks are left", lambda: len(processes(ours)) == 2)
    # The task database is lost too: nobody but the sweep knows of these processes.
    for path in (ours.root / "node-2" / "worker").glob("tasks.db*"):
        path.unlink()
    ours.start("node-2")
    ours.await_ready(2)
    until("its strays are gone", lambda: not processes(ours))
    until("their directories too", lambda: not list((ours.root / "node-2" / "worker" / "tasks").iterdir()))
    stop(ours, "node-1")
    ours.start("node-1")
    ours.await_manager()
    ours.await_ready(2)
    assert processes(theirs) == before
    assert theirs.replicas("web") == "4/4"
    assert set(theirs.places()) == set(before)
    ours.stop()
    remove(theirs, "web")
