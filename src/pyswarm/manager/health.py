"""The Health service: whether a named part of this manager answers."""

from __future__ import annotations

from pyswarm.api import v1 as api
from pyswarm.errors import NotFound
from pyswarm.rpc.caller import Caller

Status = api.HealthCheckResponse.ServingStatus


class HealthService:
    """`Check` for the names that were registered; the empty name always serves."""

    def __init__(self, *names: str) -> None:
        self._statuses: dict[str, Status.ValueType] = dict.fromkeys(names, Status.NOT_SERVING)

    def set_serving(self, name: str) -> None:
        """From now on `name` answers SERVING."""
        self._statuses[name] = Status.SERVING

    async def Check(self, request: api.HealthCheckRequest, caller: Caller) -> api.HealthCheckResponse:  # noqa: ARG002, N802 - the RPC's shape
        """The status of one name. Raises NotFound for a name that is not registered."""
        if not request.service:
            return api.HealthCheckResponse(status=Status.SERVING)
        if request.service not in self._statuses:
            raise NotFound("unknown service")
        return api.HealthCheckResponse(status=self._statuses[request.service])
