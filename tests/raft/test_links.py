"""The way to one member: what happens to words that cannot be delivered."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from pyswarm.api.private import raft_pb2
from pyswarm.clock import SystemClock
from pyswarm.raft import links
from pyswarm.raft.filter import REMOVED_TEXT
from pyswarm.raft.links import Link
from tests.raft.cluster import until

MESSAGE = raft_pb2.Envelope(nudge=raft_pb2.Nudge(term=1))


class Home:
    """Implements `links.Host`."""

    def __init__(self) -> None:
        self.news: list[str] = []

    def greeting(self, raft_id: int) -> raft_pb2.Hello:
        """See Host."""
        return raft_pb2.Hello(to_raft_id=raft_id)

    def link_up(self, raft_id: int) -> None:
        """See Host."""
        self.news.append(f"up {raft_id}")

    def link_down(self, raft_id: int) -> None:
        """See Host."""
        self.news.append(f"down {raft_id}")

    def told_removed(self) -> None:
        """See Host."""
        self.news.append("removed")


class Far:
    """Channel and stream in one: the other side as the test wants it."""

    def __init__(self, *, refusal: tuple[grpc.StatusCode, str] | None = None) -> None:
        self.refusal = refusal
        self.heard: list[raft_pb2.Envelope] = []
        self.open = asyncio.Event()
        self.open.set()
        self.calls = 0
        self._reads = 0

    def stream_stream(self, *_: Any, **__: Any) -> Any:
        """See grpc.aio.Channel."""
        self.calls += 1
        self._reads = 0
        return lambda: self

    async def write(self, message: raft_pb2.Envelope) -> None:
        """Hear it, when the other side reads."""
        await self.open.wait()
        self.heard.append(message)

    async def read(self) -> Any:
        """A welcome, then silence; or the end."""
        self._reads += 1
        if self.refusal is not None:
            return grpc.aio.EOF  # type: ignore[attr-defined]
        if self._reads == 1:
            return raft_pb2.Welcome(raft_id=7)
        return await asyncio.get_running_loop().create_future()

    async def code(self) -> grpc.StatusCode:
        """How it ended."""
        return self.refusal[0] if self.refusal else grpc.StatusCode.OK

    async def details(self) -> str:
        """The sentence to it."""
        return self.refusal[1] if self.refusal else ""

    def cancel(self) -> None:
        """See grpc.aio.Call."""

    async def close(self, grace: float | None) -> None:
        """See grpc.aio.Channel."""


@contextlib.asynccontextmanager
async def linked(far: Far) -> AsyncIterator[tuple[Link, Home]]:
    """A link that runs for the length of a `with` block."""
    home = Home()
    link = Link(7, "127.0.0.1:1", home, lambda _: far, SystemClock())  # type: ignore[arg-type,return-value]
    task = asyncio.create_task(link.run())
    try:
        yield link, home
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_words_arrive_in_order() -> None:
    """After the greeting what is sent follows, for whom it was meant. [store 94]"""
    far = Far()
    async with linked(far) as (link, home):
        await until(lambda: link.up)
        for term in range(5):
            link.send(raft_pb2.Envelope(nudge=raft_pb2.Nudge(term=term)))
        await until(lambda: len(far.heard) == 6)
        assert home.news == ["up 7"]
    assert far.heard[0].hello.to_raft_id == 7
    assert [e.nudge.term for e in far.heard[1:]] == list(range(5))


async def test_a_full_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is queued without end: the stream ends, the member counts as not reachable, and a new stream begins empty. [store 97]"""
    monkeypatch.setattr(links, "QUEUE_MESSAGES", 10)
    far = Far()
    async with linked(far) as (link, home):
        await until(lambda: link.up)
        far.open.clear()
        for _ in range(12):
            link.send(MESSAGE)
        await until(lambda: "down 7" in home.news)
        assert not link.up
        link.send(MESSAGE)
        far.heard.clear()
        far.open.set()
        await until(lambda: link.up)
        link.send(MESSAGE)
        await until(lambda: bool(far.heard) and far.heard[-1] == MESSAGE)
        assert [e.WhichOneof("content") for e in far.heard] == ["hello", "nudge"]


async def test_who_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """One word that is not taken in time ends the stream as well. [store 97]"""
    monkeypatch.setattr(links, "STALL_SECONDS", 0.05)
    far = Far()
    async with linked(far) as (link, home):
        await until(lambda: link.up)
        far.open.clear()
        link.send(MESSAGE)
        await until(lambda: "down 7" in home.news)


async def test_nothing_to_a_member_that_is_gone() -> None:
    """A link that was ended, as for a removed member, sends nothing any more. [store 97]"""
    far = Far()
    async with linked(far) as (link, home):
        await until(lambda: link.up)
        link.stop()
        link.send(MESSAGE)
        await asyncio.sleep(0)
        assert home.news == ["up 7", "down 7"]
    assert [e.WhichOneof("content") for e in far.heard] == ["hello"]


async def test_a_cancellation_that_a_call_swallows() -> None:
    """The link ends all the same: grpcio loses one that comes while the other side ends a stream that it never answered."""
    far = Far()
    reading = asyncio.Event()

    async def read() -> Any:
        reading.set()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            raise asyncio.InvalidStateError("the call is over") from None

    far.read = read  # type: ignore[method-assign]
    far.refusal = (grpc.StatusCode.CANCELLED, "Cancelling all calls")
    link = Link(7, "127.0.0.1:1", Home(), lambda _: far, SystemClock())  # type: ignore[arg-type,return-value]
    task = asyncio.create_task(link.run())
    await reading.wait()
    task.cancel()
    async with asyncio.timeout(5):
        await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()


async def test_being_told_of_the_own_removal() -> None:
    """Only NOT_FOUND with the exact sentence says so; another refusal is tried again. [store 90]"""
    far = Far(refusal=(grpc.StatusCode.NOT_FOUND, "member 7 not found"))
    async with linked(far) as (_, home):
        await until(lambda: far.calls > 1)
        assert not home.news
        far.refusal = (grpc.StatusCode.NOT_FOUND, REMOVED_TEXT)
        await until(lambda: "removed" in home.news)
