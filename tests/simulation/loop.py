"""An asyncio event loop on virtual time: nothing sleeps, nothing is left to chance, no thread runs.

When nothing is ready, time jumps to the next timer. Timers of one moment fire in the order in which they were made. Work meant for threads
is done in place after a delay that the simulation chooses, one piece after another for one executor. What happens in a simulation is
therefore a function of its seed; tasks hash by their number, so that not even the order of a set of tasks depends on addresses.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import heapq
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from itertools import count
from typing import Any, TypeVar

R = TypeVar("R")
LIVELOCK_STEPS = 200_000
"""So many callbacks without time passing are no work any more."""


class Livelock(AssertionError):
    """The simulated processes keep each other busy without end."""


class Deadlock(AssertionError):
    """The simulation waits for something that nobody will do."""


class Handle:
    """A callback in the loop; stands in for asyncio.Handle and asyncio.TimerHandle."""

    __slots__ = ("args", "callback", "context", "when")

    def __init__(self, callback: Callable[..., Any], args: tuple[Any, ...], context: contextvars.Context | None, at: float = 0.0) -> None:
        self.callback: Callable[..., Any] | None = callback
        self.args = args
        self.context = context if context is not None else contextvars.copy_context()
        self.when = at

    def cancel(self) -> None:
        """Do not call back."""
        self.callback = None
        self.args = ()

    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self.callback is None


class SimTask(asyncio.Task[Any]):
    """A task with a number for a hash."""

    _numbers = count()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._number = next(SimTask._numbers)
        super().__init__(*args, **kwargs)

    def __hash__(self) -> int:
        return self._number


class SimLoop(asyncio.BaseEventLoop):
    """See the module. `thread_delay(executor)` gives the seconds that a piece of blocking work takes."""

    def __init__(self, thread_delay: Callable[[object], float] = lambda _: 0.0) -> None:
        super().__init__()
        self.thread_delay = thread_delay
        self.steps = 0
        self.errors: list[str] = []
        self.frozen: set[object] = set()
        """Values of `group_of` whose callbacks wait until `thaw`."""
        self.group_of: contextvars.ContextVar[object] = contextvars.ContextVar("group", default=None)
        self.nobody = contextvars.copy_context()
        """The context of what belongs to no group: messages on their way, ends of tasks."""
        self._held: dict[object, list[Handle]] = {}
        self._now = 0.0
        self._order = 0
        self._soon: deque[Handle] = deque()
        self._timers: list[tuple[float, int, Handle]] = []
        self._busy_until: dict[object, float] = {}
        self._idle_steps = 0
        self.set_exception_handler(self._on_error)

    # --- time

    def time(self) -> float:
        """Virtual seconds since the beginning."""
        return self._now

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None) -> Any:
        """In this moment, after everything that is ready."""
        handle = Handle(callback, args, context)
        self._soon.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None) -> Any:
        """After `delay` virtual seconds."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None) -> Any:
        """At a moment of virtual time."""
        handle = Handle(callback, args, context, when)
        self._order += 1
        heapq.heappush(self._timers, (when, self._order, handle))
        return handle

    def _run_once(self) -> None:
        """Everything until `stop`: the loop around this one would do no more than call it again."""
        with _known(self):
            while not self._stopping:
                self._step()

    def _step(self) -> None:
        """Everything that is ready, or what is due next."""
        soon, timers = self._soon, self._timers
        while timers and timers[0][2].callback is None:
            heapq.heappop(timers)
        if not soon:
            if not timers:
                raise Deadlock("nothing is left to happen")
            if timers[0][0] > self._now:
                self._now = timers[0][0]
                self._idle_steps = 0
        now = self._now
        while timers and timers[0][0] <= now:
            soon.append(heapq.heappop(timers)[2])
        self._call(len(soon))
        if self._idle_steps > LIVELOCK_STEPS:
            raise Livelock(f"{self._idle_steps} callbacks at {self._now:.3f} s")

    def _call(self, many: int) -> None:
        """The first `many` of what is ready."""
        soon, frozen = self._soon, self.frozen
        self.steps += many
        self._idle_steps += many
        for _ in range(many):
            handle = soon.popleft()
            callback = handle.callback
            if callback is None:
                continue
            if frozen and (group := handle.context.get(self.group_of)) in frozen:
                self._held.setdefault(group, []).append(handle)
                continue
            try:
                handle.context.run(callback, *handle.args)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:  # noqa: BLE001 - an error in a callback is a finding
                self.errors.append(f"callback {callback} failed: {error!r}")

    # --- stopped processes

    def freeze(self, group: object) -> None:
        """From now on no callback of the group runs, as if its process were stopped by a signal."""
        self.frozen.add(group)

    def thaw(self, group: object) -> None:
        """Go on; everything that became due meanwhile is due now."""
        self.frozen.discard(group)
        self._soon.extend(self._held.pop(group, ()))

    # --- what asyncio asks of a loop

    def create_task(self, coro: Coroutine[Any, Any, R], *, name: object = None, context: contextvars.Context | None = None) -> Any:
        """A task that can be told apart in the same way in every run."""
        return SimTask(coro, loop=self, name=str(name) if name is not None else "task", context=context)

    def run_in_executor(self, executor: object, func: Callable[..., R], *args: Any) -> Any:
        """Do it in place, when its turn and time have come."""
        future = self.create_future()
        done = max(self._now, self._busy_until.get(executor, 0.0)) + self.thread_delay(executor)
        if executor is not None:
            self._busy_until[executor] = done

        def work() -> None:
            if future.cancelled():
                return
            try:
                result = func(*args)
            except BaseException as error:  # noqa: BLE001 - as an executor does
                future.set_exception(error)
            else:
                future.set_result(result)

        self.call_at(done, work)
        return future

    def get_debug(self) -> bool:
        """Never."""
        return False

    def _process_events(self, event_list: Any) -> None:
        """No sockets, no events."""

    def _write_to_self(self) -> None:
        """Nobody waits in a selector."""

    def _on_error(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not self.is_closed():
            self.errors.append(f"{context.get('message')}: {context.get('exception')!r}")

    def close(self) -> None:
        """Forget what will not happen any more, and with it all that it holds."""
        super().close()
        self._soon.clear()
        self._timers.clear()
        self._held.clear()
        self._busy_until.clear()


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Reference cycles stay until the end: their collection would run finalizers at moments that depend on the runs before."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextlib.contextmanager
def _known(loop: SimLoop) -> Iterator[None]:
    """Who asks for the running loop is told without the system being asked whether this is still the same process: that takes longer."""
    kept = events.get_running_loop, events._get_running_loop
    asyncio.get_running_loop = events.get_running_loop = events._get_running_loop = lambda: loop
    try:
        yield
    finally:
        events.get_running_loop, events._get_running_loop = kept
        asyncio.get_running_loop = kept[0]


def run(main: Callable[[SimLoop], Coroutine[Any, Any, R]], thread_delay: Callable[[object], float] = lambda _: 0.0) -> R:
    """Run a simulation to its end, then everything it left behind."""
    SimTask._numbers = count()
    loop = SimLoop(thread_delay)
    with _uncollected():
        try:
            return loop.run_until_complete(main(loop))
        finally:
            with contextlib.suppress(Livelock, Deadlock):  # known already, or of no importance any more
                _wind_up(loop)
            loop.close()


def _wind_up(loop: SimLoop) -> None:
    for group in sorted(loop.frozen, key=repr):
        loop.thaw(group)
    for _ in range(10):
        left = sorted((task for task in asyncio.all_tasks(loop) if not task.done()), key=hash)
        if not left:
            break
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.wait(left, timeout=60))
    loop.run_until_complete(loop.shutdown_asyncgens())
