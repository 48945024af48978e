"""Cluster volumes as the scheduler gives them to tasks."""

from __future__ import annotations

import pytest

from pyswarm.api import v1 as api
from pyswarm.manager.changes import Create, Update
from pyswarm.manager.scheduler.volumes import Known, Volumes, in_topology, obstacle
from pyswarm.manager.store import Kind, copy_of
from tests.manager.csi.support import A, P, S, mount, node, states, task, volume
from tests.manager.scheduler.support import Scheduling, service
from tests.support.loops import new_store

R1Z1, R1Z2 = {"R": "1", "Z": "1"}, {"R": "1", "Z": "2"}
NOBODY = "no suitable node (cannot fulfill requested CSI volume mounts on {})"


@pytest.mark.parametrize(
    ("top", "accessible", "fits"),
    [
        (R1Z1, [R1Z1], True),
        (R1Z2, [R1Z1, R1Z2], True),
        ({"R": "1", "Z": "3"}, [{"R": "1"}], True),
        (R1Z1, [{"R": "2", "Z": "1"}], False),
        ({**R1Z1, "S": "1"}, [R1Z1, R1Z2], True),
        ({**R1Z1, "S": "1"}, [{**R1Z1, "S": "2"}, {**R1Z2, "S": "1"}], False),
        ({**R1Z1, "S": "1"}, [{**R1Z1, "S": "2"}, {**R1Z2, "S": "1"}, {**R1Z1, "S": "1"}], True),
        (None, [R1Z1], True),
        (R1Z1, [], True),
        ({}, [R1Z1], False),
    ],
)
def test_topology(top: dict[str, str] | None, accessible: list[dict[str, str]], fits: bool) -> None:
    """A node reaches a volume when one of its topologies says nothing else than the node's does. [scheduling 121]"""
    assert in_topology(top, accessible) is fits


def usable(scope: str, sharing: str, *, used_on: str = "", by_writer: bool = True, readonly: bool = False, within: bool = True) -> bool:
    """Whether a volume can be mounted on n1 while a task uses it somewhere."""
    kept = volume("v", scope=A.Scope.Value(scope), sharing=A.Sharing.Value(sharing), **({used_on: P.PUBLISHED} if used_on else {}))
    kept.volume_info.accessible_topology.add(segments=R1Z1 if within else R1Z2)
    user = task("u", mount("v", readonly=not by_writer), on=used_on, state=S.RUNNING, holds="v")
    store = new_store(kept, *([user] if used_on else []))
    return not obstacle(Known.of(store, kept), mount("v", readonly=readonly), node("n1", topology=R1Z1))


def test_usable() -> None:
    """Scope, sharing and place decide. [scheduling 122]"""
    assert not usable("MULTI_NODE", "ALL", within=False)
    assert not usable("SINGLE_NODE", "ALL", used_on="n2")
    assert usable("SINGLE_NODE", "ALL", used_on="n1")
    assert not usable("MULTI_NODE", "READ_ONLY")
    assert usable("MULTI_NODE", "READ_ONLY", readonly=True)
    assert not usable("MULTI_NODE", "ONE_WRITER", used_on="n2")
    assert usable("MULTI_NODE", "ONE_WRITER", used_on="n2", readonly=True)
    assert usable("MULTI_NODE", "ONE_WRITER", used_on="n2", by_writer=False)
    assert usable("MULTI_NODE", "ALL")
    assert usable("MULTI_NODE", "ALL", used_on="n2")
    assert not usable("SINGLE_NODE", "NONE", used_on="n1", readonly=True)
    assert not usable("MULTI_NODE", "NONE", used_on="n2", by_writer=False, readonly=True)
    assert usable("SINGLE_NODE", "NONE")


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (lambda v: v.ClearField("volume_info"), "not created yet"),
        (lambda v: setattr(v, "pending_delete", True), "being removed"),
        (lambda v: setattr(v.spec, "availability", api.VolumeSpec.PAUSE), "paused"),
        (lambda v: setattr(v.spec, "availability", api.VolumeSpec.DRAIN), "drained"),
        (lambda v: setattr(v.spec.driver, "name", "other"), "no plugin other on the node"),
        (lambda v: v.publish_status.add(node_id="n1", state=P.PENDING_NODE_UNPUBLISH), "being taken back from this node"),
        (lambda v: v.publish_status.add(node_id="n1", state=P.PENDING_UNPUBLISH), "being taken back from this node"),
        (lambda v: v.publish_status.add(node_id="n2", state=P.PENDING_NODE_UNPUBLISH), "in use on another node"),
    ],
)
def test_obstacles(edit: object, why: str) -> None:
    """What else is in the way: the volume's own state, a node without the plugin, a node that has not given it back yet."""
    kept = volume("v", scope=A.SINGLE_NODE)
    edit(kept)  # type: ignore[operator]
    assert obstacle(Known.of(new_store(kept), kept), mount("v"), node("n1")) == why


