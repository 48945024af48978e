"""A log broker on a running store, its readers and its nodes, without sockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.manager.logbroker import LogBrokerService
from pyswarm.manager.store import Store
from pyswarm.rpc.caller import MANAGER, WORKER, Caller
from tests.manager.dispatcher.support import Reader, S
from tests.support.clock import VirtualClock, settle

OPERATOR = Caller(node_id="m1", organization="o", roles=(MANAGER,), local=True)


def task(task_id: str, state: S.ValueType = S.RUNNING, node_id: str = "n1", service: str = "web", err: str = "") -> api.Task:
    """A task of a service on a node; an empty node id for none."""
    status = api.TaskStatus(state=state, err=err)
    made = api.Task(id=task_id, service_id=service, node_id=node_id, desired_state=S.RUNNING, status=status)
    made.spec.container.image = "busybox"
    return made


def service(service_id: str = "web") -> api.Service:
    """A service."""
    made = api.Service(id=service_id)
    made.spec.annotations.name = service_id
    return made


def line(task_id: str, text: str, at: float = 0.0, node_id: str = "n1", service: str = "web") -> api.LogMessage:
    """A line of a task; without a moment if `at` is 0."""
    context = api.LogContext(service_id=service, node_id=node_id, task_id=task_id)
    moment = times.timestamp(at) if at else None
    return api.LogMessage(context=context, timestamp=moment, stream=api.LogStream.LOG_STREAM_STDOUT, data=text.encode())


def texts(reader: Reader) -> list[str]:
    """The lines that a reader has, notes included."""
    return [message.data.decode() for batch in reader.messages for message in batch.messages]


class Publishing:
    """One PublishLogs call of a node: what it sends, and how it ended."""

    def __init__(self, broker: LogBrokerService, node_id: str) -> None:
        self._queue: asyncio.Queue[api.PublishLogsMessage | None] = asyncio.Queue()
        self._last_id = ""
        self.taken = 0
        self._task = asyncio.create_task(broker.PublishLogs(self._messages(), node(node_id)))

    async def _messages(self) -> AsyncIterator[api.PublishLogsMessage]:
        while (message := await self._queue.get()) is not None:
            self.taken += 1
            yield message

    def send(self, subscription_id: str, *lines: api.LogMessage, close: bool = False) -> None:
        """Queue a message."""
        self._last_id = subscription_id
        self._queue.put_nowait(api.PublishLogsMessage(subscription_id=subscription_id, messages=lines, close=close))

    def end(self) -> None:
        """The node has sent all it has."""
        self.send(self._last_id, close=True)

    def stop(self) -> None:
        """The messages end."""
        self._queue.put_nowait(None)

    async def cut(self) -> None:
        """The connection breaks."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    @property
    def ended(self) -> bool:
        """The call is over."""
        return self._task.done()

    @property
    def error(self) -> BaseException | None:
        """How it failed, None when it did not."""
        return self._task.exception()


def node(node_id: str) -> Caller:
    """What `rpc` passes for a node."""
    return Caller(node_id=node_id, organization="o", roles=(WORKER,))


class Harness:
    """A broker under test."""

    def __init__(self, store: Store, clock: VirtualClock) -> None:
        self.store = store
        self.clock = clock
        self.service = LogBrokerService(store, clock)
        self._open: list[Reader | Publishing] = []

    async def read(self, *, services: Any = (), nodes: Any = (), tasks: Any = (), follow: bool = False, tail: int = 0) -> Reader:
        """Open a subscription."""
        selector = api.LogSelector(service_ids=services, node_ids=nodes, task_ids=tasks)
        options = api.LogSubscriptionOptions(follow=follow, tail=tail)
        return await self.subscribe(api.SubscribeLogsRequest(selector=selector, options=options))

    async def subscribe(self, request: api.SubscribeLogsRequest) -> Reader:
        """Send a request as it is."""
        return await self._keep(Reader(self.service.SubscribeLogs(request, OPERATOR)))

    async def listen(self, node_id: str = "n1") -> Reader:
        """A node begins to listen."""
        return await self._keep(Reader(self.service.ListenSubscriptions(api.ListenSubscriptionsRequest(), node(node_id))))

    async def publish(self, subscription_id: str, *lines: api.LogMessage, node_id: str = "n1", close: bool = False) -> Publishing:
        """A node sends one message and keeps the call open."""
        publishing = Publishing(self.service, node_id)
        publishing.send(subscription_id, *lines, close=close)
        self._open.append(publishing)
        await settle()
        return publishing

    async def _keep(self, reader: Reader) -> Reader:
        self._open.append(reader)
        await settle()
        return reader

    async def close(self) -> None:
        """All go away."""
        for one in self._open:
            await (one.close() if isinstance(one, Reader) else one.cut())


@contextlib.asynccontextmanager
async def leading(store: Store, clock: VirtualClock) -> AsyncIterator[Harness]:
    """A broker at work for the length of a `with` block."""
    harness = Harness(store, clock)
    running = asyncio.create_task(harness.service.run())
    await settle()
    try:
        yield harness
    finally:
        await harness.close()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
