"""The one source of time (design rule 5).

Components take a `Clock` and ask it; nothing else in pyswarm reads the system's clocks. Tests and the simulation pass their own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

_NOW = float("-inf")


class Timer(Protocol):
    """A call that is still to come."""

    def cancel(self) -> None:
        """Do not call. Without effect afterwards."""
        ...


class Clock(Protocol):
    """Wall time for what is stored, monotonic time for spans, sleeping and being called."""

    def now(self) -> float:
        """Seconds since the Unix epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds of a clock that never steps back; only differences mean anything."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`; at once, but through the loop, when not positive."""
        ...

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Have the event loop call back after `seconds`, or as soon as it can when not positive."""
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

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """loop.call_later, kept behind the interface."""
        return asyncio.get_running_loop().call_later(seconds, callback)


async def wait_for(event: asyncio.Event, clock: Clock, seconds: float | None, *, until: asyncio.Event | None = None) -> bool:
    """Wait until the event is set, at most `seconds` (None: without limit), or until `until` is. Whether the event is set.

    Everybody who waits for something or a moment waits here, so it makes no task but for `until`.
    """
    if event.is_set() or (seconds is None and until is None):
        await event.wait()
        return True
    try:
        async with asyncio.timeout(None) as limit:

            def enough() -> None:
                if not limit.expired():
                    limit.reschedule(_NOW)

            timer = clock.call_later(seconds, enough) if seconds is not None else None
            try:
                await (event.wait() if until is None else _wait_until(event, until, enough))
            finally:
                if timer is not None:
                    timer.cancel()
    except TimeoutError:
        pass
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


async def _wait_until(event: asyncio.Event, other: asyncio.Event, enough: Callable[[], None]) -> None:
    watch = asyncio.ensure_future(other.wait())
    watch.add_done_callback(lambda _: None if watch.cancelled() else enough())
    try:
        await event.wait()
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
