"""Real daemons for the tests in this directory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Generic, NoReturn, TypeVar

import pytest
from tools.cluster import Cluster
from tools.hosts import HostedCluster, HostsError, managers

PROCESS = ("--executor", "process")
HOSTS_REQUIRED = "PYSWARM_REQUIRE_NETNS"
"""Set to 1 where a test that cannot have network namespaces is a failure, as in CI."""


T = TypeVar("T")


class Shared(Generic[T]):
    """What the tests of a module share: made when first wanted, and made anew after a test that failed."""

    def __init__(self, make: Callable[[], contextlib.AbstractContextManager[T]]) -> None:
        self._make = make
        self._stack = contextlib.ExitStack()
        self._made: list[T] = []

    def lend(self, request: pytest.FixtureRequest) -> Iterator[T]:
        """The body of a fixture for one test. What `make` raises."""
        failed = request.session.testsfailed
        if not self._made:
            self._made.append(self._stack.enter_context(self._make()))
        yield self._made[0]
        if request.session.testsfailed > failed:
            self.end()

    def end(self) -> None:
        """The next one is a new one."""
        self._made.clear()
        self._stack.close()


@contextlib.contextmanager
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int], Cluster]]:
    """Makes clusters of one manager and so many workers, with the process executor; all end with the block."""
    with contextlib.ExitStack() as stack:

        def make(workers: int) -> Cluster:
            cluster = Cluster(tmp_path_factory.mktemp("cluster"), PROCESS)
            stack.callback(cluster.stop)
            cluster.found()
            token = cluster.token()
            for number in range(2, 2 + workers):
                cluster.join(f"node-{number}", token)
            cluster.await_ready(1 + workers)
            return cluster

        yield make


@pytest.fixture(scope="module")
def new_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int], Cluster]]:
    """`clusters` that end with the module's tests."""
    with clusters(tmp_path_factory) as make:
        yield make


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One manager alone, shared by tests that only ask it things, or leave it as they found it."""
    with clusters(tmp_path_factory) as make:
        yield make(0)


def no_hosts(error: HostsError) -> NoReturn:
    """Skip a test, or fail it where `HOSTS_REQUIRED` says so."""
    if os.environ.get(HOSTS_REQUIRED) == "1":
        pytest.fail(f"{HOSTS_REQUIRED}=1, but {error}", pytrace=False)
    pytest.skip(str(error))


@pytest.fixture(scope="module")
def trios(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared[HostedCluster]]:
    """For `trio`."""
    made = Shared(lambda: managers(tmp_path_factory.mktemp("hosts"), 3))
    yield made
    made.end()


@pytest.fixture
def trio(trios: Shared[HostedCluster], request: pytest.FixtureRequest) -> Iterator[HostedCluster]:
    """Three managers on hosts of their own, shared by tests that leave all of them up. Skips, or fails, where there can be no hosts."""
    try:
        yield from trios.lend(request)
    except HostsError as error:
        no_hosts(error)
