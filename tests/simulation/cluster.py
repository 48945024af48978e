"""A whole cluster in one process and one thread, everything in it drawn from one seed.

`run(seed)` lets it live with users and trouble for a while, then lets it come to rest, and judges: after every commit (judge.py),
in the end (ending.py), and what its users were told (users.py). A run that finds something ends with `Violation`, whose text is the
end of the trace.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
import random
import secrets
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from pyswarm.api import v1 as api
from pyswarm.errors import SwarmError
from pyswarm.manager.store import Kind
from pyswarm.raft.node import RaftSettings
from pyswarm.rpc.remotes import DEFAULT_WEIGHT, RemotePeer
from tests.simulation import ending
from tests.simulation.judge import Judge
from tests.simulation.loop import Deadlock, Livelock, SimLoop
from tests.simulation.loop import run as run_loop
from tests.simulation.managers import SimManager, edge, founding_root
from tests.simulation.network import Network
from tests.simulation.nodes import SimNode
from tests.simulation.process import Process
from tests.simulation.scenarios import SCENARIOS, Scenario, typical
from tests.simulation.trace import Trace, short, tail
from tests.simulation.trouble import Containers, Trouble
from tests.simulation.users import Histories, User

TAIL_LINES = 60
MONITORED = 15.0
"""Seconds after which an update has ended that can end: longer than its tasks are watched."""
EXPECTED_ERRORS = (
    "nodes not moved to unknown",  # the log refused: leadership is being lost
    "this node was removed from the cluster",
)


class Violation(AssertionError):
    """Something that must hold did not. `trace` has all of it."""

    def __init__(self, seed: int, text: str, trace: Trace) -> None:
        self.seed = seed
        self.what = text
        self.trace = trace
        replay = f"Replay: make sim SEED={seed} (and SCENARIO=.. if it was a particular one)"
        super().__init__(f"seed {seed}: {text}\n\nThe last events (seconds, who, what):\n{tail(trace.lines(), TAIL_LINES)}\n\n{replay}")


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

    fewest_workers = 1
    most_workers = 6
    most_managers = 7

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
        self.settings = RaftSettings(scenario.tick, scenario.heartbeat_tick, 10)
        self.managers: list[SimManager] = []
        self.former: list[SimManager] = []
        """Managers switched off for good."""
        for _ in range(scenario.managers):
            self._new_manager()
        self.users = [self._user(f"user{n}") for n in range(scenario.users)]
        for user in self.users[2:]:
            user.only_looks = True
        self.operator = self._user("operator")
        self.workers: list[SimNode] = []
        self.retired: list[SimNode] = []
        self.slow_disks: set[str] = set()
        self.calm = False
        self._keepers: asyncio.TaskGroup
        self._keepers_running: list[asyncio.Task[None]] = []
        self._joined = 0

    def _user(self, name: str) -> User:
        chance = random.Random(self.chance.random())
        user = User(name, self.network, chance, self.trace, self.histories, self._addresses, self.scenario.services)
        if self.scenario.busy:
            user.pause = 0.2
        user.jobs = self.scenario.jobs
        return user

    # --- members

    def _addresses(self) -> list[str]:
        """Where a manager may be."""
        return [m.address for m in self.managers if not m.demoted]

    def _peers(self) -> list[tuple[str, str]]:
        return [(m.node_id, m.address) for m in self.managers if m.node_id and not m.demoted]

    def _new_manager(self) -> SimManager:
        chance, founds = random.Random(self.chance.random()), not self.managers
        name = f"m{len(self.managers) + len(self.former) + 1}"
        manager = SimManager(
            name,
            self.network,
            chance,
            self.trace,
            self.judge,
            self.settings,
            founds=founds,
            snapshot_interval=self.scenario.snapshot_interval,
        )
        manager.others = lambda: [address for address in self._addresses() if address != manager.address]
        self.managers.append(manager)
        return manager

    def add_manager(self) -> None:
        """A new machine that joins as a manager as soon as it can."""
        self._keep(self._keep_manager(self._new_manager()))

    def node_of(self, member: SimManager | SimNode) -> api.Node | None:
        """The committed node object of a member."""
        found: api.Node | None = self.judge.truth(Kind.NODE, member.node_id)
        return found

    async def add_worker(self) -> None:
        """A new machine that joins as soon as it can."""
        self._joined += 1
        chance = random.Random(self.chance.random())
        worker = SimNode(f"w{self._joined}", self.network, chance, self.trace, self.judge, self._peers, self.containers)
        self.scenario.prepare_worker(worker)
        self.workers.append(worker)
        self._keep(self._keep_worker(worker))

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        self._keepers_running.append(self._keepers.create_task(work))

    async def retire(self, worker: SimNode, after: float | None = None) -> None:
        """Switch a machine off for good. With `after` its node is removed by force first, and it goes on for so many seconds."""
        if worker.gone or worker not in self.workers:
            return
        self.workers.remove(worker)
        self.retired.append(worker)
        if after is not None:
            with contextlib.suppress(SwarmError):
                await self.operator.remove_node(worker.node_id)
            await asyncio.sleep(after)
        self.trace("operator", f"switches {worker.name} off")
        worker.gone = True
        if worker.process is not None:
            worker.process.die()
        worker.machine.containers.clear()

    async def _keep_manager(self, manager: SimManager) -> None:
        while True:
            manager.start()
            await manager.stopped()
            while manager.demoted and not self._wanted_as_manager(manager):  # noqa: ASYNC110 - of what others see in the store
                await asyncio.sleep(0.5)
            await self._downtime()

    def _wanted_as_manager(self, manager: SimManager) -> bool:
        node = self.node_of(manager)
        return node is not None and node.spec.desired_role == node.role == api.NodeRole.MANAGER

    async def _follow_roles(self) -> None:
        """What a node does that learns of its new role: its manager ends. A founder has no role for a moment, and is no worker."""
        while True:
            await asyncio.sleep(0.7)
            for manager in self.managers:
                node = self.node_of(manager)
                demoted = node is not None and node.role == node.spec.desired_role == api.NodeRole.WORKER
                if demoted and manager.process is not None and not manager.demoted:
                    manager.demoted = True
                    manager.process.stop()

    async def _keep_worker(self, worker: SimNode) -> None:
        joining = Process(self.loop, worker.name, self.trace)
        while not worker.node_id and not worker.gone:
            if not await worker.join(joining):
                await asyncio.sleep(self.chance.uniform(0.5, 2))
        while not worker.gone:
            worker.start()
            await worker.stopped()
            await self._downtime()

    def disk_delay(self, seconds: float) -> float:
        """How long a piece of work in a thread takes that normally takes `seconds`."""
        process = self.loop.group_of.get()
        if isinstance(process, Process) and process.host in self.slow_disks:
            return seconds + self.chance.uniform(0.1, 3)
        return seconds

    async def _downtime(self) -> None:
        """What is down comes back after a while, and soon when there is no more trouble."""
        end = self.loop.time() + self.chance.choice((0.2, 3.0, 20.0)) * self.chance.random()
        while self.loop.time() < end and not self.calm:  # noqa: ASYNC110 - nobody else waits for the end of trouble
            await asyncio.sleep(min(0.5, end - self.loop.time() + 1e-6))

    @property
    def leader(self) -> SimManager | None:
        """The manager that leads, if one does."""
        return max((m for m in self.managers if m.leads), key=lambda m: m.term, default=None)

    # --- a life

    async def live(self) -> None:
        """Trouble, then peace, then judgement."""
        scenario = self.scenario
        scenario.prepare(self)
        async with asyncio.TaskGroup() as self._keepers:
            for manager in self.managers:
                self._keep(self._keep_manager(manager))
            self._keep(self._follow_roles())
            for _ in range(scenario.workers):
                await self.add_worker()
            for user in self.users:
                user.process.start(user.run())
            trouble = self._keepers.create_task(Trouble(self, random.Random(self.chance.random())).run())
            await asyncio.sleep(scenario.span)
            trouble.cancel()
            await asyncio.gather(trouble, return_exceptions=True)
            for user in self.users:
                user.process.die()
                await asyncio.wait([user.process.ended])
                if user.process.failure is not None:
                    raise user.process.failure
                self.network.forget(user.process)
            await self._come_to_rest()
            for keeper in self._keepers_running:
                keeper.cancel()

    async def _come_to_rest(self) -> None:
        """Repair everything, ask for something that can be had, and wait until it is there."""
        self.calm = self.containers.calm = True
        self.trace("operator", "--- no more trouble ---")
        self.network.heal()
        self.network.weather.slow_chance = 0.0
        self.network.losing.clear()
        for member in (*self.managers, *self.workers):
            if member.process is not None:
                member.process.fuse = 0
        await asyncio.sleep(3)  # what users have begun ends
        end = self.loop.time() + self.scenario.rest
        while waiting := [worker.name for worker in self.workers if worker.process is None]:
            if self.loop.time() > end:
                self.judge.violation(f"in the end {' '.join(waiting)} cannot join")
            await asyncio.sleep(0.5)
        self._help_the_lost()
        try:
            async with asyncio.timeout(self.scenario.rest):
                await self._last_wishes(self.operator)
        except TimeoutError:
            self.judge.violation(self.histories.unexplained() or "in the end nobody takes the operator's orders")
        await self._settle()
        self._disturb_once_more()
        await self._settle(quiet=self.scenario.quiet)
        for name in sorted(self.histories.calls):
            await self._insist(functools.partial(self.operator.read, name))

    def _help_the_lost(self) -> None:
        """Whose managers are all gone is told of another one, as with --join-addr."""
        present = self._peers()
        for worker in self.workers:
            known = {peer.addr for peer in worker.remotes.weights()}
            if not known & {address for _, address in present}:
                self.trace("operator", f"tells {worker.name} where managers are")
                for peer in present:
                    worker.remotes.observe(RemotePeer(*peer), DEFAULT_WEIGHT)

    def _disturb_once_more(self) -> None:
        """Containers end, and now and then a machine with all its containers: nothing but their own events brings them back."""
        for worker in self.workers:
            running = sorted(i for i, c in worker.machine.containers.items() if c.started_at is not None and c.exit_code is None)
            if running and self.chance.random() < 0.6:
                self.trace("trouble", f"ends a container on {worker.name}: %s", short(running[0]))
                worker.machine.end(running[0], self.chance.choice((0, 1)))
        if self.chance.random() < 0.3:
            self.chance.choice(self.workers).crash_machine()

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
        mine = {m.node_id for m in (*self.workers, *self.managers)}
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
                await self._insist(lambda node=node: operator.remove_node(node.id))  # type: ignore[misc]
                continue
            while node.id in wanted and not await operator.set_availability(node, wanted[node.id]):
                await asyncio.sleep(0.5)
                node = (await self._insist(lambda node=node: operator.call("GetNode", api.GetNodeRequest(node_id=node.id)))).node  # type: ignore[misc]
        for name in sorted(self.histories.calls):
            await self._insist(lambda name=name: self._last_wish(operator, name))  # type: ignore[misc]

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

    async def _settle(self, quiet: float = 0.0) -> None:
        """Wait until nothing is wrong; with `quiet` see that it stays so for this long, without a change."""
        end = self.loop.time() + self.scenario.rest
        await asyncio.sleep(1)
        while (wrong := self._problems()) and self.loop.time() < end:  # noqa: ASYNC110 - the whole cluster is looked at
            await asyncio.sleep(2)
        if not wrong and quiet:
            soon = self.loop.time() + MONITORED
            while self._is_updating() and self.loop.time() < soon:  # noqa: ASYNC110 - it may wait for a paused node for ever, or end
                await asyncio.sleep(1)
            before = self.judge.work
            await asyncio.sleep(quiet)
            soon = self.loop.time() + 20
            while (wrong := self._problems()) and self.loop.time() < soon:  # noqa: ASYNC110 - a node may just be found to be down
                await asyncio.sleep(1)
            if self.judge.work != before:
                wrong.append(f"{self.judge.work - before} changes of services or tasks in {quiet:g} quiet seconds")
        if wrong:
            self.judge.violation("in the end " + "; ".join(wrong[:8]))

    def _is_updating(self) -> bool:
        under_way = {api.UpdateStatus.UPDATING, api.UpdateStatus.ROLLBACK_STARTED}
        return self.leader is not None and any(s.update_status.state in under_way for s in self.leader.store.services)

    def _problems(self) -> list[str]:
        leader = self.leader
        if leader is None:
            return ["nobody leads"]
        assert leader.raft is not None
        if leader.raft.applied_index >= self.judge.index:
            self.judge.compare(leader.name, leader.store)
        return [*self._managers_apart(leader), *ending.problems(leader.store, self.workers, [m.node_id for m in self.managers])]

    def _managers_apart(self, leader: SimManager) -> Iterator[str]:
        """Members that are not as the leader is."""
        assert leader.raft is not None
        members = {m.node_id for m in leader.raft.members()}
        for manager in self.managers:
            node = self.node_of(manager)
            wanted = node is not None and node.spec.desired_role == api.NodeRole.MANAGER
            if not manager.node_id:
                yield f"{manager.name} has no certificate"
            elif wanted != (manager.node_id in members):
                yield f"{manager.name} is {'' if wanted else 'still '}{'not ' if wanted else ''}in the log's membership"
            elif wanted and (manager.raft is None or manager.raft.applied_index < leader.raft.applied_index):
                yield f"{manager.name} has applied {manager.raft and manager.raft.applied_index} of {leader.raft.applied_index} entries"
            elif wanted:
                self.judge.compare(manager.name, manager.store)

    async def close(self) -> None:
        """End everything that is still alive."""
        members = (*self.workers, *self.retired, *self.managers, *self.former)
        processes = [m.process for m in members] + [u.process for u in (*self.users, self.operator)]
        ending = [process for process in processes if process is not None and process.running]
        for process in ending:
            process.die()
        if ending:
            await asyncio.wait([process.ended for process in ending], timeout=60)
        for worker in (*self.workers, *self.retired):
            worker.close()


# --- running


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """One collection of garbage at the end of a life instead of hundreds within it: a fifth of its time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.collect(1)  # everything a life made is young


