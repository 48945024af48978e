"""An executor and a manager that do what a test tells them."""

# ruff: noqa: D102 - the protocols they implement say what the methods do

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from typing import Any

from pyswarm.agent.client import Connection
from pyswarm.agent.dependencies import Dependencies
from pyswarm.agent.executor import AlreadyPrepared, AlreadyStarted, ExecutorError
from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.ca.credentials import Credentials
from pyswarm.errors import SwarmError, Unimplemented
from pyswarm.rpc.remotes import RemotePeer, Remotes
from tests.support.logs import WithoutLogs

S = api.TaskState


def task(task_id: str, desired: S.ValueType = S.RUNNING, state: S.ValueType = S.ASSIGNED, **fields: Any) -> api.Task:
    """A container task as a manager sends it."""
    made = api.Task(id=task_id, desired_state=desired, status=api.TaskStatus(state=state), **fields)
    made.spec.container.image = "busybox"
    return made


def message(
    *updates: Any, remove: Sequence[Any] = (), complete: bool = True, applies_to: str = "", results_in: str = "1"
) -> api.AssignmentsMessage:
    """An assignment message of tasks, secrets, configs and volumes."""
    kind = api.AssignmentsMessage.COMPLETE if complete else api.AssignmentsMessage.INCREMENTAL
    made = api.AssignmentsMessage(type=kind, applies_to=applies_to, results_in=results_in)
    for items, action in ((updates, api.AssignmentChange.UPDATE), (remove, api.AssignmentChange.REMOVE)):
        for item in items:
            change = made.changes.add(action=action)
            field = {"Task": "task", "Secret": "secret", "Config": "config", "VolumeAssignment": "volume"}[type(item).__name__]
            getattr(change.assignment, field).CopyFrom(item)
    return made


def credentials(root: bytes = b"root", cert: bytes = b"cert", issuer: bytes = b"issuer") -> Credentials:
    """Credentials whose contents nobody checks."""
    return Credentials(cert, b"key", root, "n1", "o", "swarm-worker", issuer, b"key-of-" + issuer, 0.0, 1e12)


class FakeEngine:
    """What outlives a daemon: which containers exist and which run."""

    def __init__(self) -> None:
        self.containers: dict[str, asyncio.Event] = {}
        self.running: set[str] = set()
        self.exit_codes: dict[str, int] = {}

    def exit(self, task_id: str, code: int = 0) -> None:
        """The container's process ends."""
        self.exit_codes[task_id] = code
        self.running.discard(task_id)
        self.containers[task_id].set()


class FakeController:
    """Works on the engine; `script` maps an operation to what it awaits or raises each time, in order."""

    def __init__(self, task: api.Task, engine: FakeEngine, calls: list[tuple[str, str]], script: dict[str, list[Any]]) -> None:
        self.task_id = task.id
        self.engine = engine
        self.calls = calls
        self.script = script
        self.active = 0

    @contextlib.asynccontextmanager
    async def _called(self, name: str) -> AsyncIterator[None]:
        self.calls.append((name, self.task_id))
        self.active += 1
        assert self.active == 1, f"{name} overlaps another call"
        try:
            planned = self.script.get(name) or []
            if planned:
                step = planned.pop(0)
                if isinstance(step, BaseException):
                    raise step
                if callable(step):
                    await step()
            yield
        finally:
            self.active -= 1

    async def update(self, task: api.Task) -> None:
        async with self._called("update"):
            pass

    async def prepare(self) -> None:
        async with self._called("prepare"):
            if self.task_id in self.engine.containers:
                raise AlreadyPrepared
            self.engine.containers[self.task_id] = asyncio.Event()

    async def start(self) -> None:
        async with self._called("start"):
            if self.task_id in self.engine.running:
                raise AlreadyStarted
            self.engine.running.add(self.task_id)

    async def wait(self) -> None:
        async with self._called("wait"):
            await self.engine.containers.setdefault(self.task_id, asyncio.Event()).wait()
            code = self.engine.exit_codes.get(self.task_id, 0)
            if code:
                from pyswarm.agent.executor import ExitError

                raise ExitError(code)

    async def shutdown(self) -> None:
        async with self._called("shutdown"):
            self.engine.running.discard(self.task_id)

    async def terminate(self) -> None:
        async with self._called("terminate"):
            self.engine.running.discard(self.task_id)

    async def remove(self) -> None:
        async with self._called("remove"):
            self.engine.running.discard(self.task_id)
            self.engine.containers.pop(self.task_id, None)

    async def close(self) -> None:
        async with self._called("close"):
            pass

    async def container_status(self) -> api.ContainerStatus | None:
        return api.ContainerStatus(container_id=f"c-{self.task_id}") if self.task_id in self.engine.containers else None

    async def port_status(self) -> api.PortStatus | None:
        return None

    async def logs(self, options: api.LogSubscriptionOptions) -> AsyncGenerator[api.LogMessage, None]:
        raise NotImplementedError
        yield


