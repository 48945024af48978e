"""Cluster volumes: the list and the summary."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from pyswarm.api import v1 as api
from pyswarm.cli import columns, units
from pyswarm.cli.columns import entry
from pyswarm.cli.show import parts


def status(volume: api.Volume) -> str:
    """In a word or two: being made or removed, on how many nodes, or free."""
    if volume.pending_delete:
        return "being removed"
    if not volume.HasField("volume_info"):
        return "being created"
    count = len(volume.publish_status)
    return f"on {count} {'node' if count == 1 else 'nodes'}" if count else "free"


def listing(volumes: Iterable[api.Volume]) -> str:
    """`volume ls`."""
    rows = (
        (
            v.id,
            v.spec.annotations.name,
            v.spec.group,
            v.spec.driver.name,
            api.VolumeSpec.VolumeAvailability.Name(v.spec.availability),
            status(v),
        )
        for v in volumes
    )
    return columns.table(columns.LIST, ["ID", "Name", "Group", "Driver", "Availability", "Status"], rows)


def summary(volume: api.Volume, node: Callable[[str], str]) -> str:
    """`volume inspect`; `node` gives the name for a node's ID."""
    spec = volume.spec
    lines = [
        entry("ID", volume.id),
        entry("Name", spec.annotations.name),
        *parts.labels(spec.annotations.labels),
        *parts.if_any("Group", spec.group),
        entry("Availability", api.VolumeSpec.VolumeAvailability.Name(spec.availability)),
        entry("Status", status(volume)),
        *parts.driver("Driver", spec.driver, "  "),
        *_access(spec.access_mode),
        *_capacity(spec),
        *_places("Required topology", spec.AccessibilityRequirements.requisite),
        *_places("Preferred topology", spec.AccessibilityRequirements.preferred),
        *(entry(f"Secret {secret.key}", secret.secret) for secret in spec.secrets),
        *_made(volume),
    ]
    return columns.SUMMARY.text(lines) + _nodes(volume, node)


def _access(mode: api.VolumeAccessMode) -> Iterator[str]:
    yield entry("Scope", api.VolumeAccessMode.Scope.Name(mode.scope))
    yield entry("Sharing", api.VolumeAccessMode.Sharing.Name(mode.sharing))
    yield entry("Type", mode.WhichOneof("access_type") or "")
    yield from parts.if_any("  File system", mode.mount.fs_type)
    yield from parts.if_any("  Mount flags", ",".join(mode.mount.mount_flags))


def _capacity(spec: api.VolumeSpec) -> Iterator[str]:
    if spec.capacity_range.required_bytes:
        yield entry("Required size", units.format_memory(spec.capacity_range.required_bytes))
    if spec.capacity_range.limit_bytes:
        yield entry("Largest size", units.format_memory(spec.capacity_range.limit_bytes))


def _made(volume: api.Volume) -> Iterator[str]:
    if volume.HasField("volume_info"):
        info = volume.volume_info
        yield entry("CSI ID", info.volume_id)
        if info.capacity_bytes:
            yield entry("Size", units.format_memory(info.capacity_bytes))
        yield from _places("Reachable from", info.accessible_topology)


def _places(heading: str, topologies: Iterable[api.Topology]) -> Iterator[str]:
    for topology in topologies:
        yield entry(heading, ", ".join(f"{key}={value}" for key, value in parts.sorted_map(topology.segments)))


def _nodes(volume: api.Volume, node: Callable[[str], str]) -> str:
    if not volume.publish_status:
        return ""
    rows = ((node(e.node_id), api.VolumePublishStatus.State.Name(e.state), e.message) for e in volume.publish_status)
    return "\n" + columns.table(columns.TASKS, ["Node", "State", "Message"], rows)
