"""Networks: drivers, subnets, gateways, VXLAN ids."""

from __future__ import annotations

import ipaddress

import pytest

from pyswarm.api import v1 as api
from pyswarm.manager.store import Kind, copy_of
from tests.support.allocation import VNIS, Office, allocated, network, port, service, task


def subnets(at: Office, network_id: str) -> list[tuple[str, str]]:
    """Subnet and gateway of each configuration of a network."""
    return [(config.subnet, config.gateway) for config in at.network(network_id).ipam.configs]


def vnis(at: Office, network_id: str) -> str:
    """The VXLAN ids of a network."""
    return at.network(network_id).driver_state.options[VNIS]


def test_a_cluster_as_it_begins() -> None:
    """Each network has a subnet with a gateway, each task an address on each of its networks and its service's endpoint. [scheduling 96]"""
    web = service("web", port(80), port(0, 443), networks=["back"])
    at = Office(network("ingress", ingress=True), network("back"), web, task("t1", web), task("t2", web))
    at.settle()
    for network_id in ("ingress", "back"):
        [(subnet, gateway)] = subnets(at, network_id)
        assert ipaddress.ip_address(gateway) in ipaddress.ip_network(subnet)
    for task_id in ("t1", "t2"):
        made = at.task(task_id)
        assert (made.status.message, made.status.timestamp.seconds, made.status.err) == ("pending task scheduling", 1, "")
        assert [a.network.id for a in made.networks] == ["ingress", "back"]
        for attachment in made.networks:
            [text] = attachment.addresses
            assert str(ipaddress.ip_interface(text).network) == attachment.network.ipam.configs[0].subnet
        assert at.is_pending(task_id)
        assert made.endpoint == at.service("web").endpoint
    assert [vip.network_id for vip in at.service("web").endpoint.virtual_ips] == ["ingress", "back"]


def test_networks_of_the_nodes() -> None:
    """Where each node has a network of its own, there is an IPAM object, but nothing to give out. [scheduling 97]"""
    lan = network("lan", driver="macvlan")
    lan.spec.driver_config.options["parent"] = "eth0"
    bridge = network("bridge", driver="bridge")
    bridge.spec.annotations.labels["com.docker.swarm.predefined"] = "true"
    web = service("web", networks=["bridge", "lan"])
    at = Office(bridge, lan, web, task("t", web, node="n1"), api.Node(id="n1"))
    at.settle()
    for network_id, driver in (("bridge", "bridge"), ("lan", "macvlan")):
        made = at.network(network_id)
        assert made.driver_state.name == driver
        assert made.ipam == api.IPAMOptions(driver=api.Driver())
    assert at.network("lan").driver_state.options["parent"] == "eth0"
    assert at.is_pending("t")
    assert [(a.network.id, list(a.addresses)) for a in at.task("t").networks] == [("bridge", []), ("lan", [])]
    assert [(vip.network_id, vip.addr) for vip in at.service("web").endpoint.virtual_ips] == [("bridge", ""), ("lan", "")]
    assert not at.node("n1").attachments


def test_what_comes_later() -> None:
    """Networks, services and tasks that come later get what they need; what has it is not written again. [scheduling 98]"""
    at = Office(network("ingress", ingress=True))
    at.put(network("net"))
    at.put(service("web", networks=["net"]))
    at.put(task("t", at.service("web")), task("alone"))
    assert at.is_pending("t")
    assert at.is_pending("alone")
    before = at.writes
    for obj in (at.task("t"), at.network("net"), at.service("web")):
        at.put(obj)
    assert at.writes == before


def test_a_task_before_its_network() -> None:
    """A task, or a service, whose network does not exist yet waits, says so, and goes on once it does. [scheduling 99]"""
    at = Office(service("web", networks=["net"]))
    at.put(task("t", at.service("web")), task("alone", networks=["net"]))
    for task_id in ("t", "alone"):
        assert not at.is_pending(task_id)
        assert at.task(task_id).status.err == "network net not found"
    at.put(network("net"))
    for task_id in ("t", "alone"):
        assert at.is_pending(task_id)
        assert at.task(task_id).status.err == ""
        assert len(at.addresses(task_id)) == 1


