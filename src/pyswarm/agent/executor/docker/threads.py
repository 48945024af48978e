"""Blocking calls kept off the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Threads:
    """Runs blocking calls, at most `limit` at a time, each in a daemon thread, and brings their results back to the loop.

    Not a ThreadPoolExecutor because that one is joined when the interpreter exits: a stop request with a grace period of ten minutes
    would hold up the end of the daemon for as long.
    """

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._slots = asyncio.Semaphore(limit)

    async def run(self, call: Callable[[], _T], discard: Callable[[_T], None] | None = None) -> _T:
        """What `call` returns or raises. If the waiting task is cancelled the call still runs to its end, and keeps its slot till then.

        A value that nobody waits for any more is given to `discard`, which may run in any thread and must not block.
        """
        await self._slots.acquire()
        loop = asyncio.get_running_loop()
        job = _Job(call, discard, loop, self._slots)
        try:
            threading.Thread(target=job.run, name=self._name, daemon=True).start()
        except RuntimeError:
            self._slots.release()
            raise
        return await job.outcome


class _Job(Generic[_T]):
    def __init__(
        self, call: Callable[[], _T], discard: Callable[[_T], None] | None, loop: asyncio.AbstractEventLoop, slots: asyncio.Semaphore
    ) -> None:
        self._call = call
        self._discard = discard
        self._loop = loop
        self._slots = slots
        self.outcome: asyncio.Future[_T] = loop.create_future()

    def run(self) -> None:
        """The thread: make the call and hand its outcome to the loop."""
        try:
            value = self._call()
        except Exception as error:  # noqa: BLE001 - carried over to the caller, not judged here
            self._deliver(partial(self.outcome.set_exception, error), None)
        else:
            self._deliver(partial(self.outcome.set_result, value), partial(self._discard, value) if self._discard is not None else None)

    def _deliver(self, settle: Callable[[], None], discard: Callable[[], None] | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self._arrive, settle, discard)
        except RuntimeError:  # The loop is closed: nobody waits for this any more.
            if discard is not None:
                discard()

    def _arrive(self, settle: Callable[[], None], discard: Callable[[], None] | None) -> None:
        self._slots.release()
        if not self.outcome.done():
            settle()
        elif discard is not None:
            discard()
