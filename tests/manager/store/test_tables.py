"""Tables and selectors: spec/store-and-raft, sections 3 to 5."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyswarm.api import ids
from pyswarm.api import v1 as api
from pyswarm.errors import Unknown
from pyswarm.manager.store import Exists, InvalidFind, NameConflict, NotExist, Selector, Store, Stored, by, copy_of
from pyswarm.manager.store.rules import NoKind
from pyswarm.manager.store.tables import TASK, Table

NAMED = ["services", "networks", "clusters", "secrets", "configs", "volumes"]
MESSAGES = {
    "services": api.Service,
    "networks": api.Network,
    "clusters": api.Cluster,
    "secrets": api.Secret,
    "configs": api.Config,
    "volumes": api.Volume,
}


def named(table: str, object_id: str, name: str) -> Stored:
    """An object of a table whose name comes from its spec."""
    obj = MESSAGES[table](id=object_id)
    obj.spec.annotations.name = name
    if isinstance(obj, api.Volume):
        obj.spec.driver.name = "driver"
    return obj


def found(store: Store, table: str, selector: Selector) -> list[str]:
    """Ids that a selector finds."""
    return [o.id for o in getattr(store, table).find(selector)]


async def fill(store: Store, table: str, *objects: Stored) -> None:
    """Store objects in one transaction."""

    def create(tx: object) -> None:
        for obj in objects:
            getattr(tx, table).create(obj)

    await store.update(create)


def test_ids_are_25_base36_characters() -> None:
    """A thousand ids all have the documented form and differ. [store 1]"""
    made = {ids.new_id() for _ in range(1000)}
    assert len(made) == 1000
    assert all(len(i) == 25 and int(i, 36) >= 0 and i == i.lower() for i in made)


@pytest.mark.parametrize("table", NAMED)
async def test_unique_names(store: Store, table: str) -> None:
    """Names are unique per table without regard to case; the name is tested before the id. [store 19, 23]"""
    await fill(store, table, named(table, "id1", "name1"), named(table, "id2", "name2"))
    for clash in (named(table, "id9", "name1"), named(table, "id9", "NAME1"), named(table, "id1", "name2")):
        with pytest.raises(NameConflict):
            await fill(store, table, clash)
    with pytest.raises(Exists):
        await fill(store, table, named(table, "id1", "other"))
    assert found(store, table, by.name("NAME1")) == ["id1"]
    assert found(store, table, by.name_prefix("Name")) == ["id1", "id2"]
    assert found(store, table, by.name_prefix("invalid")) == []
    assert found(store, table, by.id_prefix("id")) == ["id1", "id2"]


async def test_renaming(store: Store) -> None:
    """A rename to a taken name fails in any case; to a free one it moves the index; another case of the own name is fine. [store 20]"""
    await fill(store, "services", named("services", "id1", "name1"), named("services", "id2", "name2"))

    async def rename(name: str) -> None:
        edited = copy_of(store.services.get("id1"))
        edited.spec.annotations.name = name
        await store.update(lambda tx: tx.services.update(edited))

    for taken in ("name2", "NAME2"):
        with pytest.raises(NameConflict):
            await rename(taken)
    await rename("Name1")
    await rename("name4")
    assert found(store, "services", by.name("name1")) == []
    assert found(store, "services", by.name("name4")) == ["id1"]


async def test_nodes(store: Store) -> None:
    """Nodes share names, are found by role and membership, and not by name without a description. [store 17, 18]"""
    worker, manager = api.NodeRole.WORKER, api.NodeRole.MANAGER
    nodes = [api.Node(id="id1", role=manager), api.Node(id="id2", role=worker), api.Node(id="id3", role=worker), api.Node(id="id4")]
    for node, host in zip(nodes, ("name1", "name2", "name2"), strict=False):
        node.description.hostname = host
    nodes[0].spec.membership = api.NodeSpec.Membership.ACCEPTED
    await fill(store, "nodes", *nodes)
    with pytest.raises(Exists):
        await fill(store, "nodes", api.Node(id="id1"))
    assert found(store, "nodes", by.name("name2")) == ["id2", "id3"]
    assert found(store, "nodes", by.any_of(by.name("name1"), by.name("name2"))) == ["id1", "id2", "id3"]
    assert found(store, "nodes", by.role(manager)) == ["id1"]
    assert found(store, "nodes", by.membership(api.NodeSpec.Membership.ACCEPTED)) == ["id1"]
    assert found(store, "nodes", by.name("")) == []


async def test_tasks(store: Store) -> None:
    """Tasks are found by name, node, service, slot and states. [store 22]"""
    running, shutdown = api.TaskState.RUNNING, api.TaskState.SHUTDOWN
    one = api.Task(id="id1", service_id="s1", slot=1, node_id="n1", desired_state=running)
    two = api.Task(id="id2", service_id="s1", slot=2, desired_state=shutdown)
    glob = api.Task(id="id3", service_id="s2", node_id="n1", desired_state=running)
    for task, service in ((one, "web"), (two, "web"), (glob, "glob")):
        task.service_annotations.name = service
    await fill(store, "tasks", one, two, glob)
    assert found(store, "tasks", by.name("web.1.id1")) == ["id1"]
    assert found(store, "tasks", by.name("glob.n1.id3")) == ["id3"]
    assert found(store, "tasks", by.name_prefix("web.")) == ["id1", "id2"]
    assert found(store, "tasks", by.node("n1")) == ["id1", "id3"]
    assert found(store, "tasks", by.node("")) == ["id2"]
    assert found(store, "tasks", by.service("s1")) == ["id1", "id2"]
    assert found(store, "tasks", by.slot("s1", 2)) == ["id2"]
    assert found(store, "tasks", by.desired_state(running)) == ["id1", "id3"]
    assert found(store, "tasks", by.task_state(running)) == []


async def test_references(store: Store) -> None:
    """Services are found by the secrets, configs and networks they reference; the old network list counts only when the new is empty."""
    service = api.Service(id="s1")
    service.spec.task.container.secrets.add(secret_id="sec")
    service.spec.task.container.configs.add(config_id="cfg")
    service.spec.task.networks.add(target="new")
    service.spec.networks.add(target="old")
    await fill(store, "services", service)
    assert found(store, "services", by.secret("sec")) == ["s1"]
    assert found(store, "services", by.config("cfg")) == ["s1"]
    assert found(store, "services", by.network("new")) == ["s1"]
    assert found(store, "services", by.network("old")) == []
    assert found(store, "services", by.runtime("container")) == ["s1"]


async def test_extensions_and_resources(store: Store) -> None:
    """A resource needs its extension; extensions never change, and stay while a resource uses them. [store 23]"""

    def resource(object_id: str, kind: str) -> api.Resource:
        made = api.Resource(id=object_id, kind=kind)
        made.annotations.name = object_id
        return made

    extension = api.Extension(id="e1")
    extension.annotations.name = "Kind"
    with pytest.raises(NoKind):
        await fill(store, "resources", resource("r1", "kind"))
    await fill(store, "extensions", extension)
    await fill(store, "resources", resource("r1", "kind"))
    builtin = api.Extension(id="e2")
    builtin.annotations.name = "node"
    with pytest.raises(NameConflict):
        await fill(store, "extensions", builtin)
    with pytest.raises(Unknown, match="extensions are immutable"):
        await store.update(lambda tx: tx.extensions.update(tx.extensions.get("e1")))
    with pytest.raises(Unknown, match="cannot delete extension because objects of this type exist"):
        await store.update(lambda tx: tx.extensions.delete("e1"))
    await store.update(lambda tx: tx.resources.delete("r1"))
    await store.update(lambda tx: tx.extensions.delete("e1"))


async def test_volume_needs_a_driver(store: Store) -> None:
    """A volume without driver cannot be stored, and the attempt leaves nothing behind. [store 24]"""
    bare = api.Volume(id="v1")
    with pytest.raises(Unknown, match="missing value for index 'driver'"):
        await fill(store, "volumes", bare)
    assert len(store.volumes) == 0


async def test_or(store: Store) -> None:
    """Or concatenates its parts and drops later duplicates; of nothing it finds nothing. [store 25]"""
    await fill(store, "services", *(named("services", f"id{i}", f"name{i}") for i in (1, 2, 3)))
    cases = [
        (by.any_of(), []),
        (by.any_of(by.name("name1"), by.name("name1")), ["id1"]),
        (by.any_of(by.name("name2"), by.id_prefix("id")), ["id2", "id1", "id3"]),
        (by.any_of(by.name("name1"), by.id_prefix("id5295")), ["id1"]),
    ]
    for selector, expected in cases:
        assert found(store, "services", selector) == expected


async def test_custom_indexes(store: Store) -> None:
    """Custom entries are found by exact value and by prefix, each object once. [store 26]"""
    nodes = [api.Node(id=f"id{i}") for i in (1, 2, 3)]
    nodes[1].spec.annotations.indices.add(key="before", val="id1")
    nodes[2].spec.annotations.indices.add(key="before", val="id1")
    nodes[2].spec.annotations.indices.add(key="before", val="id2")
    await fill(store, "nodes", *nodes)
    assert found(store, "nodes", by.custom("before", "id2")) == ["id3"]
    assert found(store, "nodes", by.custom("before", "id1")) == ["id2", "id3"]
    assert found(store, "nodes", by.custom("before", "id3")) == []
    assert found(store, "nodes", by.custom_prefix("before", "id")) == ["id2", "id3"]
    assert found(store, "nodes", by.custom_prefix("before", "id6")) == []


@pytest.mark.parametrize(
    ("table", "selector"),
    [
        ("services", by.role(api.NodeRole.WORKER)),
        ("extensions", by.name_prefix("x")),
        ("extensions", by.any_of(by.name("x"), by.name_prefix("x"))),
        ("nodes", by.service("x")),
    ],
)
def test_unknown_selectors_are_refused(store: Store, table: str, selector: Selector) -> None:
    """A selector that a table has no index for is an error, also inside Or. [store 27]"""
    with pytest.raises(InvalidFind, match="invalid find argument type"):
        getattr(store, table).find(selector)


async def test_order_is_by_id(store: Store) -> None:
    """Everything comes in byte order of the ids, whatever the order of creation. [store 28]"""
    await fill(store, "nodes", *(api.Node(id=i) for i in ("b", "a", "Z", "10", "9")))
    assert found(store, "nodes", by.everything()) == ["10", "9", "Z", "a", "b"]


async def test_the_store_keeps_its_own_copy(store: Store) -> None:
    """Editing the message that was passed to create does not change the store. [store 29]"""
    node = api.Node(id="n1")
    await fill(store, "nodes", node)
    node.description.hostname = "later"
    assert not store.nodes.get("n1").HasField("description")


async def test_unknown_ids(store: Store) -> None:
    """Update and delete of an unknown id fail with the documented text. [store 18]"""
    for write in (lambda tx: tx.nodes.update(api.Node(id="x")), lambda tx: tx.nodes.delete("x")):
        with pytest.raises(NotExist, match="object does not exist"):
            await store.update(write)


NAMES = st.sampled_from(["", "a", "B"])
TASKS = st.builds(
    lambda service, node, slot, name, state, desired, extra: _task(service, node, slot, name, state, desired, extra),
    NAMES, NAMES, st.integers(0, 1), NAMES, st.sampled_from([64, 192, 512]), st.sampled_from([512, 640]), st.integers(0, 5),
)  # fmt: skip


def _task(service: str, node: str, slot: int, name: str, state: int, desired: int, extra: int) -> api.Task:
    made = api.Task(id="t", service_id=service, node_id=node, slot=slot, desired_state=api.TaskState.ValueType(desired))
    made.service_annotations.name, made.status.state = name, api.TaskState.ValueType(state)
    match extra:
        case 1:
            made.annotations.name = "own"
        case 2:
            made.annotations.indices.add(key="k", val="v")
        case 3:
            made.spec.container.secrets.add(secret_id="s")
        case 4:
            made.spec.networks.add(target="n")
        case 5:
            made.volumes.add(id="v")
    return made


@settings(deadline=None)
@given(st.lists(TASKS, min_size=1, max_size=6))
def test_indexes_follow_every_update(versions: list[api.Task]) -> None:
    """However a task changes, its table's indexes are those of a table that never had another version; and it leaves nothing behind."""
    table = Table(TASK)
    for version in versions:
        table.put(version)
        fresh = Table(TASK)
        fresh.put(version)
        assert table._indexes == fresh._indexes
    table.drop("t")
    assert not any(table._indexes.values())
