"""Connections between simulated processes: they take time, they break, they go silent in one direction.

A connection keeps the order of its messages in each direction and loses none while it lives, as TCP does. What is sent into a cut waits; if
the cut lasts too long, the connection breaks, for the sender first. The peer of a dead process learns of it after a moment or, as if the
whole machine had gone, only after a timeout. A call whose connection breaks fails with UNAVAILABLE: whether it happened is not known.
What looks like gRPC on top of this is in wire.py.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, Protocol

import grpc

from pyswarm.ca.credentials import Identity
from tests.simulation.loop import SimLoop
from tests.simulation.process import Process

UP, DOWN = 0, 1
WINDOW = 256
"""So many messages of a streamed request may wait unread before its sender has to wait."""
CONTROL = ".Control/"
Trailers = Sequence[tuple[str, str]]


class Ended(Exception):
    """How a call ended, other than well. `uncertain` is what the server knew about its effect: more than travels in production."""

    def __init__(self, status: grpc.StatusCode, details: str, trailers: Trailers = (), *, uncertain: bool = True) -> None:
        super().__init__(f"{status.name}: {details}")
        self.status = status
        self.details = details
        self.trailers = trailers
        self.uncertain = uncertain


def lost(details: str = "connection lost") -> Ended:
    """The transport failed."""
    return Ended(grpc.StatusCode.UNAVAILABLE, details)


def refused(details: str) -> Ended:
    """There never was a connection."""
    return Ended(grpc.StatusCode.UNAVAILABLE, details, uncertain=False)


class Server(Protocol):
    """What listens at an address. `host` is its place in the network."""

    process: Process
    host: str

    def serve(self, call: Call) -> Coroutine[Any, Any, None]:
        """Answer a call."""
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
        self.losing: set[frozenset[str]] = set()
        """Pairs of hosts whose connection breaks with the next answer to a user on it."""
        self.messages = 0

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

    def forget(self, process: Process) -> None:
        """Its peers learn at once that it is gone."""
        for connection in list(self.connections):
            if process in connection.ends:
                connection.break_off()

    def delay(self) -> float:
        """Seconds on the way."""
        weather = self.weather
        if weather.slow_chance and self.chance.random() < weather.slow_chance:
            return weather.slow * self.chance.random()
        return weather.base * (0.5 + self.chance.random())

    async def connect(self, client: Process, address: str, identity: Identity | None) -> Connection:
        """Raises Ended when nobody answers there."""
        await asyncio.sleep(2 * self.delay())
        server = self.servers.get(address)
        if server is None or not server.process.alive:
            raise refused(f"connection to {address} refused")
        if {(client.host, server.host), (server.host, client.host)} & self.cuts:
            await asyncio.sleep(self.chance.uniform(1, 10))
            raise refused(f"connection to {address} timed out")
        if not client.alive:
            raise refused("this process is dead")
        return Connection(self, client, server, identity)


class Connection:
    """From a client process to a server; carries any number of calls."""

    def __init__(self, network: Network, client: Process, server: Server, identity: Identity | None) -> None:
        self.network = network
        self.ends = (client, server.process)
        self.names = (client.host, server.host)
        self.identity = identity
        """Whose certificate the client showed."""
        self.server = server
        self.broken = False
        self.calls: dict[Call, None] = {}
        self._latest = [0.0, 0.0]
        self._held: tuple[list[Callable[[], None]], list[Callable[[], None]]] = ([], [])
        network.connections[self] = None

    def close(self) -> None:
        """The client is done: the server hears of it later."""
        for call in list(self.calls):
            call.fail(Ended(grpc.StatusCode.CANCELLED, "channel closed"))
            call.give_up()
        self.network.connections.pop(self, None)

    # --- transport

    def send(self, direction: int, deliver: Callable[[], None]) -> None:
        """Call `deliver` at the other end, after everything sent before. Nothing of a dead process is sent."""
        sender = self.ends[direction]
        if self.broken or not sender.effect():
            return
        network = self.network
        network.messages += 1
        delay = network.delay()
        if network.slow_hosts and self.names[direction] in network.slow_hosts:
            delay += network.chance.uniform(0.1, 3)
        at = self._latest[direction] = max(network.loop.time() + delay, self._latest[direction])
        network.loop.call_at(at, self._arrive, direction, deliver, context=network.loop.nobody)

    def _arrive(self, direction: int, deliver: Callable[[], None]) -> None:
        if self.broken:
            return
        held = self._held[direction]
        if held or (self.network.cuts and self._is_cut(direction)):
            if not held:
                loop = self.network.loop
                loop.call_later(self.network.chance.uniform(3, 20), self._lost_patience, direction, context=loop.nobody)
            held.append(deliver)
        elif self.ends[1 - direction].alive:
            deliver()

    def _is_cut(self, direction: int) -> bool:
        pair = self.names if direction == UP else (self.names[1], self.names[0])
        return pair in self.network.cuts

    def flush(self) -> None:
        """A cut was healed."""
        for direction in (UP, DOWN):
            held = self._held[direction]
            if held and not self._is_cut(direction):
                waiting, held[:] = list(held), []
                for deliver in waiting:
                    self.network.loop.call_soon(self._arrive, direction, deliver, context=self.network.loop.nobody)

    def _lost_patience(self, direction: int) -> None:
        """Retransmission was in vain: the sender gives the connection up, the receiver hears nothing and takes longer."""
        if not self._held[direction] or self.broken:
            return
        self._tell(direction)
        loop = self.network.loop
        loop.call_later(self.network.chance.uniform(0, 15), self.break_off, context=loop.nobody)

    def break_off(self) -> None:
        """It is over at both ends."""
        self.broken = True
        self.network.connections.pop(self, None)
        self._tell(UP)
        self._tell(DOWN)
        self.calls.clear()

    def _tell(self, end: int) -> None:
        """One end learns that the connection is gone."""
        for call in list(self.calls):
            if end == UP:
                call.fail(lost())
            else:
                call.end_handler()


class Call:
    """One call, both its ends. `request` is None for a streamed request."""

    def __init__(self, connection: Connection, path: str, request: bytes | None, metadata: Trailers, deadline: float) -> None:
        self.connection = connection
        self.path = path
        self.request = request
        self.metadata = metadata
        self.deadline = deadline
        self.error: Ended | None = None
        """What the client knows of a bad end."""
        self.done = False
        """The client knows the end."""
        self._inbox: deque[bytes] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._over = False
        self._answered = False
        self._handler: asyncio.Task[Any] | None = None
        self._requests: deque[bytes] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._unread = 0
        self._writer: asyncio.Future[None] | None = None
        if connection.broken:
            self.fail(lost())
        else:
            connection.calls[self] = None
            connection.send(UP, self._begin)

    # --- the client's end

    async def next(self) -> bytes | None:
        """The next answer; None after the last. Raises Ended."""
        while not self._inbox:
            if self.error is not None:
                raise self.error
            if self.done:
                return None
            self._waiter = self.connection.network.loop.create_future()
            await self._waiter
        return self._inbox.popleft()

    async def send(self, message: bytes) -> None:
        """One more message of a streamed request. Raises Ended."""
        while self._unread >= WINDOW and not self.done:
            self._writer = self.connection.network.loop.create_future()
            await self._writer
        if self.done:
            raise self.error or Ended(grpc.StatusCode.OK, "the call is over")
        self._unread += 1
        self.connection.send(UP, lambda: self._requested(message))

    def fail(self, error: Ended) -> None:
        """There is no further answer."""
        if not self.done:
            self.error = error
            self._end()

    def give_up(self) -> None:
        """The client wants no more: tell the server, if it still works on it."""
        if not self._over:
            self._over = True
            if self._answered:
                self.connection.calls.pop(self, None)
            else:
                self.connection.send(UP, self.end_handler)

    def _end(self) -> None:
        self.done = True
        _wake(self._waiter)
        _wake(self._writer)

    def _receive(self, message: bytes) -> None:
        self._inbox.append(message)
        _wake(self._waiter)

    def _finished(self, error: Ended | None) -> None:
        self._answered = True
        if not self.done:
            self.error = error
            self._end()
        if self._over:
            self.connection.calls.pop(self, None)

    def _taken(self) -> None:
        self._unread -= 1
        _wake(self._writer)

    # --- the server's end

    def _begin(self) -> None:
        if self._over:
            self.connection.calls.pop(self, None)
        else:
            connection = self.connection
            self._handler = connection.ends[DOWN].spawn(connection.server.serve(self))

    def _requested(self, message: bytes) -> None:
        self._requests.append(message)
        _wake(self._reader)

    async def requests(self) -> AsyncIterator[bytes]:
        """The messages of a streamed request. Ends only with the call."""
        while True:
            while not self._requests:
                self._reader = self.connection.network.loop.create_future()
                await self._reader
            message = self._requests.popleft()
            if self._unread >= WINDOW:
                self.connection.send(DOWN, self._taken)
            else:
                self._unread -= 1
            yield message

    def answer(self, message: bytes) -> None:
        """Send a message back."""
        connection = self.connection
        losing = connection.network.losing
        if losing and self.request is not None and CONTROL in self.path and (pair := frozenset(connection.names)) in losing:
            losing.discard(pair)
            connection.break_off()
        connection.send(DOWN, lambda: self._receive(message))

    def finish(self, error: Ended | None) -> None:
        """Nothing more follows."""
        self.connection.send(DOWN, lambda: self._finished(error))

    def end_handler(self) -> None:
        """The client is gone, as far as the server can tell."""
        if self._handler is not None and not self._handler.done():
            self._handler.cancel()
        self.connection.calls.pop(self, None)


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
