"""Fetching a root and requesting a certificate."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pyswarm.api import v1 as api
from pyswarm.ca import client as client_module
from pyswarm.ca import issuance, tokens, unlock
from pyswarm.ca.client import Client, FingerprintError, IssuanceError, Request
from pyswarm.ca.credentials import Credentials
from pyswarm.ca.keystore import KeyStore, LockedError
from pyswarm.ca.root import RootCA
from pyswarm.ca.server import CAService
from pyswarm.ca.signer import Signer
from pyswarm.ca.validate import CertificateError, UnknownAuthorityError
from pyswarm.errors import InvalidArgument, NotFound, Unavailable, Unimplemented
from pyswarm.manager.store import Store
from tests.ca import pki
from tests.ca.cluster import CLUSTER_ID, Direct, create_cluster, edit_cluster, edit_node, running, stored_cluster
from tests.support.clock import VirtualClock, settle

State = api.IssuanceStatus.State
DOWN = Unavailable("connection refused")


class World:
    """A cluster, its services, a client that reaches them, and an empty directory."""

    def __init__(self, store: Store, clock: VirtualClock, root: RootCA, directory: Path) -> None:
        self.store = store
        self.clock = clock
        self.root = root
        self.signer = Signer(store, clock)
        self.direct = Direct(CAService(store, self.signer), clock)
        self.client = Client(self.direct.connect, clock, random.Random(1))
        self.keystore = KeyStore(directory / "certificates")

    @property
    def tokens(self) -> api.JoinTokens:
        """The present join tokens."""
        return stored_cluster(self.store).root_ca.join_tokens

    async def join(self, kind: str = "worker") -> Credentials:
        """A certificate through a token."""
        return await self.client.request_certificate(Request(self.root.bundle, getattr(self.tokens, kind)), self.keystore)

    async def passing(self, coroutine: object, seconds: float = 300.0) -> asyncio.Future[Credentials]:
        """Something that needs time to pass, finished or at its end of time."""
        task: asyncio.Future[Credentials] = asyncio.ensure_future(coroutine)  # type: ignore[call-overload]
        # Disk writes happen in threads, which the virtual clock does not wait for.
        for _ in range(200):
            await self.clock.advance(seconds / 200)
            if task.done():
                break
            await asyncio.sleep(0.001)
        return task


@pytest.fixture
async def world(store: Store, clock: VirtualClock, tmp_path: Path) -> AsyncIterator[World]:
    """A cluster with a running signer."""
    root = RootCA.create(now=clock.now())
    await create_cluster(store, root)
    made = World(store, clock, root, tmp_path)
    async with running(made.signer.run()):
        yield made


async def test_fetching_the_root(world: World) -> None:
    """The root comes over an unverified connection and is checked against the token's digest [ca 40] [ca 41]."""
    for token in (world.tokens.worker, ""):
        assert await world.client.fetch_root(token) == world.root.bundle
    assert [(dial.root_pem, dial.credentials) for dial in world.direct.dials] == [(None, None)] * 2
    assert world.direct.closed == [True, True]


@pytest.mark.parametrize("fips", [False, True])
async def test_wrong_fingerprint(world: World, fips: bool) -> None:
    """A root that is not the token's is refused [ca 40]. [cli 93]"""
    task = await world.passing(world.client.fetch_root(tokens.generate(b"another root", fips=fips)))
    with pytest.raises(FingerprintError, match=r"^remote CA does not match fingerprint\. Expected: [0-9a-f]{64}$"):
        task.result()
    assert world.direct.calls.count("root") == 5


async def test_digest_covers_the_bundle(world: World) -> None:
    """A token made from one of two certificates does not fit their bundle; a token of the bundle does [ca 42]."""
    both = world.root.bundle + RootCA.create(now=world.clock.now()).bundle

    def extend(cluster: api.Cluster) -> None:
        cluster.root_ca.ca_cert = both

    await edit_cluster(world.store, extend)
    assert await world.client.fetch_root(tokens.generate(both)) == both
    task = await world.passing(world.client.fetch_root(tokens.generate(world.root.bundle)))
    with pytest.raises(FingerprintError):
        task.result()


async def test_malformed_token_makes_no_connection(world: World) -> None:
    """A malformed token is refused before anyone is asked [ca 38]."""
    with pytest.raises(InvalidArgument, match="invalid join token"):
        await world.client.fetch_root("SWMTKN-1-x")
    assert world.direct.dials == []


async def test_root_attempts(world: World) -> None:
    """Fetching the root is tried five times, two seconds apart [ca 78]."""
    world.direct.faults["root"] = [DOWN] * 5
    began = world.clock.now()
    task = await world.passing(world.client.fetch_root(""), 20)
    with pytest.raises(Unavailable, match="connection refused"):
        task.result()
    assert world.direct.calls.count("root") == 5
    assert world.clock.now() - began >= 8
    world.direct.faults["root"] = [DOWN] * 4
    task = await world.passing(world.client.fetch_root(""), 20)
    assert task.result() == world.root.bundle  # type: ignore[comparison-overlap]


