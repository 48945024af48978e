"""Logs through real nodes in one process: sockets, certificates, gates and the relay of a manager that does not lead."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest

from pyswarm.agent.executor.fake import FakeLine
from pyswarm.api import v1 as api
from pyswarm.api.swarmkit.logbroker_pb2_grpc import LogsStub
from pyswarm.rpc import channel
from tests.support.nodes import HEARTBEAT, LiveCluster, LiveNode, live_cluster, until


class Follower:
    """A reader of a service's logs at one manager's control socket."""

    def __init__(self, manager: LiveNode, service_id: str, *, follow: bool = True) -> None:
        self.lines: list[str] = []
        self.error: grpc.aio.AioRpcError | None = None
        self._channel = channel.connect_local(Path(manager.settings.listen_control_api), manager.security.current)
        selector = api.LogSelector(service_ids=[service_id])
        request = api.SubscribeLogsRequest(selector=selector, options=api.LogSubscriptionOptions(follow=follow))
        self.call = LogsStub(self._channel).SubscribeLogs(request)  # type: ignore[no-untyped-call, unused-ignore]
        self.task = asyncio.create_task(self._read())
        self.reading = asyncio.Event()
        self.reading.set()

    async def _read(self) -> None:
        try:
            async for batch in self.call:
                self.lines += [message.data.decode() for message in batch.messages]
                await self.reading.wait()
        except grpc.aio.AioRpcError as error:
            self.error = error

    async def close(self) -> None:
        """Leave."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self._channel.close()


@pytest.fixture
async def cluster() -> AsyncIterator[LiveCluster]:
    """A founder."""
    with tempfile.TemporaryDirectory(prefix="ps-") as directory:
        async with live_cluster(Path(directory)) as made:
            yield made


@contextlib.asynccontextmanager
async def following(manager: LiveNode, service_id: str, *, follow: bool = True) -> AsyncIterator[Follower]:
    """A reader for the length of a `with` block."""
    follower = Follower(manager, service_id, follow=follow)
    try:
        yield follower
    finally:
        await follower.close()


def write(cluster: LiveCluster, *texts: str, service: str = "web") -> list[str]:
    """Every running task writes the lines, with its id in front; returns them."""
    written = []
    for task_id, node_id in cluster.running(service).items():
        [node] = [node for node in cluster.nodes if node.id == node_id]
        for text in texts:
            written.append(f"{task_id} {text}\n")
            node.host.write(task_id, FakeLine(cluster.clock.now(), written[-1].encode()))
    return written


async def update(cluster: LiveCluster, service_id: str) -> None:
    """Replace all tasks of a service."""
    before = set(cluster.running("web"))
    service = cluster.store.services.get(service_id)
    assert service is not None
    spec = api.ServiceSpec()
    spec.CopyFrom(service.spec)
    spec.task.force_update += 1
    request = api.UpdateServiceRequest(service_id=service_id, service_version=service.meta.version, spec=spec)
    await cluster.control(lambda control: control.UpdateService(request))
    await until(lambda: len(after := set(cluster.running("web"))) == len(before) and not after & before, "all are replaced")


def id_of(cluster: LiveCluster, name: str = "web") -> str:
    """A service's id."""
    return next(service.id for service in cluster.store.services if service.spec.annotations.name == name)


async def test_followed_through_everything(cluster: LiveCluster) -> None:
    """At a manager that does not lead, a follower gets each line once and in order: through an update that replaces every task, a daemon
    that restarts and adopts its tasks, and a session that moves to another connection. [dispatcher 150] [cli 76]
    """
    manager = cluster.make("second")
    await manager.start(cluster.address, cluster.cluster.root_ca.join_tokens.manager)
    worker = await cluster.join("worker")
    await cluster.run_service("web", 3)
    expected = write(cluster, "before 1", "before 2")
    async with following(manager, id_of(cluster)) as reader:
        await until(lambda: len(reader.lines) == len(expected), "the past is there")
        await update(cluster, id_of(cluster))
        expected += write(cluster, "updated")
        await until(lambda: len(reader.lines) == len(expected), "the new tasks are there")
        await worker.stop()
        await worker.start()
        expected += write(cluster, "restarted")
        await until(lambda: len(reader.lines) >= len(expected), "the adopted tasks are there")
        for node in cluster.nodes:
            node.agent._keeper.renew()
        expected += write(cluster, *(f"renewed {number}" for number in range(50)))
        await until(lambda: len(reader.lines) >= len(expected), "the others are there")
        await asyncio.sleep(0.2)  # for what should not come
        assert sorted(reader.lines) == sorted(expected)
        for task_id in {line.split()[0] for line in expected}:
            assert [line for line in reader.lines if line.startswith(task_id)] == [line for line in expected if line.startswith(task_id)]
        assert reader.error is None


async def test_the_leader_goes(cluster: LiveCluster) -> None:
    """What a node has that is gone is named at the end; when the leader stops, followers are cancelled. [dispatcher 156, 158] [cli 77]"""
    worker = await cluster.join("worker")
    await cluster.run_service("web", 2)
    expected = write(cluster, "line")
    async with following(cluster.founder, id_of(cluster), follow=False) as reader:
        await asyncio.wait([reader.task], timeout=10)
        assert sorted(reader.lines) == sorted(expected)
        assert reader.error is None
    await worker.stop()
    async with following(cluster.founder, id_of(cluster), follow=False) as reader:
        await asyncio.wait([reader.task], timeout=10)
        assert reader.error is not None
        assert reader.error.code() is grpc.StatusCode.UNKNOWN
        assert f"node {worker.id} is not available" in (reader.error.details() or "")
        assert set(reader.lines) < set(expected)
    async with following(cluster.founder, id_of(cluster)) as reader:
        await until(lambda: reader.lines)
        await cluster.founder.stop()
        await asyncio.wait([reader.task], timeout=10)
        assert reader.error is not None
        assert reader.error.code() in {grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE}


async def test_a_flood(cluster: LiveCluster) -> None:
    """A reader that stands still before a flood stops the flood at its source, not the heartbeats. Then all of it arrives, although the
    node's daemon was restarted in the middle.
    """
    worker = await cluster.join("worker")
    await cluster.store.update(lambda tx: _drain(tx, cluster.founder.id))
    await cluster.run_service("web", 1)
    count, size = 20_000, 1000
    [task_id] = cluster.running("web")
    container = worker.host.containers[task_id]
    for number in range(count):
        container.write(FakeLine(1.0, b"%08d" % number + b"x" * (size - 9) + b"\n"))
    async with following(cluster.founder, id_of(cluster), follow=False) as reader:
        reader.reading.clear()
        await until(lambda: reader.lines)
        await asyncio.sleep(4 * HEARTBEAT)
        assert cluster.state(worker) == api.NodeStatus.READY
        [one] = cluster.founder.manager._logs._broker._open  # type: ignore[union-attr]
        assert one.outbox._size < 2 * 1024 * 1024
        relayed = sum(place.lines for member in one.state.members.values() for place in member.places._by_task.values())
        assert relayed * size < 8 * 1024 * 1024
        await worker.stop()
        await worker.start()
        reader.reading.set()
        await asyncio.wait([reader.task], timeout=20)
        assert reader.error is None
        assert [line[:8] for line in reader.lines] == [f"{number:08d}" for number in range(count)]


def _drain(tx: object, node_id: str) -> None:
    node = api.Node()
    node.CopyFrom(tx.nodes.get(node_id))  # type: ignore[attr-defined]
    node.spec.availability = api.NodeSpec.DRAIN
    tx.nodes.update(node)  # type: ignore[attr-defined]
