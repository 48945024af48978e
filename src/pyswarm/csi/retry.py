"""Work on volumes that goes on until it succeeds: one thing at a time per volume, volumes side by side, later and later after failures.

Plugins may refuse two calls for one volume at a time, and one that hangs must not hold up the volumes of the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from pyswarm.clock import Clock, wait_for
from pyswarm.errors import SwarmError

log = structlog.get_logger(__name__)

BASE_SECONDS = 0.1
LONGEST_SECONDS = 600.0
_LAST_DOUBLING = 13
AT_ONCE = 16


def delay(attempt: int) -> float:
    """Seconds before this attempt: none before the first (0), then 0.2, 0.4, ... up to ten minutes."""
    return min(BASE_SECONDS * 2 ** min(attempt, _LAST_DOUBLING), LONGEST_SECONDS) if attempt > 0 else 0.0


class RetryQueue:
    """When which key is due. Times are whatever the caller counts in."""

    def __init__(self) -> None:
        self._due: dict[str, tuple[float, int]] = {}

    def __len__(self) -> int:
        return len(self._due)

    def __contains__(self, key: str) -> bool:
        return key in self._due

    def put(self, key: str, attempt: int, now: float) -> None:
        """Enter a key; it replaces what was entered for it before, and its delay."""
        self._due[key] = (now + delay(attempt), attempt)

    def pop(self, now: float, ready: Callable[[str], bool] = lambda _: True) -> tuple[str, int] | None:
        """Take out the key that is due the longest, with its attempt; None when none is."""
        due = min(((at, key) for key, (at, _) in self._due.items() if at <= now and ready(key)), default=None)
        return (due[1], self._due.pop(due[1])[1]) if due is not None else None

    def next_due(self, ready: Callable[[str], bool] = lambda _: True) -> float | None:
        """When the next one is due; None when nothing waits."""
        return min((at for key, (at, _) in self._due.items() if ready(key)), default=None)


class Attendant:
    """Calls `handle(key)` for what was poked until it returns. It raises SwarmError to be called again later. Run `run`."""

    def __init__(self, what: str, handle: Callable[[str], Awaitable[None]], clock: Clock, *, at_once: int = AT_ONCE) -> None:
        self._what = what
        self._handle = handle
        self._clock = clock
        self._at_once = at_once
        self._queue = RetryQueue()
        self._busy: set[str] = set()
        self._changed = asyncio.Event()

    @property
    def idle(self) -> bool:
        """Nothing is being done or waits to be."""
        return not self._busy and not len(self._queue)

    def poke(self, key: str) -> None:
        """Something changed about the key: handle it now, or again as soon as it is no longer being handled."""
        self._queue.put(key, 0, self._clock.monotonic())
        self._changed.set()

    async def run(self) -> None:
        """Until cancelled; what is being handled then is cancelled too."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._changed.clear()
                now = self._clock.monotonic()
                while len(self._busy) < self._at_once and (found := self._queue.pop(now, self._free)) is not None:
                    self._busy.add(found[0])
                    group.create_task(self._serve(*found), name=f"{self._what} {found[0]}")
                due = self._queue.next_due(self._free) if len(self._busy) < self._at_once else None
                await wait_for(self._changed, self._clock, None if due is None else max(0.0, due - now))

    async def _serve(self, key: str, attempt: int) -> None:
        again = True
        try:
            await self._handle(key)
            again = False
        except SwarmError as error:
            log.warning("volume not attended to yet", what=self._what, volume=key, attempt=attempt, error=error.message)
        except Exception as error:
            # A supervisor: one volume that confuses us must not stop the others.
            log.error("volume not attended to", what=self._what, volume=key, attempt=attempt, exc_info=error)
        finally:
            self._busy.discard(key)
            if again and key not in self._queue:
                self._queue.put(key, attempt + 1, self._clock.monotonic())
            self._changed.set()

    def _free(self, key: str) -> bool:
        return key not in self._busy
