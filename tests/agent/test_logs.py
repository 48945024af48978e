"""Publishing what tasks write: with sources and a manager that do what the test says, on virtual time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable

import pytest
from structlog.testing import capture_logs

from pyswarm.agent import logs
from pyswarm.agent.executor import ExecutorError
from pyswarm.agent.logs import BATCH_BYTES, LogPublisher
from pyswarm.api import v1 as api
from pyswarm.errors import NotFound, SwarmError, Unavailable, Unimplemented
from tests.agent.fakes import FakeStream, S
from tests.support.clock import VirtualClock, settle


class FakeSource:
    """A task that writes what it is told; an exception among its lines is raised, the end of the log is `None`."""

    def __init__(self, task_id: str, state: S.ValueType = S.RUNNING, service: str = "web", node: str = "n1") -> None:
        self.task = api.Task(id=task_id, service_id=service, node_id=node, status=api.TaskStatus(state=state))
        self.options: list[api.LogSubscriptionOptions] = []
        self.read = 0
        self._lines: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()

    def write(self, *lines: bytes | Exception | None) -> FakeSource:
        """Add lines."""
        for line in lines:
            self._lines.put_nowait(line)
        return self

    async def logs(self, options: api.LogSubscriptionOptions) -> AsyncGenerator[api.LogMessage, None]:
        """See Source."""
        self.options.append(options)
        while (line := await self._lines.get()) is not None:
            if isinstance(line, Exception):
                raise line
            self.read += 1
            yield api.LogMessage(context=api.LogContext(task_id=self.task.id), data=line)


class FakeSources:
    """The tasks of a node."""

    def __init__(self, *present: FakeSource) -> None:
        self.present = list(present)
        self.watching: list[Callable[[FakeSource], None]] = []

    def sources(self) -> list[FakeSource]:
        """See Sources."""
        return self.present

    def on_source(self, callback: Callable[[FakeSource], None]) -> Callable[[], None]:
        """See Sources."""
        self.watching.append(callback)
        return lambda: self.watching.remove(callback)

    def appear(self, source: FakeSource) -> None:
        """A task comes or changes."""
        if source not in self.present:
            self.present.append(source)
        for callback in tuple(self.watching):
            callback(source)


class FakeBroker:
    """The manager's side."""

    def __init__(self) -> None:
        self.streams: list[FakeStream] = []
        self.refusals: list[SwarmError] = []
        self.sent: list[api.PublishLogsMessage] = []
        self.calls = 0
        self.open = 0
        self.room = asyncio.Event()
        self.room.set()
        self.refusal: SwarmError | None = None

    def subscriptions(self, request: api.ListenSubscriptionsRequest) -> AsyncGenerator[api.SubscriptionMessage, None]:
        """See LogClient."""
        stream = FakeStream()
        if self.refusals:
            stream.send(self.refusals.pop(0))
        self.streams.append(stream)
        return stream.read()

    async def publish_logs(self, messages: AsyncGenerator[api.PublishLogsMessage, None]) -> api.PublishLogsResponse:
        """See LogClient."""
        self.calls += 1
        self.open += 1
        try:
            async for message in messages:
                await self.room.wait()
                if self.refusal is not None:
                    raise self.refusal
                self.sent.append(message)
        finally:
            self.open -= 1
            await messages.aclose()
        return api.PublishLogsResponse()

    def ask(self, subscription_id: str, *, follow: bool = False, tail: int = 0, close: bool = False, **selector: list[str]) -> None:
        """Send a subscription."""
        options = api.LogSubscriptionOptions(follow=follow, tail=tail)
        told = api.SubscriptionMessage(id=subscription_id, selector=api.LogSelector(**selector), options=options, close=close)
        self.streams[-1].send(told)

    def lines(self, subscription_id: str) -> list[bytes]:
        """What was published for a subscription."""
        return [line.data for message in self.sent if message.subscription_id == subscription_id for line in message.messages]

    def closed(self, subscription_id: str) -> bool:
        """Whether the last message for it said that all was sent."""
        last = [message for message in self.sent if message.subscription_id == subscription_id][-1]
        return last.close and not last.messages


