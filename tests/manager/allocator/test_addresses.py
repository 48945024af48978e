"""Virtual addresses of services, addresses of tasks and of nodes."""

from __future__ import annotations

import pytest

from pyswarm.api import v1 as api
from pyswarm.manager.changes import Delete
from pyswarm.manager.store import Kind, copy_of
from tests.support.allocation import Office, S, allocated, network, port, service, task

# --- services


def on(at: Office, service_id: str, *networks: str) -> api.Service:
    """The stored service with other networks."""
    made = copy_of(at.service(service_id))
    del made.spec.task.networks[:]
    made.spec.task.networks.extend(api.NetworkAttachmentConfig(target=n) for n in networks)
    return made


def test_virtual_addresses_follow_the_networks() -> None:
    """A service has one virtual address per network; what it keeps stays as it is, and each change is written once. [scheduling 110]"""
    at = Office(network("a"), network("b"), service("s", networks=["a"]))
    at.settle()
    [first] = at.vips("s")
    for networks, count in ((("a", "b"), 2), (("a",), 1), ((), 0), (("b",), 1), (("b", "a"), 2)):
        before = at.writes
        at.put(on(at, "s", *networks))
        assert at.writes == before + 1
        assert sorted(vip.network_id for vip in at.service("s").endpoint.virtual_ips) == sorted(networks)
        assert len(set(at.vips("s"))) == count
        assert ("a" in networks) <= (first in at.vips("s")) or networks == ("b", "a")


def test_an_endpoint_spec_that_goes() -> None:
    """Without endpoint spec a service has no ports and no address on the ingress network; on its own network it stays reachable.

    [scheduling 102 in part]
    """
    at = Office(network("ingress", ingress=True), network("a"), service("s", port(80), networks=["a"]))
    at.settle()
    before = {vip.network_id: vip.addr for vip in at.service("s").endpoint.virtual_ips}
    made = copy_of(at.service("s"))
    made.spec.ClearField("endpoint")
    at.put(made)
    endpoint = at.service("s").endpoint
    assert not endpoint.ports
    assert not endpoint.HasField("spec")
    assert [(vip.network_id, vip.addr) for vip in endpoint.virtual_ips] == [("a", before["a"])]


def test_dns_round_robin() -> None:
    """A service whose name stands for its tasks has no virtual address; it gives back the ones it had."""
    at = Office(network("a"), service("s", networks=["a"]))
    at.settle()
    [first] = at.vips("s")
    made = copy_of(at.service("s"))
    made.spec.endpoint.mode = api.EndpointSpec.DNSRR
    at.put(made)
    assert at.vips("s") == []
    at.put(task("t", at.service("s")), task("u", networks=["a"]))
    assert at.task("t").endpoint.spec.mode == api.EndpointSpec.DNSRR
    wish = task("w")
    wish.spec.networks.add(target="a", addresses=[first])
    at.put(wish)
    assert at.addresses("w") == [first]


# --- tasks


def test_a_fresh_allocator_each_time() -> None:
    """A hundred tasks, each allocated by another leader, have a hundred addresses. [scheduling 103]"""
    at = Office(network("a"))
    at.settle()
    for number in range(100):
        at.store_only(task(f"t{number}", networks=["a"]))
        at.lead()
        at.settle()
    assert len({at.addresses(f"t{n}")[0] for n in range(100)}) == 100


def with_vip(service_id: str, network_id: str, addr: str, *, endpoint: bool = True) -> api.Service:
    """A service that an earlier leader gave a virtual address."""
    made = service(service_id, networks=() if network_id == "ingress" else [network_id], endpoint=endpoint)
    if network_id == "ingress":
        made.spec.endpoint.ports.append(port(8000 + int(addr[-1]), 80))
        made.endpoint.ports.extend(made.spec.endpoint.ports)
    if endpoint:
        made.endpoint.spec.CopyFrom(made.spec.endpoint)
    made.endpoint.virtual_ips.add(network_id=network_id, addr=f"{addr}/24")
    return made


def test_tasks_beside_old_services() -> None:
    """New tasks get none of the virtual addresses that services have from before. [scheduling 104]"""
    services = [with_vip(f"s{n}", "ingress", f"10.0.0.{n}") for n in (2, 3, 4)]
    at = Office(allocated("ingress", "10.0.0.0/24", "10.0.0.1", 4096, ingress=True), *services)
    at.store_only(*(task(f"t{n}", services[n]) for n in range(3)))
    at.lead()
    at.settle()
    assert sorted(address for n in range(3) for address in at.addresses(f"t{n}")) == ["10.0.0.5", "10.0.0.6", "10.0.0.7"]
    assert [at.vips(made.id) for made in services] == [["10.0.0.2"], ["10.0.0.3"], ["10.0.0.4"]]


