"""The services CA and NodeCA with a running signer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.ca import csr, tokens, validate
from pyswarm.ca.root import RootCA
from pyswarm.ca.server import CAService
from pyswarm.ca.signer import Signer
from pyswarm.errors import Aborted, InvalidArgument, NotFound
from pyswarm.manager.store import Exists, Store
from pyswarm.rpc.caller import MANAGER, WORKER, Caller
from tests.ca import pki
from tests.ca.cluster import CLUSTER_ID, create_cluster, edit_cluster, edit_node, running, stored_cluster
from tests.support.clock import VirtualClock, settle

State = api.IssuanceStatus.State
ANYONE = Caller()


@pytest.fixture
def root(clock: VirtualClock) -> RootCA:
    """The cluster's root."""
    return RootCA.create(now=clock.now())


@pytest.fixture
async def signer(store: Store, clock: VirtualClock, root: RootCA) -> AsyncIterator[Signer]:
    """A running signer of a cluster."""
    await create_cluster(store, root)
    made = Signer(store, clock)
    async with running(made.run()):
        yield made


@pytest.fixture
def service(store: Store, signer: Signer) -> CAService:
    """The services."""
    return CAService(store, signer)


async def issue(service: CAService, token: str = "", caller: Caller = ANYONE, csr_pem: bytes | None = None, **fields: object) -> str:
    """Ask for a certificate; returns the node id."""
    text = csr.generate()[0] if csr_pem is None else csr_pem
    request = api.IssueNodeCertificateRequest(csr=text, token=token, **fields)  # type: ignore[arg-type]
    return (await service.IssueNodeCertificate(request, caller)).node_id


async def status(service: CAService, node_id: str) -> api.NodeCertificateStatusResponse:
    """Ask how it stands."""
    return await service.NodeCertificateStatus(api.NodeCertificateStatusRequest(node_id=node_id), ANYONE)


def join_tokens(store: Store) -> api.JoinTokens:
    """The present tokens."""
    return stored_cluster(store).root_ca.join_tokens


async def test_root_certificate(service: CAService, root: RootCA) -> None:
    """Anyone gets the trusted bundle, byte for byte [ca 45]."""
    answer = await service.GetRootCACertificate(api.GetRootCACertificateRequest(), ANYONE)
    assert answer.certificate == root.bundle


@pytest.mark.parametrize(("kind", "role"), [("worker", WORKER), ("manager", MANAGER)])
async def test_joining(service: CAService, store: Store, root: RootCA, clock: VirtualClock, kind: str, role: str) -> None:
    """A token admits a node with the token's role and gets it a certificate for ninety days [ca 11] [ca 46]."""
    request = api.IssueNodeCertificateRequest(csr=csr.generate()[0], token=getattr(join_tokens(store), kind))
    answer = await service.IssueNodeCertificate(request, ANYONE)
    assert answer.node_membership == api.NodeSpec.Membership.ACCEPTED
    issued = await status(service, answer.node_id)
    assert issued.status.state == State.ISSUED
    node = store.nodes.get(answer.node_id)
    assert node is not None
    assert node.role == node.spec.desired_role == node.certificate.role == issued.certificate.role
    chain = validate.validate_chain(root.roots, issued.certificate.certificate, clock.now())
    assert pki.dns_names(chain.leaf)[:2] == [role, answer.node_id]
    assert validate.first_value(chain.leaf.subject, pki.x509.NameOID.ORGANIZATION_NAME) == CLUSTER_ID
    assert abs(validate.not_after(chain.leaf) - clock.now() - 90 * pki.DAY) <= 60


@pytest.mark.parametrize("token", ["", "wrong", "SWMTKN-1-" + "0" * 50 + "-" + "0" * 25])
async def test_bad_token(service: CAService, store: Store, token: str) -> None:
    """Without a valid token there is no certificate, whatever role is asked for [ca 47]."""
    for role in (api.NodeRole.MANAGER, api.NodeRole.WORKER):
        with pytest.raises(InvalidArgument, match="A valid join token is necessary to join this cluster"):
            await issue(service, token, role=role)
    assert len(store.nodes) == 0


async def test_bad_requests(service: CAService) -> None:
    """Empty fields and unknown nodes are refused [ca 48]."""
    with pytest.raises(InvalidArgument, match="InvalidArgument"):
        await issue(service, csr_pem=b"")
    with pytest.raises(InvalidArgument, match="InvalidArgument"):
        await status(service, "")
    with pytest.raises(NotFound, match="NotFound"):
        await status(service, "unknown")


async def test_garbage_request(service: CAService, store: Store) -> None:
    """A request nobody can read makes a node whose issuance failed with the reason [ca 49]."""
    node_id = await issue(service, join_tokens(store).worker, csr_pem=b"random garbage")
    answer = await status(service, node_id)
    assert answer.status.state == State.FAILED
    assert "CSR Decode failed" in answer.status.err
    assert not answer.certificate.certificate


