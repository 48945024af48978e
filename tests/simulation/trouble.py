"""What goes wrong: each run has its own selection of faults, drawn from its seed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from pyswarm.agent.executor.fake import Script
from pyswarm.api import v1 as api
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
        if self.calm:
            return Script(prepare, start, None, min(stop, 1.0))
        if kind == BAD:
            return chance.choice((
                Script(prepare, prepare_error="no such image"),
                Script(prepare, start, start_error="exec format error"),
                Script(prepare, start, 0.1, exit_code=1),
                Script(refuse="cannot run this"),
            ))  # fmt: skip
        life = chance.expovariate(1 / 8) if kind == FLAKY and chance.random() < 0.7 else None
        return Script(prepare, start, life, stop, chance.choice((0, 1)), temporary_failures=chance.choice((0, 0, 0, 0, 1)))


class Trouble:
    """Breaks things until it is cancelled; what it breaks for a while it also repairs."""

    def __init__(self, cluster: Cluster, chance: random.Random) -> None:
        self._cluster = cluster
        self._chance = chance
        self._pause = chance.choice((1.0, 3.0, 8.0))
        every: list[Callable[[], Awaitable[None]]] = [
            self.kill_manager, self.manager_dies_at_work, self.stop_manager, self.freeze_manager, self.set_clock,
            self.kill_agent, self.agent_dies_at_work, self.stop_agent, self.freeze_agent, self.crash_machine,
            self.cut, self.cut, self.isolate, self.reset, self.slow_host, self.container_ends,
            self.remove_node, self.join_node,
        ]  # fmt: skip
        count = chance.choice((0, 2, 4, 8, len(every)))
        self._faults = chance.sample(every, count)

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

    async def kill_manager(self) -> None:
        """kill -9."""
        manager = self._chance.choice(self._cluster.managers)
        if manager.process is not None:
            self._note(f"kills {manager.name}")
            manager.process.die()

    async def manager_dies_at_work(self) -> None:
        """The power goes with one of the next messages or writes."""
        manager = self._chance.choice(self._cluster.managers)
        if manager.process is not None and not manager.process.fuse:
            manager.process.fuse = self._chance.choice((1, 2, 3, 5, 10, 30))
            self._note(f"lights a fuse of {manager.process.fuse} in {manager.name}")

    async def stop_manager(self) -> None:
        """SIGTERM."""
        manager = self._chance.choice(self._cluster.managers)
        if manager.process is not None:
            self._note(f"stops {manager.name}")
            manager.process.stop()

    async def freeze_manager(self) -> None:
        """SIGSTOP, and SIGCONT later."""
        await self._freeze(self._chance.choice(self._cluster.managers))

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

    async def join_node(self) -> None:
        """One more worker."""
        if len(self._cluster.workers) < self._cluster.most_workers:
            await self._cluster.add_worker()

    # --- the network

    async def cut(self) -> None:
        """Messages of one direction do not arrive for a while."""
        network = self._cluster.network
        hosts = [m.name for m in self._cluster.workers] + [u.name for u in self._cluster.users]
        hosts += [m.address for m in self._cluster.managers[1:]]
        one, manager = self._chance.choice(hosts), self._chance.choice(self._cluster.managers).address
        pair = self._chance.choice(((one, manager), (manager, one)))
        await self._cut_for_a_while([pair], f"cuts {pair[0]} > {pair[1]}")
        del network

    async def isolate(self) -> None:
        """Nobody reaches a manager, nor it anybody."""
        cluster = self._cluster
        alone = self._chance.choice(cluster.managers).address
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
