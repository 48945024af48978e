"""A store with a cluster in it, the CA services on top, and a connector that reaches them without a network."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from pyswarm.api import v1 as api
from pyswarm.ca import update
from pyswarm.ca.client import Connection, Dial
from pyswarm.ca.root import RootCA
from pyswarm.ca.server import CAService
from pyswarm.ca.signer import default_cluster
from pyswarm.errors import DeadlineExceeded, SwarmError
from pyswarm.manager.store import Store, Tx, copy_of
from pyswarm.rpc.caller import Caller
from tests.support.clock import VirtualClock, settle

R = TypeVar("R")
CLUSTER_ID = "cluster1"


async def create_cluster(store: Store, root: RootCA) -> api.Cluster:
    """Store the default cluster with this root; returns it."""
    cluster = api.Cluster(id=CLUSTER_ID, root_ca=update.initial_root(root), VXLANUDPPort=4789)
    cluster.spec.annotations.name = "default"
    await store.update(lambda tx: tx.clusters.create(cluster))
    return stored_cluster(store)


def stored_cluster(store: Store) -> api.Cluster:
    """The cluster as stored."""
    cluster = default_cluster(store)
    assert cluster is not None
    return cluster


async def edit_cluster(store: Store, edit: Callable[[api.Cluster], object]) -> None:
    """Change the stored cluster."""

    def write(tx: Tx) -> None:
        changed = copy_of(stored_cluster(store))
        edit(changed)
        tx.clusters.update(changed)

    await store.update(write)


async def edit_node(store: Store, node_id: str, edit: Callable[[api.Node], object]) -> None:
    """Change a stored node."""

    def write(tx: Tx) -> None:
        node = tx.nodes.get(node_id)
        assert node is not None
        changed = copy_of(node)
        edit(changed)
        tx.nodes.update(changed)

    await store.update(write)


@contextlib.asynccontextmanager
async def running(coroutine: Awaitable[object]) -> AsyncIterator[asyncio.Future[object]]:
    """Something with a `run()`, for the length of a `with` block."""
    task = asyncio.ensure_future(coroutine)
    await settle()
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Direct:
    """A `client.Connect` that calls a CAService directly, as the caller that the dialled credentials name.

    `faults` are raised, one per call of the method named, before the call is made; `dials` and `calls` remember what happened.
    """

    def __init__(self, service: CAService, clock: VirtualClock) -> None:
        self.service = service
        self.clock = clock
        self.dials: list[Dial] = []
        self.calls: list[str] = []
        self.closed: list[bool] = []
        self.faults: dict[str, list[SwarmError | None]] = {}

    async def connect(self, dial: Dial) -> Connection:
        """A connection for one dial."""
        self.dials.append(dial)
        self.fault("connect")
        return DirectConnection(self, dial)

    def fault(self, name: str) -> None:
        """Raise the next planned fault of a method, if there is one."""
        self.calls.append(name)
        planned = self.faults.get(name)
        error = planned.pop(0) if planned else None
        if error is not None:
            raise error


class DirectConnection:
    """One such connection."""

    def __init__(self, direct: Direct, dial: Dial) -> None:
        self._direct = direct
        shown = dial.credentials
        self._caller = Caller(shown.node_id, shown.organization, (shown.role,)) if shown else Caller()

    async def get_root_ca_certificate(self, request: api.GetRootCACertificateRequest, seconds: float) -> api.GetRootCACertificateResponse:
        """As the service."""
        return await self._call("root", self._direct.service.GetRootCACertificate(request, self._caller), seconds)

    async def get_unlock_key(self, request: api.GetUnlockKeyRequest, seconds: float) -> api.GetUnlockKeyResponse:
        """As the service."""
        return await self._call("unlock", self._direct.service.GetUnlockKey(request, self._caller), seconds)

    async def issue_node_certificate(self, request: api.IssueNodeCertificateRequest, seconds: float) -> api.IssueNodeCertificateResponse:
        """As the service."""
        return await self._call("issue", self._direct.service.IssueNodeCertificate(request, self._caller), seconds)

    async def node_certificate_status(self, request: api.NodeCertificateStatusRequest, seconds: float) -> api.NodeCertificateStatusResponse:
        """As the service."""
        return await self._call("status", self._direct.service.NodeCertificateStatus(request, self._caller), seconds)

    async def close(self, *, success: bool) -> None:
        """Remember how it went."""
        self._direct.closed.append(success)

    async def _call(self, name: str, call: Awaitable[R], seconds: float) -> R:
        task = asyncio.ensure_future(call)
        timer = asyncio.ensure_future(self._direct.clock.sleep(seconds))
        try:
            self._direct.fault(name)
            await asyncio.wait([task, timer], return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise DeadlineExceeded("context deadline exceeded")
            return task.result()
        finally:
            task.cancel()
            timer.cancel()
            await asyncio.gather(task, timer, return_exceptions=True)
