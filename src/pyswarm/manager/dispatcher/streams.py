"""Open streams, and which of them hears of which commit.

One listener on the store serves all streams: an event finds those of its node in a dictionary, so the cost of a commit does not grow
with the number of nodes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from typing import Generic, Protocol, Self, TypeVar

from pyswarm.api import v1 as api
from pyswarm.clock import Clock, wait_for
from pyswarm.errors import SwarmError
from pyswarm.manager.dispatcher.config import Config
from pyswarm.manager.store import Action, Event, View

M_co = TypeVar("M_co", covariant=True)
M = TypeVar("M")
BACKLOG = 64


class Feed(Protocol[M_co]):
    """What a batched stream says: pure, fed with commits."""

    def start(self, view: View) -> None: ...  # noqa: D102 - see assignments.Assignments
    def on_event(self, view: View, event: Event) -> bool: ...  # noqa: D102
    def take(self) -> M_co: ...  # noqa: D102


class Stream:
    """One open stream of a session. `with` keeps it listed; `end` makes its handler stop."""

    def __init__(self, streams: Streams, node_id: str, session_id: str) -> None:
        self._streams = streams
        self.node_id = node_id
        self.session_id = session_id
        self.error: SwarmError | None = None
        self._wake = asyncio.Event()

    def __enter__(self) -> Self:
        self._streams.add(self)
        return self

    def __exit__(self, *_exc: object) -> None:
        self._streams.discard(self)

    def end(self, error: SwarmError) -> None:
        """Make the handler raise `error`; the first reason counts."""
        if self.error is None:
            self.error = error
        self._wake.set()

    def on_event(self, view: View, event: Event) -> None:
        """A commit concerns the node."""


class SessionStream(Stream):
    """Node objects to send, in order. Every message is complete in itself, so a client too slow for them misses only old ones."""

    def __init__(self, streams: Streams, node_id: str, session_id: str, node: api.Node) -> None:
        super().__init__(streams, node_id, session_id)
        self._node = node
        self._queue: deque[api.Node] = deque([node], maxlen=BACKLOG)

    def on_event(self, view: View, event: Event) -> None:  # noqa: ARG002 - the event says it all
        """The node itself changed."""
        if isinstance(event.obj, api.Node) and event.action is not Action.REMOVE:
            self._node = event.obj
            self.repeat()

    def repeat(self) -> None:
        """Something else in the message changed."""
        self._queue.append(self._node)
        self._wake.set()

    async def next(self) -> api.Node:
        """The next node object to send. Raises the error that ended the stream, once all before it was taken."""
        while not self._queue:
            if self.error is not None:
                raise self.error
            self._wake.clear()
            await self._wake.wait()
        return self._queue.popleft()


class BatchedStream(Stream, Generic[M]):
    """Messages that gather changes until it is quiet."""

    def __init__(self, streams: Streams, node_id: str, session_id: str, feed: Feed[M]) -> None:
        super().__init__(streams, node_id, session_id)
        self._feed = feed
        self._changes = 0
        self._latest = 0.0
        self._full = asyncio.Event()

    def end(self, error: SwarmError) -> None:
        """Do not wait for quiet either."""
        super().end(error)
        self._full.set()

    def start(self) -> M:
        """The first message. Call when listed, without awaiting in between."""
        self._feed.start(self._streams.view)
        return self._feed.take()

    def on_event(self, view: View, event: Event) -> None:
        """Let the feed judge it."""
        if not self._feed.on_event(view, event):
            return
        self._changes += 1
        self._latest = self._streams.clock.monotonic()
        self._wake.set()
        if self._changes >= self._streams.config.stream_limit:
            self._full.set()

    async def next(self) -> M:
        """The next message, after at least one change and some quiet. Raises the error that ended the stream."""
        await self._wake.wait()
        await self._settle()
        if self.error is not None:
            raise self.error
        self._changes = 0
        self._wake.clear()
        self._full.clear()
        return self._feed.take()

    async def _settle(self) -> None:
        """Wait for quiet, as far as patience and the limit allow."""
        clock, config = self._streams.clock, self._streams.config
        deadline = clock.monotonic() + config.stream_patience
        while not self._full.is_set():
            left = min(self._latest + config.stream_quiet, deadline) - clock.monotonic()
            if left <= 0:
                return
            await wait_for(self._full, clock, left)


class Streams:
    """All open streams of one term, by node."""

    def __init__(self, view: View, clock: Clock, config: Config) -> None:
        self.view = view
        self.clock = clock
        self.config = config
        self._by_node: dict[str, dict[Stream, None]] = {}

    def __iter__(self) -> Iterator[Stream]:
        return iter([stream for streams in self._by_node.values() for stream in streams])

    def add(self, stream: Stream) -> None:
        """List it."""
        self._by_node.setdefault(stream.node_id, {})[stream] = None

    def discard(self, stream: Stream) -> None:
        """Unlist it."""
        streams = self._by_node.get(stream.node_id, {})
        streams.pop(stream, None)
        if not streams:
            self._by_node.pop(stream.node_id, None)

    def on_event(self, event: Event) -> None:
        """Tell the streams that a change concerns."""
        for node_id in _nodes_of(event):
            for stream in tuple(self._by_node.get(node_id, ())):
                stream.on_event(self.view, event)

    def repeat_sessions(self) -> None:
        """Every session message says something that changed for all."""
        for stream in self:
            if isinstance(stream, SessionStream):
                stream.repeat()

    def of_session(self, node_id: str, session_id: str) -> list[Stream]:
        """The streams of one session."""
        return [stream for stream in self._by_node.get(node_id, ()) if stream.session_id == session_id]

    def of_other_sessions(self, node_id: str, session_id: str) -> list[Stream]:
        """The streams of a node's earlier sessions."""
        return [stream for stream in self._by_node.get(node_id, ()) if stream.session_id != session_id]


def _nodes_of(event: Event) -> set[str]:
    match event.obj:
        case api.Node(id=node_id) | api.Task(node_id=node_id):
            return {node_id}
        case api.Volume() as volume:
            before = event.old.publish_status if isinstance(event.old, api.Volume) else ()
            return {entry.node_id for entry in (*volume.publish_status, *before)}
    return set()
