"""Sixty replicas on a whole cluster."""

from __future__ import annotations

import asyncio

import pytest

from pyswarm.api import v1 as api
from pyswarm.errors import SwarmError
from pyswarm.manager.store import Kind
from tests.simulation.cluster import Cluster, run
from tests.simulation.scenarios import Scenario

REPLICAS = 60


@pytest.mark.parametrize("after", [0.0, 20.0])
def test_sixty_replicas(after: float) -> None:
    """Created before the workers have joined, or after: with three managers and three workers, sixty tasks run in the end.

    [orchestration 179]
    """
    clusters: list[Cluster] = []
    joined: list[int] = []

    def prepare(cluster: Cluster) -> None:
        (user,) = cluster.users
        clusters.append(cluster)

        async def create() -> None:
            await asyncio.sleep(after)
            spec = api.ServiceSpec(annotations=api.Annotations(name="sixty"), replicated=api.ReplicatedService(replicas=REPLICAS))
            spec.task.container.image = "good:1"
            while not joined:
                try:
                    await user.call("CreateService", api.CreateServiceRequest(spec=spec))
                    joined.append(sum(bool(worker.node_id) for worker in cluster.workers))
                except SwarmError:
                    await asyncio.sleep(0.01)

        user.run = create  # type: ignore[method-assign]

    run(1, Scenario(managers=3, users=1, span=30.0, faults=(), prepare=prepare))
    assert (joined[0] == 3) == bool(after)
    tasks = [obj for (kind, _), obj in clusters[0].judge._truth.items() if kind is Kind.TASK]
    assert sum(t.status.state == t.desired_state == api.TaskState.RUNNING for t in tasks) == REPLICAS
