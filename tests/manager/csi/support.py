"""Volumes, nodes and tasks for the tests of cluster volumes."""

from __future__ import annotations

from pyswarm.api import v1 as api
from pyswarm.manager.store import Store, by

A = api.VolumeAccessMode
P = api.VolumePublishStatus
S = api.TaskState


def volume(
    name: str,
    *,
    driver: str = "driver",
    group: str = "",
    scope: A.Scope.ValueType = A.MULTI_NODE,
    sharing: A.Sharing.ValueType = A.ALL,
    made: bool = True,
    secrets: dict[str, str] | None = None,
    **published: P.State.ValueType,
) -> api.Volume:
    """Volume `<name>-id`; made unless told otherwise, and in these states towards nodes."""
    spec = api.VolumeSpec(annotations=api.Annotations(name=name), driver=api.Driver(name=driver, options={"size": "small"}), group=group)
    spec.access_mode.CopyFrom(A(scope=scope, sharing=sharing, mount=A.MountVolume()))
    for key, secret_id in (secrets or {}).items():
        spec.secrets.add(key=key, secret=secret_id)
    obj = api.Volume(id=f"{name}-id", spec=spec)
    if made:
        obj.volume_info.MergeFrom(api.VolumeInfo(volume_id=f"csi-{name}", volume_context={"made": "yes"}))
    for node_id, state in published.items():
        obj.publish_status.add(node_id=node_id, state=state)
    return obj


def node(node_id: str, *drivers: str, topology: dict[str, str] | None = None, limit: int = 0) -> api.Node:
    """A ready node with plugins that know it as `csi-<id>`."""
    made = api.Node(id=node_id, status=api.NodeStatus(state=api.NodeStatus.READY))
    made.description.hostname = node_id
    for driver in drivers or ("driver",):
        info = made.description.csi_info.add(plugin_name=driver, node_id=f"csi-{node_id}", max_volumes_per_node=limit)
        if topology is not None:
            info.accessible_topology.segments.update(topology)
    return made


def mount(source: str, target: str = "/data", *, readonly: bool = False) -> api.Mount:
    """A mount of a cluster volume."""
    return api.Mount(type=api.Mount.CLUSTER, source=source, target=target, readonly=readonly)


def task(task_id: str, *mounts: api.Mount, on: str = "", state: api.TaskState.ValueType = S.PENDING, holds: str = "") -> api.Task:
    """A task with mounts; `holds` are the names of the volumes that it got, mount by mount."""
    made = api.Task(id=task_id, node_id=on, desired_state=S.RUNNING, status=api.TaskStatus(state=state))
    made.spec.container.image = "image"
    made.spec.container.mounts.extend(mounts)
    for name, wanted in zip(holds.split(), mounts, strict=bool(holds)):
        made.volumes.add(id=f"{name}-id", source=wanted.source, target=wanted.target)
    return made


def states(store: Store, name: str) -> dict[str, str]:
    """The volume's state per node, with the message if there is one."""
    found = store.volumes.find(by.name(name))
    return {e.node_id: P.State.Name(e.state) + (f" ({e.message})" if e.message else "") for e in found[0].publish_status}
