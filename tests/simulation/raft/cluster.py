"""A whole raft cluster in one thread: virtual time, links that misbehave, disks that forget, everything from one seed.

After every step: no index is applied differently on two members, and no term has two leaders. At the end, after healing: every acknowledged
write is in every member's state, all members are equal, and a new write goes through.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import heapq
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pyswarm.api import v1 as api
from pyswarm.errors import FailedPrecondition
from pyswarm.raft import codec
from pyswarm.raft import filter as screen
from pyswarm.raft.filter import Verdict, View
from pyswarm.raft.log import Dropped, Member
from pyswarm.raft.membership import Change
from pyswarm.raft.messages import OURS, Message
from pyswarm.raft.replica import Events, Job, RaftSettings, Replica
from pyswarm.raft.storage import found_storage, join_storage, open_storage
from pyswarm.raft.traffic import Judge
from pyswarm.raft.vault import Vault
from tests.raft.disks import PowerCut
from tests.raft.nodes import KEY, Memory, Recorder, create

STEP = 0.1


class Violation(AssertionError):
    """An invariant does not hold."""


class Outcome:
    """What becomes of a proposal; stands in for a future, without an event loop."""

    def __init__(self) -> None:
        self.index: int | None = None
        self.error: BaseException | None = None

    def done(self) -> bool:
        """See Future."""
        return self.index is not None or self.error is not None

    def set_result(self, index: int) -> None:
        """See Future."""
        self.index = index

    def set_exception(self, error: BaseException) -> None:
        """See Future."""
        self.error = error


@dataclass(slots=True)
class Manager:
    """One member: its disks survive, the rest does not."""

    raft_id: int
    disks: Memory
    machine: Recorder = field(default_factory=Recorder)
    replica: Replica | None = None
    jobs: list[tuple[float, Job]] = field(default_factory=list)
    checked: int = 1
    ticked: float = 0.0
    born: int = 0
    paused_until: float = 0.0
    hears_from: float = 0.0
    """When what was sent to a paused member reaches it: a little after it has woken up."""


@dataclass(frozen=True, slots=True)
class Weather:
    """How bad things are, as probabilities per step or message."""

    reorder: bool = False
    cut: float = 0.004
    isolate: float = 0.003
    heal: float = 0.01
    reset: float = 0.02
    crash: float = 0.01
    propose: float = 0.3
    join: float = 0.0
    remove: float = 0.0
    transfer: float = 0.0
    read: float = 0.0
    pause: float = 0.0
    snapshot_interval: int = 15


def facts(raft_id: int) -> api.RaftMember:
    """A manager as the members' table has it."""
    return api.RaftMember(raft_id=raft_id, node_id=f"node-{raft_id}", addr="addr")


def unfiltered(view: View, sender: int, message: Message) -> Verdict:
    """PySyncObj as it comes; some messages are ours, and it knows nothing of them."""
    return screen.receive(view, sender, message) if isinstance(message, OURS) else Verdict(message)


