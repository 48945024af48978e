"""GetCluster, ListClusters, UpdateCluster."""

from __future__ import annotations

import pytest

from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.ca import tokens
from pyswarm.ca.root import RootCA
from pyswarm.manager.control import ControlService
from pyswarm.manager.control.validate_cluster import check_cluster
from pyswarm.manager.store import Store, copy_of
from tests.manager.control.support import IA, INT, ME, NF, UI, UNK, refused
from tests.support.clock import VirtualClock
from tests.support.loops import write

SECRET = api.AcceptancePolicy.RoleAdmissionPolicy.Secret


@pytest.fixture
def cluster(store: Store, clock: VirtualClock) -> api.Cluster:
    """A stored cluster with everything that must not be shown."""
    root = RootCA.create(now=clock.now())
    assert root.signer is not None
    made = api.Cluster(id="cluster-id")
    made.spec.annotations.name = "default"
    made.spec.acceptance_policy.policies.add(secret=SECRET(data=b"hash", alg="bcrypt"))
    made.root_ca.ca_cert, made.root_ca.ca_key, made.root_ca.ca_cert_hash = root.bundle, root.signer.key_pem, root.digest
    made.root_ca.join_tokens.worker = tokens.generate(root.bundle)
    made.root_ca.join_tokens.manager = tokens.generate(root.bundle)
    made.network_bootstrap_keys.add(subsystem="networking:gossip", key=b"network key")
    made.unlock_keys.add(subsystem="fake1", key=b"unlock 1")
    made.unlock_keys.add(subsystem="fake2", key=b"unlock 2")
    made.encryption_key_lamport_clock = 5
    made.fips = False
    write(store, made)
    return made


async def update(
    control: ControlService, store: Store, change: api.ClusterSpec | None = None, rotate: api.KeyRotation | None = None
) -> api.Cluster:
    """UpdateCluster of the spec as users see it, merged with a change; the answer."""
    got = (await control.GetCluster(api.GetClusterRequest(cluster_id="cluster-id"), ME)).cluster
    got.spec.MergeFrom(change or api.ClusterSpec())
    request = api.UpdateClusterRequest(cluster_id="cluster-id", cluster_version=got.meta.version, spec=got.spec, rotation=rotate)
    return (await control.UpdateCluster(request, ME)).cluster


def stored(store: Store) -> api.Cluster:
    """The cluster as the store has it."""
    found = store.clusters.get("cluster-id")
    assert found is not None
    return found


def test_spec_checks() -> None:
    """Expiry, heartbeat, policies and name are judged, in this order. [control 96; ca 135]"""
    good = api.ClusterSpec(annotations=api.Annotations(name="default"))
    for seconds, fine in ((29 * 60, False), (3600, True), (3599.9, False)):
        spec = copy_of(good)
        spec.ca_config.node_cert_expiry.CopyFrom(times.duration(seconds))
        if fine:
            check_cluster(spec)
        else:
            with refused(IA, "minimum certificate expiry time is: 1h0m0s", exactly=True):
                check_cluster(spec)
    spec = copy_of(good)
    spec.dispatcher.heartbeat_period.CopyFrom(times.duration(-29 * 60))
    with refused(IA, "heartbeat time period cannot be a negative duration", exactly=True):
        check_cluster(spec)
    spec.dispatcher.heartbeat_period.nanos = 2_000_000_000
    with refused(IA, "invalid argument", exactly=True):
        check_cluster(spec)
    for name in ("", "blah"):
        with refused(IA, "modification of cluster name is not allowed", exactly=True):
            check_cluster(api.ClusterSpec(annotations=api.Annotations(name=name)))
    spec = copy_of(good)
    spec.acceptance_policy.policies.add(secret=SECRET(alg="BCRYPT"))
    check_cluster(spec)
    spec.acceptance_policy.policies.add(secret=SECRET(alg="sha1"))
    with refused(IA, "hashing algorithm is not supported: sha1", exactly=True):
        check_cluster(spec)


