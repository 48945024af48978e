"""Many agents imitated in this process: each has a certificate of its own by joining, and a connection and session of its own.

The session, its loops and the reporter are the agent's; only what it keeps on disk and what it runs is missing. A manager knows a node by
the certificate of its connection, so connections cannot be shared.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import grpc.aio
import structlog

from pyswarm.agent.client import GrpcDispatcherClient
from pyswarm.agent.logs import LogPublisher, Source
from pyswarm.agent.reporter import Reporter
from pyswarm.agent.session import Session, open_session
from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.api.swarmkit.ca_pb2_grpc import CAStub, NodeCAStub
from pyswarm.ca import credentials, csr
from pyswarm.ca.credentials import Credentials
from pyswarm.clock import SystemClock
from pyswarm.errors import SwarmError
from pyswarm.rpc.channel import SESSION_OPTIONS, connect, connect_anonymous, connect_unverified

if TYPE_CHECKING:
    from pyswarm.api.swarmkit.ca_pb2_grpc import CAAsyncStub, NodeCAAsyncStub

log = structlog.get_logger(__name__)

S = api.TaskState
STARTING = (S.ACCEPTED, S.PREPARING, S.READY, S.STARTING, S.RUNNING)
CALL_SECONDS = 60.0
RETRY_SECONDS = 1.0
JOINING = 32
"""Nodes that join at the same time."""
PROBE_SECONDS = 0.05
LATE_SECONDS = 1.0
"""A heartbeat whose answer takes longer is late; the managers' grace is ten seconds more than the period."""


class _Client(GrpcDispatcherClient):
    """Closes its channel, and measures heartbeats."""

    def __init__(self, channel: grpc.aio.Channel, beats: list[float]) -> None:
        self.channel = channel
        self._beats = beats
        super().__init__(self)

    async def heartbeat(self, request: api.HeartbeatRequest) -> api.HeartbeatResponse:
        """See GrpcDispatcherClient."""
        started = time.perf_counter()
        try:
            return await super().heartbeat(request)
        finally:
            self._beats.append(time.perf_counter() - started)

    async def close(self, success: bool) -> None:  # noqa: ARG002 - see GrpcDispatcherClient
        """See GrpcDispatcherClient."""
        await self.channel.close(None)


class _Silent:
    """Tasks that write no logs."""

    def sources(self) -> Iterable[Source]:
        """See agent.logs.Sources."""
        return ()

    def on_source(self, callback: Callable[[Source], None]) -> Callable[[], None]:  # noqa: ARG002 - see agent.logs.Sources
        """See agent.logs.Sources."""
        return lambda: None


