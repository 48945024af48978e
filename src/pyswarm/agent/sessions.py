"""Keeps the node in a session: opens one, replaces it before it is given up, and tries again with growing delays when it fails."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from pyswarm.agent.client import DispatcherClient, RemovedNode, UntrustedManager
from pyswarm.agent.executor import ExecutorError
from pyswarm.agent.logs import LogPublisher
from pyswarm.agent.reporter import Reporter
from pyswarm.agent.session import Listener, Session, open_session
from pyswarm.agent.timing import REMOVED_SECONDS, SESSION_CAP, next_session_bound
from pyswarm.api import v1 as api
from pyswarm.clock import Clock, wait_for
from pyswarm.errors import SwarmError

log = structlog.get_logger(__name__)


class SessionListener(Listener, Protocol):
    """Also told when a session is established."""

    def on_established(self, session_id: str, *, new: bool) -> None:
        """The manager answered. `new`: not a resumption of the last session, so it may know nothing of what was reported before."""
        ...


class SessionKeeper:
    """`run` for as long as the agent lives."""

    def __init__(
        self,
        *,
        connect: Callable[[], Awaitable[DispatcherClient]],
        describe: Callable[[], Awaitable[api.NodeDescription]],
        listener: SessionListener,
        reporter: Reporter,
        logs: LogPublisher,
        clock: Clock,
        rng: random.Random,
        joining: bool = False,
    ) -> None:
        """`connect` picks a manager and makes a channel with the node's present certificate; `describe` tells what the node looks like.

        When `joining`, somebody just said which manager to use: if that one is not to be trusted, trying again would only hide it.
        """
        self._connect = connect
        self._describe = describe
        self._listener = listener
        self._reporter = reporter
        self._logs = logs
        self._clock = clock
        self._rng = rng
        self._joining = joining
        self._removed = False
        self._renewal = asyncio.Event()
        self._session_id = ""
        self.description: api.NodeDescription | None = None
        """What the manager was last told; None while there is no session."""

    def renew(self) -> None:
        """Move the session, if there is one, to a new connection with a new description. The old one serves until then."""
        self._renewal.set()

    async def run(self) -> None:
        """Until cancelled. Raises UntrustedManager when joining and there never was a session."""
        bound = 0.0
        async with asyncio.TaskGroup() as group:
            while True:
                if bound:
                    await self._clock.sleep(bound * self._rng.random())
                session = await self._open()
                if session is not None:
                    started = self._clock.monotonic()
                    await self._keep(group, session)
                    self.description = None
                    if self._clock.monotonic() - started > SESSION_CAP:
                        bound = 0.0  # a session that ends as soon as it begins is no success
                bound = REMOVED_SECONDS if self._removed else next_session_bound(bound)

    async def _open(self) -> Session | None:
        """A session, resumed if possible; None when that failed, which is logged. Raises as `run`."""
        self._removed = False
        try:
            description = await self._describe()
            client = await self._connect()
            request = api.SessionRequest(description=description, session_id=self._session_id)
            session = await open_session(client, request, self._clock)
        except RemovedNode as error:
            self._removed = True
            log.error(
                "this node was removed from the cluster: stop it and start it once with --leave to end its tasks; then it can join again",
                error=str(error),
            )
            return None
        except (SwarmError, ExecutorError, OSError) as error:
            if isinstance(error, UntrustedManager) and self._joining and not self._session_id:
                raise
            log.warning("no session with a manager", error=str(error))
            return None
        self.description = description
        return session

    async def _keep(self, group: asyncio.TaskGroup, session: Session) -> None:
        """Serve sessions, each replacing the one before it without a gap, until one fails."""
        while True:
            serving = group.create_task(session.serve(self._listener, self._reporter, self._logs))
            self._established(session)
            replacement = await self._replacement(serving)
            if replacement is None:
                log.warning("session lost", session=session.id, error=str(serving.result()))
                return
            session.superseded = True
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            session = replacement

    def _established(self, session: Session) -> None:
        new = session.id != self._session_id
        self._session_id = session.id
        log.info("session established", session=session.id, resumed=not new)
        self._listener.on_established(session.id, new=new)

    async def _replacement(self, serving: asyncio.Task[SwarmError]) -> Session | None:
        """A session to go on with, once a renewal was asked for; None when the present one fails first."""
        bound = 0.0
        serving.add_done_callback(self._on_ended)
        try:
            while True:
                await self._renewal.wait()
                self._renewal.clear()
                if serving.done():
                    return None
                replacement = await self._open()
                if replacement is not None:
                    return replacement
                bound = next_session_bound(bound)
                await wait_for(self._renewal, self._clock, bound)
                self._renewal.set()
        finally:
            serving.remove_done_callback(self._on_ended)

    def _on_ended(self, _serving: asyncio.Task[SwarmError]) -> None:
        self._renewal.set()
