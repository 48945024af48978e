"""What waits to be sent: lines to a reader, subscriptions to a node. Both are bounded."""

from __future__ import annotations

import asyncio
from collections import deque

from pyswarm.api import v1 as api

OUTBOX_BYTES = 1024 * 1024
"""Bytes of lines kept for a reader; with more waiting, the nodes that send them wait too."""


class Outbox:
    """Lines on their way to one reader. Publishers wait for room, so a reader that is slow, or stands still, costs no memory."""

    def __init__(self, limit: int = OUTBOX_BYTES) -> None:
        self.changed = asyncio.Event()
        """Set when there is something to take, and by whoever has other news for the reader."""
        self.closed = asyncio.Event()
        self._limit = limit
        self._waiting: deque[api.SubscribeLogsMessage] = deque()
        self._size = 0
        self._room = asyncio.Event()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    @property
    def full(self) -> bool:
        """Whether `put` would wait."""
        return self._size >= self._limit

    async def room(self) -> bool:
        """Wait until there is room; False when the reader has gone."""
        while self.full and not self.closed.is_set():
            self._room.clear()
            await self._room.wait()
        return not self.closed.is_set()

    def put(self, message: api.SubscribeLogsMessage) -> None:
        """Append a message, whether there is room or not."""
        self._waiting.append(message)
        self._size += message.ByteSize()
        self.changed.set()

    def take(self) -> api.SubscribeLogsMessage | None:
        """The oldest message, None when there is none."""
        if not self._waiting:
            return None
        message = self._waiting.popleft()
        self._size -= message.ByteSize()
        if not self.full:
            self._room.set()
        return message

    def close(self) -> None:
        """The reader has gone: nobody has to wait any more."""
        self.closed.set()
        self._waiting.clear()
        self._size = 0
        self._room.set()
        self.changed.set()


class Listener:
    """One ListenSubscriptions stream. Of a subscription that ends before the node took it, the node hears nothing."""

    def __init__(self, node_id: str) -> None:
        self.node_id = node_id
        self._waiting: dict[str, api.SubscriptionMessage] = {}
        self._ended = False
        self._wake = asyncio.Event()

    def tell(self, message: api.SubscriptionMessage) -> None:
        """Send a message after those before it."""
        unsent = self._waiting.pop(message.id, None)
        if unsent is None or not message.close:
            self._waiting[message.id] = message
        self._wake.set()

    def end(self) -> None:
        """There is nothing more to say."""
        self._ended = True
        self._wake.set()

    async def next(self) -> api.SubscriptionMessage | None:
        """The next message; None at the end."""
        while not self._waiting and not self._ended:
            self._wake.clear()
            await self._wake.wait()
        if self._ended:
            return None
        return self._waiting.pop(next(iter(self._waiting)))
