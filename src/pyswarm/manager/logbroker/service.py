"""The services Logs (for readers) and LogBroker (for nodes), and the leadership they need (spec/dispatcher-agent-node, section 24)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator

from pyswarm.api import v1 as api
from pyswarm.clock import Clock
from pyswarm.errors import Unknown
from pyswarm.manager.logbroker.broker import Broker
from pyswarm.manager.store import Store
from pyswarm.rpc.caller import Caller


class LogBrokerService:
    """Registered on every manager, at work on the leader. Method names are the proto's."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._broker: Broker | None = None

    async def run(self) -> None:
        """Serve as the leader's log broker until cancelled, which ends every stream. Raises Unknown when it runs already."""
        if self._broker is not None:
            raise Unknown("broker is already running")
        broker = self._broker = Broker(self._store, self._clock)
        undo = self._store.on_commit(broker.on_commit)
        try:
            await asyncio.Event().wait()
        finally:
            undo()
            self._broker = None
            broker.stop()

    async def SubscribeLogs(  # noqa: N802
        self,
        request: api.SubscribeLogsRequest,
        caller: Caller,  # noqa: ARG002 - whoever may call may read every task
    ) -> AsyncGenerator[api.SubscribeLogsMessage, None]:
        """What the selected tasks wrote and, when following, write."""
        async with contextlib.aclosing(self._running().subscribe(request)) as lines:
            async for message in lines:
                yield message

    async def ListenSubscriptions(  # noqa: N802
        self,
        request: api.ListenSubscriptionsRequest,  # noqa: ARG002 - it says nothing
        caller: Caller,
    ) -> AsyncGenerator[api.SubscriptionMessage, None]:
        """What the node is asked for."""
        async with contextlib.aclosing(self._running().listen(caller.node_id)) as messages:
            async for message in messages:
                yield message

    async def PublishLogs(  # noqa: N802
        self, request: AsyncIterator[api.PublishLogsMessage], caller: Caller
    ) -> api.PublishLogsResponse:
        """A node's lines for one subscription."""
        await self._running().publish(request, caller.node_id)
        return api.PublishLogsResponse()

    def _running(self) -> Broker:
        if self._broker is None:
            raise Unknown("broker is not running")
        return self._broker
