"""The other managers: one connection to each, and which of them leads.

Connections are kept up all the time, so that a new leader is reached without a handshake. Each is made with the credentials of its moment
and made anew when they change; calls that run on the old one may end there. It is closed when the member leaves, and replaced when the
member stops leading: calls that were passed to a leader that hangs must not hang with it.
"""

from __future__ import annotations

import asyncio

from pyswarm.ca.credentials import SecurityConfig
from pyswarm.clock import Clock, wait_for
from pyswarm.raft.log import Log
from pyswarm.rpc import channel
from pyswarm.rpc.forward import LEADERLESS_SECONDS, Line

FAREWELL_SECONDS = 0.5
"""How long a manager that leads no more may take to end calls that were passed to it, before they are cut. If it hangs, callers wait that
long on top of the election; if it lives, it ends them itself as soon as it hears of the other."""

STOPPING_SECONDS = 1.0
"""How long calls that were passed on may take to end when this manager stops."""

_DRAIN_SECONDS = 10.0
_LOOK_SECONDS = 0.25
_OPTIONS: list[channel.Option] = [
    *channel.KEEPALIVE,
    # A manager that comes back is wanted soon; these are few.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
]


class Managers:
    """The members of the log as peers of this manager; a `LeaderDirectory`. Event loop only; `run()` keeps it up to date."""

    def __init__(self, members: Log, security: SecurityConfig, clock: Clock, *, leaderless_seconds: float = LEADERLESS_SECONDS) -> None:
        """`leaderless_seconds`: after how long without a leader waiting for one counts as pointless (ten ticks)."""
        self._log = members
        self._security = security
        self._clock = clock
        self._limit = leaderless_seconds
        self._own_id = security.current.node_id
        self._lines: dict[str, Line] = {}
        self._retired: dict[Line, None] = {}
        self._leaderless_since: float | None = clock.monotonic()
        self._known: tuple[object, ...] = ()
        self._last_leader = ""
        self._renew = False
        self._changed = asyncio.Event()
        self._wake = asyncio.Event()

    # --- LeaderDirectory

    @property
    def is_leader(self) -> bool:
        """This node leads and is caught up."""
        return self._log.is_leader

    def leader(self) -> tuple[str, str] | None:
        """Node id and address of the member that leads; None while none is known."""
        found = next((member for member in self._log.members() if member.leader), None)
        return (found.node_id, found.addr) if found is not None else None

    def leader_line(self) -> Line | None:
        """The connection to the leader; None when none is known, or it is this node."""
        leader = self.leader()
        return self.line(leader[0]) if leader is not None else None

    @property
    def changed(self) -> asyncio.Event:
        """Set when leadership, the leader or its connection changes next."""
        return self._changed

    def leaderless(self) -> bool:
        """Whether there has been no leader for longer than the limit."""
        since = self._leaderless_since
        return since is not None and self._clock.monotonic() - since > self._limit and not self.is_leader and self.leader() is None

    # --- others

    def line(self, node_id: str) -> Line | None:
        """The connection to another member. It is replaced from time to time, so ask again for every call."""
        return self._lines.get(node_id)

    async def run(self) -> None:
        """Follow members, leadership and credentials until cancelled; then close every connection, calls having a second to end."""
        undo = [
            self._log.on_members(lambda _: self._wake.set()),
            self._log.on_leadership(lambda _: self._wake.set()),
            self._security.subscribe(lambda _: self._on_credentials()),
        ]
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    self._wake.clear()
                    self._look(group)
                    # Connections change their state without a word: so look, too.
                    await wait_for(self._wake, self._clock, _LOOK_SECONDS)
        finally:
            for step in undo:
                step()
            await self._stop()

    async def _stop(self) -> None:
        end = self._clock.monotonic() + STOPPING_SECONDS
        for line in (*self._lines.values(), *self._retired):
            await wait_for(line.idle, self._clock, max(0.0, end - self._clock.monotonic()))
            await line.close()

    def _on_credentials(self) -> None:
        self._renew = True
        self._wake.set()

    def _look(self, group: asyncio.TaskGroup) -> None:
        """Compare with what was known and act on the differences."""
        addresses = {member.node_id: member.addr for member in self._log.members() if member.node_id != self._own_id and member.addr}
        for node_id in sorted(self._lines.keys() - addresses):
            self._cut(group, node_id)
        for node_id, addr in addresses.items():
            line = self._lines.get(node_id)
            if line is None or line.addr != addr or self._renew:
                self._retire(group, node_id)
                opened = channel.connect(addr, self._security.current, options=_OPTIONS)
                line = self._lines[node_id] = Line(node_id, addr, opened)
            line.stands()  # or begins to connect
        self._renew = False
        self._follow_leader(group)
        self._tell()

    def _follow_leader(self, group: asyncio.TaskGroup) -> None:
        now = self._leads()
        if now:
            self._leaderless_since = None
        elif self._leaderless_since is None:
            self._leaderless_since = self._clock.monotonic()
        if now and now != self._last_leader:
            if self._last_leader in self._lines:
                group.create_task(self._farewell(group, self._last_leader))
            self._last_leader = now

    def _tell(self) -> None:
        """Whoever waits for a change looks again."""
        known = (self.is_leader, self.leader(), self.leader_line())
        if known != self._known:
            self._known = known
            self._changed.set()
            self._changed = asyncio.Event()

    def _leads(self) -> str:
        """Node id of the leader, empty while none is known."""
        if self.is_leader:
            return self._own_id
        leader = self.leader()
        return leader[0] if leader is not None else ""

    async def _farewell(self, group: asyncio.TaskGroup, node_id: str) -> None:
        """Give a former leader a moment, then end what still hangs on its connections; the next look makes a new one."""
        await self._clock.sleep(FAREWELL_SECONDS)
        if self._last_leader != node_id:
            self._cut(group, node_id)
            self._wake.set()

    def _cut(self, group: asyncio.TaskGroup, node_id: str) -> None:
        """Close every connection to a member; calls on them end."""
        closing = [line for line in self._retired if line.node_id == node_id]
        if node_id in self._lines:
            closing.append(self._lines.pop(node_id))
        for line in closing:
            group.create_task(line.close())

    def _retire(self, group: asyncio.TaskGroup, node_id: str) -> None:
        """Stop using the connection to a member for calls that follow; let those that run on it end."""
        line = self._lines.pop(node_id, None)
        if line is not None:
            self._retired[line] = None
            group.create_task(self._close_when_idle(line))

    async def _close_when_idle(self, line: Line) -> None:
        # Whoever has just been given the line may not have begun to use it.
        await self._clock.sleep(_DRAIN_SECONDS)
        await line.idle.wait()
        await line.close()
        self._retired.pop(line, None)