@_uncollected()
def run(
    seed: int, scenario: Scenario | str | None = None, *, echo: bool = False, keep_lines: bool = False, kind: type[Cluster] = Cluster
) -> Outcome:
    """One life, by default of a `typical` cluster; a name is one of SCENARIOS. Raises Violation."""
    chance = random.Random(seed)
    if not isinstance(scenario, Scenario):
        scenario = (SCENARIOS[scenario] if scenario else typical)(chance)
    disk = chance.choice((0.0001, 0.002, 0.02))
    threads = random.Random(chance.random())
    made: list[Cluster] = []

    async def life(loop: SimLoop) -> None:
        made.append(kind(seed, scenario, loop, chance, echo=echo))
        await _life(made[0])

    founding_root()  # made outside of the seed's randomness: it is kept for the runs after this one
    part = random.Random(chance.random())
    with (
        seeded_secrets(part),
        _logs(made, echo=echo),
        edge(lambda: made[0].network, scenario.tick, scenario.look, random.Random(part.random())),
    ):
        try:
            run_loop(life, lambda _: made[0].disk_delay(disk * (0.5 + threads.random())))
        except (Livelock, Deadlock) as error:
            made[0].judge.violation(str(error), error)
    cluster = made[0]
    if cluster.judge.finding is not None:
        raise Violation(seed, cluster.judge.finding, cluster.trace) from cluster.judge.cause
    calls = sum(map(len, cluster.histories.calls.values()))
    outcome = Outcome(seed, cluster.loop.time(), cluster.judge.commits, cluster.loop.steps, calls)
    if keep_lines:
        outcome.lines, outcome.digest = cluster.trace.lines(), cluster.trace.digest()
    return outcome