def test_names_and_groups() -> None:
    """A name is that very volume, a group any of it, best one that the node has; bind mounts do not count. [scheduling 124, 125]"""
    store = new_store(volume("v1", group="g"), volume("v2", group="g", n1=P.PUBLISHED), volume("v3"), volume("V3x"))
    binding = api.Mount(type=api.Mount.BIND, source="v1", target="/bind")
    wanted = task("t", mount("group:g", "/a", readonly=True), mount("v2", "/b"), binding, mount("v3", "/c"))
    chosen = Volumes(store).choose(wanted, node("n1"))
    assert [(a.id, a.source, a.target) for a in chosen.attachments] == [
        ("v2-id", "group:g", "/a"),
        ("v2-id", "v2", "/b"),
        ("v3-id", "v3", "/c"),
    ]
    assert Volumes(store).choose(task("t", mount("group:g")), node("n2")).attachments[0].id == "v1-id"
    for unknown in ("v4", "V2", "group:h", "group:v1", "v1-id"):
        missing = Volumes(store).choose(task("t", mount(unknown)), node("n1"))
        assert (missing.attachments, missing.lacking) == ([], f"volume {unknown} (there is none)")


def test_named_volumes_are_chosen_before_groups() -> None:
    """A group's mount leaves the volume that another mount names, whichever comes first."""
    store = new_store(*(volume(name, group="g", sharing=A.NONE) for name in ("v1", "v2")))
    chosen = Volumes(store).choose(task("t", mount("group:g", "/a"), mount("v1", "/b")), node("n1"))
    assert [a.id for a in chosen.attachments] == ["v2-id", "v1-id"]


def test_what_a_pass_gave_away() -> None:
    """Node and read-only flag of each mount count for the tasks after it, in the same pass and in later ones. [scheduling 123]"""
    store = new_store(volume("v1", group="g", sharing=A.ONE_WRITER), volume("v2", sharing=A.ONE_WRITER))
    volumes, wanted = Volumes(store), task("t", mount("group:g", "/a", readonly=True), mount("v2", "/b"), on="n1", state=S.ASSIGNED)
    volumes.attach(wanted, node("n1"))
    later = Volumes(new_store(*(change.obj for change in volumes.changes()), wanted))
    for view in (volumes, later):
        assert view.choose(task("u", mount("v1")), node("n2")).lacking == ""
        assert view.choose(task("u", mount("v2")), node("n2")).lacking == "volume v2 (being written to by another task)"
        assert view.choose(task("u", mount("v2", readonly=True)), node("n2")).lacking == ""
    assert later.choose(task("u"), node("n2")).attachments == []


@pytest.mark.parametrize("preassigned", [False, True])
def test_assignment(preassigned: bool) -> None:
    """A task waits for its volume to be made; then it gets volume and node at once, and the volume an entry. [scheduling 126]"""
    waiting = task("t", mount("volume1", "/var/"), on="n1" if preassigned else "")
    world = Scheduling(node("n1"), waiting)
    refused = "cannot fulfill requested CSI volume mounts on 1 node"
    assert world.why("t") == (refused if preassigned else f"no suitable node ({refused})")
    unmade = volume("volume1", made=False)
    world.change(Create(unmade))
    assert world.task("t").status.state == S.PENDING
    made = copy_of(world.store.volumes.get(unmade.id) or unmade)
    made.volume_info.volume_id = "csi-1"
    world.change(Update(made))
    placed = world.task("t")
    assert (placed.node_id, placed.status.state) == ("n1", S.ASSIGNED)
    assert [(a.id, a.source, a.target) for a in placed.volumes] == [("volume1-id", "volume1", "/var/")]
    assert states(world.store, "volume1") == {"n1": "PENDING_PUBLISH"}


def test_what_is_in_use_at_the_start() -> None:
    """A new scheduler knows what running tasks hold; what ended or waits holds nothing. [scheduling 127]"""
    single = {"scope": A.SINGLE_NODE, "sharing": A.NONE}
    running = task("running", mount("volume1", "/1"), mount("group:group2", "/2"), on="node0", state=S.RUNNING, holds="volume1 volume3")
    ended = task("ended", mount("volume2"), on="node0", state=S.SHUTDOWN, holds="volume2")
    volumes = [volume(f"volume{n}", group="group2" if n == 3 else "", **single) for n in (1, 2, 3)]  # type: ignore[arg-type]
    world = Scheduling(
        node("node0"), running, ended, *volumes, task("w1", mount("volume1")), task("w2", mount("volume2")), task("w3", mount("volume3"))
    )
    assert world.why("w1") == world.why("w3") == NOBODY.format("1 node")
    assert world.place("w2") == "node0"
    world.report("running", S.COMPLETE)
    assert world.place("w1") == world.place("w3") == "node0"


