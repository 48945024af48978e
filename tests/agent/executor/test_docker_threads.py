"""Blocking calls in threads."""

from __future__ import annotations

import asyncio
import threading

import pytest

from pyswarm.agent.executor.docker.threads import Threads


def fail() -> None:
    """A call that raises."""
    raise OSError("broken")


async def test_outcomes() -> None:
    """Values and errors come back to the caller."""
    threads = Threads("test", 2)
    assert await threads.run(lambda: 7) == 7
    with pytest.raises(OSError, match="broken"):
        await threads.run(fail)


async def test_limit() -> None:
    """No more calls than the limit run at once; a cancelled one keeps its place until it is over."""
    threads = Threads("test", 1)
    release = threading.Event()
    first = asyncio.create_task(threads.run(lambda: release.wait(5)))
    await asyncio.sleep(0)
    second = asyncio.create_task(threads.run(lambda: 2))
    first.cancel()
    await asyncio.sleep(0.05)
    assert not second.done()
    release.set()
    assert await second == 2


async def test_value_that_nobody_waits_for() -> None:
    """What a cancelled caller would have got is discarded properly: an open stream would hold a connection for ever."""
    threads = Threads("test", 1)
    release = threading.Event()
    discarded: list[bool] = []
    call = asyncio.create_task(threads.run(lambda: release.wait(5), discarded.append))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert discarded == []
    release.set()
    await threads.run(lambda: None)
    assert discarded == [True]


def test_value_after_the_loop_is_gone() -> None:
    """Even a value that comes after the end of the loop is discarded."""
    release, done = threading.Event(), threading.Event()

    async def leave_behind() -> None:
        call = asyncio.create_task(Threads("test", 1).run(lambda: release.wait(5), lambda _: done.set()))
        await asyncio.sleep(0)
        call.cancel()

    asyncio.run(leave_behind())
    release.set()
    assert done.wait(5)
