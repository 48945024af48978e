"""A cluster in which nothing happens by chance: messages wait on the wire until the script lets them pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from pyswarm.raft import codec, records
from pyswarm.raft.errors import RaftFailure
from pyswarm.raft.messages import Message
from pyswarm.raft.replica import Replica
from tests.raft.disks import PowerCut
from tests.raft.nodes import Memory
from tests.simulation.raft.clients import Outcome
from tests.simulation.raft.cluster import Cluster, Manager
from tests.simulation.raft.judge import Violation
from tests.simulation.raft.links import Links, Way
from tests.simulation.raft.weather import CALM

Sent = tuple[int, int, Message]
"""From, to, what."""
Keep = Callable[[int, int, Message], bool]


class Wire(Links):
    """Links that keep what is sent."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self.sent_messages: list[Sent] = []

    def post(self, sender: int, messages: Iterable[tuple[int, Message]]) -> None:
        """See Links."""
        self.sent_messages += [(sender, to, m) for to, m in sorted(messages, key=lambda m: m[0]) if (sender, to) in self._up]

    def fall(self, way: Way) -> None:
        """See Links."""
        super().fall(way)
        self.sent_messages = [s for s in self.sent_messages if s[:2] != way]

    def cut(self, way: Way) -> None:
        """See Links; noticed at once."""
        self.cuts.add(way)
        self.fall(way)


class Clumsiness(Exception):
    """What a state machine of a script raises in the middle of an entry."""


class Stage(Cluster):
    """See the module."""

    links: Wire

    def __init__(self, size: int, snapshot_interval: int = 0) -> None:
        super().__init__(1, size, dataclasses.replace(CALM, snapshot_interval=snapshot_interval))
        self.connect()

    def make_links(self) -> Links:
        """See Cluster."""
        return Wire(self.chance, False, self._tell, self.is_there)

    def connect(self) -> None:
        """Bring up every way that is not cut."""
        for way in sorted(self.links._down - self.links.cuts):
            if self.is_there(way[0]) and self.is_there(way[1]):
                self.links._down.discard(way)
                self.links._up.add(way)
                self._tell(way, True)

    def replica(self, raft_id: int) -> Replica:
        """A member that runs."""
        replica = self.managers[raft_id].replica
        assert replica is not None
        return replica

    def job_seconds(self) -> float:
        """See Cluster."""
        return 0.0

    @contextmanager
    def process(self, manager: Manager, replica: Replica) -> Iterator[None]:
        """See Cluster. What ends a process ends it until the script revives it; the library's own loop would go on after anything else."""
        try:
            yield
        except PowerCut:
            self._lose_power(manager)
        except RaftFailure:
            self.stop(manager.raft_id)
        except Clumsiness:
            manager.awake = True

    def _lose_power(self, manager: Manager) -> None:
        """What it had sent arrives; of what it was writing only the first record reaches the disk."""
        wire, self.links.sent_messages = self.links.sent_messages, []
        for sent in wire:
            self.hear(*sent)
        log = manager.disks.memory_log
        written = next(iter(log.loose.values()))
        first = records.parse(written, 0)
        assert first is not None
        manager.disks = Memory(log.after_crash(first.end), manager.disks.memory_snapshots.after_crash())
        self.end(manager)

    # --- what the script does

    def settle(self, keep: Keep = lambda a, b, m: False) -> list[Sent]:
        """Rounds, and messages in the order in which they were sent, until nothing moves. What is to be kept is returned instead."""
        kept: list[Sent] = []
        for _ in range(200):
            for manager in self.managers.values():
                self.round(manager)
            wire, self.links.sent_messages = self.links.sent_messages, []
            if not wire and not any(m.awake or m.jobs for m in self.managers.values() if m.replica is not None):
                return kept
            for sent in wire:
                if keep(*sent):
                    kept.append(sent)
                else:
                    self.hear(*sent)
        raise Violation("they talk for ever")

    def hear(self, sender: int, to: int, message: Message) -> None:
        """A message arrives, whether it was sent or not."""
        replica = self.managers[to].replica
        if replica is not None:
            replica.traffic.put(sender, codec.parse(codec.encode(message).SerializeToString()))
            self.managers[to].awake = True

    def tick(self, count: int = 1, keep: Keep = lambda a, b, m: False) -> list[Sent]:
        """Time passes for those who run and are awake."""
        kept: list[Sent] = []
        for _ in range(count):
            self.now += 1.0
            for manager in self.managers.values():
                if manager.replica is not None and manager.frozen_until <= self.now:
                    manager.replica.count_tick()
            kept += self.settle(keep)
        return kept

    def elect(self, raft_id: int, keep: Keep = lambda a, b, m: False) -> Replica:
        """Have a member stand for election, as if nobody had heard of a leader for long."""
        replica = self.replica(raft_id)
        for manager in self.managers.values():
            if manager.replica is not None:
                manager.replica.traffic.leader_within = 0
        replica.core.campaign()
        self.settle(keep)
        for manager in self.managers.values():
            if manager.replica is not None:
                manager.replica.traffic.leader_within = 10
        return replica

    def propose(self, raft_id: int, name: str) -> Outcome:
        """A write; nothing moves yet."""
        return self.write(self.managers[raft_id], name)

    def written(self, raft_id: int, name: str) -> Outcome:
        """A write that goes as far as it gets."""
        outcome = self.propose(raft_id, name)
        self.settle()
        return outcome

    def part(self, *groups: Iterable[int]) -> None:
        """Only members of one group hear each other."""
        self.links.cuts.clear()
        for group in groups:
            for a in group:
                for b in self.managers:
                    if b not in set(group):
                        self.links.cut((a, b))
                        self.links.cut((b, a))
        self.connect()

    def join_all(self) -> None:
        """Everybody hears everybody, on new connections."""
        self.links.heal()
        self.connect()

    def stop(self, raft_id: int) -> None:
        """The process is killed, and stays away."""
        self.managers[raft_id].disks = self.managers[raft_id].disks.after_crash()
        self.end(self.managers[raft_id])

    def revive(self, raft_id: int) -> None:
        """It comes back with what its disks hold."""
        self.start(self.managers[raft_id])
        self.connect()

    def newcomer(self, raft_id: int) -> Manager:
        """A manager with an empty disk, connected."""
        manager = self.add(raft_id)
        self.connect()
        return manager

    def finish(self) -> None:
        """Everything is repaired, time passes, the final judgement."""
        self.join_all()
        for manager in self.managers.values():
            if manager.replica is None and not manager.removed:
                self.revive(manager.raft_id)
        for _ in range(100):
            self.tick()
            leader = self.leader()
            if leader is not None:
                self.admit(leader)
            if leader is not None and self._everywhere(leader.applied):
                break
        else:
            raise Violation("no progress after everything was repaired")
        self.conclude()
