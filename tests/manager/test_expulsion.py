"""A removed node: its connections are cut, its calls refused, and it knows why."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest
import structlog
from structlog.typing import EventDict

from pyswarm.api import v1 as api
from pyswarm.api.swarmkit.ca_pb2_grpc import NodeCAStub
from pyswarm.api.swarmkit.dispatcher_pb2_grpc import DispatcherStub
from pyswarm.manager.expulsion import Expulsion
from pyswarm.manager.store import Store, copy_of
from pyswarm.rpc import channel
from tests.manager.dispatcher.support import cluster, create
from tests.support.nodes import LiveCluster, LiveNode, live_cluster, until

REMOVED = "this node was removed from the cluster"


class Door:
    """Notes who is cut."""

    def __init__(self) -> None:
        self.cut: list[str] = []

    def disconnect(self, node_id: str) -> int:
        """One connection each."""
        self.cut.append(node_id)
        return 1


async def blacklist(store: Store, *node_ids: str) -> None:
    """As a removal does it."""

    def add(tx: object) -> None:
        changed = copy_of(next(iter(store.clusters)))
        for node_id in node_ids:
            changed.blacklisted_certificates[node_id].CopyFrom(api.BlacklistedCertificate())
        tx.clusters.update(changed)  # type: ignore[attr-defined]

    await store.update(add)


async def test_each_removed_node_is_cut_once(store: Store) -> None:
    """Nodes are cut when they appear in the cluster's blacklist; other changes of it cut nobody again."""
    door = Door()
    undo = Expulsion(store, door).start()
    await create(store, cluster())
    await blacklist(store, "a")
    assert door.cut == ["a"]
    await blacklist(store, "b", "c")
    await blacklist(store)
    assert door.cut == ["a", "b", "c"]
    undo()
    await blacklist(store, "d")
    assert door.cut == ["a", "b", "c"]


async def test_known_before(store: Store) -> None:
    """Who was removed before the manager started has no connection to cut."""
    await create(store, cluster())
    await blacklist(store, "a")
    door = Door()
    Expulsion(store, door).start()
    await blacklist(store, "b")
    assert door.cut == ["b"]


@pytest.fixture
async def swarm() -> AsyncIterator[LiveCluster]:
    """A founder and two workers, with a service."""
    with tempfile.TemporaryDirectory(prefix="ps-") as directory:
        async with live_cluster(Path(directory)) as made:
            await made.join("worker")
            await made.join("other")
            await made.run_service("web", 3)
            yield made


async def remove(swarm: LiveCluster, node: LiveNode) -> None:
    """`pyswarmctl node rm --force`."""
    await swarm.control(lambda control: control.RemoveNode(api.RemoveNodeRequest(node_id=node.id, force=True)))


async def refusal(call: grpc.aio.UnaryUnaryCall[object, object]) -> tuple[grpc.StatusCode, str]:
    """How a call fails."""
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await call
    return failure.value.code(), failure.value.details() or ""


async def test_removed_node(swarm: LiveCluster) -> None:
    """Its session ends at once, its calls are refused from then on, it does not come back, and its tasks run elsewhere. [dispatcher 175]
    [ca 160]
    """
    worker, other = swarm.nodes[1:]
    connections = swarm.founder.manager._remote._front
    session = other.session
    with structlog.testing.capture_logs() as logs:
        await remove(swarm, worker)
        legs = [leg.peer.certificate for leg in connections._legs]
        assert all(certificate is None or certificate.node_id != worker.id for certificate in legs)
        await until(lambda: said(logs), "the node says that it was removed")
        async with channel.connect(swarm.address, worker.security.current) as opened:
            beat = DispatcherStub(opened).Heartbeat(api.HeartbeatRequest(session_id=worker.session))  # type: ignore[no-untyped-call, unused-ignore]
            code, details = await refusal(beat)
            assert code is grpc.StatusCode.PERMISSION_DENIED
            assert f"node {worker.id} was removed from swarm" in details
            request = api.IssueNodeCertificateRequest(csr=b"csr")
            code, _ = await refusal(NodeCAStub(opened).IssueNodeCertificate(request))  # type: ignore[no-untyped-call, unused-ignore]
            assert code is grpc.StatusCode.INVALID_ARGUMENT
        await until(lambda: len(swarm.running("web")) == 3, "its tasks run elsewhere")
        # Long enough for the heartbeats of a node that is not removed to be missed.
        await asyncio.sleep(5)
    assert swarm.state(worker) == -1
    assert worker.id not in swarm.running("web").values()
    assert len(said(logs)) <= 3  # it asks again after up to a minute, drawn by lot, and not every few seconds
    assert other.session == session
    assert swarm.state(other) == api.NodeStatus.READY
    assert [entry for entry in logs if entry["log_level"] in ("error", "critical") and entry not in said(logs)] == []


async def test_restart_of_a_removed_node(swarm: LiveCluster) -> None:
    """A removed node that is started again does not become ready and says why."""
    worker = swarm.nodes[1]
    await worker.stop()
    await remove(swarm, worker)
    with structlog.testing.capture_logs() as logs:
        await worker.begin()
        await until(lambda: said(logs), "the node says that it was removed")
        assert not worker.node.ready.is_set()
    assert "start it once with --leave" in said(logs)[0]["event"]


def said(logs: list[EventDict]) -> list[EventDict]:
    """The lines in which a node says that it was removed."""
    return [entry for entry in logs if entry["event"].startswith(REMOVED)]
