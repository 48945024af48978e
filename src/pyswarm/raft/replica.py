"""One member, without threads, sockets or waiting: what happens between two syncs of the log.

A round is `begin` (append what waits), the caller's sync of the journal, `finish` (commit, apply, tell). Every proposal that waits when a
round begins shares that round's sync. The node drives rounds from its event loop; the simulation drives them by hand.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from pyswarm.api import defaults
from pyswarm.api import v1 as api
from pyswarm.raft import commands
from pyswarm.raft.commands import BadCommand, Type
from pyswarm.raft.core import Core, Outlet, Timing
from pyswarm.raft.log import LostLeadership, Member, NodeStopped, ProposalError, StateMachine, TooLarge
from pyswarm.raft.membership import Change, voters
from pyswarm.raft.snapshots import SnapshotStore
from pyswarm.raft.storage import Storage

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RaftSettings:
    """Timing of one manager. `tick` is in seconds, the others in ticks (spec/store-and-raft, section 10)."""

    tick: float = 1.0
    heartbeat_tick: int = 1
    election_tick: int = 10

    @property
    def timing(self) -> Timing:
        """In seconds."""
        return Timing(self.heartbeat_tick * self.tick, self.election_tick * self.tick)


@dataclass(frozen=True, slots=True)
class Events:
    """Whom to tell. Both are called between entries, on the driving thread, and must not raise."""

    leadership: Callable[[bool], None]
    members: Callable[[Sequence[Member]], None]


@dataclass(slots=True)
class Waiting:
    """Somebody who waits for an entry to be applied."""

    command: bytes
    done: asyncio.Future[int]
    request: api.InternalRaftRequest | None = None
    proposal: Any | None = None
    index: int = 0
    term: int = 0


class Replica:
    """See the module. All calls from one thread."""

    def __init__(
        self,
        storage: Storage,
        machine: StateMachine,
        settings: RaftSettings,
        clock: Callable[[], float],
        config: Callable[[], api.RaftConfig],
        events: Events,
        outlet: Outlet,
        chance: random.Random,
        addr: str = "",
    ) -> None:
        self._journal = storage.journal
        self._machine = machine
        self._settings = settings
        self._config = config
        self._events = events
        self._chance = chance
        self._snapshot = storage.snapshot
        self._membership = storage.membership
        self._identity = storage.journal.identity
        self._addr = addr
        self._registered = False
        self._registering = 0
        self._queue: deque[Waiting] = deque()
        self._waiting: dict[int, Waiting] = {}
        self._next_id = chance.getrandbits(63)
        self._announced: int | None = None
        self._silent_ticks = 0
        self._patience = 0
        self._heartbeat_ticks = 0
        self._tried_snapshot = 0
        self.snapshots = SnapshotStore(storage.files, self._capture, lambda: self._config().keep_old_snapshots)
        self._core = self._build(outlet, clock)
        if storage.snapshot is not None:
            self._core.start_from(storage.snapshot.start.last.index)
            self.snapshots.index = self._core.applied
            self._registered = self._is_current(self._membership.members.get(self._identity.raft_id))
        self.applied = self._core.applied
        """Index of the last entry the state machine has seen."""
        self._draw_patience()

    def _build(self, outlet: Outlet, clock: Callable[[], float]) -> Core:
        """The core, with the voters that snapshot and log together name."""
        later = [c for c, i, _ in self._journal[:] if i > 1]
        own = self._identity.raft_id
        others = voters(self._membership, later).members.keys() - {own}
        return Core(own, others, self._journal, self.snapshots, outlet, self._settings.timing, clock, self._apply)

    def restore(self) -> None:
        """Give the state machine the snapshot. Once, before the first round; what follows in the log comes through `apply`."""
        snapshot, self._snapshot = self._snapshot, None
        if snapshot is not None:
            self._machine.restore(snapshot.snapshot.store)

    # --- asking

    @property
    def core(self) -> Core:
        """The consensus underneath."""
        return self._core

    @property
    def raft_id(self) -> int:
        """This member's id."""
        return self._identity.raft_id

    @property
    def leads(self) -> bool:
        """Leading, caught up, and announced as such."""
        return self._announced is not None

    def members(self) -> Sequence[Member]:
        """The present members by raft id, this one included."""
        leader = self._core.leader_id
        members = dict(self._membership.members)
        own = self._identity
        members.setdefault(own.raft_id, api.RaftMember(raft_id=own.raft_id, node_id=own.node_id, addr=self._addr))
        return [Member(m.raft_id, m.node_id, m.addr, leader=i == leader) for i, m in sorted(members.items())]

    def submit(self, request: api.InternalRaftRequest, proposal: Any | None, done: asyncio.Future[int]) -> None:
        """Have a request proposed in the next round. Raises LostLeadership, TooLarge."""
        if self._announced is None:
            raise LostLeadership
        request.ClearField("id")
        if request.ByteSize() > defaults.MAX_TRANSACTION_BYTES:
            raise TooLarge
        self._next_id = (self._next_id + 1) % (1 << 63)
        request.id = self._next_id | 1 << 63
        self._queue.append(Waiting(commands.store(request.SerializeToString()), done, request, proposal))

    def submit_barrier(self, done: asyncio.Future[int]) -> None:
        """Have `done` resolved once everything committed before is applied and leadership is proven. Raises LostLeadership."""
        if self._announced is None:
            raise LostLeadership
        if not self._core.voters and not self._waiting and not self._queue:
            done.set_result(self.applied)
            return
        self._queue.append(Waiting(commands.BARRIER, done))

    # --- driving

    def count_tick(self) -> None:
        """One tick of time has passed."""
        self._silent_ticks += 1
        self._heartbeat_ticks += 1

    def begin(self) -> None:
        """Append everything that waits, and let the others write at the same time as this member's disk."""
        if self._must_register:
            self._register()
        if self._announced is not None:
            self._append_queue()
        if self._core.leading and self._core.voters and (self._journal.dirty or self._heartbeat_ticks >= self._settings.heartbeat_tick):
            self._heartbeat_ticks = 0
            self._core.send_entries()

    @property
    def must_sync(self) -> bool:
        """Whether `sync` has anything to do."""
        return self._journal.dirty

    def sync(self) -> None:
        """Make the log durable. Blocking; nothing else may be called meanwhile but `submit`. Raises JournalFailed."""
        self._journal.sync()

    def finish(self) -> bool:
        """After the sync: elect, commit, apply, tell. Whether another round is due at once."""
        self._campaign_if_due()
        self._snapshot_if_due()
        committed = self._core.committed
        self._core.tick()
        if self._core.committed != committed and self._core.leading and self._core.voters:
            self._core.send_entries()
        self._release_log()
        self._publish()
        return self._journal.dirty or bool(self._queue) or self._must_register

    def stop(self) -> None:
        """Say that this member leads no more, then fail those who wait."""
        if self._announced is not None:
            self._resign()
        for waiting in self._queue:
            _fail(waiting, NodeStopped())
        self._queue.clear()

    # --- rounds

    def _append_queue(self) -> None:
        while self._queue:
            waiting = self._queue.popleft()
            if waiting.done.done():
                continue
            waiting.index, waiting.term = self._core.append(waiting.command)
            self._waiting[waiting.index] = waiting

    @property
    def _must_register(self) -> bool:
        return self._announced is not None and not self._registered and self._registering != self._announced

    def _register(self) -> None:
        """Make this member's own entry in the replicated table say what is true; asked once per term."""
        own = self._identity
        member = api.RaftMember(raft_id=own.raft_id, node_id=own.node_id, addr=self._addr)
        self._core.append(commands.membership(Change(kind=Change.UPDATE, member=member)))
        self._registering = self._core.term

    def _campaign_if_due(self) -> None:
        """A sole member stands at once, others after a random time without a leader."""
        core = self._core
        if core.leading or self._identity.raft_id not in self._membership.members:
            return
        if not core.voters or self._silent_ticks >= self._patience:
            self._draw_patience()
            core.campaign()

    def _draw_patience(self) -> None:
        election = self._settings.election_tick
        self._silent_ticks = 0
        self._patience = self._chance.randint(election, 2 * election - 1)

    def _snapshot_if_due(self) -> None:
        interval = self._config().snapshot_interval
        applied = self._core.applied
        if interval and not self.snapshots.busy and applied - self.snapshots.index >= interval and applied > self._tried_snapshot:
            self._journal.spare_entries = self._config().log_entries_for_slow_followers
            self._core.snapshot()
            self._tried_snapshot = applied

    def _release_log(self) -> None:
        """Once a snapshot is on disk, files with nothing but older entries may go."""
        oldest = self.snapshots.take_finished()
        if oldest is not None:
            self._journal.release(oldest - 1)

    def _publish(self) -> None:
        core = self._core
        if self._announced is not None and not (core.leading and core.term == self._announced):
            self._resign()
        if self._announced is None and core.caught_up and not self._journal.dirty:
            self._announced = core.term
            log.info("raft leadership won", term=core.term, index=self.applied)
            self._events.leadership(True)

    def _resign(self) -> None:
        log.info("raft leadership ended", term=self._announced, waiting=len(self._waiting))
        self._announced = None
        self._events.leadership(False)
        waiting, self._waiting = self._waiting, {}
        for one in waiting.values():
            _fail(one, LostLeadership(uncertain=True))
        for one in self._queue:
            _fail(one, LostLeadership())
        self._queue.clear()

    # --- applying

    def _apply(self, index: int, command: bytes) -> None:
        self.applied = index
        waiting = self._claim(index)
        match command[0]:
            case Type.STORE:
                if waiting is not None and waiting.request is not None:
                    self._machine.apply(index, waiting.request, waiting.proposal)
                else:
                    self._machine.apply(index, commands.parse_request(command), None)
            case Type.VOTERS | Type.FACTS:
                self._apply_membership(command)
            case Type.NO_OP | Type.BARRIER:
                pass
            case other:
                raise BadCommand(f"unknown entry type {other}: written by a newer pyswarm?")
        if waiting is not None:
            del self._waiting[index]
            waiting.done.set_result(index)

    def _claim(self, index: int) -> Waiting | None:
        """Who waits for the entry at `index`, if the entry there is the one that was proposed and somebody still listens.

        It stays among those who wait until the entry is applied: should that fail, it is told with the others.
        """
        waiting = self._waiting.get(index)
        if waiting is None:
            return None
        entry = self._journal.at(index)
        if entry is not None and entry[2] == waiting.term and not waiting.done.done():
            return waiting
        del self._waiting[index]
        _fail(waiting, LostLeadership())
        return None

    def _apply_membership(self, command: bytes) -> None:
        change = commands.parse_membership(command)
        if change is None:
            return
        self._membership.apply(change)
        if change.member.raft_id == self._identity.raft_id:
            self._registered = self._is_current(self._membership.members.get(change.member.raft_id))
        self._events.members(self.members())

    def _is_current(self, member: api.RaftMember | None) -> bool:
        return member is not None and (not self._addr or member.addr == self._addr)

    def _capture(self) -> Callable[[], api.Snapshot]:
        build = self._machine.capture()
        membership = self._membership.snapshot()
        return lambda: api.Snapshot(version=api.Snapshot.V0, membership=membership, store=build())


def _fail(waiting: Waiting, error: ProposalError) -> None:
    if not waiting.done.done():
        waiting.done.set_exception(error)
