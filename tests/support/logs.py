"""Managers without a log broker."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from pyswarm.api import v1 as api
from pyswarm.errors import Unimplemented


class WithoutLogs:
    """The part of an agent's client that has to do with logs, as old managers answer it."""

    async def subscriptions(self, request: api.ListenSubscriptionsRequest) -> AsyncGenerator[api.SubscriptionMessage, None]:
        """Refused."""
        raise Unimplemented("unknown service docker.swarmkit.v1.LogBroker")
        yield

    async def publish_logs(self, messages: AsyncGenerator[api.PublishLogsMessage, None]) -> api.PublishLogsResponse:
        """Refused."""
        raise Unimplemented("unknown service docker.swarmkit.v1.LogBroker")
