"""A whole cluster in one process and one thread, everything in it drawn from one seed.

`run(seed)` lets it live with users and trouble for a while, then lets it come to rest, and judges: after every commit (judge.py),
in the end (ending.py), and what its users were told (users.py). A run that finds something ends with `Violation`, whose text is the
end of the trace.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import structlog

from pyswarm.api import v1 as api
from pyswarm.errors import NotFound, SwarmError
from tests.simulation import ending
from tests.simulation.judge import Judge
from tests.simulation.loop import Deadlock, Livelock, SimLoop
from tests.simulation.loop import run as run_loop
from tests.simulation.managers import LogFactory, SimManager, founding_root, single_raft
from tests.simulation.network import Network
from tests.simulation.nodes import SimNode
from tests.simulation.process import Process
from tests.simulation.trace import Trace, tail
from tests.simulation.trouble import Containers, Trouble
from tests.simulation.users import Histories, User

TAIL_LINES = 60
EXPECTED_ERRORS = (
    "nodes not moved to unknown",  # the log refused: leadership is being lost
    "node not marked down node",  # it was removed before its session ran out
)


class Violation(AssertionError):
    """Something that must hold did not. `trace` has all of it."""

    def __init__(self, seed: int, text: str, trace: Trace) -> None:
        self.seed = seed
        self.what = text
        self.trace = trace
        replay = f"Replay: make sim SEED={seed}"
        super().__init__(f"seed {seed}: {text}\n\nThe last events (seconds, who, what):\n{tail(trace.lines(), TAIL_LINES)}\n\n{replay}")


@dataclass(frozen=True)
class Scenario:
    """What a run is made of. Spans are virtual seconds."""

    managers: int = 1
    workers: int = 3
    users: int = 2
    services: int = 3
    span: float = 40.0
    rest: float = 240.0
    quiet: float = 12.0
    tick: float = 1.0
    trouble: Callable[[Cluster, random.Random], Trouble] = Trouble
    make_log: Callable[[Scenario, random.Random], LogFactory] | None = None
    prepare: Callable[[Cluster], None] = lambda _: None
    prepare_worker: Callable[[SimNode], None] = lambda _: None
    """Called with everything that is made before it starts: where tests plant bugs."""


@dataclass
class Outcome:
    """What a run that found nothing was like."""

    seed: int
    seconds: float = 0.0
    commits: int = 0
    steps: int = 0
    calls: int = 0
    digest: str = ""
    lines: Sequence[str] = field(default_factory=list)


class Cluster:
    """All members, users and the network between them."""

    fewest_workers = 2
    most_workers = 6

    def __init__(self, seed: int, scenario: Scenario, loop: SimLoop, chance: random.Random, *, echo: bool = False) -> None:
        self.seed = seed
        self.scenario = scenario
        self.loop = loop
        self.chance = chance
        self.trace = Trace(loop.time, echo=echo)
        self.judge = Judge(loop, self.trace)
        self.network = Network(loop, random.Random(chance.random()))
        self.histories = Histories()
        self.containers = Containers(seed)
        make = scenario.make_log(scenario, chance) if scenario.make_log else single_raft(scenario.tick, chance.choice((0, 30, 200)))
        self.managers = [
            SimManager(f"m{n + 1}", self.network, random.Random(chance.random()), self.trace, self.judge, make)
            for n in range(scenario.managers)
        ]
        for manager in self.managers:
            manager.peers = {m.node_id: m.address for m in self.managers if m is not manager}
        addresses = [(m.node_id, m.address) for m in self.managers]
        self.users = [
            User(
                f"user{n}",
                self.network,
                random.Random(chance.random()),
                self.trace,
                self.histories,
                [a for _, a in addresses],
                scenario.services,
            )
            for n in range(scenario.users)
        ]
        self.workers: list[SimNode] = []
        self.retired: list[SimNode] = []
        self.calm = False
        self._addresses = addresses
        self._keepers: asyncio.TaskGroup
        self._keepers_running: list[asyncio.Task[None]] = []
        self._joined = 0

    # --- members

    async def add_worker(self) -> None:
        """A new machine that joins as soon as it can."""
        self._joined += 1
        chance = random.Random(self.chance.random())
        worker = SimNode(f"w{self._joined}", self.network, chance, self.trace, self.judge, self._addresses, self.containers)
        self.scenario.prepare_worker(worker)
        self.workers.append(worker)
        self._keep(self._keep_worker(worker))

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        self._keepers_running.append(self._keepers.create_task(work))

    async def retire(self, worker: SimNode) -> None:
        """Switch a machine off for good, and remove its node as soon as the cluster lets us."""
        if worker.gone:
            return
        self.trace("operator", f"retires {worker.name}")
        worker.gone = True
        self.workers.remove(worker)
        self.retired.append(worker)
        if worker.process is not None:
            worker.process.die()
        worker.machine.containers.clear()

    async def _keep_manager(self, manager: SimManager) -> None:
        while True:
            manager.start()
            await manager.stopped()
            await asyncio.sleep(self._downtime())

    async def _keep_worker(self, worker: SimNode) -> None:
        joining = Process(self.loop, worker.name, self.trace)
        while not worker.node_id and not worker.gone:
            if not await worker.join(joining):
                await asyncio.sleep(self.chance.uniform(0.5, 2))
        while not worker.gone:
            worker.start()
            await worker.stopped()
            await asyncio.sleep(self._downtime())

    def _downtime(self) -> float:
        return 0.5 if self.calm else self.chance.choice((0.2, 3.0, 20.0)) * self.chance.random()

    @property
    def leader(self) -> SimManager | None:
        """The manager that leads, if one does."""
        return next((m for m in self.managers if m.leading and m.log.is_leader), None)

    # --- a life

    async def live(self) -> None:
        """Trouble, then peace, then judgement."""
        scenario = self.scenario
        scenario.prepare(self)
        async with asyncio.TaskGroup() as self._keepers:
            for manager in self.managers:
                self._keep(self._keep_manager(manager))
            for _ in range(scenario.workers):
                await self.add_worker()
            for user in self.users:
                user.process.start(user.run())
            trouble = self._keepers.create_task(scenario.trouble(self, random.Random(self.chance.random())).run())
            await asyncio.sleep(scenario.span)
            trouble.cancel()
            await asyncio.gather(trouble, return_exceptions=True)
            for user in self.users:
                user.process.die()
                await asyncio.wait([user.process.ended])
            await self._come_to_rest()
            for keeper in self._keepers_running:
                keeper.cancel()

    async def _come_to_rest(self) -> None:
        """Repair everything, ask for something that can be had, and wait until it is there."""
        self.calm = self.containers.calm = True
        self.trace("operator", "--- no more trouble ---")
        self.network.heal()
        self.network.weather.slow_chance = 0.0
        for member in (*self.managers, *self.workers):
            if member.process is not None:
                member.process.fuse = 0
        operator = User(
            "operator",
            self.network,
            random.Random(self.chance.random()),
            self.trace,
            self.histories,
            [a for _, a in self._addresses],
            self.scenario.services,
        )
        while not all(worker.node_id for worker in self.workers):  # noqa: ASYNC110 - virtual time costs nothing
            await asyncio.sleep(0.5)
        await self._last_wishes(operator)
        await self._settle()
        for name in sorted(self.histories.calls):
            await self._insist(lambda name=name: operator.read(name))  # type: ignore[misc]
        operator.process.die()

    async def _insist(self, work: Callable[[], Any]) -> Any:
        """Repeat a call until it is answered."""
        while True:
            try:
                return await work()
            except SwarmError as error:
                self.trace("operator", "tries again: %s", error)
                await asyncio.sleep(1)

    async def _last_wishes(self, operator: User) -> None:
        kinds = api.NodeSpec.Availability
        mine = {w.node_id for w in self.workers}
        nodes = sorted(
            (await self._insist(lambda: operator.call("ListNodes", api.ListNodesRequest()))).nodes, key=lambda n: n.description.hostname
        )
        wanted = {
            w.node_id: kinds.ACTIVE if n < 2 else self.chance.choice((kinds.ACTIVE, kinds.PAUSE, kinds.DRAIN))
            for n, w in enumerate(self.workers)
        }
        for node in nodes:
            if node.role != api.NodeRole.WORKER:
                continue
            if node.id not in mine:
                await self._insist(lambda node=node: self._remove_node(operator, node.id))  # type: ignore[misc]
                continue
            while not await operator.set_availability(node, wanted[node.id]):
                await asyncio.sleep(0.5)
                node = (await self._insist(lambda node=node: operator.call("GetNode", api.GetNodeRequest(node_id=node.id)))).node  # type: ignore[misc]
        for name in sorted(self.histories.calls):
            await self._insist(lambda name=name: self._last_wish(operator, name))  # type: ignore[misc]

    async def _remove_node(self, operator: User, node_id: str) -> None:
        try:
            await operator.call("RemoveNode", api.RemoveNodeRequest(node_id=node_id, force=True))
        except NotFound:
            return

    async def _last_wish(self, operator: User, name: str) -> None:
        while True:
            found = await operator.read(name)
            if found is None:
                return
            if self.chance.random() < 0.15:
                await operator.remove(found)
            elif await operator.update(found, operator.last_spec(name, found.spec, 3)):
                return
            await asyncio.sleep(0.3)

    async def _settle(self) -> None:
        """Wait until nothing is wrong, and then see that it stays so."""
        end = self.loop.time() + self.scenario.rest
        wrong = ["nobody leads"]
        while self.loop.time() < end:
            await asyncio.sleep(2)
            leader = self.leader
            wrong = ending.problems(leader.store, self.workers) if leader is not None else ["nobody leads"]
            if not wrong:
                break
        if not wrong:
            before = self.judge.work
            await asyncio.sleep(self.scenario.quiet)
            leader = self.leader
            wrong = ending.problems(leader.store, self.workers) if leader is not None else ["nobody leads"]
            if self.judge.work != before:
                wrong.append(f"{self.judge.work - before} changes of services or tasks in {self.scenario.quiet:g} quiet seconds")
        if wrong:
            self.judge.violation("in the end " + "; ".join(wrong[:8]))
        elif leader is not None:
            self.judge.compare(leader.name, leader.store)

    async def close(self) -> None:
        """End everything that is still alive."""
        for process in [m.process for m in (*self.workers, *self.retired, *self.managers)] + [u.process for u in self.users]:
            if process is not None and process.alive:
                process.die()
                await asyncio.wait([process.ended], timeout=60)
        for worker in (*self.workers, *self.retired):
            worker.close()


# --- running


def run(seed: int, scenario: Scenario | None = None, *, echo: bool = False, keep_lines: bool = False) -> Outcome:
    """One life. Raises Violation."""
    scenario = scenario or Scenario()
    chance = random.Random(seed)
    disk = chance.choice((0.0001, 0.002, 0.02))

    def thread_delay(_: object) -> float:
        return disk * (0.5 + chance.random())

    founding_root()  # made outside of the seed's randomness: it is kept for the runs after this one
    with seeded_secrets(random.Random(chance.random())):
        return run_loop(lambda loop: _life(seed, scenario, loop, chance, echo=echo, keep_lines=keep_lines), thread_delay)


async def _life(seed: int, scenario: Scenario, loop: SimLoop, chance: random.Random, *, echo: bool, keep_lines: bool) -> Outcome:
    cluster = Cluster(seed, scenario, loop, chance, echo=echo)
    judge = cluster.judge
    with _logs(cluster, echo=echo):
        living = loop.create_task(cluster.live())
        try:
            await asyncio.wait([living, judge.found], return_when=asyncio.FIRST_COMPLETED)
            if living.done():
                living.result()
        except (Livelock, Deadlock) as error:
            judge.violation(str(error), error)
        finally:
            living.cancel()
            await asyncio.wait([living])
            await cluster.close()
        if judge.finding is None and loop.errors:
            judge.violation(loop.errors[0])
        if judge.finding is None and (wrong := cluster.histories.unexplained()):
            judge.violation(wrong)
    if judge.finding is not None:
        raise Violation(seed, judge.finding, cluster.trace) from judge.cause
    lines = cluster.trace.lines() if keep_lines else []
    digest = cluster.trace.digest() if keep_lines else ""
    calls = sum(map(len, cluster.histories.calls.values()))
    return Outcome(seed, loop.time(), judge.commits, loop.steps, calls, digest, lines)


@contextmanager
def seeded_secrets(chance: random.Random) -> Iterator[None]:
    """The standard library's secret numbers come from the seed, for the length of a `with` block."""
    kept = secrets.token_bytes, secrets.randbits, secrets.randbelow
    secrets.token_bytes = lambda nbytes=None: chance.randbytes(nbytes or 32)
    secrets.randbits = chance.getrandbits
    secrets.randbelow = chance.randrange  # type: ignore[assignment]
    try:
        yield
    finally:
        secrets.token_bytes, secrets.randbits, secrets.randbelow = kept


