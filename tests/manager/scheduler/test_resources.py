"""What nodes have left, and who gets it."""

from __future__ import annotations

from pyswarm.api import v1 as api
from pyswarm.manager.scheduler import generic
from pyswarm.manager.scheduler.nodeinfo import NodeInfo
from pyswarm.manager.store import copy_of
from tests.manager.scheduler.support import S, Scheduling, discrete, moved, named, node, service, task


def rich(made: api.Node, *resources: api.GenericResource) -> api.Node:
    """A node with generic resources."""
    made.description.resources.generic.extend(resources)
    return made


def left(info: NodeInfo) -> dict[str, object]:
    """What a node has left: amounts, and names in order."""
    found: dict[str, object] = {"cpus": info.cpus, "memory": info.memory}
    for item in info.generic:
        if item.WhichOneof("resource") == "discrete_resource_spec":
            found[item.discrete_resource_spec.kind] = item.discrete_resource_spec.value
        else:
            names = found.setdefault(item.named_resource_spec.kind, [])
            assert isinstance(names, list)
            names.append(item.named_resource_spec.value)
    return found


def test_a_node_with_enough_of_everything_is_waited_for() -> None:
    """Nodes that are not ready are counted apart from those that are too small. [scheduling 39]"""
    small = rich(node("n1", memory=10**9), *named("orange", "blue"), discrete("apple", 1))
    unknown = [rich(node(i, state="UNKNOWN", memory=8 * 10**9), *named("orange", "a", "b"), discrete("apple", 9)) for i in ("n2", "n3")]
    wanting = task("t", "s", memory=2 * 10**9, discrete={"orange": 2, "apple": 2})
    world = Scheduling(service("s"), small, *unknown, wanting)
    assert world.why("t") == "no suitable node (2 nodes not available for new tasks; insufficient resources on 1 node)"
    world.create(rich(node("n4", memory=8 * 10**9), *named("orange", "blue", "red", "green"), discrete("apple", 4)))
    assert world.place("t") == "n4"
    assert list(world.task("t").assigned_generic_resources) == [*named("orange", "blue", "red"), discrete("apple", 2)]


def test_reservations_come_before_tidiness() -> None:
    """A task that no longer fits the emptier node goes to the fuller one. [scheduling 40]"""
    id1 = rich(node("id1", memory=10**9), discrete("apple", 2))
    id2 = rich(node("id2", memory=10**11), discrete("apple", 5))
    running = [
        task(f"old{i}", "s", on=n, state=S.RUNNING, memory=5 * 10**8, discrete={"apple": 1}) for i, n in enumerate(["id1", *["id2"] * 3])
    ]
    for one in running:
        one.assigned_generic_resources.append(discrete("apple", 1))
    new = [task(f"new{i}", "s", memory=5 * 10**8, discrete={"apple": 1}) for i in range(2)]
    world = Scheduling(service("s"), id1, id2, *running, *new)
    assert sorted(world.place(t.id) for t in new) == ["id1", "id2"]


def full_node() -> Scheduling:
    """A node whose first task leaves no room for the second."""
    made = [task(f"t{i}", "s", memory=8 * 10**8, discrete={"apple": 3}) for i in (1, 2)]
    world = Scheduling(service("s"), rich(node("n", memory=10**9), discrete("apple", 4)), *made)
    assert (world.place("t1"), world.why("t2")) == ("n", "no suitable node (insufficient resources on 1 node)")
    return world


def test_room_returns_when_a_task_has_ended() -> None:
    """An observed end frees what was reserved. [scheduling 41]"""
    world = full_node()
    world.report("t1", S.SHUTDOWN)
    assert world.place("t2") == "n"


def test_room_stays_taken_while_a_task_is_only_told_to_stop() -> None:
    """A desired end frees nothing, but the task no longer counts for spreading. [scheduling 42]"""
    world = full_node()
    assert (world.info("n").active, world.info("n").by_service) == (1, {"s": 1})
    unwanted = copy_of(world.task("t1"))
    unwanted.desired_state = S.SHUTDOWN
    world.update(unwanted)
    assert world.why("t2")
    assert (world.info("n").active, world.info("n").by_service) == (0, {})


