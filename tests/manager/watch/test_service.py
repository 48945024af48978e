"""The Watch API on a store of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from pyswarm.api import v1 as api
from pyswarm.errors import Cancelled, Code, ResourceExhausted, SwarmError, Unknown
from pyswarm.manager.store import Store, copy_of
from pyswarm.manager.watch import WatchService
from pyswarm.manager.watch.service import BACKLOG_EVENTS
from tests.manager.control.support import ME
from tests.manager.dispatcher.support import Reader
from tests.support.clock import VirtualClock, settle
from tests.support.log import MemoryLog

A = api.WatchActionKind
ALL = A.WATCH_ACTION_CREATE | A.WATCH_ACTION_UPDATE | A.WATCH_ACTION_REMOVE
STEP = 3


class House:
    """A running store with a watch service."""

    def __init__(self) -> None:
        self.store = Store(VirtualClock())
        self.log = MemoryLog(self.store, STEP)
        self.store.attach(self.log)
        self.service = WatchService(self.store, self.log)
        self.readers: list[Reader] = []

    async def watch(self, kind: str = "node", action: int = ALL, *, since: int | None = None, old: bool = False) -> Reader:
        """A client that reads one kind."""
        request = api.WatchRequest(include_old_object=old)
        if kind:
            request.entries.add(kind=kind, action=action)  # type: ignore[arg-type] # bits may be combined
        if since is not None:
            request.resume_from.index = since
        reader = Reader(self.service.Watch(request, ME))
        self.readers.append(reader)
        await settle()
        return reader

    async def create(self, *objects: api.Node | api.Service | api.Secret | api.Cluster) -> None:
        """In one transaction."""

        def write(tx: object) -> None:
            for one in objects:
                getattr(tx, type(one).__name__.lower() + "s").create(one)

        await self.store.update(write)
        await settle()

    async def change_role(self, node_id: str) -> None:
        """A worker becomes a manager."""
        node = self.store.nodes.get(node_id)
        assert node is not None
        changed = copy_of(node)
        changed.role = api.NodeRole.MANAGER
        await self.store.update(lambda tx: tx.nodes.update(changed))
        await settle()


@pytest.fixture
async def house() -> AsyncIterator[House]:
    """Store and service run."""
    made = House()
    running = [asyncio.create_task(made.store.run()), asyncio.create_task(made.service.run())]
    await asyncio.sleep(0)
    yield made
    for reader in made.readers:
        await reader.close()
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


def node(node_id: str) -> api.Node:
    """A node."""
    return api.Node(id=node_id)


def seen(reader: Reader) -> list[list[tuple[int, str]]]:
    """Per message, actions and ids."""
    return [[(e.action, getattr(e.object, str(e.object.WhichOneof("Object"))).id) for e in m.events] for m in reader.messages]


def ended(reader: Reader) -> SwarmError:
    """How the stream ended."""
    assert isinstance(reader.error, SwarmError)
    return reader.error


async def test_first_the_news_that_it_works(house: House) -> None:
    """The first message is empty, also when nothing is asked for; then each creation comes with its object. [store 53] [control 125]"""
    reader, idle = await house.watch(action=A.WATCH_ACTION_CREATE), await house.watch(kind="")
    assert reader.messages == idle.messages == [api.WatchMessage()]
    await house.create(node("id1"))
    assert seen(reader) == [[], [(A.WATCH_ACTION_CREATE, "id1")]]
    assert reader.messages[1].events[0].object.node == house.store.nodes.get("id1")
    assert idle.messages == [api.WatchMessage()]


async def test_creations_and_removals(house: House) -> None:
    """What is not asked for is not told; a removal tells what was removed. [store 55] [control 127]"""
    reader = await house.watch(action=A.WATCH_ACTION_CREATE | A.WATCH_ACTION_REMOVE)
    await house.create(node("id1"))
    await house.change_role("id1")
    last = house.store.nodes.get("id1")
    await house.store.update(lambda tx: tx.nodes.delete("id1"))
    await settle()
    assert seen(reader) == [[], [(A.WATCH_ACTION_CREATE, "id1")], [(A.WATCH_ACTION_REMOVE, "id1")]]
    assert reader.messages[2].events[0].object.node == last


async def test_old_objects(house: House) -> None:
    """An update comes with what was there before if that is asked for. [store 56] [control 128]"""
    await house.create(node("id1"))
    with_old, without = await house.watch(old=True), await house.watch()
    await house.change_role("id1")
    event = with_old.messages[1].events[0]
    assert (event.object.node.role, event.old_object.node.role) == (api.NodeRole.MANAGER, api.NodeRole.WORKER)
    assert not without.messages[1].events[0].HasField("old_object")


async def test_one_message_per_transaction(house: House) -> None:
    """All that a transaction did comes in one message, in order, with the version of its entry. [store 58] [control 131]"""
    request = api.WatchRequest()
    for _ in range(2):  # an event that two entries ask for is told once
        request.entries.add(kind="node", action=A.WATCH_ACTION_CREATE)
    reader = Reader(house.service.Watch(request, ME))
    house.readers.append(reader)
    await settle()
    await house.create(node("c"), node("a"), api.Service(id="s", spec=api.ServiceSpec(annotations=api.Annotations(name="s"))), node("b"))
    assert seen(reader) == [[], [(A.WATCH_ACTION_CREATE, i) for i in "cab"]]
    assert reader.messages[1].version.index == house.log.applied_index


async def test_resuming(house: House) -> None:
    """From the version of an object on, its creation is told again, then all that follows, each once. [store 57] [control 129]"""
    await house.create(node("id1"))
    await house.create(node("id2"))
    version = house.store.nodes.get("id2").meta.version.index  # type: ignore[union-attr]
    reader = await house.watch(since=version)
    assert seen(reader) == [[], [(A.WATCH_ACTION_CREATE, "id2")]]
    assert reader.messages[1].version.index == version + STEP
    await house.create(node("id3"))
    assert seen(reader)[2:] == [[(A.WATCH_ACTION_CREATE, "id3")]]
    assert reader.messages[2].version.index == version + 2 * STEP
    again = await house.watch(since=reader.messages[1].version.index)
    assert seen(again) == [[], [(A.WATCH_ACTION_CREATE, "id3")]]


async def test_no_gap_between_history_and_presence(house: House) -> None:
    """What is committed while the past is still being told comes after it, once. [store 44]"""
    for number in range(200):
        await house.store.update(lambda tx, number=number: tx.nodes.create(node(f"a{number:03}")))  # type: ignore[misc]
    request = api.WatchRequest(resume_from=api.Version(index=0))
    request.entries.add(kind="node", action=A.WATCH_ACTION_CREATE)
    async with contextlib.aclosing(house.service.Watch(request, ME)) as stream:
        assert await anext(stream) == api.WatchMessage()
        first = await anext(stream)
        for number in range(5):
            await house.store.update(lambda tx, number=number: tx.nodes.create(node(f"b{number}")))  # type: ignore[misc]
        rest = [(await anext(stream)).events[0].object.node.id for _ in range(204)]
    assert [first.events[0].object.node.id, *rest] == [f"a{n:03}" for n in range(200)] + [f"b{n}" for n in range(5)]


async def test_versions_that_are_not_there(house: House) -> None:
    """A future version and one that is not kept any more are refused, each in its words. [store 44] [store 60]"""
    await house.create(node("id1"))
    future = await house.watch(since=5000)
    assert (ended(future).code, ended(future).message) == (Code.UNKNOWN, "versions are out of order")
    house.log.compacted = STEP
    gone = await house.watch(since=1)
    assert (ended(gone).code, ended(gone).message) == (Code.UNKNOWN, "requested index is unavailable due to compaction")
    assert future.messages == gone.messages == []


async def test_it_ends_with_the_manager() -> None:
    """Before the service runs a watch is refused; when it ends, so does each watch. [store 61]"""
    house = House()
    assert isinstance((await house.watch()).error, Unknown)
    running = asyncio.create_task(house.service.run())
    await asyncio.sleep(0)
    reader = await house.watch()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await settle()
    assert isinstance(reader.error, Cancelled)


async def test_a_snapshot_comes_as_changes(house: House) -> None:
    """What a follower gets by snapshot is told as ordinary changes. [store 61]"""
    await house.create(node("old"))
    snapshot = api.StoreSnapshot(nodes=[node("new")])
    reader = await house.watch()
    house.store.prepare(snapshot)()
    await settle()
    assert seen(reader) == [[], [(A.WATCH_ACTION_CREATE, "new"), (A.WATCH_ACTION_REMOVE, "old")]]


async def test_a_slow_client_is_sent_away(house: House) -> None:
    """Nobody waits for a client that does not read; when too much waits for it, it is told from where to go on. [store 49] [store 50]"""
    request = api.WatchRequest()
    request.entries.add(kind="node", action=A.WATCH_ACTION_CREATE)
    async with contextlib.aclosing(house.service.Watch(request, ME)) as stream:
        await anext(stream)
        await house.create(node("taken"))
        taken = await anext(stream)
        for start in range(0, BACKLOG_EVENTS + 1, 1000):
            await house.create(*(node(f"n{start + n}") for n in range(min(1000, BACKLOG_EVENTS + 1 - start))))
        with pytest.raises(ResourceExhausted, match=f"{BACKLOG_EVENTS} events .* resume from version {taken.version.index}$"):
            await anext(stream)
    reader = await house.watch(since=taken.version.index)
    assert sum(len(message.events) for message in reader.messages) == BACKLOG_EVENTS + 1


async def test_large_commits_are_spread(house: House) -> None:
    """A commit that no client could receive at once comes in pieces; only the last has the version. [control 131]"""
    reader = await house.watch()
    label = "x" * 500_000
    many = [api.Node(id=str(n), spec=api.NodeSpec(annotations=api.Annotations(labels={"a": label}))) for n in range(12)]
    house.store.prepare(api.StoreSnapshot(nodes=many))()
    await settle()
    assert [len(message.events) for message in reader.messages] == [0, 5, 5, 2]
    assert [message.HasField("version") for message in reader.messages] == [False, False, False, True]
    assert all(message.ByteSize() < 4 << 20 for message in reader.messages)


async def test_secrets_stay_secret(house: House) -> None:
    """A watch shows no more of secrets and of the cluster than the control API does."""
    secrets, clusters = await house.watch("secret"), await house.watch("cluster")
    cluster = api.Cluster(
        id="c", spec=api.ClusterSpec(annotations=api.Annotations(name="default")), unlock_keys=[api.EncryptionKey(key=b"k")]
    )
    cluster.root_ca.ca_key = b"hidden-key"
    await house.create(
        api.Secret(id="s", spec=api.SecretSpec(annotations=api.Annotations(name="s"), data=b"hidden-data")),
        cluster,
    )
    told = secrets.messages[1].SerializeToString() + clusters.messages[1].SerializeToString()
    assert secrets.messages[1].events[0].object.secret.spec.annotations.name == "s"
    assert clusters.messages[1].events[0].object.cluster.id == "c"
    assert b"hidden" not in told
    assert not clusters.messages[1].events[0].object.cluster.unlock_keys


async def test_a_client_that_leaves(house: House) -> None:
    """Nothing is kept for a client that has gone."""
    reader = await house.watch()
    assert len(house.service._watchers or ()) == 1
    await reader.close()
    assert not house.service._watchers
