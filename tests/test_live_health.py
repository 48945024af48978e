"""Health as a running manager tells it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import grpc.aio
import pytest

from pyswarm.api import v1 as api
from pyswarm.api.swarmkit.health_pb2_grpc import HealthStub
from pyswarm.rpc import channel
from tests.support.nodes import live_cluster

SERVING = api.HealthCheckResponse.ServingStatus.SERVING


async def test_both_doors() -> None:
    """Once it runs, a manager serves by every name it has, on its socket and its port; other names are not found. [control 161]"""
    with tempfile.TemporaryDirectory(prefix="ps-") as directory:
        async with live_cluster(Path(directory)) as swarm:
            me = swarm.founder.security.current
            doors = (channel.connect_local(Path(swarm.founder.settings.listen_control_api), me), channel.connect(swarm.address, me))
            for door in doors:
                async with door as opened:
                    health = HealthStub(opened)
                    for name in ("ControlAPI", "Raft", ""):
                        assert (await health.Check(api.HealthCheckRequest(service=name), timeout=10)).status == SERVING
                    with pytest.raises(grpc.aio.AioRpcError) as failure:
                        await health.Check(api.HealthCheckRequest(service="foo"), timeout=10)
                    assert (failure.value.code(), failure.value.details()) == (grpc.StatusCode.NOT_FOUND, "unknown service")