@pytest.mark.parametrize("role", [api.NodeRole.WORKER, api.NodeRole.MANAGER])
async def test_renewal(service: CAService, store: Store, role: api.NodeRole.ValueType) -> None:
    """A member renews under its own id without token, and keeps its role whatever it asks for [ca 50]."""
    unit = MANAGER if role == api.NodeRole.MANAGER else WORKER
    token = join_tokens(store).manager if unit == MANAGER else join_tokens(store).worker
    node_id = await issue(service, token)
    first = await status(service, node_id)
    member = Caller(node_id, CLUSTER_ID, (unit,))
    again = await issue(service, caller=member, role=1 - role)
    assert again == node_id
    renewed = await status(service, node_id)
    assert renewed.certificate.role == role
    assert renewed.certificate.certificate != first.certificate.certificate
    assert len(store.nodes) == 1


async def test_foreign_certificate(service: CAService, store: Store) -> None:
    """A certificate of another cluster counts for nothing: a token is needed, and brings a new id [ca 51]."""
    foreign = Caller("node9", "other", (MANAGER,))
    with pytest.raises(InvalidArgument):
        await issue(service, caller=foreign)
    assert await issue(service, join_tokens(store).worker, foreign) != "node9"


async def test_blacklisted_certificate(service: CAService, store: Store) -> None:
    """A removed node is a stranger: without token refused, with one a new node [ca 176]."""
    await edit_cluster(store, lambda cluster: cluster.blacklisted_certificates["gone"].SetInParent())
    removed = Caller("gone", CLUSTER_ID, (WORKER,))
    with pytest.raises(InvalidArgument, match="A valid join token"):
        await issue(service, caller=removed)
    assert await issue(service, join_tokens(store).worker, removed) != "gone"


async def test_forwarded_caller(service: CAService, store: Store) -> None:
    """A renewal passed on by a manager renews the caller, not the manager; a forwarder that is no manager vouches for nobody [ca 163]."""
    node_id = await issue(service, join_tokens(store).worker)
    await status(service, node_id)
    by_manager = Caller("m", CLUSTER_ID, (MANAGER,))
    assert await issue(service, caller=Caller(node_id, CLUSTER_ID, (WORKER,), forwarder=by_manager)) == node_id
    by_worker = Caller("w", CLUSTER_ID, (WORKER,))
    with pytest.raises(InvalidArgument):
        await issue(service, caller=Caller(node_id, CLUSTER_ID, (WORKER,), forwarder=by_worker))
    nobody = Caller(forwarder=by_manager)
    with pytest.raises(InvalidArgument):
        await issue(service, caller=nobody)


async def test_local_socket(service: CAService, store: Store) -> None:
    """A call on the control socket renews this manager's own certificate [ca 60]."""
    await store.update(lambda tx: tx.nodes.create(api.Node(id="me", role=api.NodeRole.MANAGER)))
    assert await issue(service, caller=Caller("me", CLUSTER_ID, (MANAGER,), local=True)) == "me"
    assert (await status(service, "me")).status.state == State.ISSUED


async def test_rotate_is_left_alone(service: CAService, store: Store, clock: VirtualClock) -> None:
    """A node told to rotate is not signed for until it asks; meanwhile its old certificate is shown [ca 52]."""
    node_id = await issue(service, join_tokens(store).worker)
    before = await status(service, node_id)

    def rotate(node: api.Node) -> None:
        node.certificate.status.state = State.ROTATE

    await edit_node(store, node_id, rotate)
    await clock.advance(30)
    after = await status(service, node_id)
    assert after.status.state == State.ROTATE
    assert after.certificate.certificate == before.certificate.certificate


async def test_role_change(service: CAService, store: Store) -> None:
    """A worker whose observed role became manager gets a manager's certificate at its next renewal [ca 53]."""
    node_id = await issue(service, join_tokens(store).worker)
    await status(service, node_id)

    def promote(node: api.Node) -> None:
        node.role = api.NodeRole.MANAGER

    await edit_node(store, node_id, promote)
    await issue(service, caller=Caller(node_id, CLUSTER_ID, (WORKER,)))
    issued = await status(service, node_id)
    assert pki.dns_names(pki.parse(issued.certificate.certificate)[0]) == [MANAGER, node_id, "swarm-ca"]


async def test_renewal_of_a_deleted_node(service: CAService) -> None:
    """A member whose node object is gone cannot renew [ca 54]."""
    with pytest.raises(NotFound, match="node gone not found when attempting to renew certificate"):
        await issue(service, caller=Caller("gone", CLUSTER_ID, (WORKER,)))


async def test_status_waits(store: Store, service: CAService) -> None:
    """A status call is held until there is a decision, and ends when the node goes [ca 55]."""
    pending = api.Node(id="n", certificate=api.Certificate(csr=csr.generate()[0], status=api.IssuanceStatus(state=State.PENDING)))
    pending.spec.membership = api.NodeSpec.Membership.PENDING
    await store.update(lambda tx: tx.nodes.create(pending))
    waiting = asyncio.ensure_future(status(service, "n"))
    await settle()
    assert not waiting.done()

    def accept(node: api.Node) -> None:
        node.spec.membership = api.NodeSpec.Membership.ACCEPTED

    await edit_node(store, "n", accept)
    assert (await waiting).status.state == State.ISSUED


