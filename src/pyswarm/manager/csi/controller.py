"""The controller service of one storage plugin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pyswarm.api import v1 as api
from pyswarm.api.csi import csi_pb2 as csi
from pyswarm.csi.connection import Connection
from pyswarm.errors import Internal
from pyswarm.manager.csi import requests

_RPC = csi.ControllerServiceCapability.RPC


@dataclass(frozen=True, slots=True)
class Abilities:
    """What the plugin's controller can do. One that cannot make volumes serves those that are there, by their names."""

    makes: bool
    publishes: bool


class Controller:
    """Asks the plugin, after it has said once what it can do. What it cannot do succeeds without a call. Every method raises SwarmError."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._abilities: Abilities | None = None

    async def create(self, volume: api.Volume, secrets: Mapping[str, str]) -> api.VolumeInfo:
        """Make the volume; again for one that is there already."""
        if not (await self._able()).makes:
            return api.VolumeInfo(volume_id=volume.spec.annotations.name)
        request = requests.create(volume, secrets)
        answer = await self._connection.ask(self._connection.controller.CreateVolume, request, hide=secrets.values())
        if not answer.volume.volume_id:
            raise Internal(f"plugin {self._connection.name} gave volume {volume.spec.annotations.name} no id")
        return requests.info(answer.volume)

    async def delete(self, volume: api.Volume, secrets: Mapping[str, str]) -> None:
        """Delete the volume; fine when it is gone."""
        if (await self._able()).makes:
            request = requests.delete(volume, secrets)
            await self._connection.ask(self._connection.controller.DeleteVolume, request, hide=secrets.values())

    async def publishes(self) -> bool:
        """Whether nodes have to be told to the plugin at all."""
        return (await self._able()).publishes

    async def publish(self, volume: api.Volume, csi_node_id: str, secrets: Mapping[str, str]) -> dict[str, str]:
        """Make the volume reachable for a node; what the node needs to know about it."""
        request = requests.publish(volume, csi_node_id, secrets)
        call = self._connection.controller.ControllerPublishVolume
        answer: csi.ControllerPublishVolumeResponse = await self._connection.ask(call, request, hide=secrets.values())
        return dict(answer.publish_context)

    async def unpublish(self, volume: api.Volume, csi_node_id: str, secrets: Mapping[str, str]) -> None:
        """Take the volume back from a node, or from all with an empty id."""
        request = requests.unpublish(volume, csi_node_id, secrets)
        await self._connection.ask(self._connection.controller.ControllerUnpublishVolume, request, hide=secrets.values())

    async def _able(self) -> Abilities:
        if self._abilities is None:
            await self._connection.probe()
            self._abilities = await self._ask_abilities()
        return self._abilities

    async def _ask_abilities(self) -> Abilities:
        ask, stub = self._connection.ask, self._connection
        offered: csi.GetPluginCapabilitiesResponse = await ask(stub.identity.GetPluginCapabilities, csi.GetPluginCapabilitiesRequest())
        if not any(c.service.type == csi.PluginCapability.Service.CONTROLLER_SERVICE for c in offered.capabilities):
            return Abilities(makes=False, publishes=False)
        can: csi.ControllerGetCapabilitiesResponse = await ask(
            stub.controller.ControllerGetCapabilities, csi.ControllerGetCapabilitiesRequest()
        )
        kinds = {capability.rpc.type for capability in can.capabilities}
        return Abilities(makes=_RPC.CREATE_DELETE_VOLUME in kinds, publishes=_RPC.PUBLISH_UNPUBLISH_VOLUME in kinds)