def test_a_pause_between_two_passes() -> None:
    """A volume that is paused, drained or removed is given to nobody from that commit on. [scheduling 129, 130]"""
    for change in (
        lambda v: setattr(v.spec, "availability", api.VolumeSpec.PAUSE),
        lambda v: setattr(v.spec, "availability", api.VolumeSpec.DRAIN),
        lambda v: setattr(v, "pending_delete", True),
    ):
        world = Scheduling(service("s"), node("n1"), volume("v"))
        edited = copy_of(world.store.volumes.get("v-id") or api.Volume())
        change(edited)
        world.transaction(Update(edited), Create(task("t", mount("v"))))
        world.settle()
        assert world.why("t") == NOBODY.format("1 node")
        edited = copy_of(world.store.volumes.get("v-id") or api.Volume())
        edited.spec.availability, edited.pending_delete = api.VolumeSpec.ACTIVE, False
        world.change(Update(edited))
        assert world.place("t") == "n1"
    world.delete(Kind.VOLUME, "v-id")
    world.change(Create(task("late", mount("v"))))
    assert world.why("late") == NOBODY.format("1 node")


def test_all_mounts_or_none() -> None:
    """A task of which one mount cannot be served is not assigned, and holds nothing. [scheduling 130]"""
    world = Scheduling(node("n1"), volume("v1", sharing=A.NONE), task("t", mount("v1", "/1"), mount("v2", "/2")))
    assert world.why("t") == NOBODY.format("1 node")
    assert states(world.store, "v1") == {}
    world.change(Create(task("u", mount("v1"))))
    assert world.place("u") == "n1"


def test_tasks_of_global_services_hold_their_volumes() -> None:
    """A volume for one task goes to one preassigned task only. [scheduling 130]"""
    world = Scheduling(node("n1"), node("n2"), volume("v", scope=A.SINGLE_NODE, sharing=A.NONE), task("a", mount("v"), on="n1"))
    world.change(Create(task("b", mount("v"), on="n2")), Create(task("c", mount("v"))))
    assert world.task("a").status.state == S.ASSIGNED
    assert world.why("b") == "cannot fulfill requested CSI volume mounts on 1 node"
    assert world.why("c") == NOBODY.format("2 nodes")


def test_one_pass_spreads_tasks_over_a_group() -> None:
    """Equal tasks that each need a volume for themselves get one each, as many as there are."""
    group = [volume(f"v{n}", group="g", scope=A.SINGLE_NODE, sharing=A.NONE) for n in range(3)]
    waiting = []
    for number in range(5):
        made = task(f"t{number}", mount("group:g"))
        made.service_id = "s"
        made.spec_version.index = 1
        waiting.append(made)
    world = Scheduling(service("s", 1), node("n1"), node("n2"), *group, *waiting)
    placed = [t for t in world.store.tasks if t.node_id]
    assert sorted(t.volumes[0].id for t in placed) == ["v0-id", "v1-id", "v2-id"]
    assert {len(v.publish_status) for v in world.store.volumes} == {1}
    for held in placed:
        [entry] = (world.store.volumes.get(held.volumes[0].id) or api.Volume()).publish_status
        assert entry.node_id == held.node_id


def test_limit_per_node() -> None:
    """A node gets no more volumes of a driver than its plugin allows; one that it has already costs nothing."""
    everything = [volume("v0", n1=P.PUBLISHED), *(volume(f"v{n}") for n in (1, 2, 3)), volume("else", driver="else")]
    world = Scheduling(node("n1", "driver", "else", limit=2), *everything, task("two", mount("v1", "/1"), mount("v2", "/2")))
    assert world.why("two") == NOBODY.format("1 node")
    world.change(*(Create(task(f"t{n}", mount(f"v{n}"))) for n in (0, 1, 2)), Create(task("e", mount("else"))))
    assert (world.place("t0"), world.place("t1"), world.place("e")) == ("n1", "n1", "n1")
    assert world.why("t2") == NOBODY.format("1 node")
    lacking = Volumes(world.store).choose(task("x", mount("v3")), world.node("n1")).lacking
    assert lacking == "volume v3 (the node has 2 volumes of driver, its limit)"
