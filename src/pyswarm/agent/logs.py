"""What this node's tasks write, for whoever asks through the manager (spec/dispatcher-agent-node, section 25).

A subscription lives as long as the stream that announced it: with a new one the manager says what is still wanted, and from where on.
Nothing is dropped here and little is kept: a reader takes its next line when there is room, and there is room when the manager takes more.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from typing import Any, Protocol

import structlog

from pyswarm.agent.executor import ExecutorError
from pyswarm.agent.timing import next_session_bound
from pyswarm.api import v1 as api
from pyswarm.clock import Clock
from pyswarm.errors import SwarmError, Unimplemented

log = structlog.get_logger(__name__)

BATCH_BYTES = 64 * 1024
"""Bytes of lines that go in one message, and that wait for the next one."""

PIECE_BYTES = 1024 * 1024
"""A longer line goes in pieces: managers take messages of up to 4 MiB."""

STARTED = api.TaskState.STARTING
"""From this state on a task may have output."""


class Source(Protocol):
    """A task on this node."""

    @property
    def task(self) -> api.Task:
        """As it is now; read only."""
        ...

    def logs(self, options: api.LogSubscriptionOptions) -> AsyncGenerator[api.LogMessage, None]:
        """As `executor.Controller.logs`."""
        ...


class Sources(Protocol):
    """All of them: `worker.Worker`."""

    def sources(self) -> Iterable[Source]:
        """The tasks there are now, those being removed included."""
        ...

    def on_source(self, callback: Callable[[Source], None]) -> Callable[[], None]:
        """Call back for each task that appears or changes its state. Returns undo."""
        ...


class LogClient(Protocol):
    """The part of a manager that this module talks to. Both raise SwarmError."""

    def subscriptions(self, request: api.ListenSubscriptionsRequest) -> AsyncGenerator[api.SubscriptionMessage, None]:
        """What is asked of this node."""
        ...

    async def publish_logs(self, messages: AsyncGenerator[api.PublishLogsMessage, None]) -> api.PublishLogsResponse:
        """Send until the messages end, or the manager wants no more."""
        ...


def matches(selector: api.LogSelector, task: api.Task) -> bool:
    """Whether a subscription means a task."""
    return task.id in selector.task_ids or task.service_id in selector.service_ids or task.node_id in selector.node_ids


def pieces(message: api.LogMessage, size: int = PIECE_BYTES) -> list[api.LogMessage]:
    """The message, or several with a part of its data each."""
    if len(message.data) <= size:
        return [message]
    made = []
    for at in range(0, len(message.data), size):
        part = api.LogMessage()
        part.CopyFrom(message)
        part.data = message.data[at : at + size]
        made.append(part)
    return made


class LogPublisher:
    """Serves the subscriptions of a session."""

    def __init__(self, sources: Sources, clock: Clock) -> None:
        self._sources = sources
        self._clock = clock

    async def serve(self, client: LogClient) -> None:
        """Listen for subscriptions and publish, until cancelled. Trouble with logs ends no session: it is tried again.

        Returns when the manager knows nothing of logs.
        """
        bound = 0.0
        while True:
            began = self._clock.monotonic()
            try:
                await self._listen(client)
            except Unimplemented:
                log.info("manager has no log broker")
                return
            except SwarmError as error:
                log.debug("not listening for log subscriptions", error=str(error))
            bound = next_session_bound(bound if self._clock.monotonic() - began < bound else 0.0)
            # Not scattered: the sessions of all nodes, within which this is done, are.
            await self._clock.sleep(bound)

    async def _listen(self, client: LogClient) -> None:
        running: dict[str, asyncio.Task[None]] = {}
        try:
            async with contextlib.aclosing(client.subscriptions(api.ListenSubscriptionsRequest())) as stream:
                async for message in stream:
                    known = running.get(message.id)
                    if message.close:
                        if known is not None:
                            known.cancel()
                    elif known is None or known.done():
                        running = {told: task for told, task in running.items() if not task.done()}
                        running[message.id] = asyncio.create_task(_guarded(self._publish(client, message)), name=f"logs {message.id}")
        finally:
            for task in running.values():
                task.cancel()
            await asyncio.gather(*running.values(), return_exceptions=True)

    async def _publish(self, client: LogClient, message: api.SubscriptionMessage) -> None:
        """Serve one subscription to its end. Whatever goes wrong concerns nobody else."""
        feed = Feed(message.id)
        reading = asyncio.create_task(self._read_all(message, feed), name=f"reading logs {message.id}")
        try:
            await client.publish_logs(feed.messages())
        except SwarmError as error:
            log.info("logs not published to the end", subscription=message.id, error=str(error))
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _read_all(self, subscription: api.SubscriptionMessage, feed: Feed) -> None:
        """Read every task that the subscription means; when following, also those that start later."""
        seen: weakref.WeakSet[Source] = weakref.WeakSet()
        try:
            async with asyncio.TaskGroup() as group:

                def take(source: Source, options: api.LogSubscriptionOptions) -> None:
                    task = source.task
                    if source not in seen and task.status.state >= STARTED and matches(subscription.selector, task):
                        seen.add(source)
                        group.create_task(_guarded(_read(source, options, feed)))

                for source in self._sources.sources():
                    take(source, subscription.options)
                if subscription.options.follow:
                    later = _from_the_start(subscription.options)
                    undo = self._sources.on_source(lambda source: take(source, later))
                    try:
                        await asyncio.Event().wait()
                    finally:
                        undo()
        finally:
            feed.finish()


class Feed:
    """Lines on their way into one stream, gathered into messages of a moderate size."""

    def __init__(self, subscription_id: str) -> None:
        self._id = subscription_id
        self._waiting: deque[api.LogMessage] = deque()
        self._size = 0
        self._finished = False
        self._room = asyncio.Event()
        self._filled = asyncio.Event()

    async def put(self, message: api.LogMessage) -> None:
        """Append a line once there is room."""
        for piece in pieces(message):
            while self._size >= BATCH_BYTES:
                self._room.clear()
                await self._room.wait()
            self._waiting.append(piece)
            self._size += piece.ByteSize()
            self._filled.set()

    def finish(self) -> None:
        """No more lines come."""
        self._finished = True
        self._filled.set()

    async def messages(self) -> AsyncGenerator[api.PublishLogsMessage, None]:
        """What to send. The first message has no lines: it only shows whether the subscription is still there. The last one closes it."""
        yield api.PublishLogsMessage(subscription_id=self._id)
        while True:
            while not self._waiting and not self._finished:
                self._filled.clear()
                await self._filled.wait()
            if not self._waiting:
                break
            batch = list(self._waiting)
            self._waiting.clear()
            self._size = 0
            self._room.set()
            yield api.PublishLogsMessage(subscription_id=self._id, messages=batch)
        yield api.PublishLogsMessage(subscription_id=self._id, close=True)


async def _read(source: Source, options: api.LogSubscriptionOptions, feed: Feed) -> None:
    """One task's lines. An executor that cannot read them costs the reader these lines only."""
    try:
        async with contextlib.aclosing(source.logs(options)) as lines:
            async for line in lines:
                await feed.put(line)
    except ExecutorError as error:
        log.warning("task's logs not read", task=source.task.id, error=str(error))


async def _guarded(work: Coroutine[Any, Any, None]) -> None:
    """A fault in one reader or subscription must not end the others."""
    try:
        await work
    except Exception as error:
        log.error("publishing logs failed", exc_info=error)


def _from_the_start(options: api.LogSubscriptionOptions) -> api.LogSubscriptionOptions:
    """For a task that starts while it is followed: nothing it writes is past."""
    later = api.LogSubscriptionOptions()
    later.CopyFrom(options)
    later.tail = 0
    return later
