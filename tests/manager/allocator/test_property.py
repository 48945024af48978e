"""Random histories with changes of leaders: nothing is handed out twice, and what can be had is had."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyswarm.api import v1 as api
from pyswarm.manager.allocator import Allocator
from pyswarm.manager.changes import Change, Create, Delete, Update
from pyswarm.manager.store import Kind, copy_of
from tests.support.allocation import HOST, Office, check, held, network, port, service, task

S = api.TaskState
SUBNETS = ("", "", "10.9.0.0/29", "10.9.0.8/29", "10.9.0.0/28", "10.8.0.0/24")


class Story:
    """A cluster's life: whatever may come at any moment, also several things in one transaction. All from one seed."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.at = Office(network("ingress", ingress=True), at_once=self.rng.choice((1, 3, 50)))
        self.number = 0
        self.moves: list[Callable[[], Change | None]] = [
            self.make_network, self.make_service, self.make_service, self.edit_service, self.make_task, self.make_task, self.make_task,
            self.make_node, self.end_task, self.end_task, self.assign, self.remove, self.remove,
        ]  # fmt: skip

    def run(self, steps: int) -> None:
        """Live; `Office` checks after every commit."""
        for _ in range(steps):
            changes: dict[str, Change] = {}
            for _ in range(self.rng.choice((1, 1, 4))):
                change = self.rng.choice(self.moves)()
                if change is not None:
                    changes[change.object_id if isinstance(change, Delete) else change.obj.id] = change
            if changes:
                self.at.change(*changes.values())
            for _ in range(self.rng.randrange(4)):
                self.at.step()
            if self.rng.random() < 0.1:
                self.at.lead()
        self.at.settle()

    def _id(self, letter: str) -> str:
        self.number += 1
        return f"{self.rng.choice('abc')}{letter}{self.number}"

    def _some(self, kind: Kind) -> object:
        found = sorted(self.at.store.table(kind), key=lambda obj: obj.id)
        return self.rng.choice(found) if found else None

    def _targets(self) -> list[str]:
        found = sorted(n.id for n in self.at.store.networks if not n.spec.ingress)
        return self.rng.sample(found, min(len(found), self.rng.randrange(3)))

    def _ports(self) -> list[api.PortConfig]:
        published = (0, 0, 8080, 8081, 30000, 30001)
        return [port(self.rng.choice(published), n, mode=self.rng.choice((0, 0, HOST))) for n in range(self.rng.randrange(3))]

    def make_network(self) -> Change:
        """Another network; its subnet may overlap, its id be taken."""
        subnet = self.rng.choice(SUBNETS)
        made = network(self._id("n"), subnets=[subnet] if subnet else (), driver=self.rng.choice(("", "overlay", "bridge")))
        if self.rng.random() < 0.3 and made.spec.driver_config.name == "overlay":
            made.spec.driver_config.options["com.docker.network.driver.overlay.vxlanid_list"] = str(self.rng.choice((7, 4096, 4097)))
        return Create(made)

    def make_service(self) -> Change:
        """Another service."""
        return Create(service(self._id("s"), *self._ports(), networks=self._targets(), endpoint=self.rng.random() < 0.8))

    def edit_service(self) -> Change | None:
        """Other ports, networks, or way of resolving."""
        found = self._some(Kind.SERVICE)
        if not isinstance(found, api.Service):
            return None
        made = copy_of(found)
        fresh = service(made.id, *self._ports(), networks=self._targets(), endpoint=self.rng.random() < 0.8)
        made.spec.CopyFrom(fresh.spec)
        if made.spec.HasField("endpoint") and self.rng.random() < 0.3:
            made.spec.endpoint.mode = api.EndpointSpec.DNSRR
            del made.spec.endpoint.ports[:]
        return Update(made)

    def make_task(self) -> Change:
        """A task of a service, with or without a node, or a container that joins a network, asking for an address."""
        of, node = self._some(Kind.SERVICE), self._some(Kind.NODE)
        node_id = node.id if isinstance(node, api.Node) and self.rng.random() < 0.5 else ""
        if isinstance(of, api.Service) and self.rng.random() < 0.8:
            return Create(task(self._id("t"), of, node=node_id))
        made = task(self._id("t"), networks=self._targets(), node=node_id)
        for config in made.spec.networks:
            if self.rng.random() < 0.5:
                config.addresses.append(f"10.9.0.{self.rng.randrange(16)}")
        return Create(made)

    def make_node(self) -> Change:
        """A node joins."""
        return Create(api.Node(id=self._id("m")))

    def end_task(self) -> Change | None:
        """A task gets on, or ends."""
        found = self._some(Kind.TASK)
        if not isinstance(found, api.Task) or found.status.state == S.NEW:
            return None
        made = copy_of(found)
        made.status.state = max(found.status.state, self.rng.choice((S.RUNNING, S.FAILED, S.SHUTDOWN)))
        return Update(made)

    def assign(self) -> Change | None:
        """The scheduler places a task."""
        found, node = self._some(Kind.TASK), self._some(Kind.NODE)
        if not isinstance(found, api.Task) or found.status.state != S.PENDING or found.node_id or not isinstance(node, api.Node):
            return None
        made = copy_of(found)
        made.node_id, made.status.state = node.id, S.ASSIGNED
        return Update(made)

    def remove(self) -> Change | None:
        """Something goes, used or not."""
        kind = self.rng.choice((Kind.NETWORK, Kind.NODE, Kind.SERVICE, Kind.TASK, Kind.TASK))
        found = self._some(kind)
        return None if found is None else Delete(kind, found.id)  # type: ignore[attr-defined]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**9))
def test_nothing_is_handed_out_twice(seed: int) -> None:
    """Whatever happens in whatever order, under however many leaders, no two objects ever hold the same port, id, subnet or address."""
    Story(seed).run(60)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**9))
def test_a_new_leader_finds_nothing_to_do(seed: int) -> None:
    """When a leader has come to rest, its successor writes nothing: all is in the store, and all that could be had was had."""
    story = Story(seed)
    story.run(60)
    before = sorted(map(repr, held(story.at.store)))
    story.at.lead()
    assert story.at.settle() == 0
    assert sorted(map(repr, held(story.at.store))) == before


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**9))
def test_deciding_leaves_no_trace(seed: int) -> None:
    """A decision taken twice on the same state is the same, and one that is not committed changes nothing that follows."""
    story = Story(seed)
    story.run(30)
    loop = Allocator()
    keys = list(loop.everything(story.at.store))
    story.at.store_only(task("t", networks=["ingress"]), service("s", port()))
    keys = [*loop.everything(story.at.store), *keys]
    first = [[change.obj for change in loop.decide(story.at.store, key, 1.0).changes] for key in keys]  # type: ignore[union-attr]
    assert first == [[change.obj for change in loop.decide(story.at.store, key, 1.0).changes] for key in keys]  # type: ignore[union-attr]


def test_the_check_finds_doubles() -> None:
    """The check that all of this rests on does find an address, a port or an id that two have."""
    at = Office(network("ingress", ingress=True), service("s1", port()))
    at.settle()
    check(at.store)
    for twin in (at.service("s1"), at.network("ingress")):
        double = copy_of(twin)
        double.id = "double"
        at.store_only(double)
        with pytest.raises(AssertionError, match="both have"):
            check(at.store)
        at.store.table(Kind(type(double).__name__.lower())).drop("double")
