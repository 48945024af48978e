"""Waiting and retrying on the agent's clock."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from typing import Any, TypeVar

from pyswarm.clock import Clock
from pyswarm.errors import DeadlineExceeded

R = TypeVar("R")

SESSION_BASE, SESSION_CAP = 0.1, 8.0
REMOVED_SECONDS = 60.0
"""The greatest delay for a node that the cluster has removed: it is never wanted back, but its operator should see why in the log."""
TASK_BASE, TASK_CAP = 1.0, 30.0


async def within(clock: Clock, seconds: float, work: Coroutine[Any, Any, R], late: str) -> R:
    """The result of `work`, or DeadlineExceeded with the text `late` after `seconds`; `work` is cancelled then and has ended on return."""
    working = asyncio.ensure_future(work)
    timer = asyncio.ensure_future(clock.sleep(seconds))
    try:
        await asyncio.wait({working, timer}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise DeadlineExceeded(late)
        return working.result()
    finally:
        working.cancel()
        timer.cancel()
        await asyncio.gather(working, timer, return_exceptions=True)


def next_session_bound(bound: float) -> float:
    """The greatest delay before the next attempt at a session: 0.1, 0.3, 0.7, 1.5, 3.1, 6.3, 8, 8 ... seconds."""
    return min(SESSION_BASE + 2 * bound, SESSION_CAP)


def task_delay(failures: int, rng: random.Random) -> float:
    """Seconds before a task's operation is tried again after so many passing failures: about 1, 2, 4 ... 30, never twice the same."""
    bound = min(TASK_BASE * 2.0 ** min(failures - 1, 10), TASK_CAP)
    return bound * (0.5 + 0.5 * rng.random())
