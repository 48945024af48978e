"""Three managers and their failures, with real processes."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from tools.cluster import PATIENCE, Cluster, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
SLEEP = ("--command", "sleep", "--args", "1000")
MANAGERS = ("node-1", "node-2", "node-3")
NO_LEADER = "The swarm does not have a leader"
FAILOVER_SECONDS = 3.0


@pytest.fixture
def cluster(new_cluster: Callable[[int], Cluster]) -> Iterator[Cluster]:
    """Three managers, a worker, four tasks; heartbeats every second."""
    made = new_cluster(0)
    made.ask("cluster", "update", "default", "--heartbeatperiod", "1s")
    token = made.token("Manager")
    for name in MANAGERS[1:]:
        made.join(name, token, control=True)
    made.join("node-4", made.token("Worker"), control=True)
    made.await_ready(4)
    until("three managers are members", lambda: managers(made).keys() == set(MANAGERS))
    made.ask("service", "create", "--name", "redis", "--image", "redis:3.0.5", "--replicas", "4", *SLEEP)
    until("four tasks run", lambda: made.replicas() == "4/4")
    yield made
    made.stop()


def managers(cluster: Cluster) -> dict[str, str]:
    """What `node ls` says about managers, by name."""
    return {name: row[5] for name, row in cluster.nodes().items() if row[5]}


def leader(cluster: Cluster) -> str:
    """The name of the manager that leads; empty while nobody can be asked."""
    done = cluster.run("node", "ls")
    return next((line.split()[1] for line in done.stdout.splitlines() if line.rstrip().endswith("*")), "")


def others(*names: str) -> tuple[str, ...]:
    """The managers but these."""
    return tuple(name for name in MANAGERS if name not in names)


def ask_at(cluster: Cluster, name: str) -> None:
    """Give the commands that follow to this manager."""
    cluster.socket = cluster.socket_of(name)


def write(cluster: Cluster, value: object) -> None:
    """A write through the socket in use; a refusal that certainly changed nothing, or an outcome not known, is tried again."""
    deadline = time.monotonic() + PATIENCE
    while cluster.run("service", "update", "redis", "--label", f"value={value}").returncode:
        assert time.monotonic() < deadline


def value(cluster: Cluster) -> str:
    """What was written last."""
    words = cluster.ask("service", "inspect", "redis").replace(":", " ").split()
    return next((after for word, after in itertools.pairwise(words) if word == "value"), "")


def test_every_socket_works(cluster: Cluster) -> None:
    """Any manager's socket takes writes and answers reads; one member leads, all are reachable. [dispatcher 139; control 158]"""
    seen = managers(cluster)
    assert sorted(seen.values()) == ["REACHABLE", "REACHABLE", "REACHABLE *"]
    for name in MANAGERS:
        ask_at(cluster, name)
        write(cluster, name)
        assert value(cluster) == name
        assert cluster.ask("task", "why", "redis") == "redis: all 4 tasks are as wanted\n"
        assert managers(cluster).keys() == set(MANAGERS)
        assert leader(cluster) == "node-1"


def test_leader_is_killed(cluster: Cluster) -> None:
    """A write goes through within three seconds, tasks keep running, and the killed manager comes back as itself.

    [dispatcher 191; control 79]
    """
    places = cluster.places()
    identity = cluster.nodes()["node-1"][0]
    ask_at(cluster, "node-2")
    cluster.kill("node-1")
    begun = time.monotonic()
    write(cluster, "after")
    assert time.monotonic() - begun < FAILOVER_SECONDS
    assert leader(cluster) in others("node-1")
    until("the others see that it is gone", lambda: managers(cluster)["node-1"] == "UNREACHABLE")
    survivors = {task: node for task, node in places.items() if node != "node-1"}
    assert survivors.items() <= cluster.places().items()
    cluster.start("node-1")
    until("it is back", lambda: managers(cluster)["node-1"] == "REACHABLE")
    cluster.await_ready(4)
    assert cluster.nodes()["node-1"][0] == identity
    until("four tasks run", lambda: cluster.replicas() == "4/4")
    assert survivors.items() <= cluster.places().items()
    ask_at(cluster, "node-1")
    assert value(cluster) == "after"


def test_stop_hands_over(cluster: Cluster) -> None:
    """A leader that is told to stop hands over first: writers notice a moment's delay, no error."""
    for name in ("node-1", *MANAGERS):
        first = leader(cluster)
        del name
        ask_at(cluster, others(first)[0])
        started = time.monotonic()
        seconds = cluster.terminate(first)
        assert cluster.run("service", "update", "redis", "--label", f"value={first}").returncode == 0
        assert time.monotonic() - started < FAILOVER_SECONDS + seconds
        assert seconds < 3
        assert leader(cluster) != first
        cluster.start(first)
        until("it is back", lambda first=first: managers(cluster)[first] == "REACHABLE")  # type: ignore[misc]
    cluster.await_ready(4)
    until("four tasks run", lambda: cluster.replicas() == "4/4")


