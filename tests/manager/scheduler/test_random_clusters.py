"""A thousand random clusters, each living through random changes: every placement is checked by rules that the scheduler did not write."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

import pytest

from pyswarm.api import v1 as api
from pyswarm.manager.changes import Change, Create, Delete, Update
from pyswarm.manager.scheduler import filters, pool, spread
from pyswarm.manager.scheduler.mirror import Mirror
from pyswarm.manager.scheduler.nodeinfo import NodeInfo
from pyswarm.manager.store import Kind, copy_of
from tests.manager.scheduler.checker import check
from tests.manager.scheduler.support import HOST, S, Scheduling, discrete, moved, named, node, service, task

CLUSTERS, PARTS = 1000, 10
ROUNDS = 3
ZONES = ("", "a", "b", "c")


class Life:
    """One cluster, from a seed."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.number = 0
        self.alone = self.dice.random() < 0.4  # one service only: then even the ties can be checked
        names = ["s0"] if self.alone else ["s0", "s1", ""]
        nodes = [self.node(i) for i in range(self.dice.randrange(1, 9))]
        running = [self.task(self.dice.choice(names), on=self.dice.choice(nodes).id) for _ in range(self.dice.randrange(6))]
        self.names = names
        self.needs: dict[str, api.Task] = {}
        for one in running:
            one.spec.Clear()
        fresh = self.group()
        self.world = Scheduling(*(service(n) for n in names if n), *nodes, *running, *fresh)
        self.look({t.id for t in running})

    def node(self, number: int) -> api.Node:
        """Some are away, small, of another kind."""
        dice = self.dice
        made = node(f"n{number}", state=dice.choice(["READY"] * 6 + ["DOWN"]))
        self.describe(made)
        return made

    def describe(self, made: api.Node) -> None:
        """Give a node a random description."""
        dice, d = self.dice, made.description
        d.Clear()
        if dice.random() < 0.85:
            d.resources.MergeFrom(api.Resources(nano_cpus=dice.randrange(10), memory_bytes=dice.randrange(20)))
            d.resources.generic.extend(dice.choice([[], [discrete("apple", dice.randrange(1, 6))], named("apple", "x", "y", "z")]))
        if dice.random() < 0.7:
            d.engine.plugins.add(type="Network", name=dice.choice(["weave", "weave:latest", "other"]))
        if dice.random() < 0.8:
            d.platform.MergeFrom(api.Platform(os="linux", architecture=dice.choice(["x86_64", "amd64", "aarch64"])))
        made.spec.annotations.labels.clear()
        for label in ("zone", "rack"):
            if value := dice.choice(ZONES):
                made.spec.annotations.labels[label] = value
        made.spec.availability = dice.choice([api.NodeSpec.Availability.ACTIVE] * 8 + [api.NodeSpec.Availability.DRAIN])

    def task(self, of: str, on: str = "") -> api.Task:
        """A task with nothing special."""
        self.number += 1
        return task(f"t{self.number:03}", of, on=on, state=S.RUNNING if on else S.PENDING)

    def group(self) -> list[api.Task]:
        """Equal tasks with random needs, of a version of their own, or of none."""
        dice = self.dice
        of = dice.choice(self.names)
        version = self.number if of and dice.random() < 0.7 else None
        made = self.task(of)
        self.demand(made)
        if version is not None:
            made.spec_version.index = version
        return [made, *(self.again(made) for _ in range(dice.randrange(12)))]

    def again(self, like: api.Task) -> api.Task:
        """Another one."""
        self.number += 1
        made = copy_of(like)
        made.id = f"t{self.number:03}"
        return made

    def demand(self, made: api.Task) -> None:
        """Random needs."""
        dice, placement = self.dice, made.spec.placement
        if dice.random() < 0.5:
            made.spec.resources.reservations.MergeFrom(api.Resources(nano_cpus=dice.randrange(4), memory_bytes=dice.randrange(6)))
            if dice.random() < 0.4:
                made.spec.resources.reservations.generic.append(discrete("apple", dice.randrange(1, 3)))
        if dice.random() < 0.2:
            made.networks.add().network.driver_state.name = "weave"
        if dice.random() < 0.3:
            placement.constraints.append(dice.choice(["node.labels.zone != a", "node.id==n1", "NODE.labels.rack==B", "node.role==worker"]))
        if dice.random() < 0.2:
            placement.platforms.add(os="linux", architecture=dice.choice(["amd64", "arm64", ""]))
        if dice.random() < 0.2:
            made.endpoint.ports.add(publish_mode=HOST, published_port=dice.randrange(80, 82))
        if dice.random() < 0.2:
            placement.max_replicas = dice.randrange(1, 4)
        for descriptor in dice.choice([[], [], ["node.labels.zone"], ["node.labels.zone", "Node.Labels.rack"]]):
            placement.preferences.add(spread=api.SpreadOver(spread_descriptor=descriptor))

    def live(self) -> None:
        """Something happens, and the scheduler does what it does; then all is looked at."""
        world, dice = self.world, self.dice
        changes: list[Change] = []
        for one in world.store.nodes:
            if dice.random() < 0.1:
                changes.append(Delete(Kind.NODE, one.id))
            elif dice.random() < 0.3:
                edited = copy_of(one)
                self.describe(edited)
                changes.append(Update(edited))
        changes += [
            Update(moved(one, dice.choice([S.RUNNING, S.COMPLETE, S.SHUTDOWN])))
            for one in world.store.tasks
            if one.node_id and one.status.state <= S.RUNNING and dice.random() < 0.3
        ]
        if not self.alone or all(t.node_id for t in world.store.tasks):
            changes += [Create(t) for t in self.group()]
        if dice.random() < 0.3:
            self.number += 1
            changes.append(Create(self.node(20 + self.number)))
        before = {t.id for t in world.store.tasks if t.node_id}
        world.change(*changes)
        self.look(before)

    def look(self, before: set[str]) -> None:
        """Check the placements, and that the scheduler knows what a new one would find."""
        store = self.world.store
        check(list(store.nodes), list(store.tasks), list(store.services), before)
        fresh = Mirror()
        fresh.rebuild(store)
        known = self.world.loop._mirror
        assert {n: facts(i) for n, i in known.nodes.items()} == {n: facts(i) for n, i in fresh.nodes.items()}
        assert sorted(known.unassigned()) == sorted(fresh.unassigned())
        assert {s: sorted(n) for s, n in known.homes.items() if n} == {s: sorted(n) for s, n in fresh.homes.items() if n}


