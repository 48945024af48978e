"""When work on volumes is tried again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from pyswarm.csi.retry import Attendant, RetryQueue, delay
from pyswarm.errors import Unavailable
from tests.support.clock import VirtualClock, settle


@pytest.mark.parametrize(("attempt", "seconds"), [(0, 0.0), (1, 0.2), (2, 0.4), (12, 409.6), (13, 600.0), (37, 600.0), (100, 600.0)])
def test_delays(attempt: int, seconds: float) -> None:
    """Doubled from 200 ms on, ten minutes at most, for ever. [scheduling 131; dispatcher 149]"""
    assert delay(attempt) == seconds


def test_order() -> None:
    """What was never tried comes first, then earlier attempts; a key entered again replaces its entry. [scheduling 131; dispatcher 149]"""
    queue = RetryQueue()
    for key, attempt in (("4", 2), ("3", 1), ("1", 5), ("2", 0), ("1", 0)):
        queue.put(key, attempt, 100.0)
    assert {queue.pop(100.0), queue.pop(100.0)} == {("1", 0), ("2", 0)}
    assert queue.pop(100.0) is None
    assert queue.next_due() == 100.2
    assert queue.pop(100.2) == ("3", 1)
    assert queue.pop(100.3) is None
    assert queue.pop(100.4) == ("4", 2)
    assert queue.next_due() is None


class Work:
    """An attendant whose handling fails as often as `failures` says, and waits for `gate` where there is one."""

    def __init__(self, clock: VirtualClock) -> None:
        self.calls: list[tuple[str, float]] = []
        self.failures: dict[str, int] = {}
        self.gates: dict[str, asyncio.Event] = {}
        self.error: Exception = Unavailable("down")
        self.attendant = Attendant("test", self.handle, clock, at_once=2)
        self._clock = clock
        self._begun = clock.now()

    async def handle(self, key: str) -> None:
        """One attempt."""
        self.calls.append((key, round(self._clock.now() - self._begun, 3)))
        if key in self.gates:
            await self.gates[key].wait()
        if self.failures.get(key, 0):
            self.failures[key] -= 1
            raise self.error

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Work]:
        """Run the attendant for the time of the block."""
        running = asyncio.create_task(self.attendant.run())
        try:
            yield self
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("error", [Unavailable("down"), RuntimeError("a bug")])
async def test_failures_are_tried_again(clock: VirtualClock, error: Exception) -> None:
    """After 200 ms, 400 ms and so on until it works, whatever was wrong; then no more."""
    work = Work(clock)
    work.error, work.failures = error, {"v": 2}
    async with work.running():
        work.attendant.poke("v")
        await clock.advance(3600)
        assert work.calls == [("v", 0.0), ("v", 0.2), ("v", 0.6)]
        assert work.attendant.idle


async def test_news_end_the_pause(clock: VirtualClock) -> None:
    """A poke tries again at once and begins the delays anew."""
    work = Work(clock)
    work.failures = {"v": 4}
    async with work.running():
        work.attendant.poke("v")
        await clock.advance(0.7)
        work.attendant.poke("v")
        await clock.advance(0.3)
        assert work.calls == [("v", 0.0), ("v", 0.2), ("v", 0.6), ("v", 0.7), ("v", 0.9)]


async def test_one_at_a_time_per_key_beside_others(clock: VirtualClock) -> None:
    """A volume that hangs is handled once, and again afterwards if it was poked meanwhile; others go on beside it, a few at a time."""
    work = Work(clock)
    work.gates = {"a": asyncio.Event(), "b": asyncio.Event()}
    async with work.running():
        for key in ("a", "a", "b", "c"):
            work.attendant.poke(key)
        await settle()
        work.attendant.poke("a")
        await settle()
        assert [key for key, _ in work.calls] == ["a", "b"]
        work.gates.pop("b").set()
        await settle()
        assert [key for key, _ in work.calls] == ["a", "b", "c"]
        work.gates.pop("a").set()
        await settle()
        assert [key for key, _ in work.calls] == ["a", "b", "c", "a"]
        assert work.attendant.idle
