"""Who waits for which entry, and what they are told."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Any

from pyswarm.api import defaults
from pyswarm.api import v1 as api
from pyswarm.raft import commands
from pyswarm.raft.core import Core
from pyswarm.raft.journal import Journal
from pyswarm.raft.log import LostLeadership, ProposalError, TooLarge


@dataclass(slots=True)
class Waiting:
    """Somebody who waits for an entry to be applied."""

    command: bytes
    done: asyncio.Future[int]
    request: api.InternalRaftRequest | None = None
    proposal: Any | None = None
    term: int = 0


class Proposals:
    """Proposals that are queued for the next round, and those that are in the log and wait to be applied.

    An entry is known by index and term together: another leader's entry at the same index releases nobody.
    """

    def __init__(self, first_id: int) -> None:
        self._queue: deque[Waiting] = deque()
        self._appended: dict[int, Waiting] = {}
        self._next_id = first_id

    @property
    def queued(self) -> bool:
        """Whether anything waits to be appended."""
        return bool(self._queue)

    def __len__(self) -> int:
        return len(self._queue) + len(self._appended)

    def add(self, request: api.InternalRaftRequest, proposal: Any | None, done: asyncio.Future[int]) -> None:
        """Queue a request, giving it its id. Raises TooLarge."""
        request.ClearField("id")
        if request.ByteSize() > defaults.MAX_TRANSACTION_BYTES:
            raise TooLarge
        self._next_id = (self._next_id + 1) % (1 << 63)
        request.id = self._next_id | 1 << 63
        self._queue.append(Waiting(commands.store(request.SerializeToString()), done, request, proposal))

    def append_to(self, core: Core) -> None:
        """Move everything that is still wanted into the leader's log."""
        while self._queue:
            waiting = self._queue.popleft()
            if not waiting.done.done():
                index, waiting.term = core.append(waiting.command)
                self._appended[index] = waiting

    def append_now(self, core: Core, command: bytes, done: asyncio.Future[int]) -> int:
        """Append an entry of another kind at once, ahead of what is queued; its index."""
        waiting = Waiting(command, done)
        index, waiting.term = core.append(command)
        self._appended[index] = waiting
        return index

    def claim(self, index: int, journal: Journal) -> Waiting | None:
        """Who waits for the entry at `index`, if the entry there is the one that was proposed and somebody still listens.

        It stays among those who wait until `applied`: should applying fail, it is told with the others.
        """
        waiting = self._appended.get(index)
        if waiting is None:
            return None
        if journal.term_at(index) == waiting.term and not waiting.done.done():
            return waiting
        del self._appended[index]
        _fail(waiting, LostLeadership())
        return None

    def applied(self, index: int) -> None:
        """Release who waits for an entry that has now been applied."""
        waiting = self._appended.pop(index, None)
        if waiting is not None and not waiting.done.done():
            waiting.done.set_result(index)

    def fail(self, queued: ProposalError) -> None:
        """Leadership is gone: what is in the log may or may not commit later; what is queued never will."""
        appended, self._appended = self._appended, {}
        for waiting in appended.values():
            _fail(waiting, LostLeadership(uncertain=True))
        for waiting in self._queue:
            _fail(waiting, queued)
        self._queue.clear()


def _fail(waiting: Waiting, error: ProposalError) -> None:
    if not waiting.done.done():
        waiting.done.set_exception(error)
