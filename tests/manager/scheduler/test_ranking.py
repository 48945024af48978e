"""Which of several fitting nodes gets a task."""

from __future__ import annotations

import pytest

from pyswarm.api import v1 as api
from pyswarm.manager.scheduler import spread
from pyswarm.manager.scheduler.mirror import Mirror
from pyswarm.manager.scheduler.volumes import Volumes
from pyswarm.manager.store import Kind
from tests.manager.scheduler.support import NOW, S, Scheduling, moved, node, service, task, tasks
from tests.support.loops import new_store

VERSIONS = pytest.mark.parametrize("version", [None, 1], ids=["one by one", "as a group"])


@VERSIONS
def test_nodes_are_levelled_per_service_first(version: int | None) -> None:
    """Fewest tasks of the service, then fewest of all; a node that lost all is filled up. [scheduling 21, 22, 23, 24, 25, 32]"""
    world = Scheduling(service("s1"), service("s2"), *(node(f"id{i}") for i in range(1, 6)))
    world.create(*tasks("s1", 18, version=version))
    first = world.spread("s1")
    assert sorted(first.values()) == [3, 3, 4, 4, 4]

    world.create(*tasks("s2", 2, version=version))
    second = world.spread("s2")
    assert second == {i: 1 for i, n in first.items() if n == 3}

    world.create(*tasks("s1", 3, start=18, version=version))
    third = world.spread("s1")
    assert sorted(third.values()) == [4, 4, 4, 4, 5]
    assert {i for i in second if third[i] > first[i]} == set(second)

    world.create(*tasks("s2", 1, start=2, version=version))
    (last,) = set(world.spread("s2")) - set(second)
    assert third[last] == 4

    world.delete(Kind.TASK, *(t.id for t in world.store.tasks if t.node_id == "id1"))
    before = world.spread("s2")
    assert "id1" not in world.spread("s1")
    world.create(*tasks("s1", 4, start=21, version=version), *tasks("s2", 2, start=3, version=version))
    assert world.spread("s1")["id1"] == 4
    assert world.spread("s2")["id1"] == 1
    assert sum(world.spread("s2").values()) == sum(before.values()) + 2


def preferring(made: api.Task, *descriptors: str) -> api.Task:
    """The task with spread preferences."""
    for descriptor in descriptors:
        made.spec.placement.preferences.add(spread=api.SpreadOver(spread_descriptor=descriptor))
    return made


@pytest.mark.parametrize(
    ("descriptor", "expected"),
    [
        ("node.labels.az", [4, 1, 1, 1, 1]),
        ("NODE.LABELS.az", [4, 1, 1, 1, 1]),
        ("node.labels.AZ", [2, 2, 2, 1, 1]),
        ("node.id", [2, 2, 2, 1, 1]),
    ],
)
def test_preference(descriptor: str, expected: list[int]) -> None:
    """Zones are levelled, whatever their size; label names are case-sensitive, other descriptors mean nothing. [scheduling 26, 30]"""
    nodes = [node(f"id{i}", labels={"az": "az1" if i == 1 else "az2"}) for i in range(1, 6)]
    world = Scheduling(service("s"), *nodes, *(preferring(t, descriptor) for t in tasks("s", 8, version=1)))
    assert sorted(world.spread("s").values(), reverse=True) == expected
    assert world.spread("s")["id1"] == max(expected)


