"""Certificates are renewed under a running node: nothing restarts, no session is dropped, everybody shows the new one."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.ca import csr, renewal, root
from pyswarm.ca.root import RootCA
from pyswarm.ca.unlock import KEK
from pyswarm.cli import client
from pyswarm.manager.store import Commit
from pyswarm.rpc.caller import WORKER
from pyswarm.rpc.leaf import fetch_leaf
from pyswarm.rpc.server import split_address
from tests.support.nodes import LiveCluster, LiveNode, live_cluster, until

RENEWALS = 5


@pytest.fixture
async def swarm() -> AsyncIterator[LiveCluster]:
    """A founder and a worker that run two tasks each."""
    with tempfile.TemporaryDirectory(prefix="ps-") as directory:
        async with live_cluster(Path(directory)) as made:
            await made.join("worker")
            await made.run_service("web", 4)
            yield made


class Watch:
    """What must not happen meanwhile: sessions, node states, tasks and containers are as they were."""

    def __init__(self, swarm: LiveCluster) -> None:
        self._swarm = swarm
        self._sessions = [node.session for node in swarm.nodes]
        self._calls = self._changes()
        self._tasks = swarm.running("web")
        self._states: set[int] = set()
        self._undo = swarm.store.on_commit(self._on_commit)

    def _changes(self) -> list[list[str]]:
        """What was done to containers, node by node."""
        harmless = ("wait ", "close ", "update ")
        return [[call for call in node.host.calls if not call.startswith(harmless)] for node in self._swarm.nodes]

    def _on_commit(self, commit: Commit) -> None:
        self._states.update(event.obj.status.state for event in commit.events if isinstance(event.obj, api.Node))

    def check(self) -> None:
        """Compare."""
        assert [node.session for node in self._swarm.nodes] == self._sessions
        assert self._changes() == self._calls
        assert self._swarm.running("web") == self._tasks
        assert self._states <= {api.NodeStatus.READY}
        assert all(self._swarm.state(node) == api.NodeStatus.READY for node in self._swarm.nodes)
        self._undo()


@contextlib.asynccontextmanager
async def asking(swarm: LiveCluster) -> AsyncIterator[list[int]]:
    """Somebody at the control socket all the time, on one old connection and on new ones; yields how many nodes each answer named."""
    answers: list[int] = []
    over = False

    def ask() -> None:
        with client.connect(swarm.founder.settings.listen_control_api) as old:
            while not over:
                with client.connect(swarm.founder.settings.listen_control_api) as new:
                    answers.extend(len(c.ask(c.control.ListNodes, api.ListNodesRequest()).nodes) for c in (old, new))
                time.sleep(0.02)

    working = asyncio.ensure_future(asyncio.to_thread(ask))
    try:
        yield answers
    finally:
        over = True
        await working


def leaf(pem: bytes) -> bytes:
    """The first certificate, DER."""
    return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)


def shown_by(swarm: LiveCluster, node: LiveNode) -> set[bytes]:
    """The certificates on the connections that a node has to the manager's remote port, DER."""
    legs = [leg for leg in swarm.founder.manager._remote._front._legs if leg.peer.certificate]
    return {leg._tls.getpeercert(binary_form=True) or b"" for leg in legs if leg.peer.certificate.node_id == node.id}  # type: ignore[union-attr]


async def renew(node: LiveNode) -> None:
    """Force a renewal; returns when disk and memory have the new certificate."""
    before = node.security.current.cert_pem
    node.renewer.force()
    await until(lambda: node.security.current.cert_pem != before, "the certificate is renewed")
    assert node.state_files.read().cert_pem == node.security.current.cert_pem


async def only_newest(swarm: LiveCluster, node: LiveNode) -> None:
    """Wait until a node has no connection any more that was made with another certificate than its present one."""
    fresh = leaf(node.security.current.cert_pem)
    await until(lambda: shown_by(swarm, node) == {fresh}, "only the new certificate is in use")


async def grows(swarm: LiveCluster, replicas: int) -> None:
    """The assignments go on: every node gets new tasks and reports them."""
    service = next(iter(swarm.store.services))
    spec = api.ServiceSpec()
    spec.CopyFrom(service.spec)
    spec.replicated.replicas = replicas
    request = api.UpdateServiceRequest(service_id=service.id, service_version=service.meta.version, spec=spec)
    await swarm.control(lambda control: control.UpdateService(request))
    await until(lambda: len(swarm.running("web")) == replicas, "the new tasks run")
    assert set(swarm.running("web").values()) == {node.id for node in swarm.nodes}


async def test_worker(swarm: LiveCluster) -> None:
    """Five renewals of a worker: each moves the session to a connection with the new certificate and changes nothing else.

    [ca 84; ca 191; dispatcher 114 in part]
    """
    worker = swarm.nodes[1]
    watch = Watch(swarm)
    for _ in range(RENEWALS):
        await renew(worker)
        fresh = leaf(worker.security.current.cert_pem)
        await until(lambda fresh=fresh: shown_by(swarm, worker) == {fresh}, "only the new certificate is in use")
    watch.check()
    await grows(swarm, 6)


async def test_manager(swarm: LiveCluster) -> None:
    """Five renewals of a manager: both its ports show the new certificate, and nobody notices. [ca 84; ca 191; dispatcher 114 in part]"""
    founder = swarm.founder
    watch = Watch(swarm)
    async with asking(swarm) as answers:
        for _ in range(RENEWALS):
            await renew(founder)
            fresh = leaf(founder.security.current.cert_pem)
            remote = await asyncio.to_thread(ssl.get_server_certificate, split_address(swarm.address))
            assert leaf(remote.encode()) == fresh
            local = await asyncio.to_thread(fetch_leaf, f"unix:{founder.settings.listen_control_api}")
            assert leaf(local) == fresh
        count = len(answers)
        await until(lambda: len(answers) > count + 2, "the control socket answers")
    assert set(answers) == {2}
    watch.check()
    await grows(swarm, 6)


