"""Which cluster volumes a task may mount on a node (spec/scheduling-and-allocation, section 20).

`Volumes` lives for one pass: it reads the store as the pass sees it, and remembers what the pass gave away so far. It keeps no mirror: who
uses a volume stands in the tasks, so a paused, drained or deleted volume, and one that became free, are seen at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from pyswarm.api import v1 as api
from pyswarm.manager.changes import Update
from pyswarm.manager.store import View, by, copy_of

A = api.VolumeAccessMode
P = api.VolumePublishStatus
S = api.TaskState
GROUP = "group:"


@dataclass(frozen=True, slots=True)
class Use:
    """One mount of a volume by a task."""

    node_id: str
    writes: bool


@dataclass(slots=True)
class Known:
    """A volume with who uses it. `entries` is its publish state per node, as it will be when the pass is committed."""

    volume: api.Volume
    uses: list[Use]
    entries: dict[str, P.State.ValueType]
    touched: bool = False

    @classmethod
    def of(cls, view: View, volume: api.Volume) -> Known:
        """As the store has it."""
        tasks = (t for t in view.tasks.find(by.volume(volume.id)) if t.node_id and S.ASSIGNED <= t.status.state <= S.RUNNING)
        uses = [Use(t.node_id, w) for t in tasks for w in _writes(t, volume.id)]
        return cls(volume, uses, {entry.node_id: entry.state for entry in volume.publish_status})


def _writes(task: api.Task, volume_id: str) -> Iterable[bool]:
    """For each attachment of the volume, whether its mount may write; mounts are known by source and target."""
    reading = {(m.source, m.target) for m in task.spec.container.mounts if m.type == api.Mount.CLUSTER and m.readonly}
    return ((a.source, a.target) not in reading for a in task.volumes if a.id == volume_id)


def in_topology(top: Mapping[str, str] | None, accessible: Iterable[Mapping[str, str]]) -> bool:
    """Whether a node there can reach a volume: some accessible topology has nothing that the node's has not.

    A node that says nothing, and a volume that is reachable from everywhere, always fit.
    """
    wanted = list(accessible)
    if top is None or not wanted:
        return True
    return any(all(top.get(key) == value for key, value in segments.items()) for segments in wanted)


def obstacle(known: Known, mount: api.Mount, node: api.Node) -> str:
    """What keeps the mount from being this volume on this node, in a few words; empty when nothing does."""
    spec, mode = known.volume.spec, known.volume.spec.access_mode
    if known.volume.pending_delete:
        return "being removed"
    if not known.volume.volume_info.volume_id:
        return "not created yet"
    if spec.availability != api.VolumeSpec.ACTIVE:
        return "paused" if spec.availability == api.VolumeSpec.PAUSE else "drained"
    if mode.scope == A.SINGLE_NODE and any(n != node.id for n in (*known.entries, *(u.node_id for u in known.uses))):
        return "in use on another node"
    if known.entries.get(node.id) in {P.PENDING_NODE_UNPUBLISH, P.PENDING_UNPUBLISH}:
        return "being taken back from this node"
    return _sharing_obstacle(mode.sharing, known.uses, mount) or _place_obstacle(known.volume, node)


def _sharing_obstacle(sharing: A.Sharing.ValueType, uses: list[Use], mount: api.Mount) -> str:
    if sharing == A.NONE and uses:
        return "in use"
    if sharing == A.READ_ONLY and not mount.readonly:
        return "to be mounted read-only"
    if sharing == A.ONE_WRITER and not mount.readonly and any(use.writes for use in uses):
        return "being written to by another task"
    return ""


def _place_obstacle(volume: api.Volume, node: api.Node) -> str:
    driver = volume.spec.driver.name
    info = next((info for info in node.description.csi_info if info.plugin_name == driver), None)
    if info is None:
        return f"no plugin {driver} on the node"
    top = info.accessible_topology.segments if info.HasField("accessible_topology") else None
    reachable = in_topology(top, (t.segments for t in volume.volume_info.accessible_topology))
    return "" if reachable else "not reachable from the node"


@dataclass(slots=True)
class Chosen:
    """The volumes for one task: an attachment per cluster mount, in the order of the mounts. `lacking` says why there are none."""

    attachments: list[api.VolumeAttachment] = field(default_factory=list)
    lacking: str = ""


class Volumes:
    """The cluster volumes in one pass over `view`."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._known: dict[str, Known] = {}
        self._sources: dict[str, list[str]] = {}
        self._limited: dict[str, dict[str, int]] = {}

    def check(self, task: api.Task) -> Callable[[api.Node], str] | None:
        """What a node lacks for the task's cluster volumes; None for a task that mounts none."""
        if not _mounts_any(task):
            return None
        return lambda node: self.choose(task, node).lacking

    def choose(self, task: api.Task, node: api.Node) -> Chosen:
        """A volume for every cluster mount, or none at all. Gives nothing away.

        Mounts that name a volume choose before those that take any of a group; of a group, one that the node has already, then the first.
        """
        mounts = [(number, m) for number, m in enumerate(task.spec.container.mounts) if m.type == api.Mount.CLUSTER]
        taken: dict[int, api.VolumeAttachment] = {}
        trial: dict[str, Known] = {}
        for number, mount in sorted(mounts, key=lambda pair: pair[1].source.startswith(GROUP)):
            found, lacking = self._pick(mount, node, trial)
            if found is None:
                return Chosen(lacking=lacking)
            trial[found.volume.id] = Known(found.volume, [*found.uses, _use(node, mount)], {node.id: P.PENDING_PUBLISH, **found.entries})
            taken[number] = api.VolumeAttachment(id=found.volume.id, source=mount.source, target=mount.target)
        return Chosen([taken[number] for number, _ in mounts])

    def attach(self, task: api.Task, node: api.Node) -> None:
        """Give the task, which is a copy to be written, its volumes on the node. Call it only when nothing is lacking."""
        if not _mounts_any(task):
            return
        del task.volumes[:]
        for attachment in self.choose(task, node).attachments:
            task.volumes.append(attachment)
            known = self._known[attachment.id]
            known.uses.extend(Use(node.id, writes) for writes in _writes_of(task, attachment))
            if node.id not in known.entries:
                known.entries[node.id] = P.PENDING_PUBLISH
                known.touched = True
                counts = self._limited.get(known.volume.spec.driver.name)
                if counts is not None:
                    counts[node.id] = counts.get(node.id, 0) + 1

    def changes(self) -> list[Update]:
        """The volumes that are to be published to further nodes, for what `attach` gave away."""
        changed = []
        for known in self._known.values():
            if known.touched:
                volume = copy_of(known.volume)
                there = {entry.node_id for entry in volume.publish_status}
                for node_id in sorted(known.entries.keys() - there):
                    volume.publish_status.add(node_id=node_id, state=P.PENDING_PUBLISH)
                changed.append(Update(volume))
        return changed

    def _pick(self, mount: api.Mount, node: api.Node, trial: Mapping[str, Known]) -> tuple[Known | None, str]:
        """A volume for the mount, or the obstacle of the first that there is."""
        lacking = ""
        candidates = [trial.get(known.volume.id, known) for known in self._candidates(mount.source)]
        for known in sorted(candidates, key=lambda k: (node.id not in k.entries, k.volume.spec.annotations.name)):
            obstacle_here = obstacle(known, mount, node) or self._full(known, node, trial)
            if not obstacle_here:
                return known, ""
            lacking = lacking or f"volume {known.volume.spec.annotations.name} ({obstacle_here})"
        return None, lacking or f"volume {mount.source} (there is none)"

    def _candidates(self, source: str) -> list[Known]:
        if source not in self._sources:
            if source.startswith(GROUP):
                found = self._view.volumes.find(by.group(source.removeprefix(GROUP)))
            else:
                found = [v for v in self._view.volumes.find(by.name(source)) if v.spec.annotations.name == source]
            for volume in found:
                if volume.id not in self._known:
                    self._known[volume.id] = Known.of(self._view, volume)
            self._sources[source] = [volume.id for volume in found]
        return [self._known[volume_id] for volume_id in self._sources[source]]

    def _full(self, known: Known, node: api.Node, trial: Mapping[str, Known]) -> str:
        """Whether the node has as many volumes of this driver as its plugin allows."""
        if node.id in known.entries:
            return ""
        driver = known.volume.spec.driver.name
        limit = next((info.max_volumes_per_node for info in node.description.csi_info if info.plugin_name == driver), 0)
        if limit <= 0:
            return ""
        if driver not in self._limited:
            counts = self._limited[driver] = {}
            for volume in self._view.volumes.find(by.driver(driver)):
                known_here = self._known.get(volume.id)
                for node_id in known_here.entries if known_here is not None else [entry.node_id for entry in volume.publish_status]:
                    counts[node_id] = counts.get(node_id, 0) + 1
        fresh = sum(
            1
            for volume_id, other in trial.items()
            if other.volume.spec.driver.name == driver and node.id not in self._known[volume_id].entries
        )
        return "" if self._limited[driver].get(node.id, 0) + fresh < limit else f"the node has {limit} volumes of {driver}, its limit"


def _mounts_any(task: api.Task) -> bool:
    return any(mount.type == api.Mount.CLUSTER for mount in task.spec.container.mounts)


def _use(node: api.Node, mount: api.Mount) -> Use:
    return Use(node.id, not mount.readonly)


def _writes_of(task: api.Task, attachment: api.VolumeAttachment) -> Iterable[bool]:
    """Whether the one mount of the attachment writes."""
    mounts = (m for m in task.spec.container.mounts if m.type == api.Mount.CLUSTER)
    return [not m.readonly for m in mounts if (m.source, m.target) == (attachment.source, attachment.target)][:1]
