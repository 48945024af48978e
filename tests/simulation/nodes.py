"""A simulated worker: the real agent with its task database, on a machine whose containers only pretend to run."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import TypeVar

from pyswarm.agent.agent import Agent
from pyswarm.agent.database import Database
from pyswarm.agent.executor.fake import KILLED, FakeExecutor, FakeHost, Script
from pyswarm.api import v1 as api
from pyswarm.ca.credentials import SecurityConfig
from pyswarm.rpc.caller import WORKER
from pyswarm.rpc.remotes import DEFAULT_WEIGHT, ConnectionBroker, RemotePeer, Remotes
from tests.simulation.judge import Judge
from tests.simulation.managers import credentials, enrol, founding_root, hash_of
from tests.simulation.network import Network
from tests.simulation.process import Process, SkewedClock
from tests.simulation.trace import Trace

R = TypeVar("R")
_databases = count()
CAPACITY = api.Resources(nano_cpus=4_000_000_000, memory_bytes=4 << 30)


class MemoryDatabase(Database):
    """The task database in SQLite's memory. It lives as long as its `anchor`; every transaction in it survives a crash."""

    def __init__(self, name: str) -> None:
        super().__init__(Path(name))
        self._uri = f"file:{name}?mode=memory&cache=shared"

    def open(self) -> None:
        """See Database."""
        self._connection = self.connect()
        self._prepare(self._connection)

    def connect(self) -> sqlite3.Connection:
        """One more connection."""
        return sqlite3.connect(self._uri, uri=True, isolation_level=None, check_same_thread=False)


class PoweredDisk:
    """Does an agent's disk work in place, while its process has power."""

    def __init__(self, process: Process, database: Callable[[], Database], seconds: Callable[[], float]) -> None:
        self._process = process
        self._database = database
        self._seconds = seconds

    async def run(self, work: Callable[[], R]) -> R:
        """See agent.disk.Disk. Death may come before the work or, unnoticed by the caller, right after it."""
        await asyncio.sleep(self._seconds())
        if not self._process.alive:
            await asyncio.get_running_loop().create_future()
        result = work()
        if not self._process.effect():
            await asyncio.get_running_loop().create_future()
        return result

    def finish(self, work: Callable[[], None]) -> None:
        """See agent.disk.Disk. What has no power does not save, but its file is not open any more either."""
        if self._process.alive:
            work()
        else:
            self._database().close()


class _Calls(list[str]):
    """The calls to a machine's controllers; told on at once, not kept."""

    def __init__(self, on_call: Callable[[str], None]) -> None:
        super().__init__()
        self._on_call = on_call

    def append(self, call: str) -> None:
        """One more."""
        self._on_call(call)


class SimNode:
    """A worker with its machine, through any number of lives of its daemon."""

    def __init__(
        self,
        name: str,
        network: Network,
        chance: random.Random,
        trace: Trace,
        judge: Judge,
        managers: Callable[[], list[tuple[str, str]]],
        script: Callable[[api.Task], Script],
    ) -> None:
        self.name = name
        self.node_id = ""
        self.network = network
        self.chance = chance
        self.process: Process | None = None
        self.agent: Agent | None = None
        self.clock = SkewedClock(network.loop)
        self.machine = FakeHost(calls=_Calls(self._on_call))
        self.remotes = Remotes(random.Random(chance.random()))
        self.gone = False
        self.forgets = False
        self.refresh_seconds = 20.0
        self._managers = managers
        self._script = script
        self._trace = trace
        self._judge = judge
        self.database = self._new_database()
        description = api.NodeDescription(hostname=name, resources=CAPACITY, platform=api.Platform(os="linux", architecture="x86_64"))
        self._description = description

    def _new_database(self) -> MemoryDatabase:
        database = MemoryDatabase(f"simulated-{next(_databases)}")
        self._anchor = database.connect()
        database.open()
        database.close()
        return database

    # --- lives

    async def join(self, process: Process) -> bool:
        """Get a certificate with a worker token. False when that did not work out; `process` is who asks."""
        known = self._managers()
        if not known:
            return False
        manager, address = self.chance.choice(known)
        self.node_id = await enrol(self.network, process, address, founding_root().join_tokens.worker, hash_of(self.name))
        if self.node_id:
            self.remotes.observe(RemotePeer(manager, address), DEFAULT_WEIGHT)
            self._trace(self.name, "joined as node %s", self.node_id[:6])
        return bool(self.node_id)

    def start(self) -> None:
        """A new life of the daemon."""
        if self.forgets:
            self._anchor.close()
            self.database = self._new_database()
        process = Process(self.network.loop, self.name, self._trace, owner=self)
        process.at_death = self._on_death
        self.process = process
        self._trace(self.name, "daemon starts")
        mine = credentials(self.node_id, WORKER)
        database = self.database
        database._connection = None
        agent = Agent(
            security=SecurityConfig(mine, self.clock),
            broker=ConnectionBroker(self.remotes, lambda: mine),
            executor=FakeExecutor(self.clock, self._script, self.machine, self._description),
            database=Path(self.name),
            clock=self.clock,
            hostname=self.name,
            rng=random.Random(self.chance.random()),
            refresh_seconds=self.refresh_seconds,
            disk=PoweredDisk(process, lambda: database, lambda: self.chance.random() * 0.001),
        )
        agent._worker._database = database
        self.agent = agent
        process.start(agent.run())

    def _on_death(self) -> None:
        self._trace(self.name, "daemon is gone")
        if self.process is not None:
            self.network.died(self.process)

    async def stopped(self) -> None:
        """Wait until the daemon has ended, and judge how."""
        process = self.process
        if process is None:
            return
        await asyncio.wait([process.ended])
        if process.failure is not None:
            self._judge.violation(f"the agent of {self.name} ended with {process.failure!r}", process.failure)
        self.process = None

    def crash_machine(self) -> None:
        """The daemon and all containers end at once."""
        self._trace(self.name, "machine loses power")
        if self.process is not None:
            self.process.die()
        for container in self.machine.containers.values():
            if container.started_at is not None:
                container.end(KILLED)

    def _on_call(self, call: str) -> None:
        operation, _, task_id = call.partition(" ")
        self._trace(self.name, "%s %s", operation, task_id[:6])
        if operation == "start":
            self._judge.starting(self.name, CAPACITY, self.machine, task_id, self.clock.now())

    def rows(self) -> list[tuple[api.Task, bool]]:
        """What the task database holds: tasks with their local status, and whether they are assigned."""
        found = []
        for data, status, assigned in self._anchor.execute("SELECT data, status, assigned FROM tasks ORDER BY id"):
            task = api.Task.FromString(data)
            task.status.MergeFromString(status)
            found.append((task, bool(assigned)))
        return found

    def close(self) -> None:
        """Let go of the database."""
        self._anchor.close()