@pytest.mark.parametrize("kind", ["worker", "manager"])
async def test_first_certificate(world: World, kind: str) -> None:
    """A newcomer gets credentials, written to disk, over a connection that expects the CA's name."""
    fresh = await world.join(kind)
    assert fresh.role == f"swarm-{kind}"
    assert fresh.organization == CLUSTER_ID
    assert KeyStore(world.keystore.directory).read().cert_pem == fresh.cert_pem
    assert [dial.server_name for dial in world.direct.dials] == ["swarm-ca"] * (2 if kind == "manager" else 1)
    if kind == "manager":
        assert world.direct.dials[1].credentials == fresh
    assert all(world.direct.closed)


async def test_refused_request(world: World) -> None:
    """A request the cluster refuses for good fails the join with the reason, at once."""
    world.direct.faults["status"] = [None]

    async def spoil() -> None:
        node = next(iter(world.store.nodes))

        def fail(changed: api.Node) -> None:
            changed.certificate.status.CopyFrom(api.IssuanceStatus(state=State.FAILED, err="failed to sign"))

        await edit_node(world.store, node.id, fail)

    original = world.direct.service.IssueNodeCertificate

    async def issue(request: api.IssueNodeCertificateRequest, caller: object) -> api.IssueNodeCertificateResponse:
        answer = await original(request, caller)  # type: ignore[arg-type]
        await spoil()
        return answer

    world.direct.service.IssueNodeCertificate = issue  # type: ignore[method-assign, assignment]
    with pytest.raises(IssuanceError, match="failed to sign"):
        await world.join()
    assert not world.keystore.directory.exists()
    assert world.direct.calls.count("issue") == 1


async def test_bad_token_is_not_tried_again(world: World) -> None:
    """A token the cluster does not know fails at once."""
    with pytest.raises(InvalidArgument, match="A valid join token is necessary"):
        await world.client.request_certificate(Request(world.root.bundle, tokens.generate(world.root.bundle)), world.keystore)
    assert world.direct.calls.count("issue") == 1


async def test_slow_issuance(world: World) -> None:
    """While the decision is pending the client keeps polling [ca 61]."""
    key = world.root.signer
    assert key is not None
    await edit_cluster(world.store, lambda cluster: cluster.root_ca.ClearField("ca_key"))
    task = await world.passing(world.join(), 12)
    assert not task.done()
    assert world.direct.calls.count("status") >= 2

    def give(cluster: api.Cluster) -> None:
        cluster.root_ca.ca_key = key.key_pem

    await edit_cluster(world.store, give)
    assert (await (await world.passing(task))).role == "swarm-worker"
    assert world.direct.calls.count("issue") == 1


async def test_cancellation_ends_polling(world: World) -> None:
    """Only cancelling ends a poll, and it ends at once [ca 62]."""
    await edit_cluster(world.store, lambda cluster: cluster.root_ca.ClearField("ca_key"))
    task = await world.passing(world.join(), 40)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await settle()
    assert world.direct.closed.count(False) + world.direct.closed.count(True) == len(world.direct.dials)


async def test_polling_elsewhere(world: World) -> None:
    """When the manager dies after taking the request, polling goes on at a remote one; nobody left ends the attempt [ca 63]."""
    world.direct.faults["status"] = [DOWN, DOWN]
    task = await world.passing(world.join())
    assert task.result().role == "swarm-worker"
    assert [dial.force_remote for dial in world.direct.dials] == [False, True, True]
    assert world.direct.calls.count("issue") == 1
    assert world.direct.closed == [False, False, True]
    world.direct.faults = {"status": [DOWN] * 5, "connect": [None, *[DOWN] * 6]}
    task = await world.passing(world.join())
    with pytest.raises(Unavailable):
        task.result()


async def test_failed_submission_ends_the_attempt(world: World) -> None:
    """A failed submission costs one attempt; the next ones avoid the local manager [ca 63]."""
    world.direct.faults["issue"] = [DOWN] * 5
    task = await world.passing(world.join(), 20)
    with pytest.raises(Unavailable):
        task.result()
    assert [dial.force_remote for dial in world.direct.dials] == [False, True, True, True, True]


async def test_answer_about_another_request(world: World) -> None:
    """A certificate for another request is not taken [ca 64]."""
    other = api.Certificate(csr=b"other", certificate=b"x", status=api.IssuanceStatus(state=State.ISSUED))
    assert client_module._take(api.NodeCertificateStatusResponse(status=other.status, certificate=other), b"mine") is None
    failed = api.Certificate(csr=b"other", status=api.IssuanceStatus(state=State.FAILED))
    assert client_module._take(api.NodeCertificateStatusResponse(status=failed.status, certificate=failed), b"mine") is None
    mine = api.Certificate(csr=b"mine", status=api.IssuanceStatus(state=State.ISSUED))
    with pytest.raises(IssuanceError, match="no certificate in CertificateStatus response"):
        client_module._take(api.NodeCertificateStatusResponse(status=mine.status, certificate=mine), b"mine")


