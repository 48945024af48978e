"""A simulated manager: the real store, log, control loops, dispatcher, signer and control service; only sockets and files are not there."""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

from pyswarm.api import v1 as api
from pyswarm.ca.root import RootCA
from pyswarm.ca.server import CAService
from pyswarm.ca.signer import Signer
from pyswarm.ca.update import initial_root
from pyswarm.clock import Clock
from pyswarm.errors import Unavailable
from pyswarm.manager import genesis
from pyswarm.manager.allocator import Allocator
from pyswarm.manager.control.control_service import ControlService
from pyswarm.manager.dispatcher.service import DispatcherService
from pyswarm.manager.keymanager import KeyManager
from pyswarm.manager.leadership import Leadership, supervise
from pyswarm.manager.loop import Driver, Loop
from pyswarm.manager.orchestrator.constraintenforcer import ConstraintEnforcer
from pyswarm.manager.orchestrator.global_ import Global
from pyswarm.manager.orchestrator.reaper import Reaper
from pyswarm.manager.orchestrator.replicated import Replicated
from pyswarm.manager.rolemanager import RoleManager
from pyswarm.manager.scheduler.scheduler import Scheduler
from pyswarm.manager.store import Store
from pyswarm.raft.log import Log, StateMachine
from pyswarm.raft.node import RaftNode, RaftSettings
from pyswarm.rpc.caller import Caller
from tests.simulation.disks import ManagerDisks, PowerCut
from tests.simulation.judge import Judge
from tests.simulation.network import Connection, Network
from tests.simulation.process import EPOCH, Process, SkewedClock
from tests.simulation.trace import Trace

ORGANIZATION = "cluster1"
DISPATCHER = frozenset({"Session", "Heartbeat", "UpdateTaskStatus", "UpdateVolumeStatus", "Assignments", "Tasks"})
CA = frozenset({"IssueNodeCertificate", "NodeCertificateStatus", "GetRootCACertificate"})


class RunningLog(Log, Protocol):
    """What a manager needs of its log besides `Log`."""

    async def run(self) -> None:
        """Until cancelled."""
        ...

    async def started(self) -> None:
        """Return when the state on disk is loaded."""
        ...


class LogFactory(Protocol):
    """Makes a manager's member of the replicated log, once for each of its lives."""

    def __call__(self, manager: SimManager, machine: StateMachine, clock: Clock, process: Process) -> RunningLog:
        """`manager.disks` survive; `manager.network` and the addresses in `manager.peers` lead to the others."""
        ...


@functools.cache
def founding_root() -> api.RootCA:
    """One root for all simulations: nothing depends on what is in it."""
    return initial_root(RootCA.create(now=EPOCH))


def single_raft(tick: float = 1.0, snapshot_interval: int = 0) -> LogFactory:
    """The raft node of a cluster with one manager."""

    def make(manager: SimManager, machine: StateMachine, clock: Clock, process: Process) -> RunningLog:
        config = api.RaftConfig(snapshot_interval=snapshot_interval, log_entries_for_slow_followers=5)
        return RaftNode(
            node_id=manager.node_id,
            cluster_id=ORGANIZATION,
            directory=Path("/memory"),
            machine=machine,
            data_key=b"k" * 32,
            clock=clock,
            settings=RaftSettings(tick=tick),
            config=lambda: config,
            addr=manager.address,
            open_directory=lambda _: manager.disks.boot(process),
        )

    return make


def control_loops(is_member: Callable[[str], bool]) -> list[Loop[Any]]:
    """The loops that `manager.Manager` runs while it leads."""
    return [Allocator(), Scheduler(), ConstraintEnforcer(), Reaper(), Replicated(), Global(), RoleManager(is_member)]


class Watched:
    """The store as the log's state machine; the judge sees what is applied."""

    def __init__(self, store: Store, judge: Judge, name: str) -> None:
        self._store = store
        self._judge = judge
        self._name = name
        self.capture = store.capture

    def apply(self, index: int, request: api.InternalRaftRequest, proposal: Any | None) -> None:
        """See StateMachine."""
        events: list[Any] = []
        undo = self._store.on_commit(lambda commit: events.extend(commit.events))
        try:
            self._store.apply(index, request, proposal)
        finally:
            undo()
        self._judge.applied(self._name, self._store, index, events)

    def restore(self, snapshot: api.StoreSnapshot) -> None:
        """See StateMachine."""
        self._store.restore(snapshot)
        self._judge.restored(self._name, self._store)


