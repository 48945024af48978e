"""Cluster volumes: create, get, list, update, remove (spec/control-api, section 14). What plugins do about it: `manager.csi`."""

from __future__ import annotations

from pyswarm.api import v1 as api
from pyswarm.errors import FailedPrecondition, NotFound
from pyswarm.manager.control import filters, validate_volume
from pyswarm.manager.control.environment import Part, require
from pyswarm.manager.store import Tx, View, by, copy_of
from pyswarm.rpc.caller import Caller


class Volumes(Part):
    """The RPCs about cluster volumes."""

    async def CreateVolume(self, request: api.CreateVolumeRequest, _caller: Caller) -> api.CreateVolumeResponse:  # noqa: N802
        """Store a volume; it is made soon after. Raises InvalidArgument, and NameConflict for a taken name."""
        require(request.HasField("spec"), "spec must not be nil")
        validate_volume.check(request.spec)
        volume = api.Volume(id=self._env.new_id(), spec=request.spec)

        def create(tx: Tx) -> api.Volume:
            validate_volume.check_secrets(tx, request.spec)
            return tx.volumes.create(volume)

        return api.CreateVolumeResponse(volume=await self._env.store.update(create))

    async def GetVolume(self, request: api.GetVolumeRequest, _caller: Caller) -> api.GetVolumeResponse:  # noqa: N802
        """One volume. Raises NotFound, for an empty id too."""
        return api.GetVolumeResponse(volume=_existing(await self._reading(), request.volume_id))

    async def ListVolumes(self, request: api.ListVolumesRequest, _caller: Caller) -> api.ListVolumesResponse:  # noqa: N802
        """The volumes that every given filter field matches."""
        store, wanted = await self._reading(), request.filters
        found = filters.all_of(
            store.volumes,
            narrow=(
                (wanted.names, by.name),
                (wanted.id_prefixes, by.id_prefix),
                (wanted.groups, by.group),
                (wanted.drivers, by.driver),
                (wanted.name_prefixes, by.name_prefix),
            ),
            tests=(
                filters.among(wanted.names, filters.spec_name),
                filters.prefixed(wanted.name_prefixes, filters.spec_name),
                filters.prefixed(wanted.id_prefixes, filters.id_of),
                filters.labelled(wanted.labels, filters.spec_labels),
                filters.among(wanted.groups, lambda volume: volume.spec.group),
                filters.among(wanted.drivers, lambda volume: volume.spec.driver.name),
            ),
        )
        return api.ListVolumesResponse(volumes=found)

    async def UpdateVolume(self, request: api.UpdateVolumeRequest, _caller: Caller) -> api.UpdateVolumeResponse:  # noqa: N802
        """Change labels and availability, nothing else. Raises NotFound, InvalidArgument, SequenceConflict."""
        require(request.volume_id, "VolumeID must not be empty")
        require(request.HasField("spec"), "Spec must not be empty")
        require(request.HasField("volume_version"), "VolumeVersion must not be empty")

        def update(tx: Tx) -> api.Volume:
            volume = copy_of(_existing(tx, request.volume_id))
            validate_volume.check_unchanged(volume.spec, request.spec)
            volume.meta.version.index = request.volume_version.index
            volume.spec.annotations.labels.clear()
            volume.spec.annotations.labels.update(request.spec.annotations.labels)
            volume.spec.availability = request.spec.availability
            return tx.volumes.update(volume)

        return api.UpdateVolumeResponse(volume=await self._env.store.update(update))

    async def RemoveVolume(self, request: api.RemoveVolumeRequest, _caller: Caller) -> api.RemoveVolumeResponse:  # noqa: N802
        """Have a volume deleted that no node has; `force` forgets any volume at once, without a word to its plugin.

        Raises NotFound, FailedPrecondition.
        """

        def remove(tx: Tx) -> None:
            volume = _existing(tx, request.volume_id)
            if request.force:
                tx.volumes.delete(volume.id)
                return
            if volume.publish_status:
                raise FailedPrecondition("volume is still in use")
            if not volume.pending_delete:
                leaving = copy_of(volume)
                leaving.pending_delete = True
                tx.volumes.update(leaving)

        await self._env.store.update(remove)
        return api.RemoveVolumeResponse()


def _existing(view: View, volume_id: str) -> api.Volume:
    volume = view.volumes.get(volume_id)
    if volume is None:
        raise NotFound(f"volume {volume_id} not found")
    return volume
