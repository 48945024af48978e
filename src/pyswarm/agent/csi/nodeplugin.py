"""The node service of one storage plugin."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pyswarm.api import v1 as api
from pyswarm.api.csi import csi_pb2 as csi
from pyswarm.csi.access import capability
from pyswarm.csi.connection import Connection
from pyswarm.errors import FailedPrecondition, InvalidArgument

INFO_SECONDS = 5.0


class NodePlugin:
    """Asks the plugin, after it has said once what it can do. Every method raises SwarmError; all may be called again.

    It knows which volumes this life of the daemon staged and published, to refuse what would be out of order.
    """

    def __init__(self, connection: Connection, directory: Path) -> None:
        """Volumes are staged at `<directory>/staged/<id>` and published at `<directory>/published/<id>`, by their swarm ids."""
        self._connection = connection
        self._directory = directory
        self._stages: bool | None = None
        self._staged: set[str] = set()
        self._published: set[str] = set()

    async def info(self) -> api.NodeCSIInfo:
        """Who this node is for the plugin, how many volumes it can have, and where it is."""
        request = csi.NodeGetInfoRequest()
        answer: csi.NodeGetInfoResponse = await self._connection.ask(self._connection.node.NodeGetInfo, request, seconds=INFO_SECONDS)
        place = api.Topology(segments=answer.accessible_topology.segments) if answer.HasField("accessible_topology") else None
        return api.NodeCSIInfo(
            plugin_name=self._connection.name,
            node_id=answer.node_id,
            max_volumes_per_node=answer.max_volumes_per_node,
            accessible_topology=place,
        )

    async def stage(self, assignment: api.VolumeAssignment, secrets: Mapping[str, str]) -> None:
        """Make the volume ready on this node; nothing to do for plugins that need no such step."""
        _check(assignment)
        if not await self._needs_staging():
            return
        request = csi.NodeStageVolumeRequest(
            volume_id=assignment.volume_id,
            publish_context=assignment.publish_context,
            staging_target_path=str(self._staging(assignment)),
            volume_capability=capability(assignment.access_mode),
            secrets=secrets,
            volume_context=assignment.volume_context,
        )
        await self._connection.ask(self._connection.node.NodeStageVolume, request, hide=secrets.values())
        self._staged.add(assignment.id)

    async def publish(self, assignment: api.VolumeAssignment, secrets: Mapping[str, str]) -> None:
        """Mount the volume where tasks find it. Raises FailedPrecondition when it has to be staged first."""
        _check(assignment)
        staging = ""
        if await self._needs_staging():
            if assignment.id not in self._staged:
                raise FailedPrecondition("volume requires staging but was not staged")
            staging = str(self._staging(assignment))
        request = csi.NodePublishVolumeRequest(
            volume_id=assignment.volume_id,
            publish_context=assignment.publish_context,
            staging_target_path=staging,
            target_path=str(published_path(self._directory, assignment.id)),
            volume_capability=capability(assignment.access_mode),
            readonly=assignment.access_mode.sharing == api.VolumeAccessMode.READ_ONLY,
            secrets=secrets,
            volume_context=assignment.volume_context,
        )
        await self._connection.ask(self._connection.node.NodePublishVolume, request, hide=secrets.values())
        self._published.add(assignment.id)

    async def unpublish(self, assignment: api.VolumeAssignment) -> None:
        """Unmount the volume; fine when it is not mounted, or was by an earlier life of the daemon."""
        target = str(published_path(self._directory, assignment.id))
        request = csi.NodeUnpublishVolumeRequest(volume_id=assignment.volume_id, target_path=target)
        await self._connection.ask(self._connection.node.NodeUnpublishVolume, request)
        self._published.discard(assignment.id)

    async def unstage(self, assignment: api.VolumeAssignment) -> None:
        """Undo `stage`, of an earlier life too. Raises FailedPrecondition while the volume is mounted."""
        if assignment.id in self._published:
            raise FailedPrecondition(f"Volume {assignment.id} is not unpublished")
        if await self._needs_staging():
            staging = str(self._staging(assignment))
            request = csi.NodeUnstageVolumeRequest(volume_id=assignment.volume_id, staging_target_path=staging)
            await self._connection.ask(self._connection.node.NodeUnstageVolume, request)
        self._staged.discard(assignment.id)

    async def _needs_staging(self) -> bool:
        if self._stages is None:
            await self._connection.probe()
            request = csi.NodeGetCapabilitiesRequest()
            answer: csi.NodeGetCapabilitiesResponse = await self._connection.ask(self._connection.node.NodeGetCapabilities, request)
            wanted = csi.NodeServiceCapability.RPC.STAGE_UNSTAGE_VOLUME
            self._stages = any(c.rpc.type == wanted for c in answer.capabilities)
        return self._stages

    def _staging(self, assignment: api.VolumeAssignment) -> Path:
        return staging_path(self._directory, assignment.id)


def staging_path(directory: Path, volume_id: str) -> Path:
    """Where a plugin keeps what it needs of a volume on this node."""
    return directory / "staged" / volume_id


def published_path(directory: Path, volume_id: str) -> Path:
    """Where tasks find a volume."""
    return directory / "published" / volume_id


def _check(assignment: api.VolumeAssignment) -> None:
    if not assignment.volume_id:
        raise InvalidArgument("Volume ID missing in request")
    if not assignment.HasField("access_mode"):
        raise InvalidArgument("AccessMode missing in request")