class Agent:
    """One node. Its tasks pass from state to state at once."""

    def __init__(self, fleet: Fleet, name: str, addr: str, secrets: Credentials) -> None:
        self._fleet = fleet
        self._name = name
        self._addr = addr
        self._secrets = secrets
        self._reporter = Reporter()
        self._logs = LogPublisher(_Silent(), fleet.clock)
        self._wanted: dict[str, S.ValueType] = {}
        self._moves: asyncio.Queue[tuple[Sequence[str], Sequence[S.ValueType]]] = asyncio.Queue()
        self.joined = asyncio.Event()

    async def run(self) -> None:
        """Keep a session until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._move())
            while True:
                try:
                    session = await self._open()
                    self.joined.set()
                    error = await session.serve(self, self._reporter, self._logs)
                except SwarmError as failure:
                    error = failure
                self._fleet.lost.append(f"{self._name}: {type(error).__name__}: {error.message}")
                await asyncio.sleep(RETRY_SECONDS)

    async def _open(self) -> Session:
        resources = api.Resources(nano_cpus=8_000_000_000, memory_bytes=16 << 30)
        platform = api.Platform(architecture="x86_64", os="linux")
        description = api.NodeDescription(hostname=self._name, platform=platform, resources=resources)
        client = _Client(connect(self._addr, self._secrets, options=SESSION_OPTIONS), self._fleet.beats)
        return await open_session(client, api.SessionRequest(description=description), self._fleet.clock)

    def on_session_message(self, message: api.SessionMessage) -> None:
        """Nothing in it changes what an imitated agent does."""

    def on_assignments(self, message: api.AssignmentsMessage) -> None:
        """Start what is new, stop what is to stop."""
        start, stop = list[str](), list[str]()
        for change in message.changes:
            task = change.assignment.task
            if change.action == api.AssignmentChange.REMOVE:
                self._wanted.pop(task.id, None)
                self._reporter.forget(task.id)
                continue
            before = self._wanted.get(task.id)
            self._wanted[task.id] = task.desired_state
            if task.desired_state > S.RUNNING and task.status.state <= S.RUNNING and (before is None or before <= S.RUNNING):
                stop.append(task.id)
            elif before is None and task.desired_state <= S.RUNNING and task.status.state < S.RUNNING:
                start.append(task.id)
        if start:
            self._moves.put_nowait((start, STARTING))
        if stop:
            self._moves.put_nowait((stop, (S.SHUTDOWN,)))

    async def _move(self) -> None:
        while True:
            tasks, states = await self._moves.get()
            for state in states:
                for task_id in tasks:
                    self._reporter.report(task_id, _status(task_id, state))
                self._fleet.reported(state, len(tasks))
                await asyncio.sleep(0)


class Fleet:
    """All agents, and what befell them."""

    def __init__(self, addresses: Sequence[str], token: str) -> None:
        self._addresses = addresses
        self._token = token
        self._root = b""
        self._counts: dict[int, int] = {}
        self.clock = SystemClock()
        self.beats: list[float] = []
        """Seconds that each heartbeat took."""
        self.stall = 0.0
        """The longest time in seconds that this process kept all its agents waiting: what their figures can be trusted to."""
        self.lost: list[str] = []
        """Why sessions ended, or did not begin."""

    @contextlib.asynccontextmanager
    async def running(self, count: int) -> AsyncIterator[None]:
        """So many agents, joined and with sessions, spread over the managers."""
        async with await connect_unverified(self._addresses[0]) as channel:
            ca: CAAsyncStub = CAStub(channel)
            self._root = (await ca.GetRootCACertificate(api.GetRootCACertificateRequest())).certificate
        turns = asyncio.Semaphore(JOINING)
        async with asyncio.TaskGroup() as group:
            joining = [group.create_task(self._join(number, turns, group.create_task)) for number in range(count)]
            running = [group.create_task(self._watch_itself()), *await asyncio.gather(*joining)]
            yield
            for task in running:
                task.cancel()

    async def _watch_itself(self) -> None:
        while True:
            asked = time.perf_counter() + PROBE_SECONDS
            await asyncio.sleep(PROBE_SECONDS)
            self.stall = max(self.stall, time.perf_counter() - asked)

    async def _join(self, number: int, turns: asyncio.Semaphore, begin: Callable[..., asyncio.Task[None]]) -> asyncio.Task[None]:
        addr = self._addresses[number % len(self._addresses)]
        async with turns:
            agent = Agent(self, f"agent-{number}", addr, await self._certificate(addr))
            running = begin(agent.run())
            await agent.joined.wait()
            return running

    async def _certificate(self, addr: str) -> Credentials:
        request, key = csr.generate()
        async with connect_anonymous(addr, self._root) as channel:
            ca: NodeCAAsyncStub = NodeCAStub(channel)
            issue = api.IssueNodeCertificateRequest(csr=request, token=self._token)
            poll = api.NodeCertificateStatusRequest(node_id=(await ca.IssueNodeCertificate(issue, timeout=CALL_SECONDS)).node_id)
            while True:
                answer = await ca.NodeCertificateStatus(poll, timeout=CALL_SECONDS)
                if answer.status.state == api.IssuanceStatus.ISSUED:
                    return credentials.build(self._root, answer.certificate.certificate, key, self.clock.now())

    def reported(self, state: int, count: int) -> None:
        """So many tasks came into a state."""
        self._counts[state] = self._counts.get(state, 0) + count

    def count(self, state: int) -> int:
        """How many tasks ever came into it."""
        return self._counts.get(state, 0)

    def beats_so_far(self) -> dict[str, object]:
        """Figures of the heartbeats since the last time, to print."""
        beats, stall = self.beats[:], self.stall
        self.beats.clear()
        self.stall = 0.0
        return {
            "beats": len(beats),
            "late_beats": sum(seconds > LATE_SECONDS for seconds in beats),
            "worst_beat_ms": round(max(beats, default=0.0) * 1000, 1),
            "own_stall_ms": round(stall * 1000, 1),
            "sessions_lost": len(self.lost),
            "why": self.lost[:3],
        }


def _status(task_id: str, state: S.ValueType) -> api.TaskStatus:
    """As an agent with an engine would say it."""
    status = api.TaskStatus(state=state, timestamp=times.timestamp(time.time()), message=S.Name(state).lower())
    if state >= S.STARTING:
        status.container.container_id = task_id
        status.container.pid = 1
    return status