class Bench:
    """A publisher at work for one manager."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.sources = FakeSources()
        self.broker = FakeBroker()
        self.publisher = LogPublisher(self.sources, clock)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[asyncio.Task[None]]:
        """For the length of a `with` block."""
        task = asyncio.create_task(self.publisher.serve(self.broker))
        await settle()
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert self.broker.open == 0
            assert not self.sources.watching


@pytest.fixture
def bench(clock: VirtualClock) -> Bench:
    """A node without tasks."""
    return Bench(clock)


async def test_to_the_end(bench: Bench) -> None:
    """What matching tasks have written goes out, by task, service or node; then the subscription is closed. [dispatcher 155]"""
    bench.sources.present = [
        FakeSource("t1").write(b"a", b"b", None),
        FakeSource("t2", service="db").write(b"c", None),
        FakeSource("t3", service="other", node="n2").write(b"no", None),
    ]
    async with bench.serving():
        bench.broker.ask("s", service_ids=["web"], task_ids=["t2"])
        await settle()
        assert sorted(bench.broker.lines("s")) == [b"a", b"b", b"c"]
        assert bench.broker.closed("s")
        bench.sources.present[2].write(b"yes", None)
        bench.broker.ask("by-node", node_ids=["n2"])
        await settle()
        assert bench.broker.lines("by-node") == [b"no"]


async def test_nothing_to_send(bench: Bench) -> None:
    """A subscription for tasks that are not here, or have not started, is closed at once. [cli 77]"""
    bench.sources.present = [FakeSource("t", S.READY)]
    async with bench.serving():
        for selector in ({"task_ids": ["t"]}, {"task_ids": ["elsewhere"]}, {}):
            bench.broker.ask(f"s{selector}", **selector)
            await settle()
            assert bench.broker.closed(f"s{selector}")
        assert bench.sources.present[0].options == []


async def test_following(bench: Bench) -> None:
    """Tasks that start later are read too, from their beginning whatever the tail, each once; a close ends it. [cli 76]"""
    old, new = FakeSource("old").write(b"a"), FakeSource("new", S.READY).write(b"b")
    bench.sources.present = [old]
    async with bench.serving():
        bench.broker.ask("s", follow=True, tail=-11, service_ids=["web"])
        await settle()
        bench.sources.appear(new)
        await settle()
        assert bench.broker.lines("s") == [b"a"]
        for state in (S.STARTING, S.RUNNING):
            new.task.status.state = state
            bench.sources.appear(new)
        bench.sources.appear(old)
        bench.sources.appear(FakeSource("other", service="db").write(b"no"))
        old.write(None)
        await settle()
        assert bench.broker.lines("s") == [b"a", b"b"]
        assert [source.options for source in (old, new)] == [
            [api.LogSubscriptionOptions(follow=True, tail=-11)],
            [api.LogSubscriptionOptions(follow=True)],
        ]
        assert bench.broker.open == 1
        bench.broker.ask("s", close=True)
        await settle()
        assert bench.broker.open == 0


async def test_an_id_twice(bench: Bench) -> None:
    """An id that is being served is not served twice; after its end it may come again. [dispatcher 165]"""
    source = FakeSource("t").write(b"a")
    bench.sources.present = [source]
    async with bench.serving():
        bench.broker.ask("s", task_ids=["t"])
        bench.broker.ask("s", task_ids=["t"])
        bench.broker.ask("unknown", close=True)
        await settle()
        assert bench.broker.calls == 1
        source.write(None)
        await settle()
        source.write(b"b", None)
        bench.broker.ask("s", task_ids=["t"])
        await settle()
        assert bench.broker.calls == 2
        assert bench.broker.lines("s") == [b"a", b"b"]


async def test_a_task_that_cannot_be_read(bench: Bench) -> None:
    """An executor that cannot read one task costs the reader that task's lines only; the log of the daemon says so. [cli 78]"""
    bench.sources.present = [
        FakeSource("tty").write(ExecutorError("logs not supported on services with TTY")),
        FakeSource("odd").write(ValueError("a bug")),
        FakeSource("t").write(b"a", None),
    ]
    async with bench.serving():
        with capture_logs() as said:
            bench.broker.ask("s", service_ids=["web"])
            await settle()
    assert bench.broker.lines("s") == [b"a"]
    assert bench.broker.closed("s")
    [warning] = [entry for entry in said if entry["log_level"] == "warning"]
    assert (warning["task"], warning["error"]) == ("tty", "logs not supported on services with TTY")


async def test_batches(bench: Bench) -> None:
    """Lines that wait go together; a reader that is stopped up stops the reading, with little in memory and nothing lost."""
    line = b"x" * 1000
    source = FakeSource("t").write(*[line] * 1000, None)
    bench.sources.present = [source]
    bench.broker.room.clear()
    async with bench.serving():
        bench.broker.ask("s", task_ids=["t"])
        await settle(500)
        assert source.read * len(line) < BATCH_BYTES + 2 * len(line)
        bench.broker.room.set()
        await settle(3000)
        assert len(bench.broker.lines("s")) == 1000
        assert bench.broker.closed("s")
        assert len(bench.broker.sent) < 100
        assert max(message.ByteSize() for message in bench.broker.sent) < 2 * BATCH_BYTES


def test_a_long_line() -> None:
    """A line that no manager would take in one message goes in pieces."""
    long = api.LogMessage(context=api.LogContext(task_id="t"), data=bytes(range(250)))
    made = logs.pieces(long, 100)
    assert [len(piece.data) for piece in made] == [100, 100, 50]
    assert b"".join(piece.data for piece in made) == long.data
    assert {piece.context.task_id for piece in made} == {"t"}


async def test_a_manager_that_wants_no_more(bench: Bench) -> None:
    """A subscription that the manager does not know any more is given up; the others go on."""
    bench.sources.present = [FakeSource("t").write(b"a")]
    async with bench.serving():
        bench.broker.refusal = NotFound("unknown subscription ID")
        bench.broker.ask("gone", follow=True, task_ids=["t"])
        await settle()
        assert bench.broker.open == 0
        bench.broker.refusal = None
        bench.broker.ask("s", follow=True, task_ids=["t"])
        await settle()
        assert bench.broker.open == 1


async def test_the_stream_ends(bench: Bench) -> None:
    """With the stream its subscriptions end; another one is opened soon, and later and later while that fails."""
    bench.sources.present = [FakeSource("t").write(b"a")]
    async with bench.serving() as serving:
        bench.broker.ask("s", follow=True, task_ids=["t"])
        await settle()
        bench.broker.refusals = [Unavailable("gone")] * 20
        bench.broker.streams[0].send(None)
        await settle()
        assert bench.broker.open == 0
        await bench.clock.advance(8 * 20)
        assert 20 < len(bench.broker.streams) < 60
        assert not serving.done()


async def test_a_manager_without_logs(bench: Bench) -> None:
    """A manager that knows no logs is not asked again. [dispatcher 109]"""
    bench.broker.refusals = [Unimplemented("unknown service")]
    async with bench.serving() as serving:
        assert serving.done()
        assert serving.exception() is None
        assert len(bench.broker.streams) == 1