@VERSIONS
def test_two_preferences_with_limits(version: int | None) -> None:
    """Room decides how much a branch gets; within it racks and nodes are level. [scheduling 27]"""
    racks = {"id1": "az1/rack1", "id2": "az2/rack1", "id3": "az2/rack1", "id4": "az2/rack1", "id5": "az2/rack2", "id6": "az2/rack2"}
    racks["id0"] = "az1/rack1"
    apples = {"id0": 1, "id1": 10}
    nodes = []
    for node_id, place in racks.items():
        az, rack = place.split("/")
        made = node(node_id, memory=100_000_000 if node_id == "id0" else 1_000_000_000, labels={"az": az, "rack": rack})
        made.description.resources.generic.add(
            discrete_resource_spec=api.DiscreteGenericResource(kind="apple", value=apples.get(node_id, 6))
        )
        nodes.append(made)
    wanting = [task(f"t{i:02}", "s", version=version, memory=200_000_000, discrete={"apple": 2}) for i in range(12)]
    world = Scheduling(service("s"), *nodes, *(preferring(t, "node.labels.az", "node.labels.rack") for t in wanting))
    got = world.spread("s")
    assert (got.get("id0", 0), got["id1"]) == (0, 5)
    first, second = sorted(got[i] for i in ("id2", "id3", "id4")), sorted(got[i] for i in ("id5", "id6"))
    assert (first, second) in [([1, 1, 2], [1, 2]), ([1, 1, 1], [2, 2])]


def test_preferences_count_what_runs_already() -> None:
    """Both new tasks go to the emptiest rack of their datacenter. [scheduling 28]"""
    places = {"id11": ("dc1", "r1"), "id12": ("dc1", "r2"), "id21": ("dc2", "r1")}
    nodes = [node(i, labels={"dc": dc, "rack": rack}) for i, (dc, rack) in places.items()]
    running = [
        task(f"old-{i}-{n}", "s", on=i, state=S.RUNNING) for i, count in (("id11", 3), ("id12", 1), ("id21", 3)) for n in range(count)
    ]
    new = [preferring(t, "node.labels.dc", "node.labels.rack") for t in tasks("s", 2, version=0)]
    world = Scheduling(service("s"), *nodes, *running, *new)
    assert {world.place(t.id) for t in new} <= {"id12", "id21"}


def test_branch_counts() -> None:
    """Every vertex counts the service's tasks below it; nodes without the label share the empty value. [scheduling 29]"""
    counts = {"a": ("dc1", "r1", 3), "b": ("dc1", "r2", 2), "c": ("dc2", "r4", 4), "d": ("", "", 2), "e": ("", "", 1)}
    objects: list[api.Node | api.Task] = []
    for node_id, (dc, rack, count) in counts.items():
        objects.append(node(node_id, labels={"dc": dc, "rack": rack} if dc else {}))
        objects += [task(f"{node_id}{i}", "s", on=node_id, state=S.RUNNING) for i in range(count)]
        objects.append(task(f"{node_id}-other", "other", on=node_id, state=S.RUNNING))
    mirror = Mirror()
    mirror.rebuild(new_store(*objects))
    wanting = preferring(task("new", "s"), "node.labels.dc", "node.labels.rack")
    top = spread.Plan(mirror, mirror.pools.of(wanting, Volumes(new_store())), ("s", 0), NOW).root
    assert isinstance(top, spread.Branch)
    assert top.count == 12
    below = {child.count: child for _, _, child in top._heap}
    assert sorted(below) == [3, 4, 5]
    assert {n: sorted(c for c, _, _ in child._heap) for n, child in below.items() if isinstance(child, spread.Branch)} == {
        3: [3],
        4: [4],
        5: [2, 3],
    }


def branches(counts: dict[str, int], full: frozenset[str] = frozenset(), new: int = 0) -> dict[str, int]:
    """The tasks per zone after `new` more, with one node per zone; nodes of `full` zones take no more."""
    nodes = [node(zone, labels={"zone": zone}, memory=1 if zone in full else 1000) for zone in counts]
    running = [task(f"{zone}{i:02}", "s", on=zone, state=S.RUNNING) for zone, count in counts.items() for i in range(count)]
    waiting = [preferring(task(f"new{i}", "s", version=0, memory=2), "node.labels.zone") for i in range(new)]
    return Scheduling(service("s"), *nodes, *running, *waiting).spread("s")


def test_branches_are_filled_exactly() -> None:
    """A branch without room gets nothing, and the others end level. [scheduling 31]"""
    assert branches({"A": 0, "B": 3, "C": 0}, frozenset("A"), 9) == {"B": 6, "C": 6}
    after = branches({"A": 10, "B": 0, "C": 0}, new=3)
    assert (after["A"], sorted([after["B"], after["C"]])) == (10, [1, 2])


