"""A clock that moves only when told."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable

from pyswarm.clock import Timer


class _Alarm:
    """A call to come; see clock.Timer."""

    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        """Do not call."""
        self.callback = None


class VirtualClock:
    """Wall and monotonic time in one number; `advance` wakes sleepers in order and lets the loop settle between them."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self._now = now
        self._order = 0
        self._alarms: list[tuple[float, int, _Alarm]] = []

    def now(self) -> float:
        """Virtual seconds since the epoch."""
        return self._now

    def monotonic(self) -> float:
        """The same number: it never steps back."""
        return self._now

    async def sleep(self, seconds: float) -> None:
        """Wait for `advance` to pass the moment."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        alarm = self.call_later(seconds, lambda: None if woken.done() else woken.set_result(None))
        try:
            await woken
        finally:
            alarm.cancel()

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """When `advance` passes the moment; through the loop when that is now."""
        alarm = _Alarm(callback)
        if seconds <= 0:
            asyncio.get_running_loop().call_soon(_ring, alarm)
        else:
            self._order += 1
            heapq.heappush(self._alarms, (self._now + seconds, self._order, alarm))
        return alarm

    @property
    def sleeping(self) -> int:
        """How many wait for a moment to come."""
        return sum(alarm.callback is not None for _, _, alarm in self._alarms)

    def ring_all(self) -> None:
        """Call back everybody whose moment has come."""
        while self._alarms and self._alarms[0][0] <= self._now:
            _ring(heapq.heappop(self._alarms)[2])

    async def advance(self, seconds: float) -> None:
        """Move time on, stopping at each sleeper's moment on the way."""
        end = self._now + seconds
        await settle()
        while self._alarms and self._alarms[0][0] <= end:
            at, _, alarm = heapq.heappop(self._alarms)
            self._now = max(self._now, at)
            if alarm.callback is not None:
                _ring(alarm)
                await settle()
        self._now = end
        await settle()


def _ring(alarm: _Alarm) -> None:
    callback, alarm.callback = alarm.callback, None
    if callback is not None:
        callback()


async def settle(rounds: int = 50) -> None:
    """Let everything that can run without time passing run."""
    for _ in range(rounds):
        await asyncio.sleep(0)
