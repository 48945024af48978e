"""What is flagged to go, goes when nobody uses it."""

from __future__ import annotations

import pytest

from pyswarm.api import v1 as api
from pyswarm.manager.allocator import Deallocator
from pyswarm.manager.store import Kind, copy_of
from tests.support.allocation import Office, network, service, task


def flagged(obj: api.Service | api.Network) -> api.Service | api.Network:
    """To be deleted once unused."""
    obj.pending_delete = True
    return obj


def office(*objects: object) -> Office:
    """With the deallocator at work in place of the allocator."""
    at = Office(*objects)
    at.lead(Deallocator())
    at.settle()
    return at


def there(at: Office) -> set[str]:
    """The services and networks that are left."""
    return {s.id for s in at.store.services} | {n.id for n in at.store.networks}


def test_at_the_start() -> None:
    """A new leader deletes what is flagged and unused, with the networks that go with a service, and nothing else. [scheduling 117]"""
    first, second = service("service1", networks=["network1", "network2"]), service("service2", networks=["network3"])
    at = office(
        flagged(first), flagged(network("network1")), network("network2"),
        flagged(second), flagged(network("network3")), task("t", second),
        flagged(network("network4")), network("network5"),
    )  # fmt: skip
    assert there(at) == {"network2", "service2", "network3", "network5"}


@pytest.mark.parametrize("count", [1, 2, 5, 10])
def test_with_the_last_task(count: int) -> None:
    """A flagged service goes with its last task. [scheduling 118]"""
    at = office(service("s"), *(task(f"t{n}", service("s")) for n in range(count)))
    at.put(flagged(copy_of(at.service("s"))))
    for number in range(count):
        assert there(at) == {"s"}
        at.delete((Kind.TASK, f"t{number}"))
    assert there(at) == set()


@pytest.mark.parametrize("old", [False, True])
def test_networks_go_with_their_service(old: bool) -> None:
    """Its flagged networks go with a service, wherever it names them, unless another service uses them. [scheduling 119]"""
    web = service("s")
    (web.spec if old else web.spec.task).networks.extend(api.NetworkAttachmentConfig(target=n) for n in ("a", "b", "c"))
    other = service("other", networks=["c"])
    at = office(web, other, flagged(network("a")), network("b"), flagged(network("c")), task("t1", web), task("t2", web))
    at.put(flagged(copy_of(at.service("s"))))
    at.delete((Kind.TASK, "t1"))
    assert there(at) == {"s", "other", "a", "b", "c"}
    at.delete((Kind.TASK, "t2"))
    assert there(at) == {"other", "b", "c"}


def test_what_is_not_flagged() -> None:
    """Updates of others cause no write. [scheduling 120]"""
    at = office(service("s"), network("n"))
    for obj in (at.service("s"), at.network("n")):
        at.put(obj)
    assert (at.writes, there(at)) == (0, {"s", "n"})