async def test_removed_while_waiting(world: World) -> None:
    """A node removed while it waits for its certificate stops waiting."""
    await edit_cluster(world.store, lambda cluster: cluster.root_ca.ClearField("ca_key"))
    world.direct.faults["issue"] = [None, *[NotFound("gone")] * 4]
    task = await world.passing(world.join(), 3)
    node = next(iter(world.store.nodes))
    await world.store.update(lambda tx: tx.nodes.delete(node.id))
    task = await world.passing(task, 30)
    with pytest.raises(NotFound):
        task.result()


def lock(cluster: api.Cluster) -> None:
    """Turn autolock on."""
    cluster.spec.encryption_config.auto_lock_managers = True
    unlock.update_keys(cluster, rotate=False, new_key=lambda: b"k" * 32)


async def test_autolocked_cluster(world: World) -> None:
    """A new manager's very first key is written encrypted, a worker's never is [ca 65]."""
    await edit_cluster(world.store, lock)
    await world.join("manager")
    with pytest.raises(LockedError):
        KeyStore(world.keystore.directory).read()
    opened = KeyStore(world.keystore.directory, b"k" * 32)
    opened.read()
    assert opened.kek_version == stored_cluster(world.store).meta.version.index
    await world.join("worker")
    assert KeyStore(world.keystore.directory).read()
    assert (world.keystore.kek, world.keystore.kek_version) == (b"", 0)


async def test_server_without_unlock_keys(world: World) -> None:
    """A manager that does not know unlock keys means: none [ca 67]."""
    world.direct.faults["unlock"] = [Unimplemented("unknown method")]
    await world.join("manager")
    assert KeyStore(world.keystore.directory).read()
    assert world.direct.closed == [True, True]


async def test_no_key_without_the_kek(world: World) -> None:
    """While the unlock key cannot be fetched nothing is written."""
    world.direct.faults["unlock"] = [DOWN] * 5
    task = await world.passing(world.join("manager"), 30)
    with pytest.raises(Unavailable):
        task.result()
    assert not world.keystore.directory.exists()


async def test_renewal(world: World) -> None:
    """A renewal shows the present certificate, asks for the manager's name, needs no token and keeps the id."""
    first = await world.join()
    world.direct.dials.clear()
    fresh = await world.client.renew(first, world.keystore)
    assert (fresh.node_id, fresh.role) == (first.node_id, first.role)
    assert fresh.key_pem != first.key_pem
    assert [(dial.server_name, dial.credentials) for dial in world.direct.dials] == [("swarm-manager", first)]


async def rotate_root(world: World, trusted: bytes) -> RootCA:
    """Another root signs from now on, and `trusted` is handed out; returns the new root."""
    new = RootCA.create(now=world.clock.now())
    assert new.signer is not None
    secret = new.signer.key_pem

    def replace(cluster: api.Cluster) -> None:
        cluster.root_ca.ca_cert, cluster.root_ca.ca_key = new.bundle + trusted, secret

    await edit_cluster(world.store, replace)
    return new


async def test_unknown_authority_for_a_worker(world: World) -> None:
    """A worker whose new certificate has another root fetches that, if it also validates the old certificate [ca 87]."""
    first = await world.join()
    new = await rotate_root(world, world.root.bundle)
    fresh = await world.client.renew(first, world.keystore)
    assert fresh.root_pem == new.bundle + world.root.bundle == world.keystore.read_root()
    assert fresh.issuer_public_key != first.issuer_public_key


async def test_unknown_authority_that_is_unsafe(world: World) -> None:
    """A root that does not validate the present certificate is not taken, and nothing is written."""
    first = await world.join()
    before = world.keystore.read()
    await rotate_root(world, b"")
    with pytest.raises(UnknownAuthorityError):
        await world.client.renew(first, world.keystore)
    assert world.keystore.read() == before
    assert world.keystore.read_root() is None


async def test_unknown_authority_for_a_manager(world: World) -> None:
    """A manager never fetches a root this way [ca 87]."""
    first = await world.join("manager")
    before = world.keystore.read()
    await rotate_root(world, world.root.bundle)
    with pytest.raises(UnknownAuthorityError):
        await world.client.renew(first, world.keystore)
    assert "root" not in world.direct.calls
    assert world.keystore.read() == before


async def test_expired_answer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate that is not valid is refused without asking for another root [ca 88]."""
    first = await world.join()
    monkeypatch.setattr(world.clock, "now", lambda: pki.NOW + 200 * pki.DAY)
    second = world.client.renew(first, world.keystore)
    monkeypatch.setattr(Signer, "_outcome", lambda *_: client_outcome(world, first))
    with pytest.raises(CertificateError, match="not valid after"):
        await second
    assert "root" not in world.direct.calls


def client_outcome(world: World, member: Credentials) -> object:
    """What a signer with a slow clock makes."""
    node = world.store.nodes.get(member.node_id)
    assert node is not None
    order = issuance.order_for(node)
    assert order is not None
    return issuance.sign(order, world.root, CLUSTER_ID, 3600, pki.NOW)
