"""The event loop that lets gRPC's events through, and giving way to them."""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import Callable
from typing import Any

import grpc.aio

from pyswarm.clock import TURNS, give_way
from pyswarm.rpc.turns import Loop
from tests.support.clock import VirtualClock

BYTES = 500


class Reader:
    """As gRPC's: takes a byte each time it is called."""

    def __init__(self, waking: socket.socket) -> None:
        self._waking = waking
        self.taken = 0

    def _handle_events(self, loop: asyncio.AbstractEventLoop) -> None:
        assert loop is asyncio.get_running_loop()
        self.taken += len(self._waking.recv(1))


async def called(wrap: Callable[[Any], Any]) -> int:
    """How often a reader like gRPC's is called for bytes that came all at once."""
    loop = asyncio.get_running_loop()
    waking, writing = socket.socketpair()
    reader = Reader(waking)
    writing.setblocking(False)
    sent = sum(_sent(writing) for _ in range(BYTES))
    loop.add_reader(waking, wrap(functools.partial(reader._handle_events, loop)))
    for _ in range(2 * sent):
        await asyncio.sleep(0)
    loop.remove_reader(waking)
    waking.setblocking(False)
    try:
        left = len(waking.recv(2 * BYTES))
    except BlockingIOError:
        left = 0
    waking.close()
    writing.close()
    assert left == 0
    return reader.taken


def _sent(writing: socket.socket) -> int:
    try:
        return writing.send(b"1")
    except BlockingIOError:
        return 0


def test_bytes_are_taken_at_once() -> None:
    """However many events wait, gRPC's reader needs one turn of the loop for them."""
    with asyncio.Runner(loop_factory=Loop) as runner:
        assert runner.run(called(lambda callback: callback)) == 1


def test_other_readers_are_left_alone() -> None:
    """Whoever else reads from a socket finds all bytes in it."""
    with asyncio.Runner(loop_factory=Loop) as runner:
        assert runner.run(called(lambda callback: lambda: callback())) > 1


def test_grpc_is_recognised() -> None:
    """gRPC's own reader is one of those that this loop cares for: a release that calls it otherwise must not slip through."""
    wrapped: list[str] = []

    class Spy(Loop):
        def _add_reader(self, fd: Any, callback: Callable[..., Any], *args: Any) -> Any:
            wrapped.append(getattr(callback, "__name__", ""))
            return super()._add_reader(fd, callback, *args)  # type: ignore[misc]

    async def serve() -> None:
        server = grpc.aio.server()
        server.add_insecure_port("127.0.0.1:0")
        await server.start()
        await server.stop(None)

    with asyncio.Runner(loop_factory=Spy) as runner:
        runner.run(serve())
    assert "drained" in wrapped


async def turns_given(seconds: float) -> int:
    """Turns that others get after so much work."""
    clock = VirtualClock()
    turns, over = 0, False

    async def count() -> None:
        nonlocal turns
        while not over:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await give_way(clock, clock.monotonic() - seconds)
    over = True
    await counting
    return turns


async def test_long_work_gives_way() -> None:
    """After work of some length the others get several turns of the loop; after short work none."""
    assert await turns_given(0.02) >= TURNS
    assert await turns_given(0.001) <= 1
