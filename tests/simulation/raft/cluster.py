"""A whole raft cluster in one thread: virtual time, links that misbehave, disks that forget, everything from one seed.

What must hold is in `judge`, what goes wrong in `trouble`, how often in `weather`. A seed tells the same story every time.
"""

from __future__ import annotations

import dataclasses
import functools
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from pyswarm.api import v1 as api
from pyswarm.api.private import raft_pb2
from pyswarm.errors import FailedPrecondition
from pyswarm.raft import commands
from pyswarm.raft import filter as screen
from pyswarm.raft.errors import JournalFailed, StorageError
from pyswarm.raft.filter import Verdict, View
from pyswarm.raft.membership import Change
from pyswarm.raft.messages import OURS, Message
from pyswarm.raft.replica import Events, Job, RaftSettings, Replica
from pyswarm.raft.snapshots import SnapshotFiles
from pyswarm.raft.storage import join_storage, open_storage
from pyswarm.raft.traffic import Judge as Filter
from pyswarm.raft.vault import Vault
from tests.raft.disks import PowerCut
from tests.raft.nodes import KEY, Memory, Recorder
from tests.simulation.raft.clients import Clients, Outcome
from tests.simulation.raft.judge import Judge, Violation
from tests.simulation.raft.links import Links, Way
from tests.simulation.raft.weather import Weather

STEP = 0.1
"""Seconds; a tick has one second, by the cluster's own clock."""
PEACE = 3000
"""Steps after which a repaired cluster must have taken a write everywhere."""


@dataclass(slots=True)
class Manager:
    """One member: its disks survive, the rest does not."""

    raft_id: int
    disks: Memory
    keys: tuple[bytes, ...] = (KEY,)
    """Its data keys as its key file has them, the newest first."""
    rekeyed: int = 0
    """How often a change of them came to its end."""
    rate: float = 1.0
    """How fast its clock goes."""
    addr: str = "addr"
    machine: Recorder = field(default_factory=Recorder)
    replica: Replica | None = None
    jobs: list[tuple[float, Job]] = field(default_factory=list)
    backlog: list[tuple[int, Message]] = field(default_factory=list)
    awake: bool = True
    """Something happened since its last round, or that asked for another."""
    checked: int = 1
    ticked: float = 0.0
    ahead: float = 0.0
    """Seconds by which its clock has jumped."""
    frozen_until: float = 0.0
    hears_from: float = 0.0
    """When what was sent to a frozen member reaches it: a little after it has woken up."""
    down_until: float = 0.0
    slow_until: float = 0.0
    syncing: float | None = None
    """When the sync that is under way will be over."""
    removed: bool = False
    """It knows that it is no member any more, and is gone for good."""

    def facts(self) -> api.RaftMember:
        """As the members' table has it."""
        return api.RaftMember(raft_id=self.raft_id, node_id=f"node-{self.raft_id}", addr=self.addr)


