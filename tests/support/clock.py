"""A clock that moves only when told."""

from __future__ import annotations

import asyncio
import heapq


class VirtualClock:
    """Wall and monotonic time in one number; `advance` wakes sleepers in order and lets the loop settle between them."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self._now = now
        self._order = 0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

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
        self._order += 1
        heapq.heappush(self._sleepers, (self._now + seconds, self._order, woken))
        await woken

    @property
    def sleeping(self) -> int:
        """How many wait for a moment to come."""
        return sum(not woken.done() for _, _, woken in self._sleepers)

    async def advance(self, seconds: float) -> None:
        """Move time on, stopping at each sleeper's moment on the way."""
        end = self._now + seconds
        await settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            at, _, woken = heapq.heappop(self._sleepers)
            self._now = max(self._now, at)
            if not woken.done():
                woken.set_result(None)
                await settle()
        self._now = end
        await settle()


async def settle(rounds: int = 50) -> None:
    """Let everything that can run without time passing run."""
    for _ in range(rounds):
        await asyncio.sleep(0)
