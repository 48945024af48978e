"""A dispatcher on a running store, and a node's view of it without sockets."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.manager.dispatcher import Config, DispatcherService
from pyswarm.manager.store import Store, copy_of
from pyswarm.raft.log import Log
from pyswarm.rpc.caller import WORKER, Caller
from tests.support.clock import VirtualClock, settle

M = TypeVar("M")
S = api.TaskState


def cluster(period: float | None = None) -> api.Cluster:
    """The default cluster object with two keys and a root."""
    made = api.Cluster(id="cluster-1")
    made.spec.annotations.name = "default"
    if period is not None:
        made.spec.dispatcher.heartbeat_period.CopyFrom(times.duration(period))
    made.root_ca.ca_cert = b"root"
    made.network_bootstrap_keys.add(subsystem="networking:gossip", key=b"k", lamport_time=1)
    return made


def node(node_id: str = "n1", state: api.NodeStatus.State.ValueType = api.NodeStatus.UNKNOWN) -> api.Node:
    """A node as the CA makes it."""
    return api.Node(id=node_id, status=api.NodeStatus(state=state))


def task(task_id: str, state: S.ValueType, node_id: str = "n1", desired: S.ValueType = S.RUNNING) -> api.Task:
    """A container task on a node."""
    made = api.Task(id=task_id, node_id=node_id, desired_state=desired, status=api.TaskStatus(state=state))
    made.spec.container.image = "busybox"
    return made


async def create(store: Store, *objects: Any) -> None:
    """Store new objects."""

    def write(tx: Any) -> None:
        for obj in objects:
            getattr(tx, type(obj).__name__.lower() + "s").create(obj)

    await store.update(write)


async def change(store: Store, obj: Any, **fields: Any) -> None:
    """Store an edited copy; a callable field value gets the copy."""

    def write(tx: Any) -> None:
        table = getattr(tx, type(obj).__name__.lower() + "s")
        fresh = copy_of(table.get(obj.id))
        for name, value in fields.items():
            if callable(value):
                value(fresh)
            else:
                setattr(fresh, name, value)
        table.update(fresh)

    await store.update(write)


async def report(store: Store, task_id: str, state: S.ValueType) -> None:
    """Set a task's observed state directly."""
    await change(store, api.Task(id=task_id), edit=lambda t: setattr(t.status, "state", state))


class Reader:
    """Reads a service's stream in a task of its own: messages as they come, then how it ended."""

    def __init__(self, stream: AsyncGenerator[Any, None]) -> None:
        self.messages: list[Any] = []
        self.error: BaseException | None = None
        self._stream = stream
        self._task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            async with contextlib.aclosing(self._stream) as stream:
                async for message in stream:
                    self.messages.append(message)
        except Exception as error:  # noqa: BLE001 - looked at by the test
            self.error = error

    @property
    def ended(self) -> bool:
        """The stream is over."""
        return self._task.done()

    async def close(self) -> None:
        """The client goes away."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@dataclass
class Harness:
    """A dispatcher under test."""

    service: DispatcherService
    store: Store
    clock: VirtualClock
    readers: list[Reader] = field(default_factory=list)

    def caller(self, node_id: str = "n1", addr: str = "10.1.2.3:5000") -> Caller:
        """What `rpc` would pass for a node."""
        return Caller(node_id=node_id, organization="o", roles=(WORKER,), remote_addr=addr)

    def session(self, node_id: str = "n1", session_id: str = "", **kwargs: Any) -> Reader:
        """Open a Session stream."""
        request = api.SessionRequest(session_id=session_id, description=kwargs.get("description"))
        return self._keep(self.service.Session(request, self.caller(node_id, kwargs.get("addr", "10.1.2.3:5000"))))

    async def register(self, node_id: str = "n1", **kwargs: Any) -> tuple[Reader, str]:
        """Open a Session stream and wait for its first message; returns the session id too."""
        reader = self.session(node_id, **kwargs)
        await settle()
        if reader.error is not None:
            raise reader.error
        return reader, reader.messages[0].session_id

    def assignments(self, session_id: str, node_id: str = "n1") -> Reader:
        """Open an Assignments stream."""
        return self._keep(self.service.Assignments(api.AssignmentsRequest(session_id=session_id), self.caller(node_id)))

    def tasks(self, session_id: str, node_id: str = "n1") -> Reader:
        """Open a Tasks stream."""
        return self._keep(self.service.Tasks(api.TasksRequest(session_id=session_id), self.caller(node_id)))

    async def heartbeat(self, session_id: str, node_id: str = "n1") -> float:
        """One heartbeat; the answered period in seconds."""
        answer = await self.service.Heartbeat(api.HeartbeatRequest(session_id=session_id), self.caller(node_id))
        return times.seconds_of(answer.period)

    async def report(self, session_id: str, *updates: tuple[str, api.TaskStatus | None], node_id: str = "n1") -> None:
        """UpdateTaskStatus."""
        request = api.UpdateTaskStatusRequest(session_id=session_id)
        for task_id, status in updates:
            request.updates.add(task_id=task_id, status=status)
        await self.service.UpdateTaskStatus(request, self.caller(node_id))

    def node(self, node_id: str = "n1") -> api.Node:
        """As stored."""
        found = self.store.nodes.get(node_id)
        assert found is not None
        return found

    def state(self, task_id: str) -> int:
        """A task's observed state, as stored."""
        found = self.store.tasks.get(task_id)
        assert found is not None
        return found.status.state

    def _keep(self, stream: AsyncGenerator[Any, None]) -> Reader:
        reader = Reader(stream)
        self.readers.append(reader)
        return reader


@contextlib.asynccontextmanager
async def leading(store: Store, raft: Log, clock: VirtualClock, config: Config | None = None) -> AsyncIterator[Harness]:
    """A dispatcher that leads for the length of a `with` block."""
    service = DispatcherService(store, raft, clock, node_id="m1", rng=random.Random(1), config=config)
    harness = Harness(service, store, clock)
    running = asyncio.create_task(service.run())
    await settle()
    try:
        yield harness
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await settle()
        for reader in harness.readers:
            await reader.close()
