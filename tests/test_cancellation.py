"""Calls that swallow the cancellation of their task, as grpcio's do when the other side ends them at that moment."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from pyswarm.cancellation import heeded, told_to_stop


async def swallowing(then: Callable[[], str]) -> str:
    """A call that ends in its own way when its task is cancelled."""
    try:
        await asyncio.get_running_loop().create_future()
    except asyncio.CancelledError:
        assert told_to_stop()
    return then()


def fail() -> str:
    """The other side ended the call."""
    raise ConnectionError("ended")


async def begun(work: Awaitable[str]) -> asyncio.Task[str]:
    """A task that stands at its first pause."""
    task = asyncio.ensure_future(work)
    assert isinstance(task, asyncio.Task)
    await asyncio.sleep(0)
    return task


@pytest.mark.parametrize("then", [fail, lambda: "answer"], ids=["failed", "answered"])
async def test_cancellation_counts(then: Callable[[], str]) -> None:
    """A task that is cancelled during a call ends as cancelled, whatever becomes of the call."""

    async def work() -> str:
        with heeded():
            return await swallowing(then)

    task = await begun(work())
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()


async def test_errors_pass() -> None:
    """Without a cancellation the call's own end is what is seen."""
    with pytest.raises(ConnectionError), heeded():
        fail()
    with heeded():
        assert not told_to_stop()


async def test_farewell() -> None:
    """What a cancelled task still calls on its way out comes to its own end."""
    said: list[str] = []

    async def work() -> str:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            with heeded():
                said.append("bye")
            with pytest.raises(ConnectionError), heeded():
                fail()
        return ""

    task = await begun(work())
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    assert said == ["bye"]


async def test_time_limits_work() -> None:
    """A call that swallows the end of its time is out of time."""

    async def work() -> None:
        async with asyncio.timeout(0.01):
            with heeded():
                await swallowing(fail)

    with pytest.raises(TimeoutError):
        await work()