class FakeExecutor:
    """Makes FakeControllers; every call is noted in `calls` as (operation, task id)."""

    def __init__(self, engine: FakeEngine | None = None) -> None:
        self.engine = engine or FakeEngine()
        self.calls: list[tuple[str, str]] = []
        self.script: dict[str, dict[str, list[Any]]] = {}
        self.refused: dict[str, Exception] = {}
        self.description = api.NodeDescription(hostname="engine-host")
        self.description_error: ExecutorError | None = None
        self.configured: list[api.Node] = []
        self.keys: list[list[int]] = []
        self.swept: list[set[str]] = []
        self.sweep_gate: asyncio.Event | None = None
        self.sweep_errors: list[Exception] = []

    async def describe(self) -> api.NodeDescription:
        if self.description_error is not None:
            raise self.description_error
        return self.description

    async def configure(self, node: api.Node) -> None:
        self.configured.append(node)

    async def set_network_keys(self, keys: Sequence[api.EncryptionKey]) -> None:
        self.keys.append([k.lamport_time for k in keys])

    def controller(self, task: api.Task) -> FakeController:
        if task.id in self.refused:
            raise self.refused[task.id]
        return FakeController(task, self.engine, self.calls, self.script.get(task.id, {}))

    async def remove_strays(self, keep: Iterable[str]) -> None:
        if self.sweep_gate is not None:
            await self.sweep_gate.wait()
        if self.sweep_errors:
            raise self.sweep_errors.pop(0)
        self.swept.append(set(keep))
        for stray in set(self.engine.containers) - set(keep):
            del self.engine.containers[stray]
            self.engine.running.discard(stray)

    async def close(self) -> None:
        pass

    def did(self, task_id: str) -> list[str]:
        """The operations on one task, in order."""
        return [name for name, of in self.calls if of == task_id]


class SecretExecutor(FakeExecutor):
    """One that hands out secrets and configs."""

    dependencies: Dependencies

    def use_dependencies(self, dependencies: Dependencies) -> None:
        self.dependencies = dependencies


class FakeStream:
    """What a manager sends on one stream, until it ends it."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Any] = asyncio.Queue()
        self.closed = False

    def send(self, item: Any) -> None:
        """A message, or an error that ends the stream; None ends it without."""
        self._queue.put_nowait(item)

    async def read(self) -> AsyncGenerator[Any, None]:
        try:
            while (item := await self._queue.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            self.closed = True


class FakeManager:
    """A dispatcher: notes what it is asked and answers as told. One for all connections made to it."""

    def __init__(self) -> None:
        self.requests: list[api.SessionRequest] = []
        self.sessions: list[FakeStream] = []
        self.assigned: list[FakeStream] = []
        self.listed: list[FakeStream] = []
        self.beats: list[str] = []
        self.reports: list[dict[str, api.TaskStatus]] = []
        self.unpublished: list[str] = []
        self.closed: list[bool] = []
        self.session_ids: Callable[[api.SessionRequest], str] = lambda request: request.session_id or f"s{len(self.requests)}"
        self.session_errors: list[SwarmError | None] = []
        self.silent = False
        self.period = 5.0
        self.heartbeat_error: SwarmError | None = None
        self.report_errors: list[SwarmError | None] = []
        self.has_assignments = True
        self.template = api.SessionMessage()

    def client(self, connection: Connection) -> FakeClient:
        """What the agent gets instead of a gRPC client."""
        return FakeClient(self)

    def states(self, task_id: str) -> list[int]:
        """What was reported of a task, in order."""
        return [batch[task_id].state for batch in self.reports if task_id in batch]


class FakeClient(WithoutLogs):
    """One connection to a FakeManager."""

    def __init__(self, manager: FakeManager) -> None:
        self.manager = manager

    def session(self, request: api.SessionRequest) -> AsyncGenerator[api.SessionMessage, None]:
        m = self.manager
        m.requests.append(request)
        stream = FakeStream()
        m.sessions.append(stream)
        error = m.session_errors.pop(0) if m.session_errors else None
        if error is not None:
            stream.send(error)
        elif not m.silent:
            first = api.SessionMessage()
            first.CopyFrom(m.template)
            first.session_id = m.session_ids(request)
            stream.send(first)
        return stream.read()

    def assignments(self, request: api.AssignmentsRequest) -> AsyncGenerator[api.AssignmentsMessage, None]:
        stream = FakeStream()
        if not self.manager.has_assignments:
            stream.send(Unimplemented("unknown method Assignments"))
        self.manager.assigned.append(stream)
        return stream.read()

    def tasks(self, request: api.TasksRequest) -> AsyncGenerator[api.TasksMessage, None]:
        stream = FakeStream()
        self.manager.listed.append(stream)
        return stream.read()

    async def heartbeat(self, request: api.HeartbeatRequest) -> api.HeartbeatResponse:
        self.manager.beats.append(request.session_id)
        if self.manager.heartbeat_error is not None:
            raise self.manager.heartbeat_error
        return api.HeartbeatResponse(period=times.duration(self.manager.period))

    async def update_task_status(self, request: api.UpdateTaskStatusRequest) -> api.UpdateTaskStatusResponse:
        await asyncio.sleep(0)
        error = self.manager.report_errors.pop(0) if self.manager.report_errors else None
        if error is not None:
            raise error
        self.manager.reports.append({update.task_id: update.status for update in request.updates})
        return api.UpdateTaskStatusResponse()

    async def update_volume_status(self, request: api.UpdateVolumeStatusRequest) -> api.UpdateVolumeStatusResponse:
        self.manager.unpublished += [update.id for update in request.updates if update.unpublished]
        return api.UpdateVolumeStatusResponse()

    async def close(self, success: bool) -> None:
        self.manager.closed.append(success)


class FakeConnection:
    """A connection without a channel."""

    channel: Any = None

    async def close(self, success: bool) -> None:
        """Nothing to close."""


class FakeBroker:
    """Knows one manager."""

    def __init__(self) -> None:
        self.remotes = Remotes()
        self.remotes.observe(RemotePeer("m1", "127.0.0.1:4242"), 10)

    async def select(self) -> FakeConnection:
        """A connection to it."""
        return FakeConnection()