async def test_command_in_the_middle(swarm: LiveCluster) -> None:
    """A command that looked at the manager's certificate before its renewal, and calls after it, gets its answer."""
    async with contextlib.AsyncExitStack() as stack:
        connecting = client.connect(swarm.founder.settings.listen_control_api)
        opened = await asyncio.to_thread(connecting.__enter__)
        stack.push_async_callback(asyncio.to_thread, connecting.__exit__, None, None, None)
        await renew(swarm.founder)
        answer = await asyncio.to_thread(opened.ask, opened.control.ListNodes, api.ListNodesRequest())
        assert len(answer.nodes) == 2


async def test_both_at_once(swarm: LiveCluster) -> None:
    """Manager and worker renew in the same moment, again and again."""
    watch = Watch(swarm)
    for _ in range(RENEWALS):
        await asyncio.gather(*(renew(node) for node in swarm.nodes))
    await only_newest(swarm, swarm.nodes[1])
    watch.check()
    await grows(swarm, 6)


async def test_told_by_the_cluster(swarm: LiveCluster) -> None:
    """A node whose certificate is marked ROTATE in the cluster hears of it in its session and renews, once. [dispatcher 196]"""
    worker = swarm.nodes[1]
    watch = Watch(swarm)
    before = worker.security.current.cert_pem
    outcomes: list[renewal.Update] = []
    worker.renewer.subscribe(outcomes.append)

    def rotate(tx: object) -> None:
        node = api.Node()
        node.CopyFrom(tx.nodes.get(worker.id))  # type: ignore[attr-defined]
        node.certificate.status.state = api.IssuanceStatus.ROTATE
        tx.nodes.update(node)  # type: ignore[attr-defined]

    await swarm.store.update(rotate)
    await until(lambda: outcomes, "the certificate is renewed")
    assert worker.security.current.cert_pem != before
    await only_newest(swarm, worker)
    assert outcomes == [renewal.Update(role=WORKER)]
    watch.check()


@pytest.fixture
def punctual(monkeypatch: pytest.MonkeyPatch) -> None:
    """Certificates begin to the second, and are renewed at half of their validity."""
    monkeypatch.setattr(root, "_to_minute", int)
    monkeypatch.setattr(renewal, "_LATEST", renewal._EARLIEST)


@pytest.mark.parametrize("seconds", [-1800.0, 4.0])
async def test_by_itself(swarm: LiveCluster, punctual: None, seconds: float) -> None:
    """A certificate is renewed when its time has come, while the node runs or before it does anything else. [ca 82]"""
    worker = swarm.nodes[1]
    await worker.stop()
    due = int(time.time() + seconds)
    request, key = csr.generate()
    authority = RootCA.from_store(swarm.cluster.root_ca, now=time.time())
    # An hour before and an hour after it was issued: half of it is over when it was issued just now.
    aged = authority.sign_csr(request, worker.id, WORKER, swarm.cluster.id, root.MIN_EXPIRY, due)
    worker.state_files.write(aged, key, KEK())
    await worker.start()
    watch = Watch(swarm)
    await until(lambda: worker.security.current.cert_pem != aged, "the certificate is renewed")
    assert time.time() >= due
    assert worker.state_files.read().cert_pem == worker.security.current.cert_pem
    await only_newest(swarm, worker)
    watch.check()


async def test_shortest_validity(swarm: LiveCluster) -> None:
    """With the shortest validity that a cluster may have, a new certificate is not due at once."""
    spec = api.ClusterSpec()
    spec.CopyFrom(swarm.cluster.spec)
    spec.ca_config.node_cert_expiry.CopyFrom(times.duration(root.MIN_EXPIRY))
    request = api.UpdateClusterRequest(cluster_id=swarm.cluster.id, cluster_version=swarm.cluster.meta.version, spec=spec)
    await swarm.control(lambda control: control.UpdateCluster(request))
    for node in swarm.nodes:
        await renew(node)
        current = node.security.current
        assert current.not_after - time.time() < root.MIN_EXPIRY + 60
        assert renewal.renewal_delay(current.not_before, current.not_after, time.time(), 0.5) > 60


async def test_locked_manager(swarm: LiveCluster) -> None:
    """A manager whose cluster is locked gets a new key, for the old one could be read; every new key file is locked. [dispatcher 176]"""
    founder = swarm.founder
    watch = Watch(swarm)
    before = founder.security.current.cert_pem
    spec = api.ClusterSpec()
    spec.CopyFrom(swarm.cluster.spec)
    spec.encryption_config.auto_lock_managers = True
    request = api.UpdateClusterRequest(cluster_id=swarm.cluster.id, cluster_version=swarm.cluster.meta.version, spec=spec)
    await swarm.control(lambda control: control.UpdateCluster(request))
    await until(lambda: founder.security.current.cert_pem != before, "the certificate is renewed")
    key_file = founder.state / "certificates" / "swarm-node.key"
    locked = key_file.read_bytes()
    assert b"ENCRYPTED" in locked
    before = founder.security.current.cert_pem
    founder.renewer.force()
    await until(lambda: founder.security.current.cert_pem != before, "the certificate is renewed")
    assert b"ENCRYPTED" in key_file.read_bytes() != locked
    watch.check()
