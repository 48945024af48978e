"""What runs while a manager leads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from structlog.testing import capture_logs

from pyswarm.manager.leadership import LAST_RETRY, Leadership, supervise
from tests.support.clock import VirtualClock, settle


class Log:
    """Announces leadership when told."""

    def __init__(self) -> None:
        self.callbacks: list[Callable[[bool], None]] = []

    def on_leadership(self, callback: Callable[[bool], None]) -> Callable[[], None]:
        """Subscribe."""
        self.callbacks.append(callback)
        return lambda: self.callbacks.remove(callback)

    def say(self, leading: bool) -> None:
        """Announce."""
        for callback in list(self.callbacks):
            callback(leading)


class Component:
    """Notes its starts and stops; fails as often as told."""

    def __init__(self, notes: list[str], name: str, failures: int = 0) -> None:
        self.notes = notes
        self.name = name
        self.failures = failures

    async def run(self) -> None:
        """Until cancelled."""
        self.notes.append(f"+{self.name}")
        try:
            if self.failures:
                self.failures -= 1
                raise ValueError(self.name)
            await asyncio.Event().wait()
        finally:
            self.notes.append(f"-{self.name}")


def components(notes: list[str], *names: str) -> dict[str, Callable[[], Awaitable[None]]]:
    """Components that never fail."""
    return {name: Component(notes, name).run for name in names}


async def test_components_live_as_long_as_the_leadership(clock: VirtualClock) -> None:
    """Each is started once when leadership is won, stopped once when it is lost, and started anew the next time. [dispatcher 179]"""
    log, notes = Log(), list[str]()
    leadership = asyncio.create_task(Leadership(log, lambda: supervise(components(notes, "a", "b"), clock)).run())
    await settle()
    assert notes == []
    for _ in range(2):
        log.say(True)
        log.say(True)
        await settle()
        assert notes == ["+a", "+b"]
        log.say(False)
        await settle()
        assert sorted(notes) == ["+a", "+b", "-a", "-b"]
        notes.clear()
    log.say(True)
    log.say(False)
    log.say(True)
    await settle()
    assert sum(n == "+a" for n in notes) - sum(n == "-a" for n in notes) == 1
    leadership.cancel()
    await asyncio.gather(leadership, return_exceptions=True)
    assert sum(n == "+a" for n in notes) == sum(n == "-a" for n in notes)
    assert log.callbacks == []


async def test_an_error_of_the_duties_is_fatal() -> None:
    """What cannot even begin to lead ends with its reason."""
    log = Log()

    async def broken() -> None:
        raise ValueError("no root")

    leadership = asyncio.create_task(Leadership(log, broken).run())
    await settle()
    log.say(True)
    with pytest.raises(ValueError, match="no root"):
        await leadership


async def test_a_component_that_fails_is_started_again(clock: VirtualClock) -> None:
    """It is logged and tried again with growing pauses, and does not disturb the others."""
    notes: list[str] = []
    parts = components(notes, "steady")
    parts["shaky"] = Component(notes, "shaky", failures=3).run
    with capture_logs() as logs:
        running = asyncio.create_task(supervise(parts, clock))
        await settle()
        assert notes.count("+shaky") == 1
        for seconds, starts in ((0.1, 2), (0.19, 2), (0.02, 3), (0.4, 4), (LAST_RETRY, 4)):
            await clock.advance(seconds)
            assert notes.count("+shaky") == starts
    assert [entry["component"] for entry in logs if entry["log_level"] == "error"] == ["shaky"] * 3
    assert notes.count("+steady") == 1
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert notes.count("-steady") == 1


async def test_end_of_the_duties_can_be_waited_for() -> None:
    """Who must not go on while duties run waits until the last of them has let go, and not at all when none run."""
    log, slow = Log(), asyncio.Event()

    async def duties() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await slow.wait()

    leadership = Leadership(log, duties)
    running = asyncio.create_task(leadership.run())
    await settle()
    await leadership.ended()
    log.say(True)
    await settle()
    log.say(False)
    waiting = asyncio.create_task(leadership.ended())
    await settle()
    assert not waiting.done()
    slow.set()
    await waiting
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