@contextmanager
def _logs(cluster: Cluster, *, echo: bool) -> Iterator[None]:
    """What the processes log goes into the trace: everything in a replay, else errors only. An error that should not be is a finding."""

    def note(_logger: Any, method: str, event: dict[str, Any]) -> Any:
        process = cluster.loop.group_of.get(None)
        name = process.name if isinstance(process, Process) else "?"
        text = str(event.pop("event"))
        error = event.pop("exc_info", None)
        facts = " ".join(f"{key}={value}" for key, value in event.items())
        cluster.trace(name, "log %s: %s %s %s", method, text, facts, repr(error) if error else "")
        alive = isinstance(process, Process) and process.alive
        if method in {"error", "critical", "exception"} and alive and not f"{text} {facts}".startswith(EXPECTED_ERRORS):
            cluster.judge.violation(f"{name} logs an error: {text} {facts} {error!r}", error if isinstance(error, BaseException) else None)
        raise structlog.DropEvent

    kept, configured = structlog.get_config(), structlog.is_configured()
    level = logging.INFO if echo else logging.ERROR
    structlog.configure(processors=[note], wrapper_class=structlog.make_filtering_bound_logger(level), cache_logger_on_first_use=False)
    try:
        yield
    finally:
        if configured:
            structlog.configure(**kept)
        else:
            structlog.reset_defaults()
