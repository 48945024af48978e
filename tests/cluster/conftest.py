"""Real daemons for the tests in this directory."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import NoReturn

import pytest
from tools.cluster import Cluster
from tools.hosts import HostedCluster, HostsError, managers

PROCESS = ("--executor", "process")
HOSTS_REQUIRED = "PYSWARM_REQUIRE_NETNS"
"""Set to 1 where a test that cannot have network namespaces is a failure, as in CI."""


@pytest.fixture(scope="session")
def new_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int], Cluster]]:
    """Makes clusters of one manager and some workers, with the process executor; all end with the test session."""
    made: list[Cluster] = []

    def make(workers: int) -> Cluster:
        root: pathlib.Path = tmp_path_factory.mktemp("cluster")
        cluster = Cluster(root, PROCESS)
        made.append(cluster)
        cluster.found()
        token = cluster.token()
        for number in range(2, 2 + workers):
            cluster.join(f"node-{number}", token)
        cluster.await_ready(1 + workers)
        return cluster

    yield make
    for cluster in made:
        cluster.stop()


@pytest.fixture(scope="session")
def small(new_cluster: Callable[[int], Cluster]) -> Cluster:
    """One manager alone, shared by tests that only ask it things, or leave it as they found it."""
    return new_cluster(0)


def no_hosts(error: HostsError) -> NoReturn:
    """Skip a test, or fail it where `HOSTS_REQUIRED` says so."""
    if os.environ.get(HOSTS_REQUIRED) == "1":
        pytest.fail(f"{HOSTS_REQUIRED}=1, but {error}", pytrace=False)
    pytest.skip(str(error))


class Trios:
    """One cluster of three managers on hosts of their own at a time."""

    def __init__(self, directory: Callable[[], pathlib.Path]) -> None:
        self._directory = directory
        self._stack = contextlib.ExitStack()
        self._cluster: HostedCluster | None = None

    def cluster(self) -> HostedCluster:
        """The one there is, or a new one. Raises HostsError."""
        if self._cluster is None:
            self._cluster = self._stack.enter_context(managers(self._directory(), 3))
        return self._cluster

    def end(self) -> None:
        """The next one is a new one."""
        self._cluster = None
        self._stack.close()


@pytest.fixture(scope="module")
def trios(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trios]:
    """For `trio`."""
    made = Trios(lambda: tmp_path_factory.mktemp("hosts"))
    yield made
    made.end()


@pytest.fixture
def trio(trios: Trios, request: pytest.FixtureRequest) -> Iterator[HostedCluster]:
    """Three managers on hosts of their own, shared by tests that leave all of them up. Skips, or fails, where there can be no hosts.

    What a test leaves that failed is nothing to go on with: the next one gets others.
    """
    failed = request.session.testsfailed
    try:
        made = trios.cluster()
    except HostsError as error:
        no_hosts(error)
    yield made
    if request.session.testsfailed > failed:
        trios.end()