def test_gaps_between_old_addresses() -> None:
    """A new leader gives out what lies free between addresses that are in use, and writes no service again. [scheduling 105]"""
    services = [with_vip(f"s{n}", "a", f"10.0.0.{n}", endpoint=False) for n in (2, 4, 6)]
    at = Office(allocated("a", "10.0.0.0/24", "10.0.0.1", 4096), *services, *(task(f"t{n}", services[n]) for n in range(3)))
    assert at.settle() == 3
    assert [at.addresses(f"t{n}") for n in range(3)] == [["10.0.0.3"], ["10.0.0.5"], ["10.0.0.7"]]
    assert [at.service(made.id) for made in services] == services


def test_an_old_network_keeps_its_subnet() -> None:
    """A network that nobody allocated yet, though its id comes first, takes nothing from one that has its subnet. [scheduling 106]"""
    services = [with_vip(f"s{n}", "b", f"10.1.0.{n}") for n in (2, 3, 4)]
    at = Office(network("a"), allocated("b", "10.1.0.0/24", "10.1.0.1", 4096), *services, *(task(f"t{n}", services[n]) for n in range(3)))
    at.settle()
    assert at.network("b").ipam.configs[0].subnet == "10.1.0.0/24"
    assert at.network("a").ipam.configs[0].subnet == "10.0.0.0/24"
    assert [at.vips(made.id) for made in services] == [["10.1.0.2"], ["10.1.0.3"], ["10.1.0.4"]]
    assert [at.addresses(f"t{n}") for n in range(3)] == [["10.1.0.5"], ["10.1.0.6"], ["10.1.0.7"]]


def test_tasks_on_two_networks() -> None:
    """Addresses lie in their subnets, another leader knows them, and when their tasks have ended they can be had again. [scheduling 113]"""
    at = Office(network("a", subnets=["10.1.0.0/29"]), network("b", subnets=["10.2.0.0/29"]))
    at.settle()
    at.put(*(task(f"t{n}", networks=["a", "b"]) for n in range(2)))
    before = [at.addresses(f"t{n}") for n in range(2)]
    assert before == [["10.1.0.2", "10.2.0.2"], ["10.1.0.3", "10.2.0.3"]]
    at.lead()
    assert at.settle() == 0
    ended = copy_of(at.task("t0"))
    ended.status.state = S.COMPLETE
    at.put(ended)
    at.delete((Kind.TASK, "t0"), (Kind.TASK, "t1"))
    at.put(*(task(f"u{n}", networks=["a", "b"]) for n in range(5)))
    assert sorted(at.addresses(f"u{n}")[0] for n in range(5)) == [f"10.1.0.{n}" for n in range(2, 7)]


def test_full_networks() -> None:
    """A task that gets no address says so, waits, and takes the first one that becomes free; it holds none elsewhere meanwhile."""
    at = Office(network("big"), network("tiny", subnets=["10.9.0.0/30"]))
    at.settle()
    at.put(task("first", networks=["tiny"]))
    at.put(task("second", networks=["big", "tiny"]))
    assert not at.is_pending("second")
    assert at.task("second").status.err == (
        "network tiny: no address of 10.9.0.0/30 is free: remove tasks or services that use it, or use a network with a larger subnet"
    )
    assert not at.task("second").networks
    before = at.writes
    at.put(api.Node(id="n"))
    assert at.writes == before
    at.delete((Kind.TASK, "first"))
    assert at.is_pending("second")
    assert at.addresses("second")[1] == "10.9.0.2"


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ("10.1.0.1", "network a: could not allocate IP from IPAM: Address already in use: 10.1.0.1"),
        ("10.1.0.0", "network a: could not find an available IP: 10.1.0.0 lies in no subnet of the network"),
        ("10.2.0.7/24", "network a: could not find an available IP: 10.2.0.7 lies in no subnet of the network"),
        ("x", "network a: 'x' is no IP address"),
    ],
)
def test_addresses_that_cannot_be_had(asked: str, reason: str) -> None:
    """A task that asks for an address which it cannot have is told why."""
    made = task("t")
    made.spec.networks.add(target="a", addresses=[asked])
    at = Office(network("a", subnets=["10.1.0.0/24"]), made)
    at.settle()
    assert not at.is_pending("t")
    assert at.task("t").status.err == reason


