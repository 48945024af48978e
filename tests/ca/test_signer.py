"""The signer loop: what it signs, what it leaves, what it retries."""

from __future__ import annotations

import asyncio

import pytest

from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.ca import csr, issuance
from pyswarm.ca.issuance import Later, Order, Refused, Signed
from pyswarm.ca.root import RootCA
from pyswarm.ca.signer import RETRY_SECONDS, Signer
from pyswarm.errors import NotFound, Unknown
from pyswarm.manager.store import Store, Tx
from tests.ca import pki
from tests.ca.cluster import create_cluster, edit_cluster, edit_node, running
from tests.support.clock import VirtualClock, settle
from tests.support.log import MemoryLog

State = api.IssuanceStatus.State
Membership = api.NodeSpec.Membership
REQUEST = csr.generate()[0]
ROOT = RootCA.create(now=VirtualClock().now())


def node(
    node_id: str = "n",
    state: api.IssuanceStatus.State.ValueType = State.PENDING,
    membership: api.NodeSpec.Membership.ValueType = Membership.ACCEPTED,
    csr_pem: bytes = REQUEST,
) -> api.Node:
    """A node with a request."""
    made = api.Node(id=node_id, certificate=issuance.request_record(node_id, csr_pem, api.NodeRole.WORKER, state))
    made.spec.membership = membership
    return made


def state_of(store: Store, node_id: str = "n") -> int:
    """The issuance state of a stored node."""
    found = store.nodes.get(node_id)
    assert found is not None
    return found.certificate.status.state


@pytest.mark.parametrize(("state", "membership", "wanted"), [
    (State.UNKNOWN, Membership.ACCEPTED, False),
    (State.PENDING, Membership.ACCEPTED, True),
    (State.PENDING, Membership.PENDING, False),
    (State.RENEW, Membership.ACCEPTED, True),
    (State.RENEW, Membership.PENDING, True),
    (State.ISSUED, Membership.ACCEPTED, False),
    (State.FAILED, Membership.ACCEPTED, False),
    (State.ROTATE, Membership.ACCEPTED, False),
])  # fmt: skip
def test_what_is_signed(state: api.IssuanceStatus.State.ValueType, membership: api.NodeSpec.Membership.ValueType, wanted: bool) -> None:
    """First requests of accepted members and all renewals are signed, nothing else."""
    assert (issuance.order_for(node(state=state, membership=membership)) is not None) is wanted


def test_outcomes() -> None:
    """A missing key is temporary, a bad request and an unknown role are not."""
    now = VirtualClock().now()
    order = Order("n", REQUEST, api.NodeRole.WORKER)
    keyless = RootCA.load(ROOT.bundle, now=now)
    assert isinstance(issuance.sign(order, ROOT, "o", 3600, now), Signed)
    assert issuance.sign(order, keyless, "o", 3600, now) == Later("no valid signer found")
    assert isinstance(issuance.sign(Order("n", b"x", order.role), ROOT, "o", 3600, now), Refused)
    assert isinstance(issuance.sign(Order("n", REQUEST, 7), ROOT, "o", 3600, now), Refused)  # type: ignore[arg-type]


def test_outcome_of_an_older_request() -> None:
    """A certificate for an earlier request is not stored beside a newer one."""
    asked = node()
    order = issuance.order_for(asked)
    assert order is not None
    newer = node(csr_pem=csr.generate()[0], state=State.RENEW)
    assert issuance.settled(newer, order, Signed(b"old")) is None
    assert issuance.settled(node(state=State.ISSUED), order, Signed(b"old")) is None
    settled = issuance.settled(asked, order, Signed(b"cert"))
    assert settled is not None
    assert (settled.certificate.certificate, settled.certificate.status.state) == (b"cert", State.ISSUED)
    assert asked.certificate.certificate == b""


@pytest.mark.parametrize(
    ("seconds", "expected"), [(None, 90 * pki.DAY), (3599, 90 * pki.DAY), (-5, 90 * pki.DAY), (3600, 3600), (7200, 7200)]
)
def test_configured_expiry(seconds: float | None, expected: float) -> None:
    """An expiry that is absent or under an hour counts as ninety days [ca 10]."""
    cluster = api.Cluster()
    if seconds is not None:
        cluster.spec.ca_config.node_cert_expiry.CopyFrom(times.duration(seconds))
    assert issuance.expiry_of(cluster) == expected


async def test_requests_from_before_the_start(store: Store, clock: VirtualClock) -> None:
    """A new leader signs what its predecessor left."""
    await create_cluster(store, ROOT)
    await store.update(lambda tx: [tx.nodes.create(node(f"n{i}")) for i in range(120)])
    async with running(Signer(store, clock).run()):
        await settle(300)
        assert {n.certificate.status.state for n in store.nodes} == {State.ISSUED}


async def test_no_cluster(store: Store, clock: VirtualClock) -> None:
    """Without cluster object the signer reports an error instead of signing for nobody."""
    with pytest.raises(NotFound, match="no cluster object"):
        await Signer(store, clock).run()


async def test_not_twice(store: Store, clock: VirtualClock) -> None:
    """A second run at the same time is refused and does not disturb the first."""
    await create_cluster(store, ROOT)
    signer = Signer(store, clock)
    async with running(signer.run()):
        with pytest.raises(Unknown, match="CA signer is already running"):
            await signer.run()
        signer.check_ready()


