"""The Health service."""

from __future__ import annotations

import pytest

from pyswarm.api import v1 as api
from pyswarm.errors import NotFound
from pyswarm.manager.health import HealthService, Status
from pyswarm.rpc.caller import Caller


async def check(health: HealthService, name: str) -> Status.ValueType:
    """The answer for one name."""
    return (await health.Check(api.HealthCheckRequest(service=name), Caller())).status


async def test_names() -> None:
    """A registered name serves once its part does; the empty name always; others are not found. [control 161]"""
    health = HealthService("Raft", "ControlAPI")
    assert [await check(health, name) for name in ("Raft", "ControlAPI", "")] == [Status.NOT_SERVING, Status.NOT_SERVING, Status.SERVING]
    health.set_serving("Raft")
    assert [await check(health, name) for name in ("Raft", "ControlAPI", "")] == [Status.SERVING, Status.NOT_SERVING, Status.SERVING]
    with pytest.raises(NotFound) as caught:
        await check(health, "foo")
    assert caught.value.message == "unknown service"
