"""What today's manager cannot carry out is refused, naming the field; what the store holds of it can be read."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pyswarm.api import v1 as api
from pyswarm.api.swarmkit import control_pb2
from pyswarm.manager.control import ControlService
from pyswarm.manager.store import Store
from pyswarm.rpc.binder import bind
from tests.manager.control.support import IA, ME, NF, UI, create, names_of, port, refused, service_spec, update, with_ports
from tests.support.loops import write


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda s: s.task.networks.add(target="n"), "TaskSpec.networks"),
        (lambda s: s.networks.add(target="n"), "TaskSpec.networks"),
        (lambda s: with_ports(s, port(8080)), "EndpointSpec.ports: port 8080"),
        (lambda s: with_ports(s, port(target=81)), "EndpointSpec.ports: port 81"),
    ],
)
async def test_services(
    today: ControlService, control: ControlService, store: Store, change: Callable[[api.ServiceSpec], object], field: str
) -> None:
    """A service that would never run as asked is refused on create, stored nowhere, and accepted once the part exists."""
    spec = service_spec()
    change(spec)
    with refused(UI, field):
        await create(today, spec)
    assert len(store.services) == 0
    await create(control, spec)


async def test_updates(today: ControlService) -> None:
    """Updates are judged like new services; host ports are fine."""
    spec = with_ports(service_spec(), port(8080, mode=api.PortConfig.HOST))
    service = await create(today, spec)
    with refused(UI, "host mode"):
        await update(today, service, with_ports(service_spec(), port(8080)))
    await update(today, service, service_spec(replicas=2))


async def test_networks(today: ControlService, store: Store) -> None:
    """Networks can be read, not made. [control 92 in part, 95]"""
    write(store, api.Network(id="n1", spec=api.NetworkSpec(annotations=api.Annotations(name="ingress"), ingress=True)))
    assert (await today.GetNetwork(api.GetNetworkRequest(network_id="n1"), ME)).network.id == "n1"
    assert names_of((await today.ListNetworks(api.ListNetworksRequest(), ME)).networks) == ["ingress"]
    for name, count in (("ingress", 1), ("INGRESS", 0)):
        request = api.ListNetworksRequest(filters=api.ListNetworksRequest.Filters(names=[name]))
        assert len((await today.ListNetworks(request, ME)).networks) == count
    with refused(IA, "invalid argument", exactly=True):
        await today.GetNetwork(api.GetNetworkRequest(name="ingress"), ME)
    with refused(IA, "invalid argument", exactly=True):
        await today.RemoveNetwork(api.RemoveNetworkRequest(name="ingress"), ME)
    with refused(NF, "network x not found", exactly=True):
        await today.GetNetwork(api.GetNetworkRequest(network_id="x"), ME)
    with refused(UI, "networks are not supported yet"):
        await today.CreateNetwork(api.CreateNetworkRequest(), ME)
    with refused(UI, "networks are not supported yet"):
        await today.RemoveNetwork(api.RemoveNetworkRequest(network_id="n1"), ME)


async def test_every_method_answers(today: ControlService) -> None:
    """Every RPC of the service is there and answers an empty request with a status, never a crash. [control 35]"""
    service = control_pb2.DESCRIPTOR.services_by_name["Control"]
    bind(service, today)
    for method in service.methods:
        request = getattr(api, method.input_type.name)()
        answer = getattr(today, method.name)(request, ME)
        if method.name.startswith("List"):
            assert await answer == getattr(api, method.output_type.name)()
        else:
            with pytest.raises(Exception, match=r".") as caught:
                await answer
            assert caught.value.code in {IA, NF, UI}  # type: ignore[attr-defined]