def test_ended_tasks_take_nothing_at_the_start() -> None:
    """A dead task that reserved everything does not keep an equal one out. [scheduling 43]"""
    dead = task("dead", "s", on="n", state=S.SHUTDOWN, memory=1000, cpus=1000)
    world = Scheduling(service("s"), node("n", memory=1000, cpus=1000), dead, task("t", "s", on="n", memory=1000, cpus=1000))
    assert world.task("t").status.state == S.ASSIGNED


def test_adding_and_removing_a_task() -> None:
    """Each moves what the task reserved and held, once. [scheduling 44, 45]"""
    base = rich(node("n", memory=1_010_000, cpus=110_000), *named("orange", "blue", "red", "green"), discrete("apple", 6))
    info = NodeInfo(base)
    info.set_node(base)
    first = task("a", "s", on="n", state=S.RUNNING, memory=10_000, cpus=10_000)
    first.assigned_generic_resources.extend([*named("orange", "green"), discrete("apple", 1)])
    info.add(first)
    assert left(info) == {"cpus": 100_000, "memory": 1_000_000, "orange": ["blue", "red"], "apple": 5}

    second = task("b", "s", on="n", state=S.RUNNING, memory=5000, cpus=5000)
    second.assigned_generic_resources.extend([*named("orange", "blue"), discrete("apple", 2)])
    for _ in range(2):
        info.add(second)
        assert left(info) == {"cpus": 95_000, "memory": 995_000, "orange": ["red"], "apple": 3}
    assert info.active == 2

    assert info.remove("b")
    assert not info.remove("b")
    assert left(info) == {"cpus": 100_000, "memory": 1_000_000, "orange": ["blue", "red"], "apple": 5}


def test_a_changed_description_counts_at_once() -> None:
    """What is left is the new description without what runs; without resources only tasks that reserve nothing fit. [scheduling 46]"""
    world = Scheduling(service("s"), node("n", memory=1000), task("a", "s", memory=800), task("b", "s", memory=800))
    assert world.why("b")
    more = world.node("n")
    more.description.resources.memory_bytes = 1600
    world.update(more)
    assert (world.place("b"), world.info("n").memory) == ("n", 0)
    none = world.node("n")
    none.description.ClearField("resources")
    world.update(none)
    world.create(task("c", "s", memory=1), task("d", "s"))
    assert (world.why("c"), world.place("d")) == ("no suitable node (insufficient resources on 1 node)", "n")


def test_an_exact_fit() -> None:
    """A reservation may take all there is. [scheduling 47]"""
    world = Scheduling(
        service("s"), rich(node("n", memory=10, cpus=20), discrete("a", 3)), task("t", "s", memory=10, cpus=20, discrete={"a": 3})
    )
    assert (world.place("t"), left(world.info("n"))) == ("n", {"cpus": 0, "memory": 0})


def wants(**amounts: int) -> list[api.GenericResource]:
    """Reservations."""
    return [discrete(kind, value) for kind, value in amounts.items()]


def test_claims() -> None:
    """An amount is one entry, of a set the first names are taken; what others hold of it is left. [scheduling 74, 75]"""
    assert generic.claim([discrete("apple", 3)], wants(apple=2)) == wants(apple=2)
    assert generic.available([discrete("apple", 3)], wants(apple=2)) == wants(apple=1)

    oranges = named("orange", "red", "green", "blue", "yellow")
    stock = [*oranges, discrete("apple", 3), discrete("banana", 2), discrete("cake", 1)]
    got = generic.claim(stock, wants(orange=4, apple=2))
    assert got == [*oranges, discrete("apple", 2)]
    assert generic.available(stock, got) == wants(apple=1, banana=2, cake=1)

    apples = named("apple", "red", "orange", "blue", "green")
    assert generic.claim(apples, wants(apple=2)) == apples[:2]
    assert generic.available(apples, apples[:2]) == apples[2:]
    three = [*oranges, *apples, *named("pear", "a", "b", "c", "d")]
    got = generic.claim(three, wants(orange=4, apple=2))
    assert (len(got), len(generic.available(three, got))) == (6, 6)