async def test_status_of_a_node_removed_meanwhile(store: Store, service: CAService) -> None:
    """Waiting for a certificate ends with NotFound when the node is removed."""
    await store.update(lambda tx: tx.nodes.create(api.Node(id="n")))
    waiting = asyncio.ensure_future(status(service, "n"))
    await settle()
    await store.update(lambda tx: tx.nodes.delete("n"))
    with pytest.raises(NotFound):
        await waiting


async def test_signer_states(store: Store, clock: VirtualClock, root: RootCA) -> None:
    """A stopped signer refuses, one without cluster has not started, and one that stops ends the waiting calls [ca 56]."""
    signer = Signer(store, clock)
    service = CAService(store, signer)
    for call in (issue(service, "x"), status(service, "n")):
        with pytest.raises(Aborted, match="CA signer is stopped"):
            await call
    with pytest.raises(Aborted, match="CA signer is still starting"):
        await service.GetRootCACertificate(api.GetRootCACertificateRequest(), ANYONE)
    await create_cluster(store, root)
    await store.update(lambda tx: tx.nodes.create(api.Node(id="n")))
    async with running(signer.run()):
        waiting = asyncio.ensure_future(status(service, "n"))
        await settle()
    with pytest.raises(Aborted, match="CA signer is stopped"):
        await waiting
    async with running(signer.run()):
        with pytest.raises(NotFound):
            await status(service, "unknown")


async def test_unlock_key(service: CAService, store: Store) -> None:
    """Managers learn the key exactly while autolock is on, with the cluster's version [ca 57]."""

    async def ask() -> tuple[bytes, int]:
        answer = await service.GetUnlockKey(api.GetUnlockKeyRequest(), Caller("m", CLUSTER_ID, (MANAGER,)))
        return answer.unlock_key, answer.version.index

    def lock(cluster: api.Cluster) -> None:
        cluster.spec.encryption_config.auto_lock_managers = True
        cluster.unlock_keys.add(subsystem="swarm-manager", key=b"secret")

    before = stored_cluster(store).meta.version.index
    assert await ask() == (b"", before)
    await edit_cluster(store, lock)
    assert await ask() == (b"secret", stored_cluster(store).meta.version.index)
    assert stored_cluster(store).meta.version.index > before

    def unlock(cluster: api.Cluster) -> None:
        cluster.spec.encryption_config.auto_lock_managers = False

    await edit_cluster(store, unlock)
    assert (await ask())[0] == b""


@pytest.mark.parametrize(("collisions", "fails"), [(3, False), (4, True)])
async def test_id_collisions(store: Store, signer: Signer, collisions: int, fails: bool) -> None:
    """Three taken ids are survived, a fourth is not [ca 58]."""
    await store.update(lambda tx: tx.nodes.create(api.Node(id="taken")))
    supply: Iterator[str] = iter(["taken"] * collisions + ["free"])
    service = CAService(store, signer, lambda: next(supply))
    if fails:
        with pytest.raises(Exists):
            await issue(service, join_tokens(store).worker)
    else:
        assert await issue(service, join_tokens(store).worker) == "free"


async def test_node_fields(service: CAService, store: Store) -> None:
    """A new node takes its availability from the request and its VXLAN port from the cluster [ca 59]."""
    drain = api.NodeSpec.Availability.DRAIN
    node = store.nodes.get(await issue(service, join_tokens(store).worker, availability=drain))
    assert node is not None
    assert (node.spec.availability, node.VXLANUDPPort, node.certificate.cn) == (drain, 4789, node.id)


async def test_rotated_token(service: CAService, store: Store, root: RootCA) -> None:
    """A token stops working with the commit that replaces it; the other one goes on [ca 43] [ca 44]."""
    old = join_tokens(store)
    fresh = tokens.generate(root.bundle)

    def rotate(cluster: api.Cluster) -> None:
        cluster.root_ca.join_tokens.worker = fresh

    await edit_cluster(store, rotate)
    with pytest.raises(InvalidArgument):
        await issue(service, old.worker)
    for token in (fresh, old.manager):
        assert await issue(service, token)


async def test_changed_expiry_counts_at_once(service: CAService, store: Store, clock: VirtualClock) -> None:
    """The validity of the next certificate follows the cluster's spec immediately."""

    def shorten(cluster: api.Cluster) -> None:
        cluster.spec.ca_config.node_cert_expiry.CopyFrom(times.duration(7200))

    await edit_cluster(store, shorten)
    issued = await status(service, await issue(service, join_tokens(store).worker))
    assert abs(validate.not_after(pki.parse(issued.certificate.certificate)[0]) - clock.now() - 7200) <= 60
