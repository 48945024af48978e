"""One session with a manager: opened by its first message, then six loops that live and end together.

Spec: spec/dispatcher-agent-node, section 18.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Protocol

import structlog

from pyswarm.agent import plan
from pyswarm.agent.client import DispatcherClient
from pyswarm.agent.logs import LogPublisher
from pyswarm.agent.reporter import Reporter
from pyswarm.agent.timing import within
from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.clock import Clock
from pyswarm.errors import Internal, SwarmError, Unavailable, Unimplemented

log = structlog.get_logger(__name__)

RPC_SECONDS = 5.0


class Listener(Protocol):
    """Who is told what the manager says. Neither method may block."""

    def on_session_message(self, message: api.SessionMessage) -> None:
        """News of the node, the managers, keys, the root."""
        ...

    def on_assignments(self, message: api.AssignmentsMessage) -> None:
        """Tasks, secrets, configs, volumes; in order and without gaps within a session, beginning with a complete message."""
        ...


class Session:
    """Made by `open_session`; whoever has one must `serve` it, which also closes the connection."""

    def __init__(
        self,
        client: DispatcherClient,
        stream: AsyncGenerator[api.SessionMessage, None],
        first: api.SessionMessage,
        clock: Clock,
    ) -> None:
        self.id = first.session_id
        self.superseded = False
        """Set before a planned end: the manager is not to blame for it."""
        self._client = client
        self._stream = stream
        self._first = first
        self._clock = clock

    async def serve(self, listener: Listener, reporter: Reporter, logs: LogPublisher) -> SwarmError:
        """Keep the session until it fails; returns why. Cancel to end it."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._beat())
                group.create_task(self._receive(listener))
                group.create_task(self._assignments(listener))
                group.create_task(reporter.serve(self._client, self.id))
                group.create_task(logs.serve(self._client))
        except ExceptionGroup as errors:
            return _reason(errors)
        finally:
            await self._stream.aclose()
            await self._client.close(self.superseded)
        return Unavailable("session ended")  # not reached: the loops end only with an error

    async def _beat(self) -> None:
        while True:
            request = api.HeartbeatRequest(session_id=self.id)
            answer = await within(self._clock, RPC_SECONDS, self._client.heartbeat(request), "heartbeat timed out")
            await self._clock.sleep(times.seconds_of(answer.period))

    async def _receive(self, listener: Listener) -> None:
        listener.on_session_message(self._first)
        async for message in self._stream:
            listener.on_session_message(message)
        raise Unavailable("session stream ended")

    async def _assignments(self, listener: Listener) -> None:
        try:
            while True:
                await self._follow(listener)
        except Unimplemented:
            log.info("manager has no assignments stream, using its task lists")
        async with contextlib.aclosing(self._client.tasks(api.TasksRequest(session_id=self.id))) as stream:
            async for message in stream:
                listener.on_assignments(plan.from_task_list(message))
        raise Unavailable("task stream ended")

    async def _follow(self, listener: Listener) -> None:
        """Pass assignments on until one does not follow from the last; that one is dropped, and a new stream begins completely."""
        latest: str | None = None
        async with contextlib.aclosing(self._client.assignments(api.AssignmentsRequest(session_id=self.id))) as stream:
            async for message in stream:
                if message.type != api.AssignmentsMessage.COMPLETE and message.applies_to != latest:
                    if latest is None:
                        raise Internal("assignments do not begin with a complete message")
                    log.warning("assignments have a gap, starting over", expected=latest, got=message.applies_to)
                    return
                latest = message.results_in
                listener.on_assignments(message)
        raise Unavailable("assignments stream ended")


async def open_session(client: DispatcherClient, request: api.SessionRequest, clock: Clock) -> Session:
    """Register or resume; returns with the manager's first message. The client is closed if that fails.

    Raises SwarmError; DeadlineExceeded when the manager does not answer within five seconds.
    """
    stream = client.session(request)
    opened = False
    try:
        first = await within(clock, RPC_SECONDS, _next(stream), "session initiation timed out")
        opened = True
        return Session(client, stream, first, clock)
    finally:
        if not opened:
            await stream.aclose()
            await client.close(False)


async def _next(stream: AsyncGenerator[api.SessionMessage, None]) -> api.SessionMessage:
    try:
        return await anext(stream)
    except StopAsyncIteration:
        raise Unavailable("session ended before its first message") from None


def _reason(errors: ExceptionGroup[Exception]) -> SwarmError:
    """Why the loops ended. Anything but a SwarmError is a fault of ours: logged, and cured by a new session."""
    expected, unexpected = errors.split(SwarmError)
    if unexpected is not None:
        log.error("session loop failed", exc_info=unexpected)
    found: Exception = expected or errors
    while isinstance(found, ExceptionGroup):
        found = found.exceptions[0]
    return found if isinstance(found, SwarmError) else Internal(f"session loop failed: {found}")