class Cluster:
    """See the module."""

    def __init__(self, seed: int, size: int, weather: Weather, judge: Judge = screen.receive) -> None:
        self.chance = random.Random(seed)
        self.weather = weather
        self.judge = judge
        self.now = 0.0
        self.cuts: set[frozenset[int]] = set()
        self.epochs: dict[frozenset[int], int] = {}
        self.queue: list[tuple[float, int, int, int, int, Message]] = []
        self.sequence = 0
        self.latest: dict[tuple[int, int], float] = {}
        self.history: dict[int, tuple[bytes, int]] = {}
        self.leaders: dict[int, int] = {}
        self.proposals: list[tuple[str, Outcome]] = []
        self.readers = random.Random(f"reads of {seed}")
        self.reads: list[tuple[int, int, Outcome]] = []
        self.reads_answered = 0
        self.installed = 0
        self.changed: list[Outcome] = []
        self.transfers = 0
        self.founders = range(1, size + 1)
        self.managers = {i: Manager(i, Memory()) for i in range(1, size + 1)}
        for manager in self.managers.values():
            self.start(manager)

    # --- members

    def start(self, manager: Manager) -> None:
        """Begin with what the disks hold."""
        vault = Vault("cluster", f"node-{manager.raft_id}", (KEY,), manager.raft_id)
        storage = open_storage(manager.disks.log, manager.disks.snapshots, vault, 5)
        founder = manager.raft_id in self.founders
        if storage is None:
            make = functools.partial(found_storage, addr="addr") if founder else join_storage
            storage = make(manager.disks.log, manager.disks.snapshots, vault)
        if storage.snapshot is None and founder:
            for i in self.founders:
                storage.membership.apply(Change(kind=Change.UPDATE, member=facts(i)))
        manager.machine = Recorder()
        manager.jobs = []
        manager.born += 1
        config = api.RaftConfig(snapshot_interval=self.weather.snapshot_interval, log_entries_for_slow_followers=5)
        events = Events(lambda leads: None, self._members)
        chance = random.Random(self.chance.getrandbits(64))
        replica = Replica(
            storage, manager.machine, RaftSettings(tick=1.0), lambda: self.now, lambda: config, events, chance, "addr", self.judge
        )
        manager.replica = replica
        replica.restore()
        manager.checked = replica.applied
        for other in self.managers:
            if other != manager.raft_id and self.linked(manager.raft_id, other):
                replica.peers.link_up(other)

    def _members(self, members: Sequence[Member]) -> None:
        pass

    def crash(self, manager: Manager) -> None:
        """Lose power: unsynced bytes may be lost in part. Start again at once."""
        keep = self.chance.choice([0, 1, 60, 10**6])
        log = manager.disks.memory_log.after_crash(keep, holes=self.chance.random() < 0.3)
        manager.disks = Memory(log, manager.disks.memory_snapshots.after_crash())
        manager.replica = None
        for other in self.managers:
            if other != manager.raft_id:
                self.reset(manager.raft_id, other)
        self.start(manager)

    def round(self, manager: Manager) -> None:
        """One round, as the node drives it."""
        replica = manager.replica
        if replica is None:
            return
        try:
            for due, job in list(manager.jobs):
                if due <= self.now:
                    manager.jobs.remove((due, job))
                    self._work(job)
            replica.begin()
            self.post(manager, replica.traffic.take(synced=False))
            if replica.must_sync:
                replica.sync()
            self.post(manager, replica.traffic.take(synced=True))
            replica.finish()
            self.post(manager, replica.traffic.take(synced=not replica.must_sync))
            manager.jobs += [(self.now + self.chance.uniform(0, 3), job) for job in replica.jobs()]
        except PowerCut:
            self.crash(manager)
            return
        except Exception:
            if self.judge is not unfiltered:
                raise
            self.crash(manager)  # the library stumbled over a message it should never have seen
            return
        self.check(manager, replica)

    def _work(self, job: Job) -> None:
        result, error = None, None
        try:
            result = job.work()
        except PowerCut:
            raise
        except Exception as exc:  # noqa: BLE001 - as the node does
            error = exc
        job.then(result, error)

    # --- links

    def linked(self, a: int, b: int) -> bool:
        """Whether messages can pass."""
        return frozenset((a, b)) not in self.cuts

    def post(self, manager: Manager, messages: list[tuple[int, Message]]) -> None:
        """Send, each with a delay; in order unless the weather is wild."""
        # the library keeps members in sets, whose order differs between processes: a seed must not
        for to, message in sorted(messages, key=lambda m: m[0]):
            link = (manager.raft_id, to)
            if not self.linked(*link) or to not in self.managers:
                continue
            at = self.now + self.chance.uniform(0.001, 0.15)
            if self.weather.reorder:
                if self.chance.random() < 0.1:
                    at += self.chance.uniform(0, 8)
                self._enqueue(at, link, message)
                if self.chance.random() < 0.1:
                    self._enqueue(at + self.chance.uniform(0, 5), link, message)
            else:
                if self.chance.random() < 0.01:
                    at += self.chance.uniform(0, 5)
                at = max(at, self.latest.get(link, 0) + 1e-6)
                self.latest[link] = at
                self._enqueue(at, link, message)

    def _enqueue(self, at: float, link: tuple[int, int], message: Message) -> None:
        self.sequence += 1
        epoch = self.epochs.get(frozenset(link), 0)
        heapq.heappush(self.queue, (at, self.sequence, link[0], link[1], epoch, message))

    def reset(self, a: int, b: int) -> None:
        """Break the connection: what is under way is lost, both ends notice, and connect again if they can."""
        pair = frozenset((a, b))
        self.epochs[pair] = self.epochs.get(pair, 0) + 1
        for link in ((a, b), (b, a)):
            self.latest.pop(link, None)
            replica = self.managers[link[0]].replica
            if replica is not None:
                replica.peers.link_down(link[1])
                if self.linked(a, b):
                    replica.peers.link_up(link[1])

    def cut(self, a: int, b: int) -> None:
        """No messages between two members from now on."""
        self.cuts.add(frozenset((a, b)))
        self.reset(a, b)

    def heal(self) -> None:
        """All links work again."""
        cuts, self.cuts = self.cuts, set()
        for pair in sorted(cuts, key=sorted):
            self.reset(*sorted(pair))

    def deliver(self) -> None:
        """Hand over what is due."""
        while self.queue and self.queue[0][0] <= self.now:
            _, sequence, a, b, epoch, message = heapq.heappop(self.queue)
            if self.managers[b].hears_from > self.now:
                heapq.heappush(self.queue, (self.managers[b].hears_from, sequence, a, b, epoch, message))
                continue
            if not self.linked(a, b) or (epoch != self.epochs.get(frozenset((a, b)), 0) and not self.weather.reorder):
                continue
            replica = self.managers[b].replica
            if replica is not None:
                replica.traffic.put(a, codec.parse(codec.encode(message).SerializeToString()))

    # --- time

    def step(self) -> None:
        """A tenth of a tick."""
        self.now += STEP
        self.deliver()
        for manager in self.managers.values():
            replica = manager.replica
            if manager.paused_until > self.now:
                continue
            if replica is not None and self.now - manager.ticked >= 1.0:
                manager.ticked = self.now
                replica.count_tick()
            if replica is not None and replica.leads and self.chance.random() < self.weather.propose:
                self.propose(replica)
            if replica is not None and replica.leads and self.readers.random() < self.weather.read:
                self.read(manager, replica)
            self.round(manager)
        self.judge_reads()

    def propose(self, replica: Replica) -> Outcome:
        """One more write."""
        name, outcome = f"w{len(self.proposals)}", Outcome()
        try:
            replica.submit(create(name), None, outcome)  # type: ignore[arg-type]
        except Dropped as error:
            outcome.set_exception(error)
        self.proposals.append((name, outcome))
        return outcome

    def read(self, manager: Manager, replica: Replica) -> Outcome:
        """One more read, which must not miss what is acknowledged by now."""
        outcome = Outcome()
        newest = max((o.index for _, o in self.proposals if o.index is not None), default=0)
        self.reads.append((manager.raft_id, newest, outcome))
        replica.submit_read(outcome)  # type: ignore[arg-type]
        return outcome

    def leader(self) -> Replica | None:
        """Somebody who says that it leads."""
        return next((m.replica for m in self.managers.values() if m.replica is not None and m.replica.leads), None)

    def join(self) -> None:
        """A new manager with an empty disk."""
        raft_id = max(self.managers) + 1
        manager = self.managers[raft_id] = Manager(raft_id, Memory(), ticked=self.now)
        self.start(manager)
        for other in self.managers:
            if other != raft_id:
                self.reset(raft_id, other)

    def admit(self, leader: Replica) -> None:
        """Who is no member and never was asks to become one, again and again."""
        table = leader.membership
        for raft_id in self.managers:
            if raft_id not in table.members and raft_id not in table.removed:
                leader.changes.admit(facts(raft_id))

    def politics(self) -> None:
        """Managers may come, go, and hand over."""
        leader, weather = self.leader(), self.weather
        if leader is None or not (weather.join or weather.remove or weather.transfer):
            return
        if self.chance.random() < weather.join and len(self.managers) < len(self.founders) + 6:
            self.join()
        if self.chance.random() < 0.05:
            self.admit(leader)
        if self.chance.random() < weather.remove:
            unwanted = self.chance.choice(sorted(leader.membership.members))
            if unwanted != leader.raft_id and len(leader.membership.members) > 2 and leader.changes.can_remove(unwanted):
                self.changed.append(outcome := Outcome())
                leader.changes.submit(Change(kind=Change.REMOVE, member=facts(unwanted)), outcome)  # type: ignore[arg-type]
        if self.chance.random() < weather.transfer:
            with contextlib.suppress(FailedPrecondition):
                leader.changes.hand_over()
                self.transfers += 1

    def misfortune(self) -> None:
        """Something may break, or be repaired."""
        ids, weather = list(self.managers), self.weather
        if self.chance.random() < weather.cut and len(ids) > 1:
            self.cut(*self.chance.sample(ids, 2))
        if self.chance.random() < weather.isolate:
            alone = self.chance.choice(ids)
            for other in ids:
                if other != alone:
                    self.cut(alone, other)
        if self.cuts and self.chance.random() < weather.heal:
            self.heal()
        if self.chance.random() < weather.reset and len(ids) > 1:
            self.reset(*self.chance.sample(ids, 2))
        if weather.pause and self.readers.random() < weather.pause:
            sleeper = self.managers[self.readers.choice(ids)]
            sleeper.paused_until = self.now + self.readers.uniform(1, 60)
            sleeper.hears_from = sleeper.paused_until + self.readers.uniform(0, 2)
        if self.chance.random() < weather.crash:
            unlucky = self.managers[self.chance.choice(ids)]
            if self.chance.random() < 0.5:
                self.crash(unlucky)
            else:
                disk = self.chance.choice([unlucky.disks.memory_log, unlucky.disks.memory_snapshots])
                disk.die_at = disk.calls + self.chance.randint(1, 4)

    # --- judgement

    def check(self, manager: Manager, replica: Replica) -> None:
        """The invariants that hold at every moment."""
        core = replica.core
        if core.leading and self.leaders.setdefault(core.term, manager.raft_id) != manager.raft_id:
            raise Violation(f"two leaders in term {core.term}")
        for index in range(manager.checked + 1, core.applied + 1):
            entry = replica.entry(index)
            if entry is None:
                self.installed += 1
                break
            known = self.history.setdefault(index, (entry[0], entry[2]))
            if known != (entry[0], entry[2]):
                raise Violation(f"entry {index} was applied differently on member {manager.raft_id}")
        manager.checked = core.applied

    def judge_reads(self) -> None:
        """What was read is not older than what anybody knew when the read began."""
        for raft_id, newest, outcome in self.reads:
            if outcome.index is not None:
                self.reads_answered += 1
                if outcome.index < newest:
                    raise Violation(f"member {raft_id} answered a read from before entry {newest}, which was acknowledged already")
            elif getattr(outcome.error, "uncertain", False):
                raise Violation("the outcome of a read is never uncertain")
        self.reads = [r for r in self.reads if not r[2].done()]

    def run(self, steps: int) -> None:
        """Trouble for so many steps, then peace, then the final judgement."""
        for _ in range(steps):
            self.misfortune()
            self.politics()
            self.step()
        self.calm()
        self.judge_all()

    def calm(self) -> None:
        """Heal everything and wait until a write of now has reached everybody."""
        self.heal()
        self.weather = dataclasses.replace(self.weather, propose=0.0)
        for manager in self.managers.values():
            manager.disks.memory_log.die_at = manager.disks.memory_snapshots.die_at = 0
            manager.paused_until = manager.hears_from = 0.0
        last: Outcome | None = None
        for _ in range(3000):
            self.step()
            leader = self.leader()
            if leader is not None:
                self.admit(leader)
            if leader is not None and (last is None or last.error is not None):
                last = self.propose(leader)
            if last is not None and last.index is not None and self._everywhere(last.index):
                return
        raise Violation("no progress after everything was repaired")

    def members(self) -> list[Manager]:
        """Those who are to have everything in the end: all but the removed."""
        removed = set().union(*(m.replica.membership.removed for m in self.managers.values() if m.replica is not None))
        return [m for i, m in self.managers.items() if i not in removed]

    def _everywhere(self, index: int) -> bool:
        members = self.members()
        everybody = {m.raft_id for m in members}
        return all(
            m.replica is not None and m.replica.applied >= index and m.replica.membership.members.keys() == everybody for m in members
        )

    def judge_all(self) -> None:
        """Every acknowledged write is everywhere, once, in one order."""
        acknowledged = [name for name, outcome in self.proposals if outcome.index is not None]
        proposed = {name for name, _ in self.proposals}
        members = self.members()
        shortest = min(len(m.machine.names) for m in members)
        first: list[Any] = members[0].machine.names
        for manager in members:
            names = manager.machine.names
            if names[:shortest] != first[:shortest]:
                raise Violation(f"member {manager.raft_id} has another state")
            if len(set(names)) != len(names):
                raise Violation("a write was applied twice")
            if missing := set(acknowledged) - set(names):
                raise Violation(f"acknowledged writes are lost on member {manager.raft_id}: {sorted(missing)[:3]}")
            if set(names) - proposed:
                raise Violation("a write appeared that was never proposed")
