"""What services live through, with plain processes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tools.cluster import Cluster

from tests.support.stories import Kind, drain_under_load, update_that_rolls_back

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]
KIND = Kind(("--image", "none", "--command", "sleep", "--args", "1000"), ("--command", "/nowhere/program"))


@pytest.fixture(scope="module")
def cluster(new_cluster: Callable[[int], Cluster]) -> Cluster:
    """A manager and two workers, left as they are found."""
    return new_cluster(2)


def test_drain_under_load(cluster: Cluster) -> None:
    """A node is emptied while users write; what runs elsewhere goes on undisturbed."""
    drain_under_load(cluster, KIND, replicas=20)


def test_bad_program_is_rolled_back(cluster: Cluster) -> None:
    """An update to a program that is not there stops at its first task and rolls itself back."""
    update_that_rolls_back(cluster, KIND)
