"""The one source of time (design rule 5).

Components take a `Clock` and ask it; nothing else in pyswarm reads the system's clocks. Tests and the simulation pass their own.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Protocol


class Clock(Protocol):
    """Wall time for what is stored, monotonic time for spans, and sleeping."""

    def now(self) -> float:
        """Seconds since the Unix epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds of a clock that never steps back; only differences mean anything."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`; at once, but through the loop, when not positive."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> float:
        """Seconds since the Unix epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds of CLOCK_MONOTONIC."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """asyncio.sleep, kept behind the interface."""
        await asyncio.sleep(max(0.0, seconds))


async def wait_for(event: asyncio.Event, clock: Clock, seconds: float | None, *, until: asyncio.Event | None = None) -> bool:
    """Wait until the event is set, at most `seconds` (None: without limit), or until `until` is. Whether the event is set."""
    if event.is_set() or (seconds is None and until is None):
        await event.wait()
        return True
    waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(event.wait())]
    if seconds is not None:
        waits.append(asyncio.ensure_future(clock.sleep(seconds)))
    if until is not None:
        waits.append(asyncio.ensure_future(until.wait()))
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
    return event.is_set()


BUSY_SECONDS = 0.005
TURNS = 6


async def give_way(clock: Clock, since: float) -> None:
    """Call after work that went on since `since` (monotonic): when it was long, everybody else gets some turns of the loop.

    One is not enough. What comes from the network passes from callback to callback, a turn each; with work in between at every turn, a call
    that needs a millisecond would be answered after a second.
    """
    if clock.monotonic() - since > BUSY_SECONDS:
        for _ in range(TURNS):
            await asyncio.sleep(0)
