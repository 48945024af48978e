"""What the README promises, with real processes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from tools.cluster import Cluster, until

from tests.cluster.conftest import Shared, clusters

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]
SLEEP = ("--command", "sleep", "--args", "1000")


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
    """Three nodes, six tasks that each test may do with as it likes."""
    for made in shared.lend(request):
        made.ask("service", "create", "--name", "redis", "--image", "redis:3.0.5", "--replicas", "6", *SLEEP)
        until("six tasks run", lambda: made.replicas() == "6/6")  # noqa: B023 - awaited
        yield made


def remove(cluster: Cluster) -> None:
    """Remove the service; that ends its tasks."""
    assert cluster.ask("service", "rm", "redis").strip() == "redis"
    until("all tasks are gone", lambda: not cluster.rows("task", "ls", "--all"))


def test_a_service_survives_workers_and_manager(cluster: Cluster) -> None:
    """Tasks of a killed worker run elsewhere; the worker comes back as itself; a killed manager forgets nothing and disturbs nothing."""
    worker = cluster.nodes()["node-2"][0]
    cluster.ask("cluster", "update", "default", "--heartbeatperiod", "1s")
    cluster.kill("node-2")
    until("node-2 is DOWN", lambda: cluster.nodes()["node-2"][3] == "DOWN")
    until("its tasks run elsewhere", lambda: cluster.replicas() == "6/6" and "node-2" not in cluster.places().values())
    # Whoever is late from now on, because the machine is busy, is not given up so soon.
    cluster.ask("cluster", "update", "default", "--heartbeatperiod", "5s")
    cluster.start("node-2")
    cluster.await_ready(3)
    assert cluster.nodes()["node-2"][0] == worker
    until("nothing superseded runs", lambda: len(cluster.places()) == 6)

    places = cluster.places()
    services = cluster.ask("service", "ls")
    cluster.kill("node-1")
    cluster.start("node-1")
    cluster.await_manager()
    assert cluster.ask("service", "ls") == services
    cluster.await_ready(3)
    assert cluster.places() == places
    remove(cluster)


def test_updates_and_drain(cluster: Cluster) -> None:
    """An update replaces every task and ends COMPLETED; scaling keeps tasks; a drained node runs nothing."""
    before = cluster.places()
    cluster.ask("service", "update", "redis", "--replicas", "7")
    until("seven run", lambda: cluster.replicas() == "7/7")
    assert before.keys() <= cluster.places().keys()
    cluster.ask("service", "update", "redis", "--env", "A=1", "--update-parallelism", "3")
    until("the update is COMPLETED", cluster.updated)
    assert not before.keys() & cluster.places().keys()
    cluster.ask("node", "drain", "node-1")
    until("node-1 is empty", lambda: cluster.replicas() == "7/7" and "node-1" not in cluster.places().values())
    assert cluster.nodes()["node-1"][4] == "DRAIN"
    cluster.ask("node", "activate", "node-1")
    remove(cluster)
