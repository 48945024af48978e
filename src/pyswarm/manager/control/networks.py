"""Networks: create, get, list, remove (spec/control-api, section 9). A network is never changed."""

from __future__ import annotations

from pyswarm.api import defaults
from pyswarm.api import v1 as api
from pyswarm.errors import AlreadyExists, FailedPrecondition, NotFound
from pyswarm.manager.allocator import is_ingress, uses_ingress
from pyswarm.manager.control import filters
from pyswarm.manager.control.environment import Part, require
from pyswarm.manager.control.validate_network import check_network
from pyswarm.manager.store import Tx, View, by
from pyswarm.rpc.caller import Caller


class Networks(Part):
    """The RPCs about networks."""

    async def CreateNetwork(self, request: api.CreateNetworkRequest, _caller: Caller) -> api.CreateNetworkResponse:  # noqa: N802
        """Store a new network as it was sent; the allocator gives it its subnets.

        Raises AlreadyExists for a second ingress network, NameConflict, what the checks raise, and ResourceExhausted for what another
        network has already: unlike with the reference no network is stored that could never be used.
        """
        require(request.HasField("spec"))
        check_network(request.spec)
        network = api.Network(id=self._env.new_id(), spec=request.spec)

        def create(tx: Tx) -> api.Network:
            if network.spec.ingress and (other := _ingress(tx)) is not None:
                raise AlreadyExists(f"ingress network ({other.id}) is already present")
            stored = tx.networks.create(network)
            self._check_room(tx, network)
            return stored

        return api.CreateNetworkResponse(network=await self._env.store.update(create))

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

    async def RemoveNetwork(self, request: api.RemoveNetworkRequest, _caller: Caller) -> api.RemoveNetworkResponse:  # noqa: N802
        """Delete a network that nothing uses. Raises NotFound; FailedPrecondition naming a user."""
        require(request.network_id)

        def remove(tx: Tx) -> None:
            network = _existing(tx, request.network_id)
            name = network.spec.annotations.name
            if network.spec.annotations.labels.get(defaults.PREDEFINED_LABEL) == "true":
                raise FailedPrecondition(f"network {network.id} ({name}) is a swarm predefined network and cannot be removed")
            if is_ingress(network):
                _check_ingress_unused(tx)
            else:
                _check_unused(tx, network.id)
            tx.networks.delete(network.id)

        await self._env.store.update(remove)
        return api.RemoveNetworkResponse()


def _ingress(view: View) -> api.Network | None:
    return next((network for network in view.networks if is_ingress(network)), None)


def _check_ingress_unused(view: View) -> None:
    for service in sorted(view.services, key=lambda s: s.id):
        if uses_ingress(service.spec):
            raise FailedPrecondition(f"ingress network cannot be removed because service {service.id} depends on it")


def _check_unused(view: View, network_id: str) -> None:
    for service in view.services.find(by.network(network_id)):
        raise FailedPrecondition(f"network {network_id} is in use by service {service.id}")
    for task in view.tasks.find(by.network(network_id)):
        if task.desired_state <= api.TaskState.RUNNING and task.status.state <= api.TaskState.RUNNING:
            raise FailedPrecondition(f"network {network_id} is in use by task {task.id}")


def _existing(view: View, network_id: str) -> api.Network:
    network = view.networks.get(network_id)
    if network is None:
        raise NotFound(f"network {network_id} not found")
    return network