def test_what_is_left() -> None:
    """Names held are gone, amounts held are subtracted from the same kind. [scheduling 76]"""
    described = [
        *named("apple", "red", "orange", "blue", "green", "yellow"), discrete("orange", 5), discrete("banana", 3),
        *named("grape", "red", "orange", "blue", "green", "yellow"), discrete("cake", 3),
    ]  # fmt: skip
    held = [
        *named("apple", "red", "green", "blue", "red"),
        discrete("banana", 2),
        *named("grape", "red", "blue", "red"),
        discrete("cake", 3),
    ]
    assert generic.available(described, held) == [
        *named("apple", "orange", "yellow"), discrete("orange", 5), discrete("banana", 1), *named("grape", "orange", "green", "yellow"),
    ]  # fmt: skip
    assert generic.available(named("apple", "red", "blue"), [discrete("apple", 1)]) == named("apple", "red", "blue")


def test_what_ended_tasks_held_returns() -> None:
    """Amounts add up again, names return, and nothing is there twice. [scheduling 77]"""
    world = Scheduling(service("s"), rich(node("n"), discrete("apple", 4), *named("gpu", "red", "orange", "blue")))
    world.create(*(task(f"t{i}", "s", discrete={"apple": 2, "gpu": 1}) for i in range(2)))
    assert left(world.info("n")) == {"cpus": 0, "memory": 0, "gpu": ["blue"]}
    world.report("t0", S.FAILED)
    assert left(world.info("n")) == {"cpus": 0, "memory": 0, "apple": 2, "gpu": ["red", "blue"]}
    world.report("t1", S.FAILED)
    assert left(world.info("n")) == {"cpus": 0, "memory": 0, "apple": 4, "gpu": ["red", "orange", "blue"]}


def described_as(*resources: api.GenericResource) -> dict[str, object]:
    """What is left on a node of which tasks hold apple 2 and orange red, once it is described like this."""
    holder = task("t", "s", on="n", state=S.RUNNING)
    holder.assigned_generic_resources.extend([discrete("apple", 2), *named("orange", "red")])
    first = rich(node("n"), discrete("apple", 6), *named("orange", "red", "blue"))
    world = Scheduling(service("s"), first, holder)
    assert left(world.info("n")) == {"cpus": 0, "memory": 0, "apple": 4, "orange": ["blue"]}
    changed = world.node("n")
    del changed.description.resources.generic[:]
    changed.description.resources.generic.extend(resources)
    world.update(changed)
    found = left(world.info("n"))
    world.update(moved(world.task("t"), S.COMPLETE))
    full = NodeInfo(changed)
    full.set_node(changed)
    assert left(world.info("n")) == left(full)
    return {k: v for k, v in found.items() if k not in {"cpus", "memory"}}


def test_changed_generic_resources() -> None:
    """What is left is the description without what tasks hold, also when a kind disappears or changes its type. [scheduling 78, 79, 80]"""
    assert described_as() == {}
    assert described_as(discrete("apple", 4), *named("orange", "red", "blue")) == {"apple": 2, "orange": ["blue"]}
    assert described_as(discrete("apple", 2), *named("orange", "red", "blue", "green")) == {"orange": ["blue", "green"]}
    assert described_as(discrete("apple", 1), *named("orange", "blue")) == {"orange": ["blue"]}
    assert described_as(*named("apple", "a", "b"), discrete("orange", 5)) == {"apple": ["a", "b"], "orange": 5}


def test_enough_of_a_kind() -> None:
    """An amount must be there as an amount or as that many names; a reservation by name never is. [scheduling 81]"""
    assert [generic.lacking([discrete("apple", 5)], wants(apple=n)) for n in (1, 5, 6)] == ["", "", "apple"]
    assert [generic.lacking(named("apple", "a", "b"), wants(apple=n)) for n in (1, 2, 3)] == ["", "", "apple"]
    assert generic.lacking(named("apple", "a"), named("apple", "a")) == "apple"
    assert generic.lacking([discrete("apple", 5)], wants(pear=1)) == "pear"
