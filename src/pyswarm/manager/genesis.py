"""What a new leader makes sure exists: cluster, its own node, first networks (spec/dispatcher-agent-node, section 14).

Pure and idempotent: run at the start of every leadership, it changes nothing in a cluster that has them all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from pyswarm.api import defaults, ids, times
from pyswarm.api import v1 as api
from pyswarm.ca.unlock import MANAGER_SUBSYSTEM
from pyswarm.errors import FailedPrecondition
from pyswarm.manager.store import Tx, View, by


@dataclass(frozen=True, slots=True)
class Founding:
    """What only the founder knows of a cluster that does not exist yet."""

    cluster_id: str
    node_id: str
    root_ca: api.RootCA | None = field(repr=False)
    """Certificate, digest, key and both join tokens; None on a manager that did not found the cluster in this process."""
    availability: api.NodeSpec.Availability.ValueType
    heartbeat_tick: int
    election_tick: int
    autolock: bool
    unlock_key: bytes = field(repr=False)
    new_id: Callable[[], str] = ids.new_id


PREDEFINED_NETWORKS = ("bridge", "host")
"""What every node has of its own, named as its driver."""


def cluster_of(view: View) -> api.Cluster | None:
    """The one cluster object, None before it was created."""
    found = view.clusters.find(by.name(defaults.CLUSTER_NAME))
    return found[0] if found else None


def ensure(tx: Tx, founding: Founding) -> None:
    """Create what is missing. Raises FailedPrecondition when there is no cluster and no root to found one with."""
    if cluster_of(tx) is None:
        tx.clusters.create(new_cluster(founding))
        # Only in a new cluster: who removes it later does not want it.
        tx.networks.create(new_ingress(founding.new_id()))
    for name in PREDEFINED_NETWORKS:
        if not tx.networks.find(by.name(name)):
            tx.networks.create(new_predefined(founding.new_id(), name))
    if founding.node_id not in tx.nodes:
        tx.nodes.create(new_manager_node(founding))


def new_cluster(founding: Founding) -> api.Cluster:
    """The cluster object with its defaults. Raises FailedPrecondition without a root CA."""
    if founding.root_ca is None:
        raise FailedPrecondition(
            "the log of this manager holds no cluster, and its root CA key is gone: start over with an empty state directory"
        )
    cluster = api.Cluster(id=founding.cluster_id, root_ca=founding.root_ca)
    spec = cluster.spec
    spec.annotations.name = defaults.CLUSTER_NAME
    spec.orchestration.task_history_retention_limit = defaults.TASK_HISTORY_LIMIT
    spec.dispatcher.heartbeat_period.CopyFrom(times.duration(defaults.HEARTBEAT_PERIOD))
    spec.raft.CopyFrom(default_raft_config())
    spec.raft.heartbeat_tick = founding.heartbeat_tick
    spec.raft.election_tick = founding.election_tick
    spec.ca_config.node_cert_expiry.CopyFrom(times.duration(defaults.NODE_CERT_EXPIRY))
    spec.encryption_config.auto_lock_managers = founding.autolock
    if founding.autolock:
        cluster.unlock_keys.add(subsystem=MANAGER_SUBSYSTEM, key=founding.unlock_key)
    return cluster


def default_raft_config() -> api.RaftConfig:
    """How the log behaves where no cluster object says otherwise."""
    return api.RaftConfig(
        snapshot_interval=defaults.SNAPSHOT_INTERVAL, log_entries_for_slow_followers=defaults.LOG_ENTRIES_FOR_SLOW_FOLLOWERS
    )


def new_manager_node(founding: Founding) -> api.Node:
    """The founder's own node object; the role manager promotes it within moments."""
    node = api.Node(id=founding.node_id)
    node.spec.desired_role = api.NodeRole.MANAGER
    node.spec.membership = api.NodeSpec.Membership.ACCEPTED
    node.spec.availability = founding.availability
    node.certificate.cn = founding.node_id
    node.certificate.role = api.NodeRole.MANAGER
    node.certificate.status.state = api.IssuanceStatus.State.ISSUED
    return node


def new_ingress(network_id: str) -> api.Network:
    """The network over which published ports reach their tasks, wherever these are."""
    network = api.Network(id=network_id, spec=api.NetworkSpec(annotations=api.Annotations(name="ingress"), ingress=True))
    network.spec.driver_config.SetInParent()
    network.spec.ipam.driver.SetInParent()
    return network


def new_predefined(network_id: str, name: str) -> api.Network:
    """A network that each node has already, so that services can name it."""
    network = api.Network(id=network_id, spec=api.NetworkSpec(annotations=api.Annotations(name=name)))
    network.spec.annotations.labels[defaults.PREDEFINED_LABEL] = "true"
    network.spec.driver_config.name = name
    return network