async def _life(cluster: Cluster) -> None:
    judge, loop = cluster.judge, cluster.loop
    living = loop.create_task(cluster.live())
    try:
        await asyncio.wait([living, judge.found], return_when=asyncio.FIRST_COMPLETED)
        if living.done():
            living.result()
    finally:
        living.cancel()
        await asyncio.wait([living])
        await cluster.close()
    if judge.finding is None and loop.errors:
        judge.violation(loop.errors[0])
    if judge.finding is None and (wrong := cluster.histories.unexplained()):
        judge.violation(wrong)


@contextlib.contextmanager
def seeded_secrets(chance: random.Random) -> Iterator[None]:
    """Secret numbers of the standard library come from the seed, for the length of a `with` block. They guard nothing here."""
    kept = secrets.token_bytes, secrets.randbits, secrets.randbelow
    secrets.token_bytes = lambda nbytes=None: chance.randbytes(nbytes or 32)
    secrets.randbits = chance.getrandbits
    secrets.randbelow = chance.randrange  # type: ignore[assignment]
    try:
        yield
    finally:
        secrets.token_bytes, secrets.randbits, secrets.randbelow = kept


@contextlib.contextmanager
def _logs(made: Sequence[Cluster], *, echo: bool) -> Iterator[None]:
    """What the processes log goes into the trace: in a replay everything, else errors only. An error that should not be is a finding."""

    def note(_logger: Any, method: str, event: dict[str, Any]) -> Any:
        cluster = made[0]
        process = cluster.loop.group_of.get(None)
        name = process.name if isinstance(process, Process) else "?"
        text = str(event.pop("event"))
        error = event.pop("exc_info", None)
        facts = " ".join(f"{key}={value}" for key, value in event.items())
        cluster.trace(name, f"log {method}: %s %s %s", text, facts, repr(error) if error else "")
        alive = isinstance(process, Process) and process.alive
        if method in {"error", "critical", "exception"} and alive and not text.startswith(EXPECTED_ERRORS):
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