def test_roles_change(cluster: Cluster) -> None:
    """A worker is promoted, follower and leader are demoted, a demoted node is removed; the last manager stays.

    [dispatcher 180, 189; ca 168, 170; cli 38]
    """
    cluster.ask("node", "promote", "node-4")
    until("node-4 is a manager", lambda: managers(cluster).get("node-4") == "REACHABLE")
    ask_at(cluster, "node-4")
    until("its socket answers", lambda: cluster.run("node", "ls").returncode == 0)
    cluster.ask("node", "demote", "node-3")
    until("node-3 is none", lambda: "node-3" not in managers(cluster))
    cluster.ask("node", "demote", "node-1")
    until("node-1 is none", lambda: "node-1" not in managers(cluster))
    cluster.await_ready(4)
    assert leader(cluster) in {"node-2", "node-4"}
    for gone in ("node-1", "node-3"):
        until(f"{gone} forgot the log", lambda gone=gone: not (cluster.root / gone / "raft").exists())  # type: ignore[misc]
    until("four tasks run", lambda: cluster.replicas() == "4/4")
    cluster.kill("node-3")
    until("node-3 is down", lambda: cluster.nodes()["node-3"][3] == "DOWN")
    cluster.ask("node", "rm", "node-3")
    assert "node-3" not in cluster.nodes()
    refused = cluster.run("node", "rm", "node-2", "--force")
    assert refused.returncode
    assert "must be demoted to worker before removal" in refused.stderr
    cluster.ask("node", "promote", "node-1")
    until("node-1 is a manager again", lambda: managers(cluster).get("node-1") == "REACHABLE")
    for name in ("node-1", "node-2"):
        cluster.ask("node", "demote", name)
        until(f"{name} is none", lambda name=name: name not in managers(cluster))  # type: ignore[misc]
    last = cluster.run("node", "demote", "node-4")
    assert "attempting to demote the last manager of the swarm" in last.stderr
    write(cluster, "alone")


def test_demoted_while_away(cluster: Cluster) -> None:
    """A stopped follower is demoted; started again it becomes a worker. An absent worker cannot be promoted and demoted at once.

    [dispatcher 180, 190; ca 169, 171; cli 39]
    """
    cluster.kill("node-4")
    cluster.ask("node", "promote", "node-4")
    assert "can't find manager in raft memberlist" in cluster.run("node", "demote", "node-4").stderr
    cluster.start("node-4")
    until("node-4 is a manager", lambda: managers(cluster)["node-4"] == "REACHABLE")
    cluster.ask("node", "demote", "node-4")
    until("node-4 is none", lambda: "node-4" not in managers(cluster))
    cluster.kill("node-3")
    until("it is missed", lambda: managers(cluster)["node-3"] == "UNREACHABLE")
    cluster.ask("node", "demote", "node-3")
    until("it is no member", lambda: "node-3" not in managers(cluster))
    cluster.start("node-3")
    cluster.await_ready(4)
    until("it forgot the log", lambda: not (cluster.root / "node-3" / "raft").exists())


def test_majority_is_down(cluster: Cluster) -> None:
    """One of three refuses with a clear sentence, writes and reads alike; after a cold start everything is there. [dispatcher 130]"""
    write(cluster, "kept")
    before = {name: row[0] for name, row in cluster.nodes().items()}
    ask_at(cluster, "node-3")
    for name in others("node-3"):
        cluster.kill(name)
    for words in (("service", "update", "redis", "--label", "value=lost"), ("service", "ls")):
        refused = cluster.run(*words)
        assert refused.returncode
        assert NO_LEADER in refused.stderr
    cluster.kill("node-3")
    for name in MANAGERS:
        cluster.start(name)
    until("they answer", lambda: cluster.run("node", "ls").returncode == 0)
    cluster.await_ready(4)
    until("all are members", lambda: sorted(managers(cluster).values()) == ["REACHABLE", "REACHABLE", "REACHABLE *"])
    assert {name: row[0] for name, row in cluster.nodes().items()} == before
    assert value(cluster) == "kept"
    until("four tasks run", lambda: cluster.replicas() == "4/4")


def test_back_and_forth(cluster: Cluster) -> None:
    """Ten demotions and promotions, of whoever leads as well as of a follower, under a writer: nothing acknowledged is lost. [ca 170]"""
    ask_at(cluster, "node-2")
    written: list[str] = []
    demoted_leaders = 0
    stop = threading.Event()

    def write_on() -> None:
        while not stop.is_set():
            name = f"s{len(written)}"
            if cluster.run("service", "create", "--name", name, "--image", "x", "--replicas", "0").returncode == 0:
                written.append(name)

    writer = threading.Thread(target=write_on)
    writer.start()
    try:
        for turn in range(10):
            name = ("node-1", "node-3")[turn % 2]
            before = leader(cluster)
            cluster.ask("node", "demote", name)
            until(f"{name} is no manager", lambda name=name: name not in managers(cluster))  # type: ignore[misc]
            assert leader(cluster) != name
            demoted_leaders += before == name
            until(f"{name} forgot the log", lambda name=name: not (cluster.root / name / "raft").exists())  # type: ignore[misc]
            cluster.ask("node", "promote", name)
            until(f"{name} is a manager again", lambda name=name: managers(cluster).get(name, "").startswith("REACHABLE"))  # type: ignore[misc]
    finally:
        stop.set()
        writer.join()
    assert demoted_leaders
    assert len(written) > 10
    for name in MANAGERS:
        ask_at(cluster, name)
        until("its socket answers", lambda: cluster.run("node", "ls").returncode == 0)
        assert {row[1] for row in cluster.rows("service", "ls")} >= {"redis", *written}
    until("four tasks run", lambda: cluster.replicas() == "4/4")