def test_addresses_that_are_asked_for() -> None:
    """A task gets the addresses it asks for, of each family one, with aliases and options; the next task's follow the last chosen one."""
    made = task("t")
    config = made.spec.networks.add(target="a", addresses=["10.1.0.77/24", "fd00::9"], aliases=["db"])
    config.driver_attachment_opts["k"] = "v"
    at = Office(network("a", subnets=["10.1.0.0/24", "fd00::/64"]), made)
    at.settle()
    [attachment] = at.task("t").networks
    assert list(attachment.addresses) == ["10.1.0.77/24", "fd00::9/64"]
    assert (list(attachment.aliases), dict(attachment.driver_attachment_opts)) == (["db"], {"k": "v"})
    at.put(task("u", networks=["a"]))
    assert at.addresses("u") == ["10.1.0.2"]


def test_tasks_wait_for_their_service() -> None:
    """A task whose service is not there waits; once it is, the task is PENDING with its host ports. [scheduling 2]"""
    web = service("web", port(80, mode=api.PortConfig.HOST))
    at = Office(task("t", web))
    assert at.settle() == 0
    at.put(web)
    made = at.task("t")
    assert (made.status.state, made.status.message, made.status.err) == (S.PENDING, "pending task scheduling", "")
    assert [p.published_port for p in made.endpoint.ports] == [80]


def test_old_lists_of_networks() -> None:
    """A service that names its networks in the old place, beside its tasks' spec, has them too."""
    web = service("web")
    web.spec.networks.add(target="a", aliases=["x"])
    at = Office(network("a"), web, task("t", web))
    at.settle()
    assert len(at.vips("web")) == 1
    assert [list(a.aliases) for a in at.task("t").networks] == [["x"]]


# --- nodes


def placed(at: Office, task_id: str, node_id: str) -> api.Task:
    """The stored task, assigned to a node."""
    made = copy_of(at.task(task_id))
    made.node_id, made.status.state = node_id, S.ASSIGNED
    return made


def test_nodes_follow_their_tasks() -> None:
    """A node has one address on the ingress network and one on each overlay network of its tasks, for as long as it has such a task.

    [scheduling 107]
    """
    at = Office(network("ingress", ingress=True), network("one"), api.Node(id="n1"), task("t1", networks=["one"], node="n1"))
    at.settle()
    first = at.attached("n1")
    assert sorted(first) == ["ingress", "one"]
    at.put(api.Node(id="n2"), api.Node(id="n3"))
    assert list(at.attached("n2")) == ["ingress"]
    at.put(network("two"), network("bridge", driver="bridge"))
    at.put(task("t2", networks=["two"]), task("t3", networks=["one"]), task("t4", networks=["bridge"], node="n3"))
    at.put(placed(at, "t2", "n2"))
    at.put(placed(at, "t3", "n1"))
    assert sorted(at.attached("n2")) == ["ingress", "two"]
    assert at.attached("n1") == first
    assert list(at.attached("n3")) == ["ingress"]
    at.delete((Kind.TASK, "t1"))
    assert at.attached("n1") == first
    ended = copy_of(at.task("t3"))
    ended.status.state = S.FAILED
    at.put(ended)
    assert at.attached("n1") == {"ingress": first["ingress"]}
    at.delete((Kind.NODE, "n2"))
    assert at.attached("n1") == {"ingress": first["ingress"]}


def test_a_task_placed_between_two_leaders() -> None:
    """A new leader gives a node what it lacks for a task that was placed before. [scheduling 108]"""
    at = Office(network("ingress", ingress=True), network("net2"), api.Node(id="n1"))
    at.settle()
    at.put(task("t", networks=["net2"]))
    at.store_only(placed(at, "t", "n1"))
    at.lead()
    at.settle()
    assert sorted(at.attached("n1")) == ["ingress", "net2"]


def test_a_network_that_goes() -> None:
    """When a network is deleted no node has an address on it any more; one that waits for an address gets it when one is free."""
    at = Office(network("ingress", ingress=True, subnets=["10.9.0.0/30"]), api.Node(id="n1"))
    at.settle()
    at.put(api.Node(id="n2"))
    assert (list(at.attached("n1")), list(at.attached("n2"))) == (["ingress"], [])
    at.delete((Kind.NODE, "n1"))
    assert list(at.attached("n2")) == ["ingress"]
    at.change(Delete(Kind.NETWORK, "ingress"))
    at.settle()
    assert not at.attached("n2")
