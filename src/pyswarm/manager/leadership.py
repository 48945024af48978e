"""What runs only while this manager leads: started when leadership is won, stopped before its loss is visible to anyone else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

import structlog

from pyswarm.cancellation import told_to_stop
from pyswarm.clock import Clock

log = structlog.get_logger(__name__)

FIRST_RETRY = 0.1
LAST_RETRY = 10.0


class Signals(Protocol):
    """Where leadership is announced."""

    def on_leadership(self, callback: Callable[[bool], None]) -> Callable[[], None]:
        """As `raft.log.Log.on_leadership`."""
        ...


class Leadership:
    """Runs `duties` for as long as this node leads."""

    def __init__(self, signals: Signals, duties: Callable[[], Awaitable[None]]) -> None:
        self._signals = signals
        self._duties = duties
        self._leading = False
        self._changed = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Until cancelled. An error of the duties themselves ends it; single components are supervised inside."""
        undo = self._signals.on_leadership(self._on_leadership)
        try:
            while True:
                await self._changed.wait()
                self._changed.clear()
                if self._leading:
                    await self._lead()
        finally:
            undo()

    async def ended(self) -> None:
        """Return when no duties run; those of a leader that is none any more have been cancelled."""
        if self._running is not None:
            await asyncio.wait([self._running])

    def _on_leadership(self, leading: bool) -> None:
        self._leading = leading
        if not leading and self._running is not None:
            self._running.cancel()
        self._changed.set()

    async def _lead(self) -> None:
        log.info("leadership won")
        self._running = asyncio.ensure_future(self._duties())
        try:
            await self._running
        except asyncio.CancelledError:
            if told_to_stop():
                await _finish(self._running)
                raise
            log.info("leadership lost")
        finally:
            self._running = None


async def _finish(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def supervise(components: Mapping[str, Callable[[], Awaitable[None]]], clock: Clock) -> None:
    """Run all components together until cancelled. One that fails is logged and started again with growing pauses; the others go on."""
    async with asyncio.TaskGroup() as group:
        for name, component in components.items():
            group.create_task(_keep_running(name, component, clock), name=name)


async def _keep_running(name: str, component: Callable[[], Awaitable[None]], clock: Clock) -> None:
    pause = FIRST_RETRY
    while True:
        started = clock.monotonic()
        try:
            await component()
            log.error("component ended by itself", component=name)
        except Exception as exc:
            log.error("component failed", component=name, exc_info=exc)
        if clock.monotonic() - started > LAST_RETRY:
            pause = FIRST_RETRY
        await clock.sleep(pause)
        pause = min(2 * pause, LAST_RETRY)
