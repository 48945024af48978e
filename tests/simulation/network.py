"""Connections between simulated processes: they take time, they break, they go silent in one direction.

A connection keeps the order of its messages in each direction and loses none while it lives, as TCP does. What is sent into a cut waits; if
the cut lasts too long, the connection breaks, for the sender first. The peer of a dead process learns of it after a moment or, as if the
whole machine had gone, only after a timeout. A call whose connection breaks fails with Unavailable: whether it happened is not known.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from typing import Any, Protocol

from pyswarm import errors
from pyswarm.errors import Aborted, Cancelled, SwarmError, Unavailable
from pyswarm.rpc.caller import Caller
from tests.simulation.loop import SimLoop
from tests.simulation.process import Process

_KINDS: dict[int, type[SwarmError]] = {
    kind.code: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, SwarmError) and kind is not SwarmError
}
UP, DOWN = 0, 1


class Server(Protocol):
    """What listens at an address."""

    process: Process | None

    def handle(self, method: str, request: Any, caller: Caller) -> Any:
        """A coroutine with the answer, or an asynchronous generator of answers."""
        ...


class Weather:
    """How messages travel: seconds, and the chance that one takes long."""

    def __init__(self, chance: random.Random) -> None:
        self.base = chance.choice((0.0002, 0.001, 0.02))
        self.slow_chance = chance.choice((0.0, 0.0, 0.002, 0.02))
        self.slow = chance.choice((0.3, 2.0, 7.0))


class Network:
    """All addresses, cuts and connections."""

    def __init__(self, loop: SimLoop, chance: random.Random) -> None:
        self.loop = loop
        self.chance = chance
        self.weather = Weather(chance)
        self.servers: dict[str, Server] = {}
        self.cuts: set[tuple[str, str]] = set()
        self.connections: dict[Connection, None] = {}
        self.slow_hosts: set[str] = set()

    # --- trouble

    def cut(self, sender: str, receiver: str) -> None:
        """From now on nothing that `sender` sends arrives at `receiver`."""
        self.cuts.add((sender, receiver))

    def heal(self, *pairs: tuple[str, str]) -> None:
        """Undo cuts; all of them without arguments. What waited arrives."""
        self.cuts.difference_update(pairs or set(self.cuts))
        for connection in list(self.connections):
            connection.flush()

    def reset(self, a: str, b: str) -> None:
        """Break all connections between two hosts, for both ends at once."""
        for connection in list(self.connections):
            if set(connection.names) == {a, b}:
                connection.break_off()

    def died(self, process: Process) -> None:
        """Its peers learn of it, each in its own time."""
        silent = self.chance.random() < 0.2
        for connection in list(self.connections):
            if process in connection.ends:
                wait = self.chance.uniform(2, 15) if silent else self.delay()
                self.loop.call_later(wait, connection.break_off, context=self.loop.nobody)

    def delay(self) -> float:
        """Seconds on the way."""
        weather = self.weather
        if weather.slow_chance and self.chance.random() < weather.slow_chance:
            return weather.slow * self.chance.random()
        return weather.base * (0.5 + self.chance.random())

    # --- calls

    async def connect(self, client: Process, host: str, address: str, caller: Caller) -> Connection:
        """Raises Unavailable when nobody answers there."""
        server = self.servers.get(address)
        await asyncio.sleep(2 * self.delay())
        process = server.process if server is not None else None
        if server is None or process is None or not process.alive:
            raise Unavailable(f"connection to {address} refused")
        if {(host, address), (address, host)} & self.cuts:
            await asyncio.sleep(self.chance.uniform(1, 10))
            raise Unavailable(f"connection to {address} timed out")
        return Connection(self, client, host, server, process, address, caller)


class Connection:
    """From a client process to a server process; carries any number of calls."""

    def __init__(
        self, network: Network, client: Process, host: str, server: Server, process: Process, address: str, caller: Caller
    ) -> None:
        self.ends = (client, process)
        self.names = (host, address)
        self._network = network
        self._server = server
        self._caller = caller
        self._broken = False
        self._calls: dict[_Call, None] = {}
        self._latest = [0.0, 0.0]
        self._held: tuple[list[Callable[[], None]], list[Callable[[], None]]] = ([], [])
        network.connections[self] = None

    async def call(self, method: str, request: Any) -> Any:
        """A unary call. Raises SwarmError."""
        call = _Call(self, method, request)
        return await call.answer()

    async def stream(self, method: str, request: Any) -> AsyncGenerator[Any, None]:
        """A call with a stream of answers. Raises SwarmError."""
        call = _Call(self, method, request)
        try:
            while True:
                message = await call.next()
                if message is None:
                    return
                yield message
        finally:
            call.give_up()

    def close(self) -> None:
        """The client is done: the server hears of it later."""
        self._network.connections.pop(self, None)
        for call in list(self._calls):
            call.fail(Cancelled("connection closed"))
            call.give_up()

    # --- transport

    def send(self, direction: int, deliver: Callable[[], None]) -> None:
        """Call `deliver` at the other end, after everything sent before. Nothing of a dead process is sent."""
        sender = self.ends[direction]
        if self._broken or not sender.effect():
            return
        network = self._network
        delay = network.delay()
        if self.names[direction] in network.slow_hosts:
            delay += network.chance.uniform(0.1, 3)
        at = self._latest[direction] = max(network.loop.time() + delay, self._latest[direction])
        network.loop.call_at(at, self._arrive, direction, deliver, context=network.loop.nobody)

    def _arrive(self, direction: int, deliver: Callable[[], None]) -> None:
        if self._broken:
            return
        held = self._held[direction]
        if held or self._is_cut(direction):
            if not held:
                loop = self._network.loop
                loop.call_later(self._network.chance.uniform(3, 20), self._lost_patience, direction, context=loop.nobody)
            held.append(deliver)
        elif self.ends[1 - direction].alive:
            deliver()

    def _is_cut(self, direction: int) -> bool:
        pair = self.names if direction == UP else (self.names[1], self.names[0])
        return pair in self._network.cuts

    def flush(self) -> None:
        """A cut was healed."""
        for direction in (UP, DOWN):
            held = self._held[direction]
            if held and not self._is_cut(direction):
                waiting, held[:] = list(held), []
                for deliver in waiting:
                    self._network.loop.call_soon(self._arrive, direction, deliver, context=self._network.loop.nobody)

    def _lost_patience(self, direction: int) -> None:
        """Retransmission was in vain: the sender gives the connection up, the receiver hears nothing and takes longer."""
        if not self._held[direction] or self._broken:
            return
        if direction == UP:
            self._fail_calls()
        else:
            self._end_handlers()
        loop = self._network.loop
        loop.call_later(self._network.chance.uniform(0, 15), self.break_off, context=loop.nobody)

    def break_off(self) -> None:
        """It is over at both ends."""
        self._broken = True
        self._network.connections.pop(self, None)
        self._fail_calls()
        self._end_handlers()
        self._calls.clear()

    def _fail_calls(self) -> None:
        for call in list(self._calls):
            call.fail(Unavailable("connection lost"))

    def _end_handlers(self) -> None:
        for call in list(self._calls):
            call.end_handler()


class _Call:
    """One call, both its ends."""

    def __init__(self, connection: Connection, method: str, request: Any) -> None:
        self._connection = connection
        self._inbox: list[Any] = []
        self._done = False
        self._over = False
        self._answered = False
        self._error: SwarmError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._handler: asyncio.Task[Any] | None = None
        if connection._broken:
            self.fail(Unavailable("connection lost"))
        else:
            connection._calls[self] = None
            connection.send(UP, lambda: self._begin(method, request))

    # --- the client's end

    async def answer(self) -> Any:
        """The one answer."""
        try:
            return await self.next()
        finally:
            self.give_up()

    async def next(self) -> Any:
        """The next answer; None after the last."""
        while not self._inbox:
            if self._error is not None:
                raise self._error
            if self._done:
                return None
            self._waiter = self._connection._network.loop.create_future()
            await self._waiter
        return self._inbox.pop(0)

    def fail(self, error: SwarmError) -> None:
        """There is no further answer."""
        if self._error is None and not self._done:
            self._error = error
            self._wake()

    def give_up(self) -> None:
        """The client wants no more: tell the server, if it still works on it."""
        if not self._over:
            self._over = True
            if self._answered:
                self._connection._calls.pop(self, None)
            else:
                self._connection.send(UP, self.end_handler)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _receive(self, message: Any) -> None:
        self._inbox.append(message)
        self._wake()

    def _finish(self, error: SwarmError | None) -> None:
        self._answered = self._done = True
        if self._error is None:
            self._error = error
        self._wake()
        if self._over:
            self._connection._calls.pop(self, None)

    # --- the server's end

    def _begin(self, method: str, request: Any) -> None:
        if self._over:
            self._connection._calls.pop(self, None)
        else:
            self._handler = self._connection.ends[DOWN].spawn(self._serve(method, request))

    async def _serve(self, method: str, request: Any) -> None:
        error: SwarmError | None = None
        try:
            work = self._connection._server.handle(method, request, self._connection._caller)
            if hasattr(work, "__anext__"):
                await self._serve_stream(work)
            else:
                self._answer(await work)
        except SwarmError as failure:
            error = on_the_wire(failure)
        except asyncio.CancelledError:
            error = Cancelled("server is stopping")
            raise
        finally:
            self._connection.send(DOWN, lambda: self._finish(error))

    async def _serve_stream(self, stream: AsyncGenerator[Any, None]) -> None:
        try:
            async for message in stream:
                self._answer(message)
        finally:
            await stream.aclose()

    def _answer(self, message: Any) -> None:
        self._connection.send(DOWN, lambda: self._receive(message))

    def end_handler(self) -> None:
        """The client is gone, as far as the server can tell."""
        if self._handler is not None and not self._handler.done():
            self._handler.cancel()
        self._connection._calls.pop(self, None)


def on_the_wire(error: SwarmError) -> SwarmError:
    """The error as the other end sees it: code and text. `uncertain` is kept for judging the caller's conclusions."""
    arrived = _KINDS.get(error.code, errors.Unknown)(error.message)
    arrived.uncertain = bool(getattr(error, "uncertain", False))  # type: ignore[attr-defined]
    return arrived


def certainly_not_done(error: SwarmError) -> bool:
    """Whether a failed write certainly had no effect, going by what the error says."""
    if isinstance(error, Unavailable | Cancelled | Aborted | errors.DeadlineExceeded):
        return False
    return not getattr(error, "uncertain", False)