async def test_waiting_for_a_key(store: Store, clock: VirtualClock) -> None:
    """Without a key requests stay pending, are retried, and are signed as soon as the key is there."""
    await create_cluster(store, ROOT)
    await edit_cluster(store, lambda cluster: cluster.root_ca.ClearField("ca_key"))
    signer = Signer(store, clock)
    async with running(signer.run()):
        await store.update(lambda tx: [tx.nodes.create(node("a")), tx.nodes.create(node("b"))])
        await clock.advance(3 * RETRY_SECONDS)
        assert signer.pending == {"a", "b"}
        assert state_of(store, "a") == State.PENDING

        def give(cluster: api.Cluster) -> None:
            assert ROOT.signer is not None
            cluster.root_ca.ca_key = ROOT.signer.key_pem

        await edit_cluster(store, give)
        await settle()
        assert state_of(store, "a") == state_of(store, "b") == State.ISSUED
        assert not signer.pending


async def test_deleted_while_pending(store: Store, clock: VirtualClock) -> None:
    """A node deleted while it waits is forgotten at the next retry."""
    await create_cluster(store, ROOT)
    await edit_cluster(store, lambda cluster: cluster.root_ca.ClearField("ca_key"))
    signer = Signer(store, clock)
    async with running(signer.run()):
        await store.update(lambda tx: tx.nodes.create(node()))
        await settle()
        assert signer.pending == {"n"}
        await store.update(lambda tx: tx.nodes.delete("n"))
        await clock.advance(RETRY_SECONDS)
        assert not signer.pending


async def test_newer_request_wins(store: Store, clock: VirtualClock) -> None:
    """A request that arrives while an earlier one is being committed gets the certificate; the earlier one gets none."""
    await create_cluster(store, ROOT)
    newer = csr.generate()[0]
    original = store.batch

    async def batch(items: object, fn: object) -> list[Exception | None]:
        store.batch = original  # type: ignore[method-assign]

        def renew(changed: api.Node) -> None:
            changed.certificate.CopyFrom(issuance.request_record("n", newer, api.NodeRole.WORKER, State.RENEW))

        await edit_node(store, "n", renew)
        return await original(items, fn)  # type: ignore[arg-type]

    async with running(Signer(store, clock).run()):
        store.batch = batch  # type: ignore[method-assign]
        await store.update(lambda tx: tx.nodes.create(node()))
        await settle(200)
    found = store.nodes.get("n")
    assert found is not None
    assert found.certificate.status.state == State.ISSUED
    assert pki.parse(found.certificate.certificate)[0].public_key() == csr.public_key(newer)


async def test_unusable_root_keeps_the_old_one(store: Store, clock: VirtualClock) -> None:
    """A stored root that cannot be used is reported; signing goes on with the one before."""
    await create_cluster(store, ROOT)
    signer = Signer(store, clock)
    async with running(signer.run()):

        def spoil(cluster: api.Cluster) -> None:
            cluster.root_ca.ca_cert = b"garbage"

        await edit_cluster(store, spoil)
        await store.update(lambda tx: tx.nodes.create(node()))
        await settle()
        assert state_of(store) == State.ISSUED
        assert signer.root is not None
        assert signer.root.bundle == ROOT.bundle


async def test_new_root_counts_at_once(store: Store, clock: VirtualClock) -> None:
    """A changed root signs from the commit on that changes it."""
    await create_cluster(store, ROOT)
    other = RootCA.create(now=clock.now())
    signer = Signer(store, clock)
    async with running(signer.run()):

        def replace(cluster: api.Cluster) -> None:
            assert other.signer is not None
            cluster.root_ca.ca_cert, cluster.root_ca.ca_key = other.bundle, other.signer.key_pem

        await edit_cluster(store, replace)
        assert signer.root is not None
        assert signer.root.bundle == other.bundle


async def test_commit_that_fails(clock: VirtualClock) -> None:
    """A certificate that could not be committed is made again when the log takes writes again."""
    store = Store(clock)
    log = MemoryLog(store)
    store.attach(log)
    async with running(store.run()):
        await create_cluster(store, ROOT)
        async with running(Signer(store, clock).run()):
            original = store.batch
            failing = True

            async def batch(items: object, fn: object) -> list[Exception | None]:
                log.leading = not failing
                try:
                    return await original(items, fn)  # type: ignore[arg-type]
                finally:
                    log.leading = True

            store.batch = batch  # type: ignore[method-assign]
            await store.update(lambda tx: tx.nodes.create(node()))
            await clock.advance(0.5)
            assert state_of(store) == State.PENDING
            failing = False
            await clock.advance(1.0)
            assert state_of(store) == State.ISSUED


async def test_quiet_when_nothing_is_to_do(store: Store, clock: VirtualClock) -> None:
    """A running signer without requests writes nothing."""
    await create_cluster(store, ROOT)
    await store.update(lambda tx: tx.nodes.create(node(state=State.ROTATE)))
    commits: list[object] = []
    async with running(Signer(store, clock).run()):
        undo = store.on_commit(commits.append)
        await clock.advance(120)
        undo()
    assert commits == []


async def test_cancelled_run_can_start_again(store: Store, clock: VirtualClock) -> None:
    """The signer of a leader that lost and won leadership again works."""
    await create_cluster(store, ROOT)
    signer = Signer(store, clock)
    for number in range(2):
        async with running(signer.run()):

            def create(tx: Tx, number: int = number) -> None:
                tx.nodes.create(node(f"n{number}"))

            await store.update(create)
            await settle()
            assert state_of(store, f"n{number}") == State.ISSUED
    await asyncio.sleep(0)
