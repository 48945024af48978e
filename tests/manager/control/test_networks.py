"""Networks: what is accepted, what is refused, what is listed, what can be removed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pyswarm.api import v1 as api
from pyswarm.errors import Code
from pyswarm.manager.allocator import Allocator
from pyswarm.manager.control import ControlService
from pyswarm.manager.control.validate_network import check_network
from pyswarm.manager.store import Store
from tests.manager.control.support import AE, FP, IA, ME, NF, UI, UNK, MembersLog, create, names_of, port, refused, service_spec, with_ports
from tests.support.clock import VirtualClock
from tests.support.loops import write

PD = Code.PERMISSION_DENIED


def spec(name: str = "net", **fields: object) -> api.NetworkSpec:
    """A network spec."""
    return api.NetworkSpec(annotations=api.Annotations(name=name), **fields)  # type: ignore[arg-type]


def with_config(subnet: str = "", gateway: str = "", range_: str = "", **reserved: str) -> api.NetworkSpec:
    """A spec with one IPAM configuration."""
    made = spec()
    made.ipam.configs.add(subnet=subnet, gateway=gateway, range=range_)
    return made


async def made(control: ControlService, network: api.NetworkSpec) -> api.Network:
    """CreateNetwork; the new network."""
    return (await control.CreateNetwork(api.CreateNetworkRequest(spec=network), ME)).network


@pytest.mark.parametrize(
    ("subnet", "gateway", "range_", "message"),
    [
        ("", "", "", "invalid subnet "),
        ("bad", "", "", "invalid subnet bad"),
        ("192.168.0.0", "", "", "invalid subnet 192.168.0.0"),
        ("192.168.0.0/255.255.255.0", "", "", "invalid subnet 192.168.0.0/255.255.255.0"),
        ("192.168.0.0/16", "", "bad", "invalid range bad"),
        ("192.168.0.0/16", "", "192.169.1.0/24", "subnet 192.168.0.0/16 does not contain range 192.169.1.0/24"),
        ("192.168.0.0/24", "", "192.168.0.0/16", "subnet 192.168.0.0/24 does not contain range 192.168.0.0/16"),
        ("192.168.0.0/16", "bad", "", "invalid gateway bad"),
        ("192.168.0.0/16", "192.169.1.1", "", "subnet 192.168.0.0/16 does not contain gateway 192.169.1.1"),
        ("192.168.0.0/16", "2001:db8::1", "", "subnet 192.168.0.0/16 does not contain gateway 2001:db8::1"),
    ],
)
def test_wrong_addresses(subnet: str, gateway: str, range_: str, message: str) -> None:
    """Subnet, range and gateway must be addresses in the right notation that fit into each other. [control 88, 89; scheduling 114]"""
    with refused(IA, f"ipam configuration: {message}", exactly=True):
        check_network(with_config(subnet, gateway, range_))


@pytest.mark.parametrize(
    ("subnet", "gateway", "range_"),
    [
        ("192.168.0.0/16", "", ""),
        ("192.168.0.0/16", "", "192.168.1.0/24"),
        ("192.168.0.0/16", "192.168.1.1", "192.168.1.0/24"),
        ("192.168.0.5/24", "", ""),
        ("2001:db8::/64", "2001:db8::1", ""),
    ],
)
def test_right_addresses(subnet: str, gateway: str, range_: str) -> None:
    """Host bits may be set; both families are fine. [control 88, 89; scheduling 114]"""
    check_network(with_config(subnet, gateway, range_))


def test_reserved_addresses() -> None:
    """An address that is kept for somebody lies in the subnet."""
    network = with_config("10.1.0.0/24")
    network.ipam.configs[0].reserved["10.1.0.9"] = "printer"
    check_network(network)
    network.ipam.configs[0].reserved["10.2.0.9"] = "scanner"
    with refused(IA, "subnet 10.1.0.0/24 does not contain reserved address 10.2.0.9"):
        check_network(network)


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (lambda s: setattr(s, "attachable", True), IA, "ingress network cannot be attachable"),
        (lambda s: setattr(s.driver_config, "name", "bridge"), UI, "only overlay driver is currently supported for ingress network"),
    ],
)
def test_ingress_rules(change: Callable[[api.NetworkSpec], object], code: Code, message: str) -> None:
    """The routing mesh is an overlay that only services use. [control 90, 91]"""
    network = spec(ingress=True)
    change(network)
    with refused(code, message, exactly=True):
        check_network(network)


def test_drivers() -> None:
    """Drivers that Docker Engines have are known; others, and empty names, are refused. [control 91; scheduling 112, 114]"""
    for name in ("overlay", "bridge", "host", "macvlan", "ipvlan"):
        check_network(spec(driver_config=api.Driver(name=name)))
    check_network(spec(ipam=api.IPAMOptions(driver=api.Driver(name="Default"))))
    for wrong in (spec(driver_config=api.Driver(name="nosuch")), spec(ipam=api.IPAMOptions(driver=api.Driver(name="nosuch")))):
        with refused(IA, "plugin nosuch not supported", exactly=True):
            check_network(wrong)
    for wrong in (spec(driver_config=api.Driver()), spec(ipam=api.IPAMOptions(driver=api.Driver()))):
        with refused(IA, "driver name: if driver is specified name is required", exactly=True):
            check_network(wrong)
    with refused(IA, "is no VXLAN id"):
        check_network(
            spec(driver_config=api.Driver(name="overlay", options={"com.docker.network.driver.overlay.vxlanid_list": "16777216"}))
        )


async def test_what_users_may_not_make(control: ControlService) -> None:
    """No predefined networks, no second ingress network, no name twice, no nameless network. [control 90]"""
    for value in ("true", ""):
        wrong = spec()
        wrong.annotations.labels["com.docker.swarm.predefined"] = value
        with refused(PD, "label com.docker.swarm.predefined is for internally created predefined networks"):
            await made(control, wrong)
    with refused(AE, "ingress network (ingress-id) is already present", exactly=True):
        await made(control, spec("other", ingress=True))
    await made(control, spec("twice"))
    with refused(UNK, "name conflicts with an existing object", exactly=True):
        await made(control, spec("TWICE"))
    with refused(IA, "meta: name must be provided"):
        await made(control, spec(""))
    with refused(IA, "invalid argument", exactly=True):
        await control.CreateNetwork(api.CreateNetworkRequest(), ME)


async def test_lists(control: ControlService) -> None:
    """Networks can be read; the ingress network is one of them. [control 92, 95]"""
    first = await made(control, spec("first"))
    await made(control, spec("second"))
    assert names_of((await control.ListNetworks(api.ListNetworksRequest(), ME)).networks) == ["first", "ingress", "second"]
    assert (await control.GetNetwork(api.GetNetworkRequest(network_id=first.id), ME)).network == first
    for name, count in (("ingress", 1), ("INGRESS", 0)):
        request = api.ListNetworksRequest(filters=api.ListNetworksRequest.Filters(names=[name]))
        assert len((await control.ListNetworks(request, ME)).networks) == count
    with refused(IA, "invalid argument", exactly=True):
        await control.GetNetwork(api.GetNetworkRequest(name="ingress"), ME)
    with refused(IA, "invalid argument", exactly=True):
        await control.RemoveNetwork(api.RemoveNetworkRequest(name="ingress"), ME)
    with refused(NF, "network x not found", exactly=True):
        await control.GetNetwork(api.GetNetworkRequest(network_id="x"), ME)
    with refused(NF, "network x not found", exactly=True):
        await control.RemoveNetwork(api.RemoveNetworkRequest(network_id="x"), ME)


async def remove(control: ControlService, network_id: str) -> None:
    """RemoveNetwork."""
    await control.RemoveNetwork(api.RemoveNetworkRequest(network_id=network_id), ME)


async def test_removing_what_services_use(control: ControlService, store: Store) -> None:
    """A network that a service names, in either place, stays, and the service is named. [control 93; scheduling 114]"""
    network = await made(control, spec())
    for old in (False, True):
        used = service_spec()
        (used if old else used.task).networks.add(target=network.id)
        service = await create(control, used)
        with refused(FP, f"network {network.id} is in use by service {service.id}", exactly=True):
            await remove(control, network.id)
        await control.RemoveService(api.RemoveServiceRequest(service_id=service.id), ME)
    await remove(control, network.id)
    assert network.id not in store.networks


async def test_removing_what_tasks_use(control: ControlService, store: Store) -> None:
    """A network that a live attachment is on stays until that has ended. [control 93]"""
    network = await made(control, spec())
    task = api.Task(id="t", desired_state=api.TaskState.RUNNING, status=api.TaskStatus(state=api.TaskState.RUNNING))
    task.spec.attachment.container_id = "c"
    task.spec.networks.add(target=network.id)
    write(store, task)
    with refused(FP, f"network {network.id} is in use by task t", exactly=True):
        await remove(control, network.id)
    task = api.Task(id="t", spec=task.spec, desired_state=api.TaskState.RUNNING, status=api.TaskStatus(state=api.TaskState.SHUTDOWN))
    write(store, task)
    await remove(control, network.id)


async def test_removing_what_the_cluster_needs(control: ControlService, store: Store) -> None:
    """Predefined networks stay; the ingress network goes once nothing is published through it. [control 94]"""
    predefined = spec("bridge", driver_config=api.Driver(name="bridge"))
    predefined.annotations.labels["com.docker.swarm.predefined"] = "true"
    write(store, api.Network(id="b", spec=predefined))
    with refused(FP, "network b (bridge) is a swarm predefined network and cannot be removed", exactly=True):
        await remove(control, "b")
    service = await create(control, with_ports(service_spec(), port()))
    with refused(FP, f"ingress network cannot be removed because service {service.id} depends on it", exactly=True):
        await remove(control, "ingress-id")
    await control.RemoveService(api.RemoveServiceRequest(service_id=service.id), ME)
    await remove(control, "ingress-id")


async def test_what_cannot_be_had_is_refused(store: Store, log: MembersLog, clock: VirtualClock) -> None:
    """A network or service that the allocator could not give what it needs is refused when it is asked for, and nothing is stored."""
    allocator = Allocator()
    control = ControlService(store, log, clock, shortage=allocator.shortage)
    write(store, api.Network(id="tiny", spec=spec("tiny")))
    tiny = store.networks.get("tiny")
    assert tiny is not None
    tiny.spec.ipam.configs.add(subnet="10.1.0.0/29")
    list(allocator.everything(store))
    await store.update(lambda tx: [tx.networks.update(change.obj) for change in allocator.decide(tx, ("network", "tiny"), 0.0).changes])  # type: ignore[arg-type, union-attr]
    list(allocator.everything(store))
    with refused(Code.RESOURCE_EXHAUSTED, "net: subnet 10.0.0.0/8: Pool overlaps with other one on this address space"):
        await made(control, with_config("10.0.0.0/8"))
    on_tiny = service_spec("a")
    on_tiny.task.networks.add(target="tiny")
    await create(control, on_tiny)
    for number in range(5):  # .1 is the gateway, .2 to .6 are left: those are taken now
        task = api.Task(id=f"t{number}", networks=[api.NetworkAttachment(network=tiny, addresses=[f"10.1.0.{number + 2}/29"])])
        write(store, task)
    list(allocator.everything(store))
    for number in range(2):
        other = service_spec(f"b{number}")
        other.task.networks.add(target="tiny")
        with refused(Code.RESOURCE_EXHAUSTED, "no address of 10.1.0.0/29 is free"):
            await create(control, other)
    assert names_of(list(store.services)) == ["a"]
    assert names_of(list(store.networks)) == ["tiny"]
