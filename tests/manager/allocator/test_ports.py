"""Published ports: who gets which, and what they keep."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pyswarm.api import v1 as api
from pyswarm.manager.allocator.ports import wanted
from pyswarm.manager.changes import Create, Delete
from pyswarm.manager.store import Kind, copy_of
from tests.support.allocation import HOST, TCP, UDP, Office, network, port, service, task

DYNAMIC = range(30000, 32768)


def office(*objects: object) -> Office:
    """With an ingress network."""
    made = Office(network("ingress", ingress=True), *objects)
    made.settle()
    return made


def test_explicit_ports_are_exclusive() -> None:
    """A port belongs to the service that has it first; other protocols are other ports. [scheduling 86]"""
    at = office()
    at.put(service("s1", port(1234)))
    at.put(service("s2", port(1234)))
    at.put(service("s3", port(1234, protocol=UDP)))
    assert (at.ports("s1"), at.ports("s2"), at.ports("s3")) == ([1234], [], [1234])
    at.put(task("t", at.service("s2")))
    assert not at.is_pending("t")
    assert at.task("t").status.err == "port 1234/tcp is already published: choose another, or 0 for any free one"


def test_one_port_twice_in_a_service() -> None:
    """A service that wants one port twice gets none until its spec is right. [scheduling 86]"""
    at = office()
    wrong = service("s1", port(1234, name="a"), port(1234, name="b"))
    at.put(wrong)
    assert at.ports("s1") == []
    at.put(service("s1", port(1234, name="a"), port(1235, name="b")))
    assert at.ports("s1") == [1234, 1235]


def test_port_of_a_deleted_service() -> None:
    """A service that takes another's place in one transaction gets its port, and one address on the ingress network. [scheduling 87]"""
    at = office(service("s1", port(1234)))
    at.change(Delete(Kind.SERVICE, "s1"), Create(service("s2", port(1234))))
    at.settle()
    assert at.ports("s2") == [1234]
    assert len(at.vips("s2")) == 1


def test_explicit_and_automatic_ports() -> None:
    """Numbers that are given are kept, the others are free ones of the dynamic range, the same ones in every run. [scheduling 88]"""
    spec = service("s1", port(8001, 8000), port(8001, 8000, protocol=UDP), port(0, 8000, "a"), port(0, 8000, "b", protocol=UDP))
    runs = []
    for _ in range(2):
        at = office(spec)
        ports = at.service("s1").endpoint.ports
        assert [(p.protocol, p.published_port) for p in ports[:2]] == [(TCP, 8001), (UDP, 8001)]
        assert all(p.published_port in DYNAMIC for p in ports[2:])
        runs.append(at.ports("s1"))
    assert runs[0] == runs[1] == [8001, 8001, 30000, 30000]


def test_an_automatic_port_becomes_a_given_one() -> None:
    """When the spec names a number later, the service gets that, and another may have the former one. [scheduling 89]"""
    at = office(service("s1", port()))
    assert at.ports("s1") == [30000]
    at.put(edited(at, "s1", port(1235)))
    assert at.ports("s1") == [1235]
    at.put(service("s2", port(30000)))
    assert at.ports("s2") == [30000]


def edited(at: Office, service_id: str, *ports: api.PortConfig) -> api.Service:
    """The stored service with another endpoint spec."""
    made = copy_of(at.service(service_id))
    made.spec.endpoint.CopyFrom(api.EndpointSpec(ports=ports))
    return made


A, B = port(0, 80, "a"), port(0, 81, "b")
A1, B1 = port(30001, 80, "a"), port(30002, 81, "b")


@pytest.mark.parametrize(
    ("spec", "runtime", "expected"),
    [
        ([A, B], [], [A, B]),
        ([A], [A1, B1], [A]),
        ([A], [B1], [A]),
        ([A, B], [B1, A1], [A1, B1]),
        ([A, port(8080, 82)], [A1, port(8080, 82)], [port(8080, 82), A1]),
        ([A, port(0, 80, "a")], [A1, port(30003, 80, "a")], [A1, port(30003, 80, "a")]),
        ([port(30001, 80, "a"), A], [A1, port(30003, 80, "a")], [A1, port(30003, 80, "a")]),
        ([port(0, 80, mode=HOST)], [port(9, 80, mode=HOST)], [port(0, 80, mode=HOST)]),
    ],
)
def test_wanted_ports(spec: Sequence[api.PortConfig], runtime: Sequence[api.PortConfig], expected: Sequence[api.PortConfig]) -> None:
    """What is left to choose keeps what it has, in the order of the spec behind what is given; with another number all is drawn anew.

    [scheduling 90]
    """
    assert wanted(spec, runtime) == list(expected)


def host(published: int, target: int = 80) -> api.PortConfig:
    """A host-mode port."""
    return port(published, target, mode=HOST)


