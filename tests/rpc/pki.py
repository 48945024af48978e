"""A small cluster's worth of certificates, and a manager's remote port made from them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyswarm.api import v1 as api
from pyswarm.api.swarmkit import ca_pb2, control_pb2, dispatcher_pb2, health_pb2, logbroker_pb2
from pyswarm.ca import credentials as creds
from pyswarm.ca import csr
from pyswarm.ca.credentials import Credentials, SecurityConfig
from pyswarm.ca.root import RootCA
from pyswarm.clock import SystemClock
from pyswarm.errors import FailedPrecondition
from pyswarm.rpc.binder import Service, bind
from pyswarm.rpc.caller import MANAGER, Caller
from pyswarm.rpc.forward import Line
from pyswarm.rpc.front import Limits
from pyswarm.rpc.server import RemoteServer

CLUSTER = "cluster-1"


class Authority:
    """A root that makes credentials on demand."""

    def __init__(self) -> None:
        self.root = RootCA.create(now=time.time() - 30 * 86400.0)

    def issue(self, node_id: str, role: str, *, organization: str = CLUSTER, expiry: float = 7200.0, age: float = 0.0) -> Credentials:
        """Credentials issued `age` seconds ago; with an age beyond the expiry they have expired."""
        now = time.time()
        request, key = csr.generate()
        chain = self.root.sign_csr(request, node_id, role, organization, expiry, now - age)
        return creds.build(self.root.bundle, chain, key, now, allow_expired=True)


class Leader:
    """A LeaderDirectory that says what it is told. Who changes something here says so with `tell()`."""

    def __init__(self, *, leading: bool = True) -> None:
        self.leading = leading
        self.hopeless = False
        self.other: Line | None = None
        self._changed = asyncio.Event()

    @property
    def is_leader(self) -> bool:
        """As set."""
        return self.leading

    def leader(self) -> tuple[str, str] | None:
        """The other, if one was named."""
        if self.leading:
            return "here", "127.0.0.1:1"
        return (self.other.node_id, self.other.addr) if self.other else None

    def leader_line(self) -> Line | None:
        """The connection to the other."""
        return None if self.leading else self.other

    @property
    def changed(self) -> asyncio.Event:
        """Set by `tell()`."""
        return self._changed

    def leaderless(self) -> bool:
        """As set."""
        return self.hopeless

    def tell(self) -> None:
        """Wake whoever waits for a change."""
        self._changed.set()
        self._changed = asyncio.Event()


@dataclass
class Toy:
    """Answers a few methods of real services and remembers who called."""

    callers: list[Caller] = field(default_factory=list)
    sessions_closed: int = 0
    cleaned_up: asyncio.Event = field(default_factory=asyncio.Event)

    async def Heartbeat(self, request: api.HeartbeatRequest, caller: Caller) -> api.HeartbeatResponse:  # noqa: N802
        """Remember the caller."""
        self.callers.append(caller)
        return api.HeartbeatResponse()

    async def Session(self, request: api.SessionRequest, caller: Caller) -> AsyncIterator[api.SessionMessage]:  # noqa: N802
        """Two messages, then nothing until the client leaves."""
        self.callers.append(caller)
        try:
            yield api.SessionMessage(session_id=caller.node_id)
            yield api.SessionMessage(session_id="second")
            await asyncio.Event().wait()
        finally:
            self.cleaned_up.set()

    async def PublishLogs(self, request: AsyncIterator[api.PublishLogsMessage], caller: Caller) -> api.PublishLogsResponse:  # noqa: N802
        """Count, and fail when told."""
        async for message in request:
            if message.close:
                raise FailedPrecondition(f"closed by {message.subscription_id}")
        return api.PublishLogsResponse()

    async def GetRootCACertificate(  # noqa: N802
        self, request: api.GetRootCACertificateRequest, caller: Caller
    ) -> api.GetRootCACertificateResponse:
        """Say who calls, in place of a certificate."""
        self.callers.append(caller)
        return api.GetRootCACertificateResponse(certificate=f"{caller.node_id}|{','.join(caller.roles)}".encode())

    async def ListNodes(self, request: api.ListNodesRequest, caller: Caller) -> api.ListNodesResponse:  # noqa: N802
        """An answer of ten MiB when asked by name `big`, a bug when asked by name `bug`, a stopping component when `stop`."""
        self.callers.append(caller)
        names = list(request.filters.names)
        if "big" in names:
            return api.ListNodesResponse(nodes=[api.Node(id="x" * 1024 * 1024) for _ in range(10)])
        if "bug" in names:
            raise ZeroDivisionError("secret detail")
        if "stop" in names:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            waiter.cancel()
            await waiter
        return api.ListNodesResponse()


def toy_services(toy: Any) -> list[Service]:
    """`toy` behind the services it answers some methods of."""
    described = [
        dispatcher_pb2.DESCRIPTOR.services_by_name["Dispatcher"],
        ca_pb2.DESCRIPTOR.services_by_name["CA"],
        control_pb2.DESCRIPTOR.services_by_name["Control"],
        health_pb2.DESCRIPTOR.services_by_name["Health"],
        logbroker_pb2.DESCRIPTOR.services_by_name["LogBroker"],
    ]
    return [bind(descriptor, toy) for descriptor in described]


@contextlib.asynccontextmanager
async def remote_port(
    security: SecurityConfig,
    services: Sequence[Service],
    directory: Path,
    *,
    blacklist: Callable[[], Collection[str]] = tuple,
    limits: Limits | None = None,
    leader: Leader | None = None,
) -> AsyncIterator[RemoteServer]:
    """A running remote port on a free port of the loopback interface."""
    server = RemoteServer(
        services=services,
        security=security,
        directory=leader or Leader(),
        blacklist=blacklist,
        inner_directory=directory,
        clock=SystemClock(),
        limits=limits,
    )
    await server.listen("127.0.0.1:0")
    running = asyncio.create_task(server.run())
    try:
        yield server
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def manager_security(authority: Authority, node_id: str = "manager-1") -> SecurityConfig:
    """A manager's identity."""
    return SecurityConfig(authority.issue(node_id, MANAGER), SystemClock())


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Poll real sockets until `condition` holds."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - sockets signal nobody
            await asyncio.sleep(0.01)
