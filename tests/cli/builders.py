"""Messages as a manager would have them, for the outputs in `expected/`."""

from __future__ import annotations

import calendar

from pyswarm.api import times
from pyswarm.api import v1 as api

from .fake import object_id

MOMENT = calendar.timegm((2024, 1, 2, 3, 4, 5))
NOW = MOMENT + 100_000.0
S = api.TaskState
NODES = {1: "node-1", 2: "node-2", 3: "node-3"}


def node_id(number: int) -> str:
    """The ID of `node-<number>`: those of the transcripts of tasks and services."""
    return object_id({1: 75, 2: 87, 3: 3}[number])


def node(number: int, identifier: int = 0, **status: object) -> api.Node:
    """A worker as its Docker Engine describes it."""
    made = api.Node(id=object_id(identifier) if identifier else node_id(number))
    made.spec.membership = api.NodeSpec.Membership.ACCEPTED
    made.description.hostname = NODES[number]
    made.status.CopyFrom(api.NodeStatus(state=api.NodeStatus.State.READY, addr="127.0.0.1"))
    made.status.MergeFrom(api.NodeStatus(**status))
    made.description.platform.CopyFrom(api.Platform(os="linux", architecture="x86_64"))
    made.description.resources.CopyFrom(api.Resources(nano_cpus=2_500_000_000, memory_bytes=25276514304))
    made.description.engine.engine_version = "20.10.24+dfsg1"
    for kind, names in (("Volume", ["local"]), ("Network", ["bridge", "host", "ipvlan", "macvlan", "null", "overlay"])):
        for name in names:
            made.description.engine.plugins.add(type=kind, name=name)
    return made


def make_manager(of: api.Node, addr: str, *, leader: bool = False) -> api.Node:
    """The node, reachable as manager."""
    reachable = api.RaftMemberStatus.Reachability.REACHABLE
    of.manager_status.CopyFrom(api.ManagerStatus(raft_id=1, addr=addr, leader=leader, reachability=reachable))
    of.spec.desired_role = api.NodeRole.MANAGER
    return of


def add_generic(to: api.Node) -> api.Node:
    """fpga 2, gpu {UUID1, UUID2}."""
    generic = to.description.resources.generic
    generic.add().discrete_resource_spec.CopyFrom(api.DiscreteGenericResource(kind="fpga", value=2))
    for value in ("UUID1", "UUID2"):
        generic.add().named_resource_spec.CopyFrom(api.NamedGenericResource(kind="gpu", value=value))
    return to


def service(identifier: int, name: str, replicas: int | None = 1, *, command: tuple[str, ...] = (), **container: object) -> api.Service:
    """A service of busybox:1.35; without replicas it is global."""
    made = api.Service(id=object_id(identifier))
    made.spec.annotations.name = name
    made.spec.task.container.CopyFrom(api.ContainerSpec(**{"image": "busybox:1.35", "command": command, **container}))
    if replicas is None:
        getattr(made.spec, "global").SetInParent()
    else:
        made.spec.replicated.replicas = replicas
    return made


def task(
    identifier: int,
    of: api.Service,
    slot: int,
    on: int,
    age: float,
    state: int = S.RUNNING,
    *,
    desired: int = S.RUNNING,
    created: float | None = None,
    image: str = "",
) -> api.Task:
    """A task on node `on` (0: none) whose status is `age` seconds old."""
    made = api.Task(id=object_id(identifier), service_id=of.id, slot=slot, node_id=node_id(on) if on else "")
    made.spec.CopyFrom(of.spec.task)
    if image:
        made.spec.container.image = image
    made.service_annotations.name = of.spec.annotations.name
    made.desired_state = desired
    made.status.state = state
    made.status.timestamp.CopyFrom(times.timestamp(NOW - age))
    made.meta.created_at.CopyFrom(times.timestamp(NOW - (age if created is None else created)))
    return made


def inspected(of: api.Task, *, message: str, err: str = "", container: int = 0, pid: int = 0, exit_code: int = 0) -> api.Task:
    """The task with the details that its own summary shows, its status from MOMENT."""
    of.status.message, of.status.err = message, err
    of.status.timestamp.seconds, of.status.timestamp.nanos = MOMENT, 123456789
    if container:
        of.status.container.container_id = f"cid{container:04d}".ljust(64, "0")
        of.status.container.pid, of.status.container.exit_code = pid, exit_code
    return of


def secret_reference(name: str, identifier: int, target: str) -> api.SecretReference:
    """A secret as a file."""
    return api.SecretReference(secret_id=object_id(identifier), secret_name=name, file=api.FileTarget(name=target))


def config_reference(name: str, identifier: int, target: str) -> api.ConfigReference:
    """A config as a file."""
    return api.ConfigReference(config_id=object_id(identifier), config_name=name, file=api.FileTarget(name=target))


def cluster(identifier: int = 67, **spec: object) -> api.Cluster:
    """A fresh cluster."""
    made = api.Cluster(id=object_id(identifier), spec=api.ClusterSpec(annotations=api.Annotations(name="default"), **spec))
    made.spec.orchestration.task_history_retention_limit = 5
    made.spec.dispatcher.heartbeat_period.seconds = 5
    made.spec.ca_config.node_cert_expiry.seconds = 90 * 24 * 3600
    return made


def join_tokens(of: api.Cluster, digest: int, worker: int, manager: int) -> api.Cluster:
    """The cluster with tokens of the usual length."""
    tokens = [f"SWMTKN-1-{f'cadigest{digest:02d}'.ljust(50, 'x')}-{f'secret{number:02d}'.ljust(25, 'x')}" for number in (worker, manager)]
    of.root_ca.join_tokens.CopyFrom(api.JoinTokens(worker=tokens[0], manager=tokens[1]))
    return of


def meta_at_moment() -> api.Meta:
    """Of an object created at MOMENT."""
    made = api.Meta()
    made.created_at.seconds, made.created_at.nanos = MOMENT, 123456789
    return made


def meta(age: float) -> api.Meta:
    """Of an object created `age` seconds ago."""
    return api.Meta(created_at=times.timestamp(NOW - age))
