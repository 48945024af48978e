"""One member, without threads, sockets or waiting: what happens between two syncs of the log.

A round is `begin` (append what waits), the caller's sync of the journal, `finish` (commit, apply, tell). Every proposal that waits when a
round begins shares that round's sync. The node drives rounds from its event loop; the simulation drives them by hand.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from pyswarm.api import v1 as api
from pyswarm.api.private import raft_pb2
from pyswarm.raft import commands, parts
from pyswarm.raft import filter as screen
from pyswarm.raft.changes import Changes
from pyswarm.raft.chores import Chores, Job
from pyswarm.raft.commands import BadCommand, Type
from pyswarm.raft.core import Core, Timing
from pyswarm.raft.election import Election
from pyswarm.raft.errors import JournalFailed
from pyswarm.raft.log import Dropped, LostLeadership, Member, NodeStopped, ProposalError, StateMachine
from pyswarm.raft.membership import Membership, voters
from pyswarm.raft.messages import Ack, Probe
from pyswarm.raft.peers import Peers
from pyswarm.raft.presence import Presence
from pyswarm.raft.proposals import Proposals
from pyswarm.raft.reads import Reader, Reads
from pyswarm.raft.snapshots import SnapshotFiles
from pyswarm.raft.standing import Standing
from pyswarm.raft.storage import Storage
from pyswarm.raft.traffic import Judge, Traffic
from pyswarm.raft.transfers import Arrived

log = structlog.get_logger(__name__)

Arrival = tuple[raft_pb2.LogSnapshot, Callable[[], None]]
"""A snapshot on disk, without its store, and what makes that the state."""


@dataclass(frozen=True, slots=True)
class RaftSettings:
    """Timing of one manager. `tick` is in seconds, the others in ticks (spec/store-and-raft, section 10)."""

    tick: float = 0.1
    heartbeat_tick: int = 1
    election_tick: int = 10

    @property
    def timing(self) -> Timing:
        """In seconds."""
        return Timing(self.heartbeat_tick * self.tick, self.election_tick * self.tick)


@dataclass(frozen=True, slots=True)
class Events:
    """Whom to tell. All are called between entries, on the driving thread, and must not raise. `removed`: this member was removed."""

    leadership: Callable[[bool], None]
    members: Callable[[Sequence[Member]], None]
    removed: Callable[[], None] = lambda: None


__all__ = ["Events", "Job", "RaftSettings", "Replica"]


class Replica(Standing):
    """See the module. All calls from one thread."""

    def __init__(
        self,
        storage: Storage,
        machine: StateMachine,
        settings: RaftSettings,
        clock: Callable[[], float],
        config: Callable[[], api.RaftConfig],
        events: Events,
        chance: random.Random,
        addr: str = "",
        judge: Judge = screen.receive,
    ) -> None:
        self._journal = storage.journal
        self._files = storage.files
        self._machine = machine
        self._settings = settings
        self._config = config
        self._events = events
        self._snapshot = storage.snapshot
        self._membership = storage.membership
        self._identity = storage.journal.identity
        self._presence = Presence(self._identity, addr)
        self._election_tick = settings.election_tick
        self._proposals = Proposals(chance.getrandbits(63))
        self._reads = Reads()
        self._announced = None
        self._heartbeat_ticks = 0
        self._told_leader = 0
        self.untold = False
        """Whether the others do not know yet how much is committed. The next entry tells them; if none comes soon, so should `tell`."""
        self._chores = Chores(storage.files, self._journal, self._capture, config, chance)
        self.traffic = Traffic(self._identity.raft_id, self._journal, self._membership, self._chores.sender, self._reads, judge)
        self.traffic.leader_within = settings.election_tick
        self._core = self._build(storage, clock)
        self.traffic.attach(self._core)
        self.peers = Peers(self._core, self.traffic, settings.election_tick)
        """Whom messages reach; told by whoever runs the connections."""
        self._election = Election(self._core, self._journal, self.traffic, self.peers, settings.election_tick, chance)
        self.changes = Changes(
            self._core, self._journal, self._membership, self.traffic, self.peers, self._proposals, settings.election_tick
        )
        """A leader's work on the membership."""
        if storage.snapshot is not None:
            self._core.start_from(storage.snapshot.start.last.index)
            self._chores.snapshots.index = self._core.applied
            self._presence.look(self._membership)
        self.contacts: dict[int, api.RaftMember] = {}
        """Members and learners to be connected to, by raft id; replaced, never changed."""
        self.applied = self._core.applied
        """Index of the last entry the state machine has seen."""

    def _build(self, storage: Storage, clock: Callable[[], float]) -> Core:
        """The core, with the voters that snapshot and log together name."""
        own = self._identity.raft_id
        present = storage.present().members.keys()
        self._named = own in present
        others = present - {own}
        snapshots, sender = self._chores.snapshots, self._chores.sender
        return Core(own, others, self._journal, snapshots, sender, self.traffic, self._settings.timing, clock, self._apply)

    def restore(self, prepared: Callable[[], None] | None = None) -> None:
        """Give the state machine the snapshot. Once, before the first round; what follows in the log comes through `apply`.

        `prepared`: what the machine made ready in a thread, because that takes long.
        """
        snapshot, self._snapshot = self._snapshot, None
        if snapshot is not None:
            (prepared or self._machine.prepare(snapshot.snapshot.store))()

    # --- wishes

    def submit(self, request: api.InternalRaftRequest, proposal: Any | None, done: asyncio.Future[int]) -> None:
        """Have a request proposed in the next round. Raises LostLeadership, Dropped, TooLarge."""
        if self._announced is None:
            raise LostLeadership
        if self.changes.handing_over:
            raise Dropped
        self._proposals.add(request, proposal, done)

    def submit_read(self, done: Reader) -> None:
        """Have `done` resolved once everything committed before is applied and leadership is proven. Raises LostLeadership."""
        if self._announced is None:
            raise LostLeadership
        self._reads.add(done)
        if not self._core.voters:
            self._reads.advance(self._core.committed, self.applied, self._core.voters)

    def rekey(self, key: bytes, done: asyncio.Future[None]) -> None:
        """Have log and snapshots kept under another key; `done` is resolved when nothing is left under an older one."""
        self._chores.rekeying.ask(key, done)

    def advertise(self, addr: str) -> None:
        """Be reached at `addr` from now on; the table follows while this member leads."""
        self._presence.move(addr, self._membership)

    # --- driving

    def count_tick(self) -> None:
        """One tick of time has passed."""
        self.traffic.count_tick()
        self.peers.count_tick()
        self.changes.count_tick()
        self._heartbeat_ticks += 1
        self._chores.sender.count_tick(self._settings.election_tick)
        if self._core.leading:
            self.traffic.silent_ticks = 0
        else:
            self._chores.sender.rest()

    def begin(self) -> None:
        """Take in what arrived, append what waits, and let the others write at the same time as this member's disk."""
        self.traffic.handle_all()
        self._publish_loss()
        self._align()
        self._chores.rekeying.begin(self.traffic.arrived.index if self.traffic.arrived is not None else 0)
        if self._presence.due(self._announced):
            self._core.append(self._presence.entry(self._core.term))
        if self._announced is not None:
            self.changes.work()
            if not self.changes.handing_over:
                self._proposals.append_to(self._core)
        heartbeat = self._heartbeat_ticks >= self._settings.heartbeat_tick
        if self._announced is not None:
            self._answer_reads(ask_again=heartbeat)
        if self._core.leading and (self._journal.dirty or heartbeat or self.traffic.push or self._chores.sender.fresh):
            self._heartbeat_ticks = 0
            self.traffic.push = self._chores.sender.fresh = self.untold = False
            self._core.send_entries()
        elif not self._core.leading:
            self.traffic.push = False  # a leader's intention; left over, it would make round follow round without end

    @property
    def must_sync(self) -> bool:
        """Whether `sync` has anything to do."""
        return self._journal.dirty or self._chores.rekeying.releasing

    def sync(self) -> None:
        """Make the log durable. Blocking; nothing else may be called meanwhile but `submit`. Raises JournalFailed."""
        self._journal.sync()

    def finish(self) -> bool:
        """After the sync: elect, commit, apply, tell. Whether another round is due at once."""
        self._election.consider(self.is_member or self._named)
        if self._chores.snapshot_due(self._core.applied):
            self._core.snapshot()
        committed, led = self._core.committed, self._core.leading
        self._core.tick()
        if led and not self._core.leading:
            self.changes.recommend()
        self.untold = self._core.leading and bool(self._core.voters) and (self.untold or self._core.committed != committed)
        self._chores.release_log()
        self._publish()
        queued = (self._proposals.queued and not self.changes.handing_over) or self.changes.waiting
        work = queued or self.traffic.waiting or self.traffic.push or self.traffic.voters_changed
        return bool(work or self._chores.rekeying.due or self._journal.dirty or self._presence.due(self._announced))

    def tell(self) -> None:
        """Have the next round say how much is committed."""
        if self.untold:
            self.traffic.push = True

    def stop(self) -> None:
        """Say that this member leads no more, then fail those who wait."""
        if self._announced is not None:
            self._resign(NodeStopped())
        self._chores.rekeying.fail(NodeStopped())

    # --- blocking work on the side

    def jobs(self) -> list[Job]:
        """Blocking work that has become due: taking a snapshot, loading one to send, keeping one that arrived. Each is handed out once."""
        due = self._chores.jobs(self._core.applied)
        arrived = self.traffic.arrived
        if arrived is not None and not self.traffic.installing:
            self.traffic.installing = True
            keep_old = self._config().keep_old_snapshots
            due.append(Job(lambda: _keep(arrived, self._files, keep_old, self._machine), self._install))
        return due

    def _install(self, arrival: Arrival | None, error: Exception | None) -> None:
        """The arrived snapshot is on disk: make it the state, unless entries got here first."""
        if error is not None:
            raise JournalFailed(f"a snapshot from the leader could not be stored: {error}. Repair or free the disk, restart") from error
        self.traffic.arrived = None
        self.traffic.installing = False
        if arrival is None:
            return
        snapshot, restore = arrival
        prev, last = snapshot.start.prev, snapshot.start.last
        if not self.traffic.contains(last.index, last.term):
            table = Membership(snapshot.snapshot.membership, snapshot.era)
            self._membership.replace(table)
            own = self._identity.raft_id
            self._core.install(
                (prev.command, prev.index, prev.term), (last.command, last.index, last.term), self._membership.members.keys() - {own}
            )
            self.applied = last.index
            self._chores.snapshots.index = max(self._chores.snapshots.index, last.index)
            restore()
            self._told_members()
            log.info("installed a snapshot from the leader", index=last.index, term=last.term)
        if self._core.leader_id not in {0, self._identity.raft_id}:
            self.traffic.send(self._core.leader_id, Ack(self._core.term, last.index + 1, success=True))

    # --- rounds

    def _answer_reads(self, *, ask_again: bool) -> None:
        core = self._core
        self._reads.advance(core.committed, self.applied, core.voters)
        number, missing = self._reads.questions(core.voters, again=ask_again)
        for voter in missing:
            self.traffic.send(voter, Probe(core.term, number))

    def _align(self) -> None:
        """Voters are what table and log together say, whatever the library made of single entries; connections follow them."""
        if self.traffic.voters_changed:
            self.traffic.voters_changed = False
            later = [c for c, _, _ in self._journal.batch(self.applied + 1, 1 << 62)]
            voting = voters(self._membership, later).members
            self._named = voting.pop(self._identity.raft_id, None) is not None
            self._core.set_voters(voting.keys())
            for raft_id in voting:
                self.changes.dismiss(raft_id)
            self.contacts = voting | {m.raft_id: m for m in self.changes.contacts()}
            self.traffic.voters_changed = False
        self.peers.align(self.changes.learners)

    def _publish(self) -> None:
        self._publish_loss()
        core = self._core
        if self._announced is None and core.caught_up and not self._journal.dirty:
            self._announced = core.term
            log.info("raft leadership won", term=core.term, index=self.applied)
            self._events.leadership(True)
        if self.leader_id != self._told_leader:
            self._told_leader = self.leader_id
            self._events.members(self.members())

    def _publish_loss(self) -> None:
        if self._announced is not None and not (self._core.leading and self._core.term == self._announced):
            self._resign(LostLeadership())

    def _resign(self, queued: ProposalError) -> None:
        log.info("raft leadership ended", term=self._announced, waiting=len(self._proposals))
        self._announced = None
        self._events.leadership(False)
        self._proposals.fail(queued)
        self._reads.fail(queued)
        self.changes.resign(queued)

    # --- applying

    def _apply(self, index: int, command: bytes) -> None:
        self.applied = index
        waiting = self._proposals.claim(index, self._journal)
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
        self._proposals.applied(index)

    def _apply_membership(self, command: bytes) -> None:
        change = commands.parse_membership(command)
        if change is None:
            return
        self._membership.apply(change)
        self._told_members()

    def _told_members(self) -> None:
        """The table has changed."""
        self.traffic.voters_changed = True
        self._presence.look(self._membership)
        self._events.members(self.members())
        if self._identity.raft_id in self._membership.removed:
            self._events.removed()

    def _capture(self) -> Callable[[], tuple[raft_pb2.LogSnapshot, api.StoreSnapshot]]:
        build = self._machine.capture()
        head = api.Snapshot(version=api.Snapshot.V0, membership=self._membership.snapshot())
        era = self._membership.era
        return lambda: (raft_pb2.LogSnapshot(snapshot=head, era=era), build())


def _keep(arrived: Arrived, files: SnapshotFiles, keep_old: int, machine: StateMachine) -> Arrival | None:
    """Blocking: look at a snapshot that arrived, store it, and prepare to make it the state. None for a damaged one."""
    snapshot = arrived.open()
    if snapshot is None:
        return None
    files.write(snapshot, keep_old)
    head, store = parts.apart(snapshot)
    return head, machine.prepare(store)