def facts(info: NodeInfo) -> tuple[object, ...]:
    """What is known of a node."""
    return (
        sorted(info.tasks), info.ready, info.active, info.by_service, info.cpus, info.memory, info.ports,
        [g.SerializeToString() for g in info.generic],
    )  # fmt: skip


def live_through(seeds: Iterable[int]) -> None:
    """The cluster of each seed. Raises AssertionError, with the seed, where something is wrong."""
    for seed in seeds:
        try:
            life = Life(seed)
            for _ in range(ROUNDS):
                life.live()
        except AssertionError as error:
            raise AssertionError(f"cluster {seed}: {error}") from error


@pytest.mark.parametrize("part", range(PARTS))
def test_random_clusters(part: int) -> None:
    """Whatever nodes and tasks ask for and whatever happens to them, each filter is kept and the spread is exact."""
    live_through(range(part * CLUSTERS // PARTS, (part + 1) * CLUSTERS // PARTS))


def ignores(name: str) -> Callable[[pytest.MonkeyPatch], None]:
    """A scheduler without one of its filters."""
    return lambda patch: patch.setattr(filters, "FILTERS", tuple(f for f in filters.FILTERS if f.name != name))


def never_levels(patch: pytest.MonkeyPatch) -> None:
    """Any node is as good as another."""
    patch.setattr(spread.Leaf, "_without_task", lambda self: (info for nodes in self._loads.values() for info in nodes.values()))


def looks_once(patch: pytest.MonkeyPatch) -> None:
    """A node that changed is not looked at again."""
    patch.setattr(pool.Pools, "touch", lambda self, node_id: None)


@pytest.mark.parametrize(
    "bug",
    [*map(ignores, ("resources", "plugins", "constraints", "platform", "host ports", "max replicas", "ready")), never_levels, looks_once],
)
def test_the_checker_finds_bugs(monkeypatch: pytest.MonkeyPatch, bug: Callable[[pytest.MonkeyPatch], None]) -> None:
    """What is done wrong on purpose is found in one of a few clusters."""
    bug(monkeypatch)
    with pytest.raises(AssertionError):
        live_through(range(100))
