"""The service Watch: first what has happened since the version asked for, then what happens (spec/store-and-raft, section 9)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator

from pyswarm.api import v1 as api
from pyswarm.errors import Cancelled, ResourceExhausted, Unknown
from pyswarm.manager.control.clusters import redacted as redacted_cluster
from pyswarm.manager.control.secrets import redacted as redacted_secret
from pyswarm.manager.store import Commit, Event, Store, events_of
from pyswarm.manager.store.tables import Stored
from pyswarm.manager.watch.selection import ACTIONS, selected
from pyswarm.raft.log import Log
from pyswarm.rpc.caller import Caller

BACKLOG_EVENTS = 10_000
"""So many events may wait for a client; beyond that it is told to come back, instead of the manager's memory growing."""

MESSAGE_BYTES = 2 << 20
"""A commit's events are spread over messages of about so much. No entry of the log is larger; a snapshot that replaces the state is."""

SLICE_ENTRIES = 50
"""So many past entries are looked at before others have their turn."""


class WatchService:
    """Registered and at work on every manager."""

    def __init__(self, store: Store, log: Log) -> None:
        self._store = store
        self._log = log
        self._watchers: set[Watcher] | None = None

    async def run(self) -> None:
        """Serve until cancelled, which ends every stream with CANCELLED."""
        self._watchers = set()
        undo = self._store.on_commit(self._on_commit)
        try:
            await asyncio.Event().wait()
        finally:
            undo()
            watchers, self._watchers = self._watchers, None
            for watcher in watchers:
                watcher.end(Cancelled("this manager is stopping"))

    async def Watch(self, request: api.WatchRequest, _caller: Caller) -> AsyncGenerator[api.WatchMessage, None]:  # noqa: N802
        """An empty message once the watch is active, then one per commit that concerns it.

        Raises InvalidArgument; Unknown when the log does not reach back to `resume_from` or not yet there, and before this manager serves;
        ResourceExhausted when the client is too slow, with the version from which it can go on; Cancelled when the manager stops.
        """
        wanted = selected(request.entries)
        if self._watchers is None:
            raise Unknown("broker is not running")
        # Nothing is awaited between these: what is applied from now on is live, what was before is history.
        past = self._log.history(request.resume_from.index) if request.HasField("resume_from") else ()
        watcher = Watcher(wanted, self._log.applied_index)
        self._watchers.add(watcher)
        try:
            yield api.WatchMessage()
            async for commit in _replayed(past, wanted):
                for message in _messages(commit, old=False):
                    yield message
            while True:
                for message in _messages(await watcher.next(), old=request.include_old_object):
                    yield message
        finally:
            if self._watchers is not None:
                self._watchers.discard(watcher)

    def _on_commit(self, commit: Commit) -> None:
        for watcher in tuple(self._watchers or ()):
            watcher.offer(commit)


class Watcher:
    """What waits for one client. Commits are shared with the store, not copied."""

    def __init__(self, wanted: Callable[[Event], bool], version: int) -> None:
        self._wanted = wanted
        self._taken = version
        self._waiting: deque[Commit] = deque()
        self._events = 0
        self._error: Exception | None = None
        self._news = asyncio.Event()

    def offer(self, commit: Commit) -> None:
        """A commit; kept if it concerns this client."""
        events = [event for event in commit.events if self._wanted(event)]
        if not events or self._error is not None:
            return
        if self._waiting and self._events + len(events) > BACKLOG_EVENTS:
            waiting = self._events
            self._waiting.clear()
            self.end(ResourceExhausted(f"{waiting} events wait for this client, which is too slow; resume from version {self._taken}"))
            return
        self._waiting.append(Commit(commit.index, events))
        self._events += len(events)
        self._news.set()

    def end(self, error: Exception) -> None:
        """What waits is still told, then this."""
        self._error = error
        self._news.set()

    async def next(self) -> Commit:
        """The next commit. Raises what the watch ends with."""
        while not self._waiting:
            if self._error is not None:
                raise self._error
            self._news.clear()
            await self._news.wait()
        commit = self._waiting.popleft()
        self._events -= len(commit.events)
        self._taken = commit.index
        return commit


async def _replayed(past: Iterable[tuple[int, api.InternalRaftRequest]], wanted: Callable[[Event], bool]) -> AsyncGenerator[Commit, None]:
    """Past entries as commits; objects as they were before an update are not known any more."""
    for number, (index, request) in enumerate(past, 1):
        events = [event for event in events_of(request) if wanted(event)]
        if events:
            yield Commit(index, events)
        if number % SLICE_ENTRIES == 0:
            await asyncio.sleep(0)


def _messages(commit: Commit, *, old: bool) -> Iterator[api.WatchMessage]:
    """Usually one. Only the last has the version: whoever resumes from it has seen all of the commit."""
    message, size = api.WatchMessage(), 0
    for event in commit.events:
        if size > MESSAGE_BYTES:
            yield message
            message, size = api.WatchMessage(), 0
        told = message.events.add(action=ACTIONS[event.action])
        _put(told.object, event.kind.value, event.obj)
        if old and event.old is not None:
            _put(told.old_object, event.kind.value, event.old)
        size += told.ByteSize()
    message.version.index = commit.index
    yield message


def _put(target: api.Object, field: str, obj: Stored) -> None:
    match obj:
        case api.Secret():
            obj = redacted_secret(obj)
        case api.Cluster():
            obj = redacted_cluster(obj)
    getattr(target, field).CopyFrom(obj)