class SimManager:
    """A manager with its disks, through any number of lives. Serves at its address while a process runs."""

    def __init__(
        self, name: str, network: Network, chance: random.Random, trace: Trace, judge: Judge, make_log: LogFactory, heartbeat: float = 0.0
    ) -> None:
        self.name = self.node_id = name
        self.address = f"{name}:4242"
        self.network = network
        self.chance = chance
        self.disks = ManagerDisks()
        self.peers: dict[str, str] = {}
        self.process: Process | None = None
        self.clock = SkewedClock(network.loop)
        self.store: Store
        self.log: RunningLog
        self.loops: Callable[[Callable[[str], bool]], list[Loop[Any]]] = control_loops
        self.leading = False
        self._trace = trace
        self._judge = judge
        self._make_log = make_log
        self._heartbeat = heartbeat
        self._control: ControlService
        self._dispatcher: DispatcherService
        self._ca: CAService
        self._signer: Signer
        network.servers[self.address] = self

    # --- lives

    def start(self) -> None:
        """A new process on the disks as they are."""
        process = Process(self.network.loop, self.name, self._trace)
        process.at_death = self._on_death
        self.process = process
        self._trace(self.name, "starts")
        clock = self.clock
        self.store = Store(clock)
        self.log = self._make_log(self, Watched(self.store, self._judge, self.name), clock, process)
        self.store.attach(self.log)
        self._signer = Signer(self.store, clock, random.Random(self.chance.random()))
        self._ca = CAService(self.store, self._signer, several_managers=False)
        rng = random.Random(self.chance.random())
        self._dispatcher = DispatcherService(self.store, self.log, clock, node_id=self.node_id, rng=rng)
        self._control = ControlService(self.store, self.log, clock)
        process.start(self._run())

    def _on_death(self) -> None:
        self.leading = False
        self._trace(self.name, "is gone")
        if self.process is not None:
            self.network.died(self.process)

    async def stopped(self) -> None:
        """Wait until the process of this life has ended, and judge how it ended; the disks then are as the next one finds them."""
        process = self.process
        if process is None:
            return
        await asyncio.wait([process.ended])
        failure = process.failure
        while isinstance(failure, BaseExceptionGroup):
            failure = failure.exceptions[0]
        if failure is not None and not _is_power_cut(failure):
            self._judge.violation(f"manager {self.name} ended with {type(failure).__name__}: {failure}", failure)
        self.disks.crash(self.chance)
        self.process = None

    async def _run(self) -> None:
        """As `manager.Manager.run`."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.log.run(), name="raft")
            group.create_task(self.store.run(), name="store")
            await self.log.started()
            group.create_task(Leadership(self.log, self._lead).run(), name="leadership")

    async def _lead(self) -> None:
        """As `manager.Manager._lead`."""
        founding = genesis.Founding(
            cluster_id=ORGANIZATION,
            node_id=self.node_id,
            root_ca=founding_root(),
            availability=api.NodeSpec.Availability.DRAIN,
            heartbeat_tick=1,
            election_tick=10,
            autolock=False,
            unlock_key=b"",
        )
        await self.store.update(lambda tx: genesis.ensure(tx, founding))
        self.leading = True
        self._trace(self.name, "leads from entry %s", self.log.applied_index)
        self._judge.leads(self.name, self.store, self.log.applied_index)
        try:
            await supervise(self._components(), self.clock)
        finally:
            self.leading = False

    def _components(self) -> dict[str, Callable[[], Awaitable[None]]]:
        store, clock = self.store, self.clock
        components: dict[str, Callable[[], Awaitable[None]]] = {
            "key manager": KeyManager(store, clock, random_bytes=self.chance.randbytes).run,
            "dispatcher": self._dispatcher.run,
            "signer": self._signer.run,
        }
        drivers: list[Driver[Any]] = [Driver(loop, store, clock) for loop in self.loops(self._is_member)]
        return components | {driver.name: driver.run for driver in drivers}

    def _is_member(self, node_id: str) -> bool:
        return any(member.node_id == node_id for member in self.log.members())

    # --- serving

    def handle(self, method: str, request: Any, caller: Caller) -> Any:
        """One call, here or, if another manager leads, there."""
        if self.log.is_leader:
            service: Any = self._dispatcher if method in DISPATCHER else self._ca if method in CA else self._control
            return getattr(service, method)(request, caller)
        leader = next((m for m in self.log.members() if m.leader and m.node_id != self.node_id), None)
        if leader is None:
            raise Unavailable("no manager leads")
        if method in {"Session", "Assignments", "Tasks"}:
            return self._relay_stream(leader.addr, method, request, caller)
        return self._relay(leader.addr, method, request, caller)

    async def _relay(self, address: str, method: str, request: Any, caller: Caller) -> Any:
        connection = await self._to_leader(address, caller)
        try:
            return await connection.call(method, request)
        finally:
            connection.close()

    async def _relay_stream(self, address: str, method: str, request: Any, caller: Caller) -> Any:
        connection = await self._to_leader(address, caller)
        try:
            async for message in connection.stream(method, request):
                yield message
        finally:
            connection.close()

    async def _to_leader(self, address: str, caller: Caller) -> Connection:
        assert self.process is not None
        return await self.network.connect(self.process, self.address, address, caller)


def _is_power_cut(failure: BaseException) -> bool:
    seen: BaseException | None = failure
    while seen is not None:
        if isinstance(seen, PowerCut):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
