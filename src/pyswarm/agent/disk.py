"""Where blocking file work is done: in a thread of its own, or in place where nothing must happen behind the event loop's back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

R = TypeVar("R")


class Disk(Protocol):
    """Runs functions one after another, in the order of the calls."""

    async def run(self, work: Callable[[], R]) -> R:
        """The function's result, without blocking the event loop. Cancelling does not stop a function that has begun."""
        ...

    def finish(self, work: Callable[[], None]) -> None:
        """Run a last function after all others, blocking, and end."""
        ...


class ThreadDisk:
    """One thread."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="task-database")

    async def run(self, work: Callable[[], R]) -> R:
        """As the protocol says."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def finish(self, work: Callable[[], None]) -> None:
        """As the protocol says."""
        with self._thread as thread:
            thread.submit(work).result()


class InlineDisk:
    """No thread: for tests on virtual time and the simulation."""

    async def run(self, work: Callable[[], R]) -> R:
        """As the protocol says, but for the duration of `work`."""
        await asyncio.sleep(0)
        return work()

    def finish(self, work: Callable[[], None]) -> None:
        """As the protocol says."""
        work()