async def test_get_is_redacted(control: ControlService, store: Store, cluster: api.Cluster) -> None:
    """No key leaves the manager, by get or list; defaults are shown for what is unset. [control 97; ca 134 in part]"""
    rotating = copy_of(cluster)
    rotating.root_ca.root_rotation.CopyFrom(api.RootRotation(ca_cert=b"cert", ca_key=b"rotation key", cross_signed_ca_cert=b"cross"))
    rotating.spec.ca_config.signing_ca_cert, rotating.spec.ca_config.signing_ca_key = b"signing cert", b"signing key"
    rotating.blacklisted_certificates["gone"].SetInParent()
    write(store, rotating)
    got = (await control.GetCluster(api.GetClusterRequest(cluster_id="cluster-id"), ME)).cluster
    text = got.SerializeToString()
    for secret in (b"PRIVATE KEY", b"network key", b"unlock 1", b"rotation key", b"signing cert", b"signing key"):
        assert secret not in text
    assert not got.encryption_key_lamport_clock
    assert got.spec.acceptance_policy.policies[0].secret.data == b"hash"
    assert (list(got.defaultAddressPool), got.subnetSize, got.VXLANUDPPort) == (["10.0.0.0/8"], 24, 4789)
    assert got.root_ca.join_tokens == cluster.root_ca.join_tokens
    assert got.root_ca.root_rotation == api.RootRotation(ca_cert=b"cert", cross_signed_ca_cert=b"cross")
    assert list(got.blacklisted_certificates) == ["gone"]
    for request in (api.ListClustersRequest(), api.ListClustersRequest(filters=api.ListClustersRequest.Filters(names=["default"]))):
        assert list((await control.ListClusters(request, ME)).clusters) == [got]
    other = api.ListClustersRequest(filters=api.ListClustersRequest.Filters(name_prefixes=["x"]))
    assert not (await control.ListClusters(other, ME)).clusters


async def test_redaction_adds_nothing(control: ControlService, store: Store, cluster: api.Cluster) -> None:
    """A cluster without rotation or CA settings is not shown with empty ones. [control 97; ca 134 in part]"""
    got = (await control.GetCluster(api.GetClusterRequest(cluster_id="cluster-id"), ME)).cluster
    assert not got.root_ca.HasField("root_rotation")
    assert not got.spec.HasField("ca_config")


async def test_own_pool_is_shown(control: ControlService, store: Store, cluster: api.Cluster) -> None:
    """A configured address pool and port are shown as they are. [control 97; ca 134 in part]"""
    own = copy_of(cluster)
    own.defaultAddressPool.append("10.9.0.0/16")
    own.subnetSize, own.VXLANUDPPort = 20, 4790
    write(store, own)
    got = (await control.GetCluster(api.GetClusterRequest(cluster_id="cluster-id"), ME)).cluster
    assert (list(got.defaultAddressPool), got.subnetSize, got.VXLANUDPPort) == (["10.9.0.0/16"], 20, 4790)


async def test_get_and_update_arguments(control: ControlService, store: Store, cluster: api.Cluster) -> None:
    """Id, version and spec are needed; a stale version is out of sequence. [control 98]"""
    with refused(IA, "invalid argument", exactly=True):
        await control.GetCluster(api.GetClusterRequest(), ME)
    with refused(NF, "cluster x not found", exactly=True):
        await control.GetCluster(api.GetClusterRequest(cluster_id="x"), ME)
    spec, zero = cluster.spec, api.Version()
    for request in (
        api.UpdateClusterRequest(),
        api.UpdateClusterRequest(cluster_id="cluster-id", spec=spec),
        api.UpdateClusterRequest(cluster_id="cluster-id", cluster_version=zero),
    ):
        with refused(IA, "invalid argument", exactly=True):
            await control.UpdateCluster(request, ME)
    with refused(NF, "cluster x not found", exactly=True):
        await control.UpdateCluster(api.UpdateClusterRequest(cluster_id="x", cluster_version=zero, spec=spec), ME)
    await update(control, store)
    with refused(UNK, "update out of sequence", exactly=True):
        stale = api.UpdateClusterRequest(cluster_id="cluster-id", cluster_version=api.Version(index=99), spec=spec)
        await control.UpdateCluster(stale, ME)


async def test_settings(control: ControlService, store: Store, cluster: api.Cluster) -> None:
    """Settings are replaced, the root CA and everything hidden stay, also after read-modify-write. [control 98, 101 in part]"""
    change = api.ClusterSpec()
    change.orchestration.task_history_retention_limit = 3
    change.ca_config.node_cert_expiry.CopyFrom(times.duration(3600))
    change.dispatcher.heartbeat_period.CopyFrom(times.duration(7))
    answer = await update(control, store, change)
    assert answer.spec.orchestration.task_history_retention_limit == 3
    assert answer.spec.ca_config.node_cert_expiry.seconds == 3600
    assert b"PRIVATE KEY" not in answer.SerializeToString()
    after = stored(store)
    assert after.root_ca == cluster.root_ca
    assert after.network_bootstrap_keys == cluster.network_bootstrap_keys
    assert after.unlock_keys == cluster.unlock_keys


