"""The service `pyswarm.v1.Why`: a current read, then the walk, a slice of time after the other."""

from __future__ import annotations

import asyncio

from pyswarm.api.private import why_pb2 as pb
from pyswarm.clock import Clock
from pyswarm.errors import InvalidArgument
from pyswarm.manager.dispatcher.config import Config
from pyswarm.manager.store import Store
from pyswarm.manager.why import walk
from pyswarm.manager.why.nodes import R, Walk
from pyswarm.raft.log import Log
from pyswarm.rpc.caller import Caller

SLICE_SECONDS = 0.01
"""How long an explanation may hold the event loop at a time."""

ORPHAN_AFTER = Config().orphan_after


class WhyService:
    """One coroutine per RPC."""

    def __init__(self, store: Store, log: Log, clock: Clock, *, orphan_after: float = ORPHAN_AFTER) -> None:
        """`orphan_after`: seconds after which the dispatcher gives up tasks on a node that is away."""
        self._store = store
        self._log = log
        self._clock = clock
        self._orphan_after = orphan_after

    async def Explain(self, request: pb.ExplainRequest, _caller: Caller) -> pb.ExplainResponse:  # noqa: N802
        """Why a task, or what of a service, is not where it should be. Raises NotFound, InvalidArgument, LostLeadership."""
        if not request.task_id and not request.service_id:
            raise InvalidArgument("a task or a service must be named by its id")
        await self._log.read_barrier()
        gathered = walk.Gathered(self._store, self._clock.now(), self._orphan_after)
        if request.task_id:
            return await self._in_slices(walk.explain_task(gathered, request.task_id))
        match request.WhichOneof("place"):
            case "slot":
                return await self._in_slices(walk.explain_place(gathered, request.service_id, request.slot))
            case "node_id":
                return await self._in_slices(walk.explain_place(gathered, request.service_id, request.node_id))
        return await self._in_slices(walk.explain_service(gathered, request.service_id))

    async def _in_slices(self, work: Walk[R]) -> R:
        started = self._clock.monotonic()
        while True:
            try:
                next(work)
            except StopIteration as done:
                result: R = done.value
                return result
            if self._clock.monotonic() - started > SLICE_SECONDS:
                await asyncio.sleep(0)
                started = self._clock.monotonic()