def test_one_vxlan_id_wanted_twice() -> None:
    """The second network with the same fixed id waits for the first to go, and its tasks wait with it. [scheduling 100]"""
    first, second = network("a", driver="overlay"), network("b", driver="overlay")
    for made in (first, second):
        made.spec.driver_config.options[VNIS] = "328"
    at = Office(first)
    at.put(second)
    at.put(task("t", networks=["b"]))
    assert vnis(at, "a") == "328"
    assert not at.network("b").HasField("driver_state")
    assert at.task("t").status.err == "VXLAN id 328 is used by another network: choose another, or none"
    at.delete((Kind.NETWORK, "a"))
    assert vnis(at, "b") == "328"
    assert at.is_pending("t")


def test_default_subnets() -> None:
    """A network without wishes gets the lowest free /24 of 10.0.0.0/8, its first address as gateway, and the next VXLAN id.

    [scheduling 112]
    """
    at = Office(network("a", subnets=["10.0.1.0/26"]))
    for network_id in ("b", "c"):
        at.put(network(network_id))
    assert [subnets(at, n) for n in "abc"] == [[("10.0.1.0/26", "10.0.1.1")], [("10.0.0.0/24", "10.0.0.1")], [("10.0.2.0/24", "10.0.2.1")]]
    assert [vnis(at, n) for n in "abc"] == ["4096", "4097", "4098"]
    assert at.network("b").ipam.configs[0].family == api.IPAMConfig.IPV4
    assert at.network("b").ipam.driver.name == "default"
    before = [at.network(n) for n in "abc"]
    other = Office(*(copy_of(n) for n in reversed(before)))
    assert other.settle() == 0
    other.put(network("d"))
    assert subnets(other, "d") == [("10.0.3.0/24", "10.0.3.1")]
    at.delete((Kind.NETWORK, "b"))
    at.put(network("e"))
    assert (subnets(at, "e"), vnis(at, "e")) == ([("10.0.0.0/24", "10.0.0.1")], "4099")


def test_pools_of_the_cluster() -> None:
    """Default subnets come from the cluster's own pools, in its size; when they are used up, a network waits and tasks say why."""
    cluster = api.Cluster(id="c", defaultAddressPool=["10.20.0.0/23", "10.30.0.0/24"], subnetSize=24)
    at = Office(cluster, *(network(f"n{i}") for i in range(3)))
    at.settle()
    assert [subnets(at, f"n{i}")[0][0] for i in range(3)] == ["10.20.0.0/24", "10.20.1.0/24", "10.30.0.0/24"]
    at.put(network("n3"), task("t", networks=["n3"]))
    assert "the default address pools have no free subnet" in at.task("t").status.err
    at.delete((Kind.NETWORK, "n1"))
    assert subnets(at, "n3") == [("10.20.1.0/24", "10.20.1.1")]
    assert at.is_pending("t")


def test_wishes() -> None:
    """Subnet, gateway, range, kept addresses and options are as asked for; each subnet has its gateway, each IPv4 one its VXLAN id.

    [scheduling 112]
    """
    made = network("a", driver="overlay", subnets=["10.1.2.3/16", "10.2.0.0/32", "fd00:1::/64"])
    made.spec.driver_config.options.update({"x": "y", VNIS: "9"})
    made.spec.ipam.driver.CopyFrom(api.Driver(name="default", options={"k": "v"}))
    made.spec.ipam.configs[0].gateway = "10.1.255.254"
    made.spec.ipam.configs[0].range = "10.1.5.0/29"
    made.spec.ipam.configs[0].reserved["10.1.5.1"] = "printer"
    at = Office(made, task("t", networks=["a"]))
    at.settle()
    assert subnets(at, "a") == [("10.1.0.0/16", "10.1.255.254"), ("10.2.0.0/32", "10.2.0.0"), ("fd00:1::/64", "fd00:1::1")]
    assert [c.family for c in at.network("a").ipam.configs] == [4, 4, 6]
    assert dict(at.network("a").driver_state.options) == {"x": "y", VNIS: "9,4096"}
    assert dict(at.network("a").ipam.driver.options) == {"k": "v"}
    assert at.addresses("t") == ["10.1.5.0"]
    at.put(task("t2", networks=["a"]))
    assert at.addresses("t2") == ["10.1.5.2"]


