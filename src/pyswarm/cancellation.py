"""A task that was told to stop, and calls that may lose that word.

grpcio swallows a cancellation that comes while the other side ends the call: the caller sees the call's own end instead, an error mostly,
and whoever answers errors by trying again would go on for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator


def told_to_stop() -> bool:
    """Whether the task that asks was cancelled: what ends it is then no cancellation of something that it waited for."""
    return _count() > 0


@contextlib.contextmanager
def heeded() -> Iterator[None]:
    """Around a gRPC call: if its task is cancelled meanwhile, that is how the block ends, whatever became of the call."""
    before, task = _count(), asyncio.current_task()
    try:
        yield
    except Exception as error:
        if asyncio.current_task() is task and _count() > before:
            raise asyncio.CancelledError from error
        raise
    if asyncio.current_task() is task and _count() > before:
        raise asyncio.CancelledError


def _count() -> int:
    task = asyncio.current_task()
    return task.cancelling() if task is not None else 0
