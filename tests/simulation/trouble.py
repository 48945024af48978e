"""What goes wrong: each run has its own selection of faults, drawn from its seed."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from pyswarm.agent.executor.fake import Script
from pyswarm.api import v1 as api
from pyswarm.errors import SwarmError
from tests.simulation.managers import SimManager
from tests.simulation.users import BAD, FLAKY, SLOW

if TYPE_CHECKING:
    from tests.simulation.cluster import Cluster


class Containers:
    """How tasks behave: by their image, and a little by chance, the same for one task every time it is asked."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.calm = False

    def __call__(self, task: api.Task) -> Script:
        """The script of a task."""
        chance = random.Random(f"{self._seed} {task.id}")
        kind = task.spec.container.image.partition(":")[0]
        prepare, start, stop = chance.choice(((0.0, 0.0, 0.0), (0.1, 0.1, 0.2), (1.0, 0.5, 1.0)))
        if kind == SLOW:
            prepare, start, stop = 4.0 * chance.random(), 3.0, 5.0
        ends = task.HasField("job_iteration")
        if self.calm:
            return Script(prepare, start, 0.5 if ends else None, min(stop, 1.0))
        if kind == BAD:
            return chance.choice((
                Script(prepare, prepare_error="no such image"),
                Script(prepare, start, start_error="exec format error"),
                Script(prepare, start, 0.1, exit_code=1),
                Script(refuse="cannot run this"),
            ))  # fmt: skip
        life = chance.expovariate(1 / 8) if kind == FLAKY and chance.random() < 0.7 else None
        if ends:
            code = chance.choice((0, 1)) if kind == FLAKY else 0
            return Script(prepare, start, chance.choice((0.0, 1.0, 5.0)), stop, code, temporary_failures=chance.choice((0, 0, 1)))
        return Script(prepare, start, life, stop, chance.choice((0, 1)), temporary_failures=chance.choice((0, 0, 0, 0, 1)))


FOR_SEVERAL = (
    "kill_leader", "leader_dies_at_work", "stop_leader", "freeze_leader", "isolate_leader",
    "isolate_managers_from_leader", "blackout", "transfer", "transfer",
    "demote", "promote", "join_manager", "cut_managers", "split", "reset_managers", "lose_answer",
)  # fmt: skip
FAULTS = (
    *FOR_SEVERAL,
    "kill_manager", "manager_dies_at_work", "stop_manager", "freeze_manager", "set_clock", "slow_disk",
    "kill_agent", "agent_dies_at_work", "stop_agent", "freeze_agent", "crash_machine",
    "cut", "cut", "isolate", "reset", "slow_host", "container_ends", "remove_node", "remove_living_node", "join_node",
)  # fmt: skip


