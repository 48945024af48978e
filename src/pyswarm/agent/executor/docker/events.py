"""One event stream for all containers of the node.

Events are only wake-up calls: whoever waits for a container inspects it again and decides by what it finds. So a missed or repeated event
does no harm, and after every (re)connection all waiters look once, which covers whatever happened while the engine was away.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import Callable, Iterator

import structlog

from pyswarm.agent.executor.docker.containers import NODE_LABEL
from pyswarm.agent.executor.docker.engine import Engine
from pyswarm.clock import Clock

SHORTEST_PAUSE = 0.1
LONGEST_PAUSE = 3.0
ACTIONS = ("start", "die", "destroy", "health_status")

_RANDOM = random.SystemRandom()
_log = structlog.get_logger(__name__)


class Watch:
    """Somebody's interest in one container. Set whenever that container should be looked at again."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def wake(self) -> None:
        """Something may have happened."""
        self._changed.set()

    async def changed(self) -> None:
        """Return as soon as something may have happened since the last call."""
        await self._changed.wait()
        self._changed.clear()


class Events:
    """Reads the stream while anybody watches, reconnects with growing pauses, and wakes the watchers of each container.

    `jitter` gives numbers from 0 to 1, so that many nodes of one engine host do not come back in step.
    """

    def __init__(self, engine: Engine, node_id: Callable[[], str], clock: Clock, jitter: Callable[[], float] = _RANDOM.random) -> None:
        self._engine = engine
        self._node_id = node_id
        self._clock = clock
        self._jitter = jitter
        self._watches: dict[str, set[Watch]] = {}
        self._reader: asyncio.Task[None] | None = None
        self._away = False

    @contextlib.contextmanager
    def watching(self, name: str) -> Iterator[Watch]:
        """A Watch on the container of that name. Begin it before the first inspect, so that nothing falls between the two."""
        watch = Watch()
        self._watches.setdefault(name, set()).add(watch)
        if self._reader is None:
            self._reader = asyncio.create_task(self._run(), name="docker events")
        try:
            yield watch
        finally:
            watches = self._watches[name]
            watches.discard(watch)
            if not watches:
                del self._watches[name]

    def wake(self, name: str) -> None:
        """Make the watchers of a container look again."""
        for watch in self._watches.get(name, ()):
            watch.wake()

    async def close(self) -> None:
        """Stop reading."""
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait([self._reader])
            self._reader = None

    async def _run(self) -> None:
        """Owned by this object: begun with the first watch, ended by close."""
        pause = SHORTEST_PAUSE
        while True:
            began = self._clock.monotonic()
            try:
                await self._read_until_it_ends()
                reason = "it ended"
            except Exception as error:  # noqa: BLE001 - if this loop died, nobody would ever notice that a container ended
                reason = str(error) or repr(error)
            if self._clock.monotonic() - began > LONGEST_PAUSE:
                pause = SHORTEST_PAUSE
            if not self._away:
                _log.warning("event stream of the engine broke, reconnecting", engine=self._engine.address, reason=reason)
            self._away = True
            self._engine.forget_version()
            await self._clock.sleep(pause * (0.5 + self._jitter() / 2))
            pause = min(LONGEST_PAUSE, pause * 2)

    async def _read_until_it_ends(self) -> None:
        filters = {"type": ["container"], "label": [f"{NODE_LABEL}={self._node_id()}"], "event": list(ACTIONS)}
        with contextlib.closing(await self._engine.events(filters)) as stream:
            if self._away:
                _log.info("event stream of the engine is back", engine=self._engine.address)
            self._away = False
            for name in list(self._watches):
                self.wake(name)
            rest = b""
            while chunk := await stream.read():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    self._dispatch(line)

    def _dispatch(self, line: bytes) -> None:
        if not line.strip():
            return
        try:
            event = json.loads(line)
            name = event["Actor"]["Attributes"]["name"]
        except (ValueError, KeyError, TypeError):
            _log.warning("event of the engine not understood", engine=self._engine.address, size=len(line))
            return
        if event.get("Type", "container") == "container":
            self.wake(name)
