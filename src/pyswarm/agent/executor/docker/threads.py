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

    async def run(self, call: Callable[[], _T]) -> _T:
        """What `call` returns or raises. If the waiting task is cancelled the call still runs to its end, and keeps its slot till then."""
        await self._slots.acquire()
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[_T] = loop.create_future()
        job = _Job(call, loop, outcome, self._slots)
        try:
            threading.Thread(target=job.run, name=self._name, daemon=True).start()
        except RuntimeError:
            self._slots.release()
            raise
        return await outcome


class _Job(Generic[_T]):
    def __init__(
        self, call: Callable[[], _T], loop: asyncio.AbstractEventLoop, outcome: asyncio.Future[_T], slots: asyncio.Semaphore
    ) -> None:
        self._call = call
        self._loop = loop
        self._outcome = outcome
        self._slots = slots

    def run(self) -> None:
        """The thread: make the call and hand its outcome to the loop."""
        try:
            value = self._call()
        except Exception as error:  # noqa: BLE001 - carried over to the caller, not judged here
            self._deliver(partial(self._outcome.set_exception, error))
        else:
            self._deliver(partial(self._outcome.set_result, value))

    def _deliver(self, settle: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(self._arrive, settle)
        except RuntimeError:
            return  # The loop is closed: nobody waits for this any more.

    def _arrive(self, settle: Callable[[], None]) -> None:
        self._slots.release()
        if not self._outcome.done():
            settle()