@pytest.mark.parametrize(
    ("subnet", "gateway", "reason"),
    [
        ("10.1.0.0/24", "10.2.0.1", "could not find an available IP: 10.2.0.1 lies in no subnet of the network"),
        ("10.0.0.0/8", "", "Pool overlaps with other one on this address space"),
        ("10.9.0.0/24", "", "Pool overlaps with other one on this address space"),
        ("10.9.0.0/26", "", "Pool overlaps with other one on this address space"),
        ("fd00:1::/64", "", "an overlay network needs an IPv4 subnet"),
    ],
)
def test_what_cannot_be(subnet: str, gateway: str, reason: str) -> None:
    """A network that asks for what is not there gets nothing at all, and who waits for it is told. [scheduling 112]"""
    made = network("b", subnets=[subnet])
    made.spec.ipam.configs[0].gateway = gateway
    at = Office(network("a", subnets=["10.9.0.0/24"]))
    at.put(made, task("t", networks=["b"]))
    assert not at.network("b").HasField("ipam")
    assert reason in at.task("t").status.err
    at.put(network("c"))
    assert (subnets(at, "c"), vnis(at, "c")) == ([("10.0.0.0/24", "10.0.0.1")], "4097")


def test_one_subnet_in_two_parts() -> None:
    """Two networks may share a subnet if they give out different parts of it; no address is given out twice even then."""
    first, second, third = (network(n, subnets=["10.9.0.0/24"]) for n in "abc")
    first.spec.ipam.configs[0].range, second.spec.ipam.configs[0].range = "10.9.0.0/28", "10.9.0.16/28"
    at = Office(first, second)
    at.settle()
    assert [gateway for n in "ab" for _, gateway in subnets(at, n)] == ["10.9.0.1", "10.9.0.16"]
    at.put(third)
    assert not at.network("c").HasField("ipam")
    at.put(*(task(f"a{n}", networks=["a"]) for n in range(20)), *(task(f"b{n}", networks=["b"]) for n in range(20)))
    given = [plain for letter in "ab" for n in range(20) for plain in at.addresses(f"{letter}{n}")]
    assert len(given) == len(set(given)) == 14 + 15


def test_a_network_twice() -> None:
    """What was given back can be had again; looking at an allocated network again changes nothing. [scheduling 112]"""
    at = Office(network("a", subnets=["10.9.0.0/24"]))
    at.settle()
    at.lead()
    assert at.settle() == 0
    at.delete((Kind.NETWORK, "a"))
    at.put(network("b", subnets=["10.9.0.0/24"]))
    assert subnets(at, "b") == [("10.9.0.0/24", "10.9.0.1")]


def test_a_second_ingress_network() -> None:
    """Of two ingress networks, which the control API never makes, one is used and the other left alone."""
    at = Office(allocated("b", "10.0.0.0/24", "10.0.0.1", 4096, ingress=True), network("a", ingress=True), api.Node(id="n"))
    at.settle()
    assert not at.network("a").HasField("driver_state")
    assert list(at.attached("n")) == ["b"]
    at.delete((Kind.NETWORK, "b"))
    assert at.network("a").HasField("driver_state")
    assert list(at.attached("n")) == ["a"]
