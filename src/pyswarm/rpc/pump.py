"""Sending a streamed request of which the answer may come first."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio


@contextlib.asynccontextmanager
async def pumping(call: Any, requests: AsyncIterator[bytes]) -> AsyncIterator[None]:
    """Send the messages meanwhile. No TaskGroup: an abandoned generator may be closed by another task than it began in."""
    pump = asyncio.create_task(_pump(call, requests))
    try:
        yield
    finally:
        pump.cancel()
        await asyncio.gather(pump, return_exceptions=True)


async def _pump(call: Any, requests: AsyncIterator[bytes]) -> None:
    # The call is over when it takes no more messages; whoever waits for its answer learns why.
    with contextlib.suppress(grpc.aio.AioRpcError, grpc.aio.InternalError, grpc.aio.UsageError, asyncio.InvalidStateError):
        await call.wait_for_connection()
        # Not the call's own write(): when that fails, because the other side has ended the call, it replaces the status by
        # INTERNAL "Internal error from Core" (grpc/grpc issue 36066).
        send = call._cython_call.send_serialized_message
        async for message in requests:
            await send(message)
        await call.done_writing()
