"""Real managers on hosts of their own, users who write and read all along, and one fault after the other; then the reckoning.

    python -m tests.cluster.chaos --cycles 50 --managers 5 --seed 7

Says on the standard error stream what it does, and at the end one line of JSON. Fails (status 1) when an acknowledged write is lost or done
twice, a read is stale, managers do not come together again, or their contents differ. Times vary from run to run, so a seed repeats
the faults but not what comes of them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import pathlib
import random
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tools.cluster import StoryError
from tools.hosts import HostedCluster, HostsError, managers

from pyswarm.api import v1 as api
from tests.cluster.faults import DISK_FULL, FAULTS, shuffled
from tests.cluster.replicas import CALL_SECONDS, connection, same_everywhere, together
from tests.cluster.users import LABEL, Impatient, Memory, Saw, User

WRITERS, IMPATIENT = 8, 3
"""Users of any manager, and of each."""
NAMES_PER_CYCLE = 6
HOLD_SECONDS = (1.5, 4.0)
LONG_PAUSE_SECONDS = 30.0
LONG_RUN = 20
"""Cycles. A run of at least so many has a leader paused for long."""
SETTLE_SECONDS = 0.7
UNFORESEEN = ("level=error", "level=critical", "Traceback", "unexpected")
SNAPSHOT_INTERVAL, SPARE_ENTRIES = 400, 50
"""Entries. Small, so that managers that were away also get snapshots instead of the log."""


@dataclass(slots=True)
class Cycle:
    """One fault, and what users noticed of it."""

    kind: str
    victims: tuple[str, ...]
    led: bool
    """Whether the leader was among the victims."""
    gap: float = 0.0


@dataclass(slots=True)
class Chaos:
    """A run. `cluster` has all its managers up."""

    cluster: HostedCluster
    chance: random.Random
    kinds: Sequence[str] = tuple(FAULTS)
    tell: Callable[[str], None] = lambda _text: None
    memory: Memory = field(default_factory=Memory)
    cycles: list[Cycle] = field(default_factory=list)
    _names: list[str] = field(default_factory=list)

    @property
    def managers(self) -> tuple[str, ...]:
        """All of them."""
        return self.cluster.hosts.names

    async def run(self, cycles: int) -> dict[str, Any]:
        """All of it; what the last line says. Raises StoryError."""
        await self._prepare()
        try:
            await self._misbehave(cycles)
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return await self._reckon()

    async def _misbehave(self, cycles: int) -> None:
        """All cycles, under users."""
        kinds = shuffled(self.kinds, self.chance)
        async with asyncio.TaskGroup() as group:
            self._next_names()
            users = [group.create_task(user.run()) for user in self._users()]
            await asyncio.sleep(SETTLE_SECONDS)
            for number in range(cycles):
                await self._cycle(next(kinds))
                if number + 1 == LONG_RUN:
                    await self._cycle("paused", long=True)
            for task in users:
                task.cancel()

    async def _prepare(self) -> None:
        """Small snapshots, often."""
        async with connection(self.cluster.socket) as stub:
            found = (await stub.ListClusters(api.ListClustersRequest(), timeout=CALL_SECONDS)).clusters[0]
            found.spec.raft.snapshot_interval, found.spec.raft.log_entries_for_slow_followers = SNAPSHOT_INTERVAL, SPARE_ENTRIES
            request = api.UpdateClusterRequest(cluster_id=found.id, cluster_version=found.meta.version, spec=found.spec)
            await stub.UpdateCluster(request, timeout=CALL_SECONDS)

    def _users(self) -> list[User]:
        sockets = [str(self.cluster.socket_of(name)) for name in self.managers]
        users = [User(f"user{number}", sockets, *self._life()) for number in range(WRITERS)]
        return users + [Impatient(f"hasty{n}-{m}", [socket], *self._life()) for n, socket in enumerate(sockets) for m in range(IMPATIENT)]

    def _life(self) -> tuple[Callable[[], Sequence[str]], Memory, random.Random]:
        return lambda: self._names, self.memory, random.Random(self.chance.getrandbits(64))

    def _next_names(self) -> None:
        """Other objects for each cycle: histories stay short."""
        self._names = [f"c{len(self.cycles)}-{number}" for number in range(NAMES_PER_CYCLE)]

    # --- one fault after the other

    async def _cycle(self, kind: str, *, long: bool = False) -> None:
        """One fault, from before it happens until all is well again. A `long` one is the leader's."""
        leader = await together(self.cluster, self.managers)
        self._next_names()
        await asyncio.sleep(SETTLE_SECONDS)
        victims = (leader,) if long else self._victims(leader)
        hold = LONG_PAUSE_SECONDS if long else self.chance.uniform(*HOLD_SECONDS)
        cycle = Cycle(f"{kind} for {hold:.0f} s" if long else kind, victims, leader in victims)
        self.cycles.append(cycle)
        self.tell(f"cycle {len(self.cycles)}: {cycle.kind}: {', '.join(victims)}{' (leader)' if cycle.led else ''}")
        begun = time.monotonic()
        await asyncio.to_thread(FAULTS[kind].begin, self.cluster, victims)
        await asyncio.sleep(hold)
        await asyncio.to_thread(FAULTS[kind].end, self.cluster, victims)
        await together(self.cluster, self.managers)
        cycle.gap = self.memory.longest_gap(begun, time.monotonic())

    def _victims(self, leader: str) -> tuple[str, ...]:
        """A minority; with the leader in every second cycle."""
        count = self.chance.randint(1, (len(self.managers) - 1) // 2)
        followers = [name for name in self.managers if name != leader]
        self.chance.shuffle(followers)
        return (leader, *followers[: count - 1]) if self.chance.random() < 0.5 else tuple(followers[:count])

    # --- the reckoning

    async def _reckon(self) -> dict[str, Any]:
        """Every history explained, every manager's contents the same, also after a power cut of all. Raises StoryError."""
        await same_everywhere(self.cluster, self.managers)
        for name in self.managers:
            await asyncio.to_thread(self.cluster.kill, name)
        for name in self.managers:
            await asyncio.to_thread(self.cluster.start, name)
        await same_everywhere(self.cluster, self.managers, self._remember)
        begun = time.monotonic()
        if wrong := self.memory.unexplained() or "\n".join([*self.memory.oddities, *self._complaints()]):
            raise StoryError(wrong)
        self.tell(f"{sum(map(len, self.memory.calls.values()))} calls explained in {time.monotonic() - begun:.1f} s")
        gaps: dict[str, float] = defaultdict(float)
        for cycle in self.cycles:
            who = f"{cycle.kind}, {'leader' if cycle.led else 'others'}"
            gaps[who] = max(gaps[who], round(cycle.gap, 2))
        return {
            "managers": len(self.managers),
            "cycles": len(self.cycles),
            "writes_acknowledged": len(self.memory.acknowledged),
            "writes_uncertain": self.memory.uncertain,
            "writes_refused": self.memory.refused,
            "reads": self.memory.reads,
            "lost": 0,
            "longest_gap_s": dict(sorted(gaps.items())),
        }

    def _complaints(self) -> Iterator[str]:
        """What managers wrote down that no fault explains: errors but those of full disks, and whatever nobody foresaw."""
        for name in self.managers:
            for line in (self.cluster.root / f"{name}.log").read_text(errors="replace").splitlines():
                if any(words in line for words in UNFORESEEN) and not any(words in line for words in DISK_FULL):
                    yield f"{name}: {line}"

    def _remember(self, store: api.StoreSnapshot, begun: float) -> None:
        """A last look counts as a read of every name."""
        found = {config.spec.annotations.name: config for config in store.configs}
        for config in store.configs:
            self.memory.note(config)
        for name in self.memory.calls:
            last = found.get(name)
            seen = Saw(last.id, last.spec.annotations.labels[LABEL]) if last is not None else Saw("", "")
            self.memory.add(name, begun, time.monotonic(), seen)


def main() -> int:
    """The command; its status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=10)
    parser.add_argument("--managers", type=int, default=3, choices=(3, 5))
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--faults", type=lambda text: text.split(","), default=list(FAULTS), help="only these, separated by commas")
    options = parser.parse_args()
    if unknown := set(options.faults) - FAULTS.keys():
        parser.error(f"no such fault: {', '.join(sorted(unknown))}; there are {', '.join(FAULTS)}")
    seed = options.seed if options.seed is not None else int.from_bytes(os.urandom(4))
    begun = time.monotonic()

    def tell(text: str) -> None:
        print(f"{time.monotonic() - begun:7.1f} s  {text}", file=sys.stderr, flush=True)

    directory = pathlib.Path(tempfile.mkdtemp(prefix=f"psw-chaos-{os.getpid()}-"))
    try:
        with managers(directory, options.managers) as cluster:
            summary = asyncio.run(Chaos(cluster, random.Random(seed), options.faults, tell).run(options.cycles))
    except (StoryError, HostsError) as error:
        print(f"Error: seed {seed}: {error}\nThe managers' logs are in {directory}", file=sys.stderr)
        return 1
    print(json.dumps(summary | {"seed": seed, "seconds": round(time.monotonic() - begun, 1)}))
    for path in directory.glob("*.log"):
        path.unlink()
    for path in directory.iterdir():
        path.rmdir()
    directory.rmdir()
    return 0


if __name__ == "__main__":
    sys.exit(main())