@pytest.mark.parametrize(("worker", "manager"), [(True, False), (False, True), (True, True), (False, False)])
async def test_join_tokens(control: ControlService, store: Store, cluster: api.Cluster, worker: bool, manager: bool) -> None:
    """Each join token is renewed on request only, for the same root. [control 99]"""
    answer = await update(control, store, rotate=api.KeyRotation(worker_join_token=worker, manager_join_token=manager))
    for now, before, wanted in (
        (answer.root_ca.join_tokens.worker, cluster.root_ca.join_tokens.worker, worker),
        (answer.root_ca.join_tokens.manager, cluster.root_ca.join_tokens.manager, manager),
    ):
        assert (now != before) == wanted
        assert tokens.digest_matches(cluster.root_ca.ca_cert, tokens.parse(now).digest)


async def test_unlock_keys(control: ControlService, store: Store, cluster: api.Cluster) -> None:
    """The managers' key exists while autolock is on and changes on request; other entries are never touched. [control 100]"""
    rotate = api.KeyRotation(manager_unlock_key=True)
    on = api.ClusterSpec(encryption_config=api.EncryptionConfig(auto_lock_managers=True))

    def keys() -> list[bytes]:
        entries = {entry.subsystem: entry.key for entry in stored(store).unlock_keys}
        assert (entries.pop("fake1"), entries.pop("fake2")) == (b"unlock 1", b"unlock 2")
        assert set(entries) <= {"swarm-manager"}
        return list(entries.values())

    await update(control, store, rotate=rotate)
    assert keys() == []
    answer = await update(control, store, on)
    (first,) = keys()
    assert len(first) == 32
    assert not answer.unlock_keys
    await update(control, store, rotate=rotate)
    (second,) = keys()
    assert second != first
    await update(control, store)
    assert keys() == [second]
    off = copy_of(stored(store).spec)
    off.encryption_config.auto_lock_managers = False
    request = api.UpdateClusterRequest(cluster_id="cluster-id", cluster_version=stored(store).meta.version, spec=off, rotation=rotate)
    await control.UpdateCluster(request, ME)
    assert keys() == []


async def test_unusable_root(control: ControlService, store: Store, cluster: api.Cluster) -> None:
    """A stored root that cannot be loaded stops updates. [control 98]"""
    broken = copy_of(cluster)
    broken.root_ca.ca_cert = b"garbage"
    write(store, broken)
    with refused(INT, "error loading cluster rootCA for update", exactly=True):
        await update(control, store)


async def test_root_changes_are_not_there_yet(control: ControlService, store: Store, cluster: api.Cluster) -> None:
    """Whatever would rotate the root is refused in one sentence; a key without certificate is invalid. [control 102 in part]"""
    for config in (
        api.CAConfig(force_rotate=1),
        api.CAConfig(signing_ca_cert=b"cert"),
        api.CAConfig(signing_ca_cert=b"cert", signing_ca_key=b"key"),
    ):
        with refused(UI, "rotating the root CA is not supported yet"):
            await update(control, store, api.ClusterSpec(ca_config=config))
    with refused(UI, "external CAs are not supported yet"):
        await update(control, store, api.ClusterSpec(ca_config=api.CAConfig(external_cas=[api.ExternalCA(url="https://x")])))
    with refused(IA, "if a signing CA key is provided, the signing CA cert must also be provided", exactly=True):
        await update(control, store, api.ClusterSpec(ca_config=api.CAConfig(signing_ca_key=b"key")))
    assert stored(store) == cluster


async def test_update_prunes_the_blacklist(control: ControlService, store: Store, cluster: api.Cluster, clock: VirtualClock) -> None:
    """Every update drops certificates that expired more than a week ago. [control 87]"""
    old = copy_of(cluster)
    old.blacklisted_certificates["old"].expiry.CopyFrom(times.timestamp(clock.now() - 8 * 86_400))
    old.blacklisted_certificates["new"].expiry.CopyFrom(times.timestamp(clock.now()))
    write(store, old)
    assert list((await update(control, store)).blacklisted_certificates) == ["new"]
