"""One life of a simulated program: the tasks that belong to it, and what ends them all at once."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any

from pyswarm.clock import Timer
from tests.simulation.loop import SimLoop
from tests.simulation.trace import Trace

EPOCH = 1_700_000_000.0


class SkewedClock:
    """A process's own idea of time; implements `clock.Clock`. `skew` may change at any moment: a clock that is set."""

    def __init__(self, loop: SimLoop, skew: float = 0.0) -> None:
        self._loop = loop
        self.skew = skew

    def now(self) -> float:
        """Virtual wall time."""
        return EPOCH + self._loop.time() + self.skew

    def monotonic(self) -> float:
        """Virtual seconds since the beginning."""
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        """On virtual time."""
        await asyncio.sleep(max(0.0, seconds))

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """On virtual time."""
        timer: Timer = self._loop.call_later(max(0.0, seconds), callback)
        return timer


class Process:
    """Tasks spawned here, and all that they spawn, end with `die`. A dead process reaches nobody: its clean-up has no effect outside.

    `fuse` counts down with every effect the process has outside itself (a message, a write to disk); it dies when the count reaches zero.
    `at_death` is called at that very moment.
    """

    def __init__(self, loop: SimLoop, name: str, trace: Trace, host: str = "", owner: object = None) -> None:
        self.name = name
        self.host = host or name
        """Where it is in the network."""
        self.owner = owner
        """What lives in it."""
        self.alive = True
        self.fuse = 0
        self.at_death: Callable[[], None] = lambda: None
        self.ended = loop.create_future()
        self.failure: BaseException | None = None
        self._loop = loop
        self._trace = trace
        self._context = contextvars.copy_context()
        self._context.run(loop.group_of.set, self)
        self._main: asyncio.Task[Any] | None = None
        self._others: dict[asyncio.Task[Any], None] = {}

    def __repr__(self) -> str:
        return f"<{self.name}>"

    def start(self, main: Coroutine[Any, Any, Any]) -> None:
        """The process ends with `main`."""
        self._main = self._loop.create_task(self._run(main), context=self._context.copy())

    async def _run(self, main: Coroutine[Any, Any, Any]) -> None:
        try:
            await main
        except asyncio.CancelledError:
            pass
        except BaseException as error:  # noqa: BLE001 - whoever started it judges it
            self.failure = error
        self._main = None
        self.die()
        while self._others:
            await asyncio.wait(list(self._others))
        self.ended.set_result(None)

    @property
    def running(self) -> bool:
        """Whether its main task was started and has not ended."""
        return self._main is not None or bool(self._others)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """One more task, for a call from outside."""
        task = self._loop.create_task(work, context=self._context.copy())
        self._others[task] = None
        task.add_done_callback(self._others.pop, context=self._loop.nobody)
        return task

    def effect(self) -> bool:
        """Something is about to leave the process. Whether it does."""
        if self.alive and self.fuse:
            self.fuse -= 1
            if not self.fuse:
                self._trace(self.name, "dies in the middle of its work")
                self.die()
        return self.alive

    def die(self) -> None:
        """The power is gone, at this moment. Tasks may still clean up, which nobody outside notices."""
        if self.alive:
            self.alive = False
            self._loop.thaw(self)
            self.at_death()
        for task in [*self._others, self._main]:
            if task is not None and not task.done():
                task.cancel()

    def stop(self) -> None:
        """As SIGTERM: it may finish in good order, and is dead when its main task is done."""
        if self._main is not None:
            self._main.cancel()
