"""One member's connections to others: an ordered stream to each, and what arrives from them.

Nothing is ever sent again. Whatever goes wrong on a stream (refused, broken, stalled, too slow) ends it; the library is told that the
member is gone, and a new stream begins with an empty queue (spec/store-and-raft, sections 15 and 21.5).
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from typing import Any, NoReturn, Protocol

import grpc
import grpc.aio
import structlog

from pyswarm.api.private import raft_pb2
from pyswarm.cancellation import heeded
from pyswarm.clock import Clock
from pyswarm.raft.filter import REMOVED_TEXT

log = structlog.get_logger(__name__)

Connect = Callable[[str], grpc.aio.Channel]
"""Makes a new channel to an address; whoever asked closes it."""

QUEUE_MESSAGES = 4096
QUEUE_BYTES = 64 << 20
STALL_SECONDS = 2.0
"""How long a greeting or one message may take."""
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0
"""Seconds between attempts; doubled each time."""


class Refused(Exception):
    """The other side ended or declined a stream; the text says why."""


class RemovedFromCluster(Refused):
    """The other side says that this member was removed."""


class Host(Protocol):
    """The member that lives here, as links see it. All calls from the event loop."""

    def greeting(self, raft_id: int) -> raft_pb2.Hello:
        """What to say first on a new stream to a member."""
        ...

    def link_up(self, raft_id: int) -> None:
        """The member accepted a stream."""
        ...

    def link_down(self, raft_id: int) -> None:
        """The stream is gone, with whatever was on it."""
        ...

    def told_removed(self) -> None:
        """A member said that this one was removed."""
        ...


class Link:
    """The way to one member. `run` keeps it up."""

    def __init__(self, raft_id: int, addr: str, host: Host, connect: Connect, clock: Clock) -> None:
        self.raft_id = raft_id
        self.addr = addr
        self.said = ""
        """Where the member says it is, while it talks to this one; tried in turn with `addr`, which comes from a table that may be old."""
        self._try_said = False
        self._host = host
        self._connect = connect
        self._clock = clock
        self._queue: deque[raft_pb2.Envelope] | None = None
        self._bytes = 0
        self._filled = asyncio.Event()
        self._now = asyncio.Event()

    @property
    def up(self) -> bool:
        """Whether messages are being sent."""
        return self._queue is not None

    def send(self, envelope: raft_pb2.Envelope) -> None:
        """Queue a message; lost when the link is down. A full queue ends the stream."""
        if self._queue is None:
            return
        self._queue.append(envelope)
        self._bytes += envelope.ByteSize()
        self._filled.set()

    def stop(self) -> None:
        """Nothing more through this link, from this moment on; who calls it cancels `run` too."""
        if self.up:
            self._close()

    def hurry(self) -> None:
        """The member was heard of: no reason to wait for the next attempt."""
        self._now.set()

    async def run(self) -> None:
        """Connect, send, and begin anew after each failure, until cancelled."""
        pause, reason = FIRST_PAUSE, ""
        while True:
            try:
                with heeded():
                    await self._session()
            except RemovedFromCluster:
                self._host.told_removed()
                pause = LONGEST_PAUSE
            except (Refused, TimeoutError, grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError, OSError) as error:
                text = _describe(error)
                if text != reason:
                    log.info("raft connection ended", member=f"{self.raft_id:x}", addr=self.addr, reason=text)
                reason = text
            if self.up:
                pause, reason = FIRST_PAUSE, ""
                self._close()
            await self._rest(pause * random.uniform(0.8, 1.2))  # noqa: S311 - spreads attempts
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _rest(self, seconds: float) -> None:
        """A pause that news of the member shortens, but not below the shortest one."""
        self._now.clear()
        await self._clock.sleep(FIRST_PAUSE)
        remaining = seconds - FIRST_PAUSE
        while remaining > 0 and not self._now.is_set():
            step = min(FIRST_PAUSE, remaining)
            await self._clock.sleep(step)
            remaining -= step

    def _close(self) -> None:
        self._queue = None
        self._bytes = 0
        self._try_said = False
        self._host.link_down(self.raft_id)

    async def _session(self) -> None:
        addr = self.said if self._try_said and self.said else self.addr
        self._try_said = not self._try_said
        channel = self._connect(addr)
        try:
            call: Any = _talk_on(channel)
            try:
                await _greet(call, self._host.greeting(self.raft_id), self.raft_id)
                await self._talk(call)
            finally:
                call.cancel()
        except asyncio.CancelledError:
            self.stop()
            raise
        finally:
            await channel.close(None)

    async def _talk(self, call: Any) -> None:
        queue: deque[raft_pb2.Envelope] = deque()
        self._queue = queue
        self._host.link_up(self.raft_id)
        end = asyncio.ensure_future(call.read())
        end.add_done_callback(lambda _: self._filled.set())
        try:
            while not end.done():
                if not queue:
                    self._bytes = 0
                    self._filled.clear()
                    await self._filled.wait()
                elif len(queue) > QUEUE_MESSAGES or self._bytes > QUEUE_BYTES:
                    raise Refused(f"it is too slow: {len(queue)} messages wait")
                else:
                    envelope = queue.popleft()
                    async with asyncio.timeout(STALL_SECONDS):
                        await call.write(envelope)
        finally:
            end.cancel()
            await asyncio.gather(end, return_exceptions=True)
        await _raise_end(call)


async def probe(connect: Connect, addr: str, hello: raft_pb2.Hello, seconds: float) -> int:
    """Ask who lives at an address: its raft id, 0 for a manager without a log. Raises Refused, TimeoutError, AioRpcError."""
    channel = connect(addr)
    try:
        async with asyncio.timeout(seconds):
            call: Any = _talk_on(channel)
            try:
                return await _greet(call, hello, None)
            finally:
                call.cancel()
    finally:
        await channel.close(None)


def _talk_on(channel: Any) -> Any:
    """Open a stream. The generated stubs are typed for blocking channels only."""
    return channel.stream_stream(
        "/pyswarm.v1.RaftTransport/Talk",
        request_serializer=raft_pb2.Envelope.SerializeToString,
        response_deserializer=raft_pb2.Welcome.FromString,
    )()


async def _greet(call: Any, hello: raft_pb2.Hello, expected: int | None) -> int:
    async with asyncio.timeout(STALL_SECONDS):
        try:
            await call.write(raft_pb2.Envelope(hello=hello))
            welcome = await call.read()
        except (asyncio.InvalidStateError, grpc.aio.AioRpcError):
            welcome = None
        if not isinstance(welcome, raft_pb2.Welcome):
            await _raise_end(call)
    raft_id = int(welcome.raft_id)
    if expected is not None and raft_id != expected:
        raise Refused(f"member {raft_id:x} lives there" if raft_id else "the manager there has no log")
    return raft_id


async def _raise_end(call: Any) -> NoReturn:
    """Say how a call ended."""
    async with asyncio.timeout(STALL_SECONDS):
        code, details = await call.code(), await call.details()
    if code is grpc.StatusCode.NOT_FOUND and details == REMOVED_TEXT:
        raise RemovedFromCluster(details)
    if code is grpc.StatusCode.UNIMPLEMENTED:
        raise Refused("no pyswarm manager listens there; the managers of other swarms keep their log in another way, and cannot share it")
    raise Refused(details or code.name)


def _describe(error: Exception) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return error.details() or error.code().name
    return str(error) or type(error).__name__
