"""Cluster volumes: get and list what the store holds (spec/control-api, section 14). Making and removing them needs the volume manager."""

from __future__ import annotations

from typing import NoReturn

from pyswarm.api import v1 as api
from pyswarm.errors import NotFound, Unimplemented
from pyswarm.manager.control import filters
from pyswarm.manager.control.environment import Part
from pyswarm.manager.store import View, by
from pyswarm.rpc.caller import Caller


class Volumes(Part):
    """The RPCs about cluster volumes."""

    async def CreateVolume(self, _request: api.CreateVolumeRequest, _caller: Caller) -> NoReturn:  # noqa: N802
        """Not there yet. Raises Unimplemented."""
        raise Unimplemented("cluster volumes are not supported yet: use a bind, volume or tmpfs mount of the service instead")

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

    async def UpdateVolume(self, request: api.UpdateVolumeRequest, _caller: Caller) -> NoReturn:  # noqa: N802
        """Not there yet. Raises NotFound, Unimplemented."""
        _existing(await self._reading(), request.volume_id)
        raise Unimplemented(f"cluster volumes are not supported yet: volume {request.volume_id} cannot be changed")

    async def RemoveVolume(self, request: api.RemoveVolumeRequest, _caller: Caller) -> NoReturn:  # noqa: N802
        """Not there yet. Raises NotFound, Unimplemented."""
        _existing(await self._reading(), request.volume_id)
        raise Unimplemented(f"cluster volumes are not supported yet: volume {request.volume_id} cannot be removed")


def _existing(view: View, volume_id: str) -> api.Volume:
    volume = view.volumes.get(volume_id)
    if volume is None:
        raise NotFound(f"volume {volume_id} not found")
    return volume