class Rekeyed:
    """The end of a change of keys: the older one leaves the key file. Stands in for a future."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    def done(self) -> bool:
        """See Future."""
        return len(self._manager.keys) == 1

    def set_result(self, _: None) -> None:
        """See Future."""
        self._manager.keys = self._manager.keys[:1]
        self._manager.rekeyed += 1

    def set_exception(self, error: BaseException) -> None:
        """The process ends; the next one goes on."""


def unfiltered(view: View, sender: int, message: Message) -> Verdict:
    """PySyncObj as it comes; some messages are ours, and it knows nothing of them."""
    return screen.receive(view, sender, message) if isinstance(message, OURS) else Verdict(message)


class Cluster:
    """See the module."""

    def __init__(self, seed: int, size: int, weather: Weather, judge: Filter = screen.receive) -> None:
        self.chance = random.Random(seed)
        self.weather = weather
        self.now = 0.0
        self.filter = judge
        self.judge = Judge()
        self.clients = Clients(lambda: self.now)
        self.links = self.make_links()
        self.founders = range(1, size + 1)
        self.managers: dict[int, Manager] = {}
        for raft_id in self.founders:
            self.add(raft_id)

    def make_links(self) -> Links:
        """The network."""
        return Links(self.chance, self.weather.reorder, self._tell, self.is_there)

    # --- members

    def add(self, raft_id: int) -> Manager:
        """A manager with an empty disk."""
        rate = self.chance.uniform(0.8, 1.25) if self.weather.clock else 1.0
        manager = self.managers[raft_id] = Manager(raft_id, Memory(), rate=rate, ticked=self.now)
        for other in self.managers:
            if other != raft_id:
                self.links.add((raft_id, other))
                self.links.add((other, raft_id))
        if raft_id in self.founders:
            self._found(manager)
        self.start(manager)
        return manager

    def _found(self, manager: Manager) -> None:
        """Put on disk what a cluster of all founders would have: a snapshot that names them."""
        vault = Vault("cluster", f"node-{manager.raft_id}", (KEY,), manager.raft_id)
        join_storage(manager.disks.log, manager.disks.snapshots, vault)
        prev, last = (raft_pb2.LogEntry(command=commands.NO_OP, index=i) for i in (9, 10))
        table = api.ClusterSnapshot(members=[Manager(i, manager.disks).facts() for i in self.founders])
        snapshot = raft_pb2.LogSnapshot(start=raft_pb2.LogStart(prev=prev, last=last), snapshot=api.Snapshot(membership=table))
        SnapshotFiles(manager.disks.snapshots, vault).write(snapshot, 0)

    def start(self, manager: Manager) -> None:
        """Begin with what the disks hold."""
        vault = Vault("cluster", f"node-{manager.raft_id}", manager.keys, manager.raft_id)
        disks = manager.disks
        storage = open_storage(disks.log, disks.snapshots, vault, 5) or join_storage(disks.log, disks.snapshots, vault)
        manager.machine = Recorder()
        manager.jobs, manager.backlog, manager.syncing, manager.awake = [], [], None, True
        events = Events(lambda leads: None, lambda members: None, functools.partial(setattr, manager, "removed", True))
        chance = random.Random(self.chance.getrandbits(64))
        replica = Replica(
            storage, manager.machine, RaftSettings(tick=1.0), lambda: self.now * manager.rate + manager.ahead, self.config, events, chance,
            manager.addr, self.filter,
        )  # fmt: skip
        manager.replica = replica
        replica.restore()
        manager.checked = replica.applied
        if len(manager.keys) > 1:
            replica.rekey(manager.keys[0], Rekeyed(manager))  # type: ignore[arg-type]

    def rekey(self, manager: Manager) -> None:
        """Its data key is to be another, unless that is under way already."""
        if manager.replica is not None and len(manager.keys) == 1:
            manager.keys = (self.chance.randbytes(32), *manager.keys)
            manager.replica.rekey(manager.keys[0], Rekeyed(manager))  # type: ignore[arg-type]
            manager.awake = True

    def _restart(self, manager: Manager) -> None:
        """Begin again; with a full disk that may not work yet."""
        try:
            self.start(manager)
        except StorageError:
            if not manager.disks.full:
                raise
            manager.down_until = self.now + 10

    def config(self) -> api.RaftConfig:
        """The cluster's settings."""
        return api.RaftConfig(snapshot_interval=self.weather.snapshot_interval, log_entries_for_slow_followers=5)

    def crash(self, manager: Manager, down: float = 0.0) -> None:
        """Lose power: unsynced bytes may be lost in part. Starts again after `down` seconds."""
        keep = self.chance.choice([0, 1, 60, 10**6])
        log = manager.disks.memory_log.after_crash(keep, holes=self.chance.random() < 0.3)
        manager.disks = Memory(log, manager.disks.memory_snapshots.after_crash())
        self.end(manager)
        manager.down_until = self.now + down
        if not down:
            self._restart(manager)

    def end(self, manager: Manager) -> None:
        """The process is gone, and with it every connection from and to it."""
        manager.replica = None
        manager.frozen_until = manager.hears_from = 0.0
        for other in self.managers:
            if other != manager.raft_id:
                self.links.fall((manager.raft_id, other))
                self.links.fall((other, manager.raft_id))

    def is_there(self, raft_id: int) -> bool:
        """Whether somebody would answer."""
        manager = self.managers[raft_id]
        return manager.replica is not None and manager.frozen_until <= self.now

    def _tell(self, way: Way, up: bool) -> None:
        replica = self.managers[way[0]].replica
        if replica is not None:
            (replica.peers.link_up if up else replica.peers.link_down)(way[1])
            self.managers[way[0]].awake = True

    # --- rounds

    def round(self, manager: Manager) -> None:
        """One round, as the node drives it; a slow disk leaves it half done."""
        replica = manager.replica
        if replica is None or manager.frozen_until > self.now:
            return
        with self.process(manager, replica):
            if manager.syncing is None:
                manager.awake = False
                self._work(manager)
                replica.begin()
                self.links.post(manager.raft_id, replica.traffic.take(synced=False))
                slow = manager.slow_until > self.now and replica.must_sync
                manager.syncing = self.now + (self.chance.uniform(0.1, 4) if slow else 0)
            if manager.syncing <= self.now:
                manager.syncing = None
                if replica.must_sync:
                    replica.sync()
                self.links.post(manager.raft_id, replica.traffic.take(synced=True))
                manager.awake |= replica.finish() or replica.untold
                replica.tell()
                self.links.post(manager.raft_id, replica.traffic.take(synced=not replica.must_sync))
                manager.jobs += [(self.now + self.job_seconds(), job) for job in replica.jobs()]
        if manager.replica is replica and manager.syncing is None:
            self.judge.look(manager, replica)

    @contextmanager
    def process(self, manager: Manager, replica: Replica) -> Iterator[None]:
        """Whatever ends a process ends this one."""
        try:
            yield
        except PowerCut:
            self.crash(manager)
        except JournalFailed:
            if not manager.disks.full:
                raise
            replica.stop()
            self.crash(manager, down=self.chance.uniform(1, 60))
        except Violation:
            raise
        except Exception:
            if self.filter is not unfiltered:
                raise
            self.crash(manager)  # the library stumbled over a message it should never have seen

    def job_seconds(self) -> float:
        """How long work on the side takes."""
        return self.chance.uniform(0, 3)

    def _work(self, manager: Manager) -> None:
        for due, job in list(manager.jobs):
            if due <= self.now:
                manager.jobs.remove((due, job))
                result, error = None, None
                try:
                    result = job.work()
                except PowerCut:
                    raise
                except Exception as exc:  # noqa: BLE001 - as the node does
                    error = exc
                job.then(result, error)

    # --- time

    def step(self) -> None:
        """A tenth of a tick."""
        self.now += STEP
        self.links.now = self.now
        for sender, to, message in self.links.due():
            self.arrive(sender, self.managers[to], message)
        self.links.step()
        for manager in list(self.managers.values()):
            self._live(manager)

    def arrive(self, sender: int, manager: Manager, message: Message) -> None:
        """As the transport has it: who was removed hears only that."""
        if manager.replica is not None and sender in manager.replica.membership.removed:
            self.managers[sender].removed = True
        else:
            manager.backlog.append((sender, message))

    def _live(self, manager: Manager) -> None:
        if manager.removed and manager.replica is not None:
            self.end(manager)
        if manager.replica is None and not manager.removed and manager.down_until <= self.now:
            self._restart(manager)
        replica = manager.replica
        if replica is None:
            manager.backlog.clear()
            return
        if manager.frozen_until > self.now:
            return
        if manager.backlog and manager.hears_from <= self.now:
            backlog, manager.backlog = manager.backlog, []
            for sender, message in backlog:
                replica.traffic.put(sender, message)
            manager.awake = True
        if (self.now - manager.ticked) * manager.rate >= 1.0:
            manager.ticked = self.now
            replica.count_tick()
            manager.awake = True
        if replica.leads or self.chance.random() < 0.01:
            self._serve(manager)
        if manager.awake or manager.syncing is not None or any(due <= self.now for due, _ in manager.jobs):
            self.round(manager)

    def _serve(self, manager: Manager) -> None:
        """Clients come to whoever says that it leads, and sometimes to others."""
        if self.chance.random() < self.weather.read:
            self.read(manager)
        if self.chance.random() < self.weather.propose:
            self.write(manager)

    def write(self, manager: Manager, name: str = "") -> Outcome:
        """One more write through a member that runs."""
        assert manager.replica is not None
        manager.awake = True
        return self.clients.write(manager.replica, name)

    def read(self, manager: Manager) -> Outcome:
        """One more read through a member that runs."""
        assert manager.replica is not None
        manager.awake = True
        return self.clients.read(manager.replica, manager.machine)

    def freeze(self, manager: Manager, seconds: float) -> None:
        """It stops, and wakes up as if no time had passed."""
        manager.frozen_until = self.now + seconds
        manager.hears_from = manager.frozen_until + self.chance.uniform(0, 2)

    def leader(self) -> Replica | None:
        """Somebody who says that it leads, and is awake to be asked."""
        return next((m.replica for m in self.managers.values() if m.replica and m.frozen_until <= self.now and m.replica.leads), None)

    # --- members come and go

    def join(self) -> None:
        """A new manager with an empty disk."""
        self.add(max(self.managers) + 1)

    def admit(self, leader: Replica) -> None:
        """Who is no member and never was asks to become one, again and again; who is reached elsewhere says so."""
        table = leader.membership
        self.managers[leader.raft_id].awake = True
        for raft_id, manager in self.managers.items():
            known = table.members.get(raft_id)
            if known is None and raft_id not in table.removed and not manager.removed:
                leader.changes.admit(manager.facts())
            elif known is not None and known.addr != manager.addr and raft_id != leader.raft_id:
                leader.changes.submit(Change(kind=Change.UPDATE, member=manager.facts()), Outcome())  # type: ignore[arg-type]

    def remove(self, leader: Replica, unwanted: int) -> None:
        """Have a member removed, if enough remain; a leader first hands over, as the node does."""
        self.managers[leader.raft_id].awake = True
        if unwanted == leader.raft_id:
            self.hand_over(leader)
        elif leader.changes.can_remove(unwanted):
            leader.changes.submit(Change(kind=Change.REMOVE, member=self.managers[unwanted].facts()), Outcome())  # type: ignore[arg-type]

    def hand_over(self, leader: Replica) -> None:
        """Let somebody else lead, if there is somebody."""
        self.managers[leader.raft_id].awake = True
        try:
            leader.changes.hand_over()
        except FailedPrecondition:
            return

    # --- the end

    def calm(self) -> None:
        """Repair everything and wait until a write of now has reached everybody."""
        self.links.calm()
        self.weather = dataclasses.replace(self.weather, propose=0.0, read=0.0)
        for manager in self.managers.values():
            manager.frozen_until = manager.hears_from = manager.down_until = manager.slow_until = 0.0
            manager.disks.repair()
        last: Outcome | None = None
        for _ in range(PEACE):
            self.step()
            leader = self.leader()
            if leader is not None:
                self.admit(leader)
                if last is None or last.error is not None:
                    last = self.write(self.managers[leader.raft_id])
            if last is not None and last.index is not None and self._everywhere(last.index):
                return
        raise Violation("no progress after everything was repaired")

    def members(self) -> list[Manager]:
        """Those who are to have everything in the end: all but the removed."""
        gone = {i for m in self.managers.values() if m.replica is not None for i in m.replica.membership.removed}
        return [m for i, m in self.managers.items() if i not in gone and not m.removed]

    def _everywhere(self, index: int) -> bool:
        members = self.members()
        wanted = {m.raft_id: m.addr for m in members}
        return all(
            m.replica is not None
            and m.replica.applied >= index
            and {i: known.addr for i, known in m.replica.membership.members.items()} == wanted
            for m in members
        )

    def conclude(self) -> None:
        """The final judgement."""
        self.judge.conclude(self.members(), self.clients)