class Failing:
    """Two nodes; id1 carries a task of the service, id2 is empty. Tasks created here fail wherever they go."""

    def __init__(self, *services: api.Service) -> None:
        self.world = Scheduling(*services, node("id1"), node("id2"), task("lasting", "s1", on="id1", state=S.RUNNING))
        self.number = 0

    def attempt(self, version: int | None = None, *, at: float = NOW, end: api.TaskState.ValueType = S.FAILED) -> str:
        """Where the next task is placed, before it ends."""
        self.number += 1
        made = task(f"t{self.number:02}", "s1", version=version)
        self.world.now = at
        self.world.create(made)
        place = self.world.place(made.id)
        ended = moved(self.world.task(made.id), end)
        ended.status.timestamp.FromSeconds(int(at))
        self.world.update(ended)
        return place

    def failures(self, node_id: str, service_id: str = "s1", version: int = 0) -> int:
        """What a node has against it."""
        return self.world.info(node_id).recent_failures((service_id, version), self.world.now)


def test_five_failures_make_a_node_the_last_choice() -> None:
    """Until then the emptier node is tried again. [scheduling 33]"""
    bench = Failing(service("s1"))
    places = []
    for i in range(8):
        assert (bench.failures("id2"), bench.failures("id1")) == (min(i, 5), max(0, i - 5))
        places.append(bench.attempt())
    assert places == ["id2"] * 5 + ["id1"] * 3


def test_preassigned_tasks_count_no_failures() -> None:
    """A task that had no choice says nothing about its node. [scheduling 34]"""
    world = Scheduling(service("s2"), node("id1"), node("id2"))
    for i in range(8):
        world.create(task(f"t{i}", "s2", on="id1"))
        assert world.task(f"t{i}").status.state == S.ASSIGNED
        world.report(f"t{i}", S.FAILED)
    assert world.info("id1").recent_failures(("s2", 0), NOW) == 0


def test_failures_are_counted_per_version() -> None:
    """A new version starts with a clean record. [scheduling 35]"""
    bench = Failing(service("s1", 2))
    places = [bench.attempt(1 if i < 6 else 2) for i in range(15)]
    assert places == ["id2"] * 5 + ["id1"] + ["id2"] * 5 + ["id1"] * 4
    assert (bench.failures("id2", version=1), bench.failures("id2", version=2)) == (5, 5)


def test_failures_are_forgotten_after_five_minutes() -> None:
    """Then the node is preferred again. [scheduling 36]"""
    bench = Failing(service("s1"))
    assert [bench.attempt() for _ in range(6)] == ["id2"] * 5 + ["id1"]
    assert bench.attempt(at=NOW + 300) == "id1"
    assert bench.attempt(at=NOW + 301) == "id2"


def test_between_faulty_nodes_the_better_one_is_taken() -> None:
    """Fewer failures first; when equal, fewer tasks of the service. [scheduling 37]"""
    bench = Failing(service("s1"))
    assert [bench.attempt() for _ in range(10)] == ["id2"] * 5 + ["id1"] * 5
    assert [bench.attempt() for _ in range(2)] == ["id2", "id1"]
    bench.attempt()
    assert (bench.failures("id1"), bench.failures("id2")) == (6, 7)
    assert bench.attempt() == "id1"


def test_only_failures_count_and_only_once() -> None:
    """COMPLETE and SHUTDOWN are no failures; a status reported twice is one failure. [scheduling 38]"""
    bench = Failing(service("s1"))
    for end in (S.COMPLETE, S.SHUTDOWN):
        assert bench.attempt(end=end) == "id2"
    assert bench.failures("id2") == 0
    assert bench.attempt() == "id2"
    bench.world.update(moved(bench.world.task("t03"), S.FAILED))
    assert bench.failures("id2") == 1
