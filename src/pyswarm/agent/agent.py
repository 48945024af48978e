"""The agent: puts session, worker and reporter together and carries a node's news to where they belong."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

import structlog

from pyswarm.agent import messages
from pyswarm.agent.client import Connection, DispatcherClient, GrpcDispatcherClient
from pyswarm.agent.disk import Disk, ThreadDisk
from pyswarm.agent.executor import Executor, ExecutorError
from pyswarm.agent.logs import LogPublisher
from pyswarm.agent.messages import Known, NodeChange
from pyswarm.agent.reporter import Reporter
from pyswarm.agent.sessions import SessionKeeper
from pyswarm.agent.worker import Worker
from pyswarm.api import v1 as api
from pyswarm.ca.credentials import Credentials, SecurityConfig
from pyswarm.clock import Clock, wait_for
from pyswarm.csi.plugins import Plugins
from pyswarm.errors import Unknown
from pyswarm.rpc.remotes import Remotes

__all__ = ["Agent", "NodeChange"]

log = structlog.get_logger(__name__)

REFRESH_SECONDS = 20.0


class Broker(Protocol):
    """Finds managers: `rpc.remotes.ConnectionBroker`."""

    @property
    def remotes(self) -> Remotes:
        """The managers known so far."""
        ...

    async def select(self) -> Connection:
        """A connection to one of them, made with the node's present certificate. Raises SwarmError."""
        ...


class Agent:
    """One node's agent. `run` it once; `ready` is set at the first session."""

    def __init__(
        self,
        *,
        security: SecurityConfig,
        broker: Broker,
        executor: Executor,
        database: Path,
        clock: Clock,
        hostname: str | None = None,
        on_change: Callable[[NodeChange], Awaitable[None]] | None = None,
        client: Callable[[Connection], DispatcherClient] = GrpcDispatcherClient,
        rng: random.Random | None = None,
        refresh_seconds: float = REFRESH_SECONDS,
        disk: Disk | None = None,
        joining: bool = False,
        plugins: Plugins | None = None,
    ) -> None:
        """`database` is the task database's file; `disk` does its blocking work, in a thread unless told otherwise.

        `on_change` is awaited with news of the node, one at a time, never in the way of the session; what arrives meanwhile is merged.
        The executor stays the caller's: close it after `run`. `joining`: a manager that cannot be trusted at the first session ends `run`.
        `plugins` are the storage plugins of this machine.
        """
        self.ready = asyncio.Event()
        self._security = security
        self._broker = broker
        self._executor = executor
        self._clock = clock
        self._hostname = hostname
        self._on_change = on_change
        self._client = client
        self._refresh_seconds = refresh_seconds
        # Scatters retries; nothing here is secret.
        rng = rng or random.Random()  # noqa: S311
        self._reporter = Reporter()
        self._worker = Worker(
            executor=executor, database=database, reporter=self._reporter, clock=clock, rng=rng, disk=disk or ThreadDisk(), plugins=plugins
        )
        self._keeper = SessionKeeper(
            connect=self._connect,
            describe=self._describe,
            listener=self,
            reporter=self._reporter,
            logs=LogPublisher(self._worker, clock),
            clock=clock,
            rng=rng,
            joining=joining,
        )
        self._known = Known()
        self._change = NodeChange(None, b"")
        self._keys: tuple[api.EncryptionKey, ...] | None = None
        self._news = asyncio.Event()
        self._tls_changed = asyncio.Event()
        self._told = security.current
        self._running = False

    async def run(self) -> None:
        """Hold sessions and run tasks until cancelled; tasks keep running then. Raises DatabaseError, UntrustedManager (see
        `joining`), and Unknown when it runs already.
        """
        if self._running:
            raise Unknown("agent: already started")
        self._running = True
        undo = self._security.subscribe(self._on_credentials)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._worker.run())
                group.create_task(self._keeper.run())
                group.create_task(self._refresh())
                group.create_task(self._pass_news_on())
        finally:
            undo()
            self._running = False

    async def leave(self) -> None:
        """Remove all tasks from the node and accept no more; returns when they are gone. The manager is not told. Raises Unknown."""
        if not self._running:
            raise Unknown("agent: not started")
        await self._worker.leave()

    # --- what the sessions need

    async def _connect(self) -> DispatcherClient:
        self._told = self._security.current
        return self._client(await self._broker.select())

    async def _describe(self) -> api.NodeDescription:
        """The node as its executor sees it, completed by what only the agent knows. Raises ExecutorError."""
        description = api.NodeDescription()
        description.CopyFrom(await self._executor.describe())
        if self._hostname:
            description.hostname = self._hostname
        description.csi_info.extend(await self._worker.volumes.describe())
        credentials = self._security.current
        description.tls_info.trust_root = credentials.root_pem
        description.tls_info.cert_issuer_subject = credentials.issuer_subject
        description.tls_info.cert_issuer_public_key = credentials.issuer_public_key
        return description

    async def _refresh(self) -> None:
        """Tell the manager when the node looks different or has new credentials, by resuming the session on a new connection."""
        while True:
            await wait_for(self._tls_changed, self._clock, self._refresh_seconds)
            self._tls_changed.clear()
            if self._keeper.description is None:
                continue
            if not _same_credentials(self._told, self._security.current) or await self._looks_different():
                self._keeper.renew()

    async def _looks_different(self) -> bool:
        try:
            return await self._describe() != self._keeper.description
        except ExecutorError as error:
            log.debug("node not described", error=str(error))
            return False

    def _on_credentials(self, _credentials: Credentials) -> None:
        self._tls_changed.set()

    # --- what the sessions tell

    def on_established(self, session_id: str, *, new: bool) -> None:  # noqa: ARG002 - the listener's shape
        """There is a session. A new one may be with a manager that has heard nothing yet."""
        self.ready.set()
        if not _same_credentials(self._told, self._security.current):
            # They changed while it was being opened.
            self._tls_changed.set()
        if new:
            self._worker.report_all()

    def on_assignments(self, message: api.AssignmentsMessage) -> None:
        """Work for the worker."""
        self._worker.assign(message)

    def on_session_message(self, message: api.SessionMessage) -> None:
        """Remember managers; leave the rest to `_pass_news_on`."""
        remotes = self._broker.remotes
        news = messages.read(message, self._known, self._security.current.root_pem, remotes.weights())
        self._known = news.known
        for peer, weight in news.managers:
            remotes.observe(peer, weight)
        remotes.remove(*news.gone)
        if news.change:
            self._change = NodeChange(news.change.node or self._change.node, news.change.root_pem or self._change.root_pem)
            self._news.set()
        if news.keys is not None:
            self._keys = tuple(news.keys)
            self._news.set()

    async def _pass_news_on(self) -> None:
        """Executor and node hear of changes beside the session, so that a slow one delays no heartbeat."""
        while True:
            await self._news.wait()
            self._news.clear()
            change, self._change = self._change, NodeChange(None, b"")
            keys, self._keys = self._keys, None
            if change.node is not None:
                await self._guarded("configure", self._executor.configure(change.node))
            if keys is not None:
                await self._guarded("set network keys", self._executor.set_network_keys(keys))
            if change and self._on_change is not None:
                await self._guarded("node change", self._on_change(change))

    async def _guarded(self, what: str, work: Awaitable[None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - a supervisor: the session must not end for it
            log.error("news not taken in", what=what, error=str(error))


def _same_credentials(one: Credentials, other: Credentials) -> bool:
    return one.cert_pem == other.cert_pem and one.root_pem == other.root_pem