@pytest.mark.parametrize(
    ("spec", "runtime", "stays"),
    [
        (None, None, True),
        ([port(1)], None, False),
        (None, [port(1)], False),
        ([port(1), port(2, 81)], [port(1)], False),
        ([port(1, 81)], [port(1, 80)], False),
        ([port(2)], [port(1)], False),
        ([port(1)], [port(1)], True),
        ([port(0)], [port(10000)], True),
        ([host(9, 81), port(1)], [port(1), host(9, 81)], False),
        ([port(5000), port(5001), port(), port()], [port(5000), port(5001), port(30000), port(30001)], True),
        ([host(0, 99)], [host(0, 77)], False),
    ],
)
def test_what_needs_allocation(spec: Sequence[api.PortConfig] | None, runtime: Sequence[api.PortConfig] | None, *, stays: bool) -> None:
    """A service is written when its endpoint is not what its spec asks for, and else left alone, also by a new leader.

    [scheduling 91 in part, 92 in part]
    """
    made = service("s1", *(spec or ()), endpoint=spec is not None)
    if runtime is not None:
        made.endpoint.ports.extend(runtime)
        made.endpoint.spec.CopyFrom(made.spec.endpoint)
    if any(p.publish_mode != HOST for p in spec or ()):
        made.endpoint.virtual_ips.add(network_id="ingress", addr="10.0.0.2/24")
    at = Office(made, allocated_ingress())
    assert (at.settle() == 0) == stays
    assert at.settle() == 0
    if spec is not None:
        assert sorted((p.target_port, p.publish_mode) for p in at.service("s1").endpoint.ports) == sorted(
            (p.target_port, p.publish_mode) for p in spec
        )


def allocated_ingress() -> api.Network:
    """The ingress network of a cluster that has run for a while."""
    at = Office(network("ingress", ingress=True))
    at.settle()
    return at.network("ingress")


def test_host_ports_follow_the_spec() -> None:
    """Host ports are what the spec says now, beside ingress ports that stay; the manager draws none. [scheduling 92, 93]"""
    made = service("s1", host(10000), port(0, 81), host(0, 82))
    made.endpoint.ports.extend([host(15000), port(30009, 81), host(0, 82)])
    at = office(made)
    ports = {p.target_port: p.published_port for p in at.service("s1").endpoint.ports}
    assert ports == {80: 10000, 81: 30009, 82: 0}
    assert at.service("s1").endpoint.spec == made.spec.endpoint
    at.put(service("s2", host(10000), host(30009)))
    assert at.ports("s2") == [10000, 30009]


def test_the_port_of_another() -> None:
    """Who changes from one port to another has the new one, and nobody else; the former is free. [scheduling 94 in part]"""
    at = office(service("s1", port(10000)))
    at.put(edited(at, "s1", port(10001)))
    at.put(service("s2", port(10001)), service("s3", port(10000)))
    assert (at.ports("s1"), at.ports("s2"), at.ports("s3")) == ([10001], [], [10000])


def test_a_refused_change_keeps_what_it_has() -> None:
    """A service that asks for another's port keeps its own, which nobody else gets meanwhile; it moves when the other goes."""
    at = office(service("s1", port(1000)), service("s2", port(2000)))
    at.put(edited(at, "s2", port(1000)))
    at.put(service("s3", port(2000)))
    assert (at.ports("s2"), at.ports("s3")) == ([2000], [])
    at.delete((Kind.SERVICE, "s1"))
    assert (at.ports("s2"), at.ports("s3")) == ([1000], [2000])


def test_all_dynamic_ports_are_used() -> None:
    """When all 2,768 are given out, the next one waits and says why; host ports and given numbers can still be had."""
    at = office(service("all", *(port(0, n + 1) for n in range(2768))))
    assert sorted(at.ports("all")) == list(DYNAMIC)
    at.put(service("s2", port()), service("s3", port(8080)))
    at.put(task("t", at.service("s2")))
    assert at.ports("s3") == [8080]
    assert "no tcp port from 30000 to 32767 is free" in at.task("t").status.err
    at.delete((Kind.SERVICE, "all"))
    assert at.is_pending("t")
    assert at.task("t").status.err == ""


def test_ports_stay_across_leaders() -> None:
    """A new leader writes nothing and gives nobody what another has. [scheduling 111]"""
    at = office(*(service(f"s{n}", port(), port(5000 + n, 81)) for n in range(5)))
    before = {n: at.ports(f"s{n}") for n in range(5)}
    at.lead()
    assert at.settle() == 0
    at.put(service("a", port()))
    assert {n: at.ports(f"s{n}") for n in range(5)} == before
    assert at.ports("a") == [30005]


def test_without_endpoint_spec() -> None:
    """A service that publishes nothing any more has no ports, and no address on the ingress network. [scheduling 94 in part]"""
    at = office(service("s1", port(1000)))
    made = copy_of(at.service("s1"))
    made.spec.ClearField("endpoint")
    at.put(made)
    assert not at.service("s1").HasField("endpoint")


def test_ingress_port_comes_and_goes() -> None:
    """Without ingress port a service has no address on the ingress network; published again it gets another one. [scheduling 109]"""
    at = office(service("s1", port(1000)))
    first = at.vips("s1")
    at.put(edited(at, "s1"))
    assert (at.ports("s1"), at.vips("s1")) == ([], [])
    at.put(edited(at, "s1", port(1000)))
    assert at.ports("s1") == [1000]
    assert len(at.vips("s1")) == len(first) == 1
    assert at.vips("s1") != first


def test_waiting_for_a_port() -> None:
    """A service whose port another has is not allocated, and its tasks wait, until the other is gone. [scheduling 101]"""
    at = office(service("s3", port(8080)), service("s4", port(8080), host(9000, 81)))
    at.put(task("t", at.service("s4")))
    assert (at.ports("s4"), at.is_pending("t")) == ([], False)
    at.delete((Kind.SERVICE, "s3"))
    assert at.ports("s4") == [8080, 9000]
    assert at.is_pending("t")
    assert at.task("t").endpoint == at.service("s4").endpoint


def test_without_ingress_network() -> None:
    """Ingress ports wait for the ingress network, and are had as soon as there is one."""
    at = Office(service("s1", port(80)))
    at.put(task("t", at.service("s1")))
    assert "ingress network is missing" in at.task("t").status.err
    at.put(network("ingress", ingress=True))
    assert at.ports("s1") == [80]
    assert at.is_pending("t")
