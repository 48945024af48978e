"""Waiting for an event and a moment at once."""

from __future__ import annotations

import asyncio

import pytest

from pyswarm.clock import SystemClock, wait_for
from tests.support.clock import VirtualClock, settle


@pytest.fixture
def clock() -> VirtualClock:
    """Stands still."""
    return VirtualClock()


async def test_event_comes_first(clock: VirtualClock) -> None:
    """An event within the time is seen at once, and nothing is left of the wait."""
    event = asyncio.Event()
    waiting = asyncio.create_task(wait_for(event, clock, 5.0))
    await clock.advance(4.0)
    assert not waiting.done()
    event.set()
    assert await waiting
    assert clock.sleeping == 0


@pytest.mark.parametrize("seconds", [5.0, 0.0, -1.0])
async def test_time_is_up(clock: VirtualClock, seconds: float) -> None:
    """Without the event the wait ends with its time, which may be none."""
    event = asyncio.Event()
    waiting = asyncio.create_task(wait_for(event, clock, seconds))
    await clock.advance(max(0.0, seconds) - 0.1)
    assert waiting.done() == (seconds <= 0)
    await clock.advance(0.1)
    assert not await waiting


async def test_both_at_once(clock: VirtualClock) -> None:
    """An event of the very moment in which the time is up counts."""
    event = asyncio.Event()
    waiting = asyncio.create_task(wait_for(event, clock, 5.0))
    clock.call_later(5.0, event.set)
    await clock.advance(5.0)
    assert await waiting


@pytest.mark.parametrize("seconds", [None, 5.0])
async def test_until_something_else(clock: VirtualClock, seconds: float | None) -> None:
    """The other event ends the wait, too; it is not the one that was waited for."""
    event, other = asyncio.Event(), asyncio.Event()
    waiting = asyncio.create_task(wait_for(event, clock, seconds, until=other))
    await settle()
    assert not waiting.done()
    other.set()
    assert not await waiting
    assert clock.sleeping == 0


async def test_all_at_once(clock: VirtualClock) -> None:
    """Event, other event and moment may come together."""
    event, other = asyncio.Event(), asyncio.Event()
    waiting = asyncio.create_task(wait_for(event, clock, 5.0, until=other))
    clock.call_later(5.0, event.set)
    clock.call_later(5.0, other.set)
    await clock.advance(5.0)
    assert await waiting


async def test_is_set_already(clock: VirtualClock) -> None:
    """What has happened needs no wait."""
    event = asyncio.Event()
    event.set()
    assert await wait_for(event, clock, 0.0)


@pytest.mark.parametrize("with_other", [False, True])
async def test_cancelled(clock: VirtualClock, with_other: bool) -> None:
    """Who waits can be cancelled, also in the moment in which the time is up, and leaves nothing behind."""
    event, other = asyncio.Event(), asyncio.Event() if with_other else None
    waiting = asyncio.create_task(wait_for(event, clock, 5.0, until=other))
    clock.call_later(5.0, waiting.cancel)
    await clock.advance(5.0)
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert clock.sleeping == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_in_real_time() -> None:
    """The machine's clock calls back, too."""
    assert not await wait_for(asyncio.Event(), SystemClock(), 0.001)
