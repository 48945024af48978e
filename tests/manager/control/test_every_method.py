"""No RPC of the control service is forgotten."""

from __future__ import annotations

import pytest

from pyswarm.api import v1 as api
from pyswarm.api.swarmkit import control_pb2
from pyswarm.manager.control import ControlService
from pyswarm.rpc.binder import bind
from tests.manager.control.support import IA, ME, NF, UI


async def test_every_method_answers(today: ControlService) -> None:
    """Every RPC of the service is there and answers an empty request with a status, never a crash. [control 35]"""
    service = control_pb2.DESCRIPTOR.services_by_name["Control"]
    bind(service, today)
    for method in service.methods:
        request = getattr(api, method.input_type.name)()
        answer = getattr(today, method.name)(request, ME)
        if method.name.startswith("List"):
            assert await answer == getattr(api, method.output_type.name)()
        else:
            with pytest.raises(Exception, match=r".") as caught:
                await answer
            assert caught.value.code in {IA, NF, UI}  # type: ignore[attr-defined]
