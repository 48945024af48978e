"""Networks: get and list what the store holds (spec/control-api, section 9). Making and removing them needs the network allocator."""

from __future__ import annotations

from typing import NoReturn

from pyswarm.api import v1 as api
from pyswarm.errors import NotFound, Unimplemented
from pyswarm.manager.control import filters
from pyswarm.manager.control.environment import Part, require
from pyswarm.manager.store import View, by
from pyswarm.rpc.caller import Caller


class Networks(Part):
    """The RPCs about networks."""

    async def CreateNetwork(self, _request: api.CreateNetworkRequest, _caller: Caller) -> NoReturn:  # noqa: N802
        """Not there yet. Raises Unimplemented."""
        raise Unimplemented("networks are not supported yet: publish ports in host mode instead of creating a network")

    async def GetNetwork(self, request: api.GetNetworkRequest, _caller: Caller) -> api.GetNetworkResponse:  # noqa: N802
        """One network, by id only. Raises NotFound."""
        require(request.network_id)
        return api.GetNetworkResponse(network=_existing(await self._reading(), request.network_id))

    async def ListNetworks(self, request: api.ListNetworksRequest, _caller: Caller) -> api.ListNetworksResponse:  # noqa: N802
        """The networks that every given filter field matches."""
        store, wanted = await self._reading(), request.filters
        found = filters.all_of(
            store.networks,
            narrow=((wanted.names, by.name), (wanted.name_prefixes, by.name_prefix), (wanted.id_prefixes, by.id_prefix)),
            tests=(
                filters.among(wanted.names, filters.spec_name),
                filters.prefixed(wanted.name_prefixes, filters.spec_name),
                filters.prefixed(wanted.id_prefixes, filters.id_of),
                filters.labelled(wanted.labels, filters.spec_labels),
            ),
        )
        return api.ListNetworksResponse(networks=found)

    async def RemoveNetwork(self, request: api.RemoveNetworkRequest, _caller: Caller) -> NoReturn:  # noqa: N802
        """Not there yet. Raises NotFound, Unimplemented."""
        require(request.network_id)
        _existing(await self._reading(), request.network_id)
        raise Unimplemented(f"networks are not supported yet: network {request.network_id} cannot be removed")


def _existing(view: View, network_id: str) -> api.Network:
    network = view.networks.get(network_id)
    if network is None:
        raise NotFound(f"network {network_id} not found")
    return network
