"""What a new leader makes sure exists."""

from __future__ import annotations

import dataclasses

import pytest

from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.errors import FailedPrecondition
from pyswarm.manager import genesis
from pyswarm.manager.genesis import Founding
from pyswarm.manager.store import Store
from tests.support.clock import VirtualClock

FOUNDING = Founding(
    cluster_id="cluster-1",
    node_id="node-1",
    root_ca=api.RootCA(ca_cert=b"cert", ca_key=b"key", join_tokens=api.JoinTokens(worker="w", manager="m")),
    availability=api.NodeSpec.Availability.PAUSE,
    heartbeat_tick=2,
    election_tick=20,
    autolock=False,
    unlock_key=b"",
)


async def test_first_manager(store: Store, clock: VirtualClock) -> None:
    """The cluster is called default with the certificate's organization as id; the manager's node is accepted. [dispatcher 173]"""
    await store.update(lambda tx: genesis.ensure(tx, FOUNDING))
    (cluster,) = store.clusters
    assert (cluster.id, cluster.spec.annotations.name) == ("cluster-1", "default")
    assert cluster.root_ca == FOUNDING.root_ca
    assert cluster.spec.orchestration.task_history_retention_limit == 5
    assert times.seconds_of(cluster.spec.dispatcher.heartbeat_period) == 5.0
    assert times.seconds_of(cluster.spec.ca_config.node_cert_expiry) == 90 * 86_400
    assert (cluster.spec.raft.heartbeat_tick, cluster.spec.raft.election_tick) == (2, 20)
    assert not cluster.unlock_keys
    (node,) = store.nodes
    assert (node.id, node.role, node.spec.desired_role) == ("node-1", api.NodeRole.WORKER, api.NodeRole.MANAGER)
    assert (node.spec.membership, node.spec.availability) == (api.NodeSpec.ACCEPTED, api.NodeSpec.PAUSE)
    assert node.certificate.status.state == api.IssuanceStatus.ISSUED


async def test_locked_from_the_start(store: Store) -> None:
    """With autolock the cluster begins with one key, the managers'. [dispatcher 173]"""
    await store.update(lambda tx: genesis.ensure(tx, dataclasses.replace(FOUNDING, autolock=True, unlock_key=b"k" * 32)))
    (cluster,) = store.clusters
    assert cluster.spec.encryption_config.auto_lock_managers
    assert list(cluster.unlock_keys) == [api.EncryptionKey(subsystem="swarm-manager", key=b"k" * 32)]


async def test_later_leaders_change_nothing(store: Store) -> None:
    """A restart, or a second manager that leads, finds what it needs and makes only its own node. [dispatcher 173]"""
    await store.update(lambda tx: genesis.ensure(tx, FOUNDING))
    before = store.clusters.get("cluster-1"), store.nodes.get("node-1")
    await store.update(lambda tx: genesis.ensure(tx, dataclasses.replace(FOUNDING, root_ca=None)))
    assert (store.clusters.get("cluster-1"), store.nodes.get("node-1")) == before
    await store.update(lambda tx: genesis.ensure(tx, dataclasses.replace(FOUNDING, node_id="node-2", root_ca=None)))
    assert (store.clusters.get("cluster-1"), store.nodes.get("node-1")) == before
    assert sorted(n.id for n in store.nodes) == ["node-1", "node-2"]


async def test_first_networks(store: Store) -> None:
    """A new cluster has an ingress network; what nodes have of their own can be named. [dispatcher 173]"""
    await store.update(lambda tx: genesis.ensure(tx, FOUNDING))
    found = {n.spec.annotations.name: n for n in store.networks}
    assert sorted(found) == ["bridge", "host", "ingress"]
    assert found["ingress"].spec.ingress
    for name in ("bridge", "host"):
        assert dict(found[name].spec.annotations.labels) == {"com.docker.swarm.predefined": "true"}
        assert found[name].spec.driver_config.name == name


async def test_networks_of_later_leaders(store: Store) -> None:
    """No leader makes a second ingress network, nor one that was removed; a predefined one is made again. [dispatcher 173]"""
    await store.update(lambda tx: genesis.ensure(tx, FOUNDING))
    later = dataclasses.replace(FOUNDING, node_id="node-2", root_ca=None)
    await store.update(lambda tx: genesis.ensure(tx, later))
    assert len(store.networks) == 3
    gone = [n.id for n in store.networks if n.spec.annotations.name in {"ingress", "host"}]
    await store.update(lambda tx: [tx.networks.delete(network_id) for network_id in gone])
    await store.update(lambda tx: genesis.ensure(tx, later))
    assert sorted(n.spec.annotations.name for n in store.networks) == ["bridge", "host"]


async def test_no_cluster_and_no_root(store: Store) -> None:
    """A manager whose log holds no cluster, and that has no root to found one with, says what to do."""
    with pytest.raises(FailedPrecondition, match="start over with an empty state directory"):
        await store.update(lambda tx: genesis.ensure(tx, dataclasses.replace(FOUNDING, root_ca=None)))
    assert len(store.clusters) == len(store.nodes) == 0
