"""The Dispatcher service: six calls and the leadership they need (spec/dispatcher-agent-node, sections 3 to 10)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, TypeVar

import structlog

from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.clock import Clock
from pyswarm.errors import Aborted, Unknown
from pyswarm.manager.dispatcher import statuses
from pyswarm.manager.dispatcher.assignments import Assignments
from pyswarm.manager.dispatcher.config import Config
from pyswarm.manager.dispatcher.leadership import Leadership
from pyswarm.manager.dispatcher.streams import BatchedStream, Feed, SessionStream
from pyswarm.manager.dispatcher.tasklist import TaskList
from pyswarm.manager.store import Store
from pyswarm.raft.log import Log
from pyswarm.rpc.caller import Caller

log = structlog.get_logger(__name__)
R = TypeVar("R")
M = TypeVar("M")


class DispatcherService:
    """Registered on every manager, at work on the leader. Method names are the proto's."""

    def __init__(self, store: Store, raft: Log, clock: Clock, *, node_id: str, rng: random.Random, config: Config | None = None) -> None:
        """`node_id` is this manager's; it signs the statuses it applies."""
        self._store = store
        self._raft = raft
        self._clock = clock
        self._node_id = node_id
        self._rng = rng
        self._config = config or Config()
        self._leadership: Leadership | None = None
        self._lost = asyncio.Event()
        self._running = False

    async def run(self) -> None:
        """Serve as the leader's dispatcher until cancelled. Calls are refused before and after. Raises Unknown when it runs already.

        On the way out every stream is told to end; none of them is waited for, so a slow client cannot delay stepping down.
        """
        if self._running:
            raise Unknown("dispatcher is already running")
        self._running = True
        self._lost = asyncio.Event()
        leadership = Leadership(self._store, self._raft, self._clock, self._node_id, self._rng, self._config)
        try:
            await leadership.take_over()
            self._leadership = leadership
            await leadership.serve()
        finally:
            self._leadership = None
            self._running = False
            self._lost.set()

    async def Session(self, request: api.SessionRequest, caller: Caller) -> AsyncGenerator[api.SessionMessage, None]:  # noqa: N802
        """Register or resume, then send the full picture now and after every change of it."""
        leadership = self._leading()
        session_id = await self._while_leading(leadership.open_session(request, caller))
        leadership.registry.check(caller.node_id, session_id)
        node = self._store.nodes.get(caller.node_id)
        if node is None:
            raise Unknown("node not found")
        with SessionStream(leadership.streams, caller.node_id, session_id, node) as stream:
            while True:
                yield leadership.session_message(session_id, await stream.next(), caller.remote_addr)

    async def Heartbeat(self, request: api.HeartbeatRequest, caller: Caller) -> api.HeartbeatResponse:  # noqa: N802
        """A sign of life; answers how many seconds later the next one is wanted. Never waits for the store."""
        period = self._leading().beat(caller.node_id, request.session_id)
        return api.HeartbeatResponse(period=times.duration(period))

    async def UpdateTaskStatus(  # noqa: N802
        self, request: api.UpdateTaskStatusRequest, caller: Caller
    ) -> api.UpdateTaskStatusResponse:
        """Take in what became of tasks. Answers before it is written; an agent repeats everything to a new leader."""
        leadership = self._leading()
        leadership.registry.check(caller.node_id, request.session_id)
        leadership.add_task_reports(statuses.accepted(self._store, caller.node_id, request))
        await leadership.join_crowd()
        return api.UpdateTaskStatusResponse()

    async def UpdateVolumeStatus(  # noqa: N802
        self, request: api.UpdateVolumeStatusRequest, caller: Caller
    ) -> api.UpdateVolumeStatusResponse:
        """Take in which volumes the node no longer uses."""
        leadership = self._leading()
        leadership.registry.check(caller.node_id, request.session_id)
        released = [statuses.VolumeReport(update.id, caller.node_id) for update in request.updates if update.unpublished]
        leadership.add_volume_reports(released)
        return api.UpdateVolumeStatusResponse()

    async def Assignments(  # noqa: N802
        self, request: api.AssignmentsRequest, caller: Caller
    ) -> AsyncGenerator[api.AssignmentsMessage, None]:
        """What the node has to run, completely at first, then change by change."""
        with self._batched(caller.node_id, request.session_id, Assignments(caller.node_id)) as stream:
            yield stream.start()
            while True:
                yield await stream.next()

    async def Tasks(self, request: api.TasksRequest, caller: Caller) -> AsyncGenerator[api.TasksMessage, None]:  # noqa: N802
        """The same for agents of old: the whole list of tasks every time."""
        with self._batched(caller.node_id, request.session_id, TaskList(caller.node_id)) as stream:
            yield stream.start()
            while True:
                yield await stream.next()

    def _batched(self, node_id: str, session_id: str, feed: Feed[M]) -> BatchedStream[M]:
        leadership = self._leading()
        leadership.registry.check(node_id, session_id)
        return BatchedStream(leadership.streams, node_id, session_id, feed)

    def _leading(self) -> Leadership:
        if self._leadership is None:
            raise Aborted("dispatcher is stopped")
        return self._leadership

    async def _while_leading(self, work: Coroutine[Any, Any, R]) -> R:
        """The result of `work`, unless leadership ends first: a write may hang then, and its caller must look elsewhere."""
        working, lost = asyncio.ensure_future(work), asyncio.ensure_future(self._lost.wait())
        try:
            await asyncio.wait({working, lost}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
            raise Aborted("dispatcher is stopped")
        finally:
            for future in (working, lost):
                future.cancel()
            await asyncio.gather(working, lost, return_exceptions=True)