class Trouble:
    """Breaks things until it is cancelled; what it breaks for a while it also repairs."""

    def __init__(self, cluster: Cluster, chance: random.Random) -> None:
        self._cluster = cluster
        self._chance = chance
        scenario = cluster.scenario
        self._pause = scenario.pause or chance.choice((1.0, 3.0, 8.0))
        names = scenario.faults
        if names is None:
            every = FAULTS if len(cluster.managers) > 1 else [name for name in FAULTS if name not in FOR_SEVERAL]
            names = chance.sample(every, min(len(every), chance.choice((0, 2, 4, 8, len(every)))))
        self._faults: list[Callable[[], Awaitable[None]]] = [getattr(self, name) for name in names]

    async def run(self) -> None:
        """One fault after another."""
        if not self._faults:
            return
        async with asyncio.TaskGroup() as group:
            while True:
                await asyncio.sleep(self._chance.expovariate(1 / self._pause))
                group.create_task(self._one(self._chance.choice(self._faults)))

    async def _one(self, fault: Callable[[], Awaitable[None]]) -> None:
        await fault()

    def _note(self, what: str, *args: object) -> None:
        self._cluster.trace("trouble", what, *args)

    # --- managers

    def _any(self) -> SimManager:
        return self._chance.choice(self._cluster.managers)

    def _leader(self) -> SimManager:
        """Whoever leads; anybody when nobody does."""
        return self._cluster.leader or self._any()

    async def kill_manager(self) -> None:
        """kill -9."""
        self._kill(self._any())

    async def kill_leader(self) -> None:
        """kill -9 of the one that matters."""
        self._kill(self._leader())

    async def blackout(self) -> None:
        """All managers lose power at once."""
        for manager in self._cluster.managers:
            self._kill(manager)

    def _kill(self, manager: SimManager) -> None:
        if manager.process is not None:
            self._note(f"kills {manager.name}")
            manager.process.die()

    async def manager_dies_at_work(self) -> None:
        """The power goes with one of the next messages or writes."""
        self._light(self._any())

    async def leader_dies_at_work(self) -> None:
        """The same, for the leader."""
        self._light(self._leader())

    def _light(self, manager: SimManager) -> None:
        if manager.process is not None and not manager.process.fuse:
            manager.process.fuse = self._chance.choice((1, 2, 3, 5, 10, 30, 100))
            self._note(f"lights a fuse of {manager.process.fuse} in {manager.name}")

    async def stop_manager(self) -> None:
        """SIGTERM."""
        self._stop(self._any())

    async def stop_leader(self) -> None:
        """SIGTERM for the leader, which hands over."""
        self._stop(self._leader())

    def _stop(self, manager: SimManager) -> None:
        if manager.process is not None:
            self._note(f"stops {manager.name}")
            manager.process.stop()

    async def freeze_manager(self) -> None:
        """SIGSTOP, and SIGCONT later."""
        await self._freeze(self._any())

    async def freeze_leader(self) -> None:
        """The same, for the leader."""
        await self._freeze(self._leader())

    async def slow_disk(self) -> None:
        """Each sync takes long, for a while."""
        slow = self._any().address
        self._note(f"slows the disk of {slow}")
        self._cluster.slow_disks.add(slow)
        try:
            await asyncio.sleep(self._chance.uniform(1, 15))
        finally:
            self._cluster.slow_disks.discard(slow)

    async def transfer(self) -> None:
        """Leadership is handed over."""
        leader = self._cluster.leader
        if leader is None or leader.raft is None or leader.process is None:
            return
        self._note(f"has {leader.name} hand over")
        raft = leader.raft

        async def hand_over() -> None:
            with contextlib.suppress(SwarmError):
                await raft.transfer_leadership()

        leader.process.spawn(hand_over())

    async def demote(self) -> None:
        """A manager becomes a worker, the leader among others."""
        await self._set_role(self._any(), api.NodeRole.WORKER)

    async def promote(self) -> None:
        """A former manager becomes one again."""
        demoted = [
            m for m in self._cluster.managers if (node := self._cluster.node_of(m)) and node.spec.desired_role == api.NodeRole.WORKER
        ]
        if demoted:
            await self._set_role(self._chance.choice(demoted), api.NodeRole.MANAGER)

    async def _set_role(self, manager: SimManager, role: api.NodeRole.ValueType) -> None:
        if manager.node_id:
            self._note(f"wants {manager.name} to be a {api.NodeRole.Name(role).lower()}")
            with contextlib.suppress(SwarmError):
                await self._cluster.operator.set_role(manager.node_id, role)

    async def join_manager(self) -> None:
        """One more manager."""
        if len(self._cluster.managers) < self._cluster.most_managers:
            self._note("adds a manager")
            self._cluster.add_manager()

    async def set_clock(self) -> None:
        """Somebody sets a clock."""
        member = self._chance.choice([*self._cluster.managers, *self._cluster.workers])
        member.clock.skew += self._chance.uniform(-3, 3)
        self._note(f"sets the clock of {member.name}: %s", round(member.clock.skew, 3))

    async def _freeze(self, member: object) -> None:
        process = getattr(member, "process", None)
        if process is None or process in self._cluster.loop.frozen:
            return
        self._note(f"freezes {process.name}")
        self._cluster.loop.freeze(process)
        try:
            await asyncio.sleep(self._chance.choice((0.5, 5.0, 25.0)) * self._chance.random())
        finally:
            self._note(f"thaws {process.name}")
            self._cluster.loop.thaw(process)

    # --- workers

    async def kill_agent(self) -> None:
        """kill -9; containers go on."""
        worker = self._chance.choice(self._cluster.workers)
        if worker.process is not None:
            self._note(f"kills {worker.name}")
            worker.process.die()

    async def agent_dies_at_work(self) -> None:
        """It dies with one of its next messages or writes."""
        worker = self._chance.choice(self._cluster.workers)
        if worker.process is not None and not worker.process.fuse:
            worker.process.fuse = self._chance.choice((1, 2, 3, 5, 10))
            self._note(f"lights a fuse of {worker.process.fuse} in {worker.name}")

    async def stop_agent(self) -> None:
        """SIGTERM; containers go on."""
        worker = self._chance.choice(self._cluster.workers)
        if worker.process is not None:
            self._note(f"stops {worker.name}")
            worker.process.stop()

    async def freeze_agent(self) -> None:
        """SIGSTOP, and SIGCONT later."""
        await self._freeze(self._chance.choice(self._cluster.workers))

    async def crash_machine(self) -> None:
        """Daemon and containers."""
        self._chance.choice(self._cluster.workers).crash_machine()

    async def container_ends(self) -> None:
        """A task fails."""
        worker = self._chance.choice(self._cluster.workers)
        running = [i for i, c in worker.machine.containers.items() if c.started_at is not None and c.exit_code is None]
        if running:
            unlucky = self._chance.choice(running)
            self._note(f"ends a container on {worker.name}: %s", unlucky[:6])
            worker.machine.end(unlucky, self._chance.choice((0, 1, 137)))

    async def remove_node(self) -> None:
        """Somebody switches a worker off for good and removes it."""
        cluster = self._cluster
        if len(cluster.workers) > cluster.fewest_workers:
            await cluster.retire(self._chance.choice(cluster.workers))

    async def remove_living_node(self) -> None:
        """Somebody removes a worker by force; its machine goes on for a while before it is switched off."""
        cluster = self._cluster
        candidates = [worker for worker in cluster.workers if worker.node_id]
        if len(cluster.workers) > cluster.fewest_workers and candidates:
            worker = self._chance.choice(candidates)
            await cluster.retire(worker, after=self._chance.uniform(0, 10))

    async def join_node(self) -> None:
        """One more worker."""
        if len(self._cluster.workers) < self._cluster.most_workers:
            await self._cluster.add_worker()

    # --- the network

    async def cut(self) -> None:
        """Messages of one direction do not arrive for a while."""
        hosts = [m.name for m in self._cluster.workers] + [u.name for u in self._cluster.users]
        hosts += [m.address for m in self._cluster.managers[1:]]
        one, manager = self._chance.choice(hosts), self._chance.choice(self._cluster.managers).address
        pair = self._chance.choice(((one, manager), (manager, one)))
        await self._cut_for_a_while([pair], f"cuts {pair[0]} > {pair[1]}")

    async def cut_managers(self) -> None:
        """Messages between two managers do not arrive for a while, in one direction or both."""
        if len(self._cluster.managers) > 1:
            one, other = self._chance.sample([m.address for m in self._cluster.managers], 2)
            both = self._chance.random() < 0.4
            await self._cut_for_a_while([(one, other), (other, one)][: 1 + both], f"cuts {one} {'-' if both else '>'} {other}")

    async def split(self) -> None:
        """Managers in two parts, users and workers on either side."""
        sides: tuple[list[str], list[str]] = ([], [])
        for member in (*self._cluster.managers, *self._cluster.workers, *self._cluster.users):
            self._chance.choice(sides).append(member.address if isinstance(member, SimManager) else member.name)
        pairs = [pair for a in sides[0] for b in sides[1] for pair in ((a, b), (b, a))]
        await self._cut_for_a_while(pairs, f"splits {' '.join(sides[0])} from {' '.join(sides[1])}")

    async def reset_managers(self) -> None:
        """Connections between two managers break."""
        if len(self._cluster.managers) > 1:
            one, other = self._chance.sample([m.address for m in self._cluster.managers], 2)
            self._note(f"resets {one} - {other}")
            self._cluster.network.reset(one, other)

    async def lose_answer(self) -> None:
        """The connection between a manager and the leader breaks when the next answer to a call that was passed on is under way."""
        others = [m.address for m in self._cluster.managers if m is not self._leader()]
        if others:
            one, leader = self._chance.choice(others), self._leader().address
            self._note(f"has {leader}'s next answer to {one} lost")
            self._cluster.network.losing.add(frozenset((one, leader)))

    async def isolate(self) -> None:
        """Nobody reaches a manager, nor it anybody."""
        await self._isolate(self._any().address)

    async def isolate_leader(self) -> None:
        """The same, for the leader."""
        await self._isolate(self._leader().address)

    async def isolate_managers_from_leader(self) -> None:
        """Managers cannot reach the leader, nor it them; users and workers reach all."""
        alone = self._leader().address
        others = [m.address for m in self._cluster.managers if m.address != alone]
        await self._cut_for_a_while([pair for o in others for pair in ((alone, o), (o, alone))], f"cuts {alone} off from managers")

    async def _isolate(self, alone: str) -> None:
        cluster = self._cluster
        others = [h.name for h in (*cluster.workers, *cluster.users)] + [m.address for m in cluster.managers if m.address != alone]
        await self._cut_for_a_while([pair for o in others for pair in ((alone, o), (o, alone))], f"isolates {alone}")

    async def _cut_for_a_while(self, pairs: list[tuple[str, str]], what: str) -> None:
        self._note(what)
        for pair in pairs:
            self._cluster.network.cut(*pair)
        try:
            await asyncio.sleep(self._chance.choice((2.0, 10.0, 40.0)) * self._chance.random())
        finally:
            self._note(f"heals what it did: {what}")
            self._cluster.network.heal(*pairs)

    async def reset(self) -> None:
        """Connections break."""
        one = self._chance.choice([*self._cluster.workers, *self._cluster.users]).name
        manager = self._chance.choice(self._cluster.managers).address
        self._note(f"resets {one} - {manager}")
        self._cluster.network.reset(one, manager)

    async def slow_host(self) -> None:
        """Whatever a host sends is late, for a while."""
        hosts = [m.address for m in self._cluster.managers] + [w.name for w in self._cluster.workers]
        slow = self._chance.choice(hosts)
        self._note(f"slows {slow}")
        self._cluster.network.slow_hosts.add(slow)
        try:
            await asyncio.sleep(self._chance.uniform(1, 20))
        finally:
            self._cluster.network.slow_hosts.discard(slow)
