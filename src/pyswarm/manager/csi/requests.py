"""What the leader asks a plugin, field by field (spec/scheduling-and-allocation, section 19.3), and what an answer means. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pyswarm.api import v1 as api
from pyswarm.api.csi import csi_pb2 as csi
from pyswarm.csi.access import capability


def create(volume: api.Volume, secrets: Mapping[str, str]) -> csi.CreateVolumeRequest:
    """Make the volume; plugins know it again by its name."""
    spec = volume.spec
    made = csi.CreateVolumeRequest(
        name=spec.annotations.name,
        parameters=spec.driver.options,
        volume_capabilities=[capability(spec.access_mode)],
        secrets=secrets,
    )
    if spec.HasField("AccessibilityRequirements"):
        made.accessibility_requirements.requisite.extend(_topologies(spec.AccessibilityRequirements.requisite))
        made.accessibility_requirements.preferred.extend(_topologies(spec.AccessibilityRequirements.preferred))
    if spec.HasField("capacity_range"):
        made.capacity_range.required_bytes = spec.capacity_range.required_bytes
        made.capacity_range.limit_bytes = spec.capacity_range.limit_bytes
    return made


def info(answer: csi.Volume) -> api.VolumeInfo:
    """What the store keeps of a volume that was made."""
    return api.VolumeInfo(
        capacity_bytes=answer.capacity_bytes,
        volume_context=answer.volume_context,
        volume_id=answer.volume_id,
        accessible_topology=[api.Topology(segments=topology.segments) for topology in answer.accessible_topology],
    )


def delete(volume: api.Volume, secrets: Mapping[str, str]) -> csi.DeleteVolumeRequest:
    """Delete it with all that is on it."""
    return csi.DeleteVolumeRequest(volume_id=volume.volume_info.volume_id, secrets=secrets)


def publish(volume: api.Volume, csi_node_id: str, secrets: Mapping[str, str]) -> csi.ControllerPublishVolumeRequest:
    """Make it reachable for a node."""
    return csi.ControllerPublishVolumeRequest(
        volume_id=volume.volume_info.volume_id,
        node_id=csi_node_id,
        volume_capability=capability(volume.spec.access_mode),
        secrets=secrets,
        volume_context=volume.volume_info.volume_context,
    )


def unpublish(volume: api.Volume, csi_node_id: str, secrets: Mapping[str, str]) -> csi.ControllerUnpublishVolumeRequest:
    """Take it back from a node; from all with an empty id."""
    return csi.ControllerUnpublishVolumeRequest(volume_id=volume.volume_info.volume_id, node_id=csi_node_id, secrets=secrets)


def _topologies(topologies: Iterable[api.Topology]) -> list[csi.Topology]:
    return [csi.Topology(segments=topology.segments) for topology in topologies]
