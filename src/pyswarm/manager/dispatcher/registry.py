"""Who has a session, until when, and who registers too often: a state machine that time is passed into.

Times are seconds of one monotonic clock. One heap orders all expiries; a heartbeat only moves its entry's deadline, and the heap notices
when it gets there, so that a heartbeat costs a dictionary look-up (spec/dispatcher-agent-node, sections 4 and 5).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

from pyswarm.errors import InvalidArgument, NotFound, Unavailable


@dataclass(slots=True)
class Entry:
    """One node. An empty `session_id` marks a node that an earlier leader knew and that has not come back yet."""

    session_id: str
    deadline: float
    accepted: float | None = None
    """When its last registration was accepted; None: never."""
    attempts: int = 0
    listed: float | None = None
    """The moment under which the heap has it."""


@dataclass(frozen=True, slots=True)
class Expired:
    """A node whose grace is over. `session_id` is empty for one that never registered with this leader."""

    node_id: str
    session_id: str


class Registry:
    """Sessions of one term as leader."""

    def __init__(self, rate_window: float, rate_count: int) -> None:
        self._window = rate_window
        self._count = rate_count
        self._entries: dict[str, Entry] = {}
        self._heap: list[tuple[float, str]] = []

    def __contains__(self, node_id: str) -> bool:
        return node_id in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def add_unknown(self, node_id: str, deadline: float) -> None:
        """Expect a node of an earlier leader until `deadline`."""
        self._put(node_id, Entry("", deadline))

    def admit(self, node_id: str, now: float) -> None:
        """Count an attempt to register. Raises Unavailable when there were too many; a refused attempt does not prolong the wait."""
        entry = self._entries.get(node_id)
        if entry is None or self._window <= 0:
            return
        if entry.accepted is None or now - entry.accepted > self._window:
            entry.attempts = 0
        entry.attempts += 1
        if entry.attempts > self._count:
            raise Unavailable(f"node {node_id} exceeded rate limit count of registrations")
        entry.accepted = now

    def register(self, node_id: str, session_id: str, now: float, deadline: float) -> None:
        """Start a session; an earlier one of the node ends here."""
        old = self._entries.get(node_id)
        if old is None:
            self._put(node_id, Entry(session_id, deadline, accepted=now))
        else:
            self._put(node_id, Entry(session_id, deadline, old.accepted, old.attempts, old.listed))

    def forget(self, node_id: str, session_id: str) -> None:
        """Drop the node if this is still its session."""
        if self.is_current(node_id, session_id):
            del self._entries[node_id]

    def is_current(self, node_id: str, session_id: str) -> bool:
        """Whether this is the node's session."""
        entry = self._entries.get(node_id)
        return entry is not None and entry.session_id == session_id != ""

    def check(self, node_id: str, session_id: str) -> None:
        """Raise NotFound for an unknown node, InvalidArgument for a session that is not the node's present one."""
        if node_id not in self._entries:
            raise NotFound("node not registered")
        if not self.is_current(node_id, session_id):
            raise InvalidArgument("session invalid")

    def beat(self, node_id: str, session_id: str, deadline: float) -> None:
        """The node is alive: expect the next sign until `deadline`. Raises as `check`."""
        self.check(node_id, session_id)
        entry = self._entries[node_id]
        entry.deadline = deadline
        self._list(node_id, entry)

    def next_deadline(self) -> float | None:
        """No entry expires before this moment; None without entries."""
        return self._heap[0][0] if self._heap else None

    def any_due(self, now: float) -> bool:
        """Whether at least one entry has expired by `now`."""
        while self._heap and self._heap[0][0] <= now:
            if self._top(now) is not None:
                return True
        return False

    def expire(self, now: float) -> list[Expired]:
        """Drop the entries whose deadline is not after `now`, earliest first."""
        gone: list[Expired] = []
        while self._heap and self._heap[0][0] <= now:
            node_id = self._top(now)
            if node_id is not None:
                heapq.heappop(self._heap)
                gone.append(Expired(node_id, self._entries.pop(node_id).session_id))
        return gone

    def _top(self, now: float) -> str | None:
        """The heap's first node if it has really expired; else the item is discarded or put where it belongs."""
        listed, node_id = self._heap[0]
        entry = self._entries.get(node_id)
        if entry is None or entry.listed != listed:
            heapq.heappop(self._heap)
            return None
        if entry.deadline <= now:
            return node_id
        entry.listed = entry.deadline
        heapq.heapreplace(self._heap, (entry.deadline, node_id))
        return None

    def _put(self, node_id: str, entry: Entry) -> None:
        self._entries[node_id] = entry
        self._list(node_id, entry)

    def _list(self, node_id: str, entry: Entry) -> None:
        """Make sure the heap looks at the entry no later than its deadline."""
        if entry.listed is None or entry.deadline < entry.listed:
            entry.listed = entry.deadline
            heapq.heappush(self._heap, (entry.deadline, node_id))
