"""Grouped writes, versions, events, snapshots: spec/store-and-raft, sections 6 to 8."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyswarm.api import defaults, times
from pyswarm.api import v1 as api
from pyswarm.manager.store import Action, Commit, NameConflict, SequenceConflict, Store, Tx, by, copy_of
from pyswarm.raft.log import LostLeadership, NodeStopped, TooLarge
from tests.support.clock import VirtualClock
from tests.support.log import MemoryLog, running_store


def service(name: str, object_id: str | None = None) -> api.Service:
    """A service with nothing but a name."""
    return api.Service(id=object_id or f"id-{name}", spec=api.ServiceSpec(annotations=api.Annotations(name=name)))


def node(number: int, size: int = 0) -> api.Node:
    """A node, padded to a size."""
    made = api.Node(id=f"id{number:05}")
    if size:
        made.certificate.csr = b"x" * size
    return made


def recorded(store: Store) -> list[Commit]:
    """All commits from now on."""
    commits: list[Commit] = []
    store.on_commit(commits.append)
    return commits


async def test_waiting_writers_share_one_entry(store: Store) -> None:
    """Updates that wait at the same moment become one log entry, each with its own result or error."""
    commits = recorded(store)
    results = await asyncio.gather(
        store.update(lambda tx: tx.services.create(service("a"))),
        store.update(lambda tx: tx.services.create(service("A", "other"))),
        store.update(lambda tx: tx.services.create(service("b"))),
        return_exceptions=True,
    )
    assert isinstance(results[1], NameConflict)
    assert [len(c.events) for c in commits] == [2]
    assert [s.spec.annotations.name for s in store.services.find(by.everything())] == ["a", "b"]


async def test_a_failing_update_leaves_nothing(store: Store) -> None:
    """What a failing function wrote is gone, from the tables, the indexes and the entry of its group. [store 30]"""
    commits = recorded(store)

    def fails(tx: Tx) -> None:
        tx.services.create(service("a"))
        tx.services.delete("id-kept")
        raise ValueError("no")

    await store.update(lambda tx: tx.services.create(service("kept")))
    results = await asyncio.gather(store.update(fails), store.update(lambda tx: tx.nodes.create(node(1))), return_exceptions=True)
    assert isinstance(results[0], ValueError)
    assert [len(c.events) for c in commits] == [1, 1]
    assert [s.id for s in store.services.find(by.name("kept"))] == ["id-kept"]
    assert store.services.find(by.name("a")) == []
    await store.update(lambda tx: tx.services.create(service("a")))


async def test_versions(clock: VirtualClock) -> None:
    """An update from the stored version succeeds, from an older one it fails; the version is the index before the entry. [store 32]"""
    async with running_store(clock, step=3) as store:
        first = await store.update(lambda tx: tx.services.create(service("a")))
        assert first.meta.version.index == 0
        second = await store.update(lambda tx: tx.services.update(first))
        assert second.meta.version.index == 3
        with pytest.raises(SequenceConflict, match="update out of sequence"):
            await store.update(lambda tx: tx.services.update(first))
        assert store.services.get("id-a") == second


async def test_times(store: Store, clock: VirtualClock) -> None:
    """Create sets both times, update keeps the first and moves the second; a given creation time is kept. [store 33]"""
    await store.update(lambda tx: tx.nodes.create(node(1)))
    created = store.nodes.get("id00001").meta
    assert created.created_at == created.updated_at == times.timestamp(clock.now())
    await clock.advance(5)
    await store.update(lambda tx: tx.nodes.update(tx.nodes.get("id00001")))
    updated = store.nodes.get("id00001").meta
    assert updated.created_at == created.created_at
    assert times.seconds_of(updated.updated_at) == clock.now()


async def test_two_updates_of_one_object(store: Store) -> None:
    """Inside one transaction the refreshed object may be updated again; both actions are in the entry, in order. [store 34]"""

    def twice(tx: Tx) -> None:
        first = tx.services.create(service("a"))
        edited = copy_of(first)
        edited.spec.annotations.labels["k"] = "v"
        tx.services.update(edited)

    commits = recorded(store)
    await store.update(twice)
    assert [e.action for e in commits[0].events] == [Action.CREATE, Action.UPDATE]
    assert commits[0].events[1].old == commits[0].events[0].obj
    assert store.services.get("id-a").spec.annotations.labels["k"] == "v"


async def test_transaction_sees_its_own_changes(store: Store) -> None:
    """Find and get inside a transaction include what it created, changed and deleted. [store 18]"""
    await store.update(lambda tx: [tx.services.create(service(n)) for n in ("a", "b", "c")])

    def look(tx: Tx) -> list[list[str]]:
        tx.services.delete("id-b")
        edited = copy_of(tx.services.get("id-a"))
        edited.spec.annotations.name = "z"
        tx.services.update(edited)
        tx.services.create(service("d"))
        return [
            [s.id for s in tx.services.find(by.everything())],
            [s.id for s in tx.services.find(by.name("a"))],
            [s.id for s in tx.services.find(by.name("z"))],
            sorted(s.id for s in tx.services),
            [str(len(tx.services)), str("id-b" in tx.services)],
        ]

    everything = ["id-a", "id-c", "id-d"]
    assert await store.update(look) == [everything, [], ["id-a"], everything, ["3", "False"]]


async def test_no_changes_need_no_leader(store: Store) -> None:
    """A transaction that changes nothing succeeds on a follower, without entry or event; one that does fails. [store 35]"""
    commits = recorded(store)
    log = store._log
    assert isinstance(log, MemoryLog)
    log.leading = False
    assert await store.update(lambda tx: len(tx.nodes)) == 0
    with pytest.raises(LostLeadership, match="node lost leader status"):
        await store.update(lambda tx: tx.nodes.create(node(1)))
    assert (commits, len(store.nodes)) == ([], 0)


async def test_a_refusal_needs_a_leader(clock: VirtualClock) -> None:
    """A deposed leader refuses nothing by what it once knew, such as a service as missing that was made since: it says that it is none."""

    def refuse(_tx: Tx) -> None:
        raise ValueError("there is no such service")

    store = Store(clock)
    log = MemoryLog(store)
    store.attach(log)
    running = asyncio.create_task(store.run())
    await asyncio.sleep(0)
    with pytest.raises(ValueError, match="no such service"):
        await store.update(refuse)
    log.leading = False
    with pytest.raises(LostLeadership):
        await store.update(refuse)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_batch_splits_by_changes(store: Store) -> None:
    """405 single-object changes make entries of 200, 200 and 5. [store 36]"""
    commits = recorded(store)
    results = await store.batch(range(405), lambda tx, i: tx.nodes.create(node(i)) and None)
    assert results == [None] * 405
    assert [len(c.events) for c in commits] == [200, 200, 5]


class WorkingClock(VirtualClock):
    """Time passes when work is done."""

    def work(self, seconds: float) -> None:
        """Be busy for so long."""
        self._now += seconds


async def test_batch_splits_by_time() -> None:
    """However little its items write, a batch that takes long to compute leaves the loop to others in between, drawing items included."""
    clock = WorkingClock()
    turns: list[float] = []

    def drawn() -> Iterator[int]:
        for number in range(20):
            clock.work(0.006)
            yield number

    def create(tx: Tx, number: int) -> None:
        clock.work(0.006)
        tx.nodes.create(node(number))

    async with running_store(clock=clock) as store:
        commits = recorded(store)
        store.on_commit(lambda _commit: turns.append(clock.monotonic()))
        assert await store.batch(drawn(), create) == [None] * 20
    assert sum(len(c.events) for c in commits) == 20
    assert max(later - earlier for earlier, later in itertools.pairwise(turns)) < 0.05


async def test_batch_splits_by_size(store: Store) -> None:
    """Large objects end an entry before its byte limit. [store 38]"""
    commits = recorded(store)
    await store.batch(range(10), lambda tx, i: tx.nodes.create(node(i, 300_000)) and None)
    sizes = [sum(e.obj.ByteSize() for e in c.events) for c in commits]
    assert sum(len(c.events) for c in commits) == 10
    assert max(sizes) <= defaults.BATCH_BYTES


async def test_batch_reports_each_item(store: Store) -> None:
    """A failing item has its error, leaves nothing behind and stops nobody. [store trap 11]"""

    def create(tx: Tx, number: int) -> None:
        tx.nodes.create(node(number))
        if number == 3:
            raise ValueError("three")

    results = await store.batch(range(5), create)
    assert [type(r).__name__ for r in results] == ["NoneType"] * 3 + ["ValueError", "NoneType"]
    assert [n.id for n in store.nodes.find(by.everything())] == ["id00000", "id00001", "id00002", "id00004"]


async def test_others_get_their_turn_during_a_batch(store: Store) -> None:
    """A writer that comes during a long batch is served between two of its entries. [store 39]"""
    order: list[int] = []
    store.on_commit(lambda c: order.append(len(c.events)))
    batch = asyncio.create_task(store.batch(range(1000), lambda tx, i: tx.nodes.create(node(i)) and None))
    await asyncio.sleep(0)
    await store.update(lambda tx: tx.services.create(service("a")))
    served_after = sum(order)
    await batch
    assert served_after < 1000


async def test_size_limit(store: Store) -> None:
    """One transaction above 1.5 MiB is refused as too large and rolled back; its group goes on. [store 40]"""
    results = await asyncio.gather(
        store.update(lambda tx: tx.nodes.create(node(1, defaults.MAX_TRANSACTION_BYTES))),
        store.update(lambda tx: tx.nodes.create(node(2, 1_000_000))),
        store.update(lambda tx: tx.nodes.create(node(3, 1_000_000))),
        return_exceptions=True,
    )
    assert isinstance(results[0], TooLarge)
    assert [n.id for n in store.nodes.find(by.everything())] == ["id00002", "id00003"]


async def test_a_cancelled_writer_is_skipped(store: Store) -> None:
    """Cancelling a caller before its turn keeps its function from running; the others go on."""
    ran: list[str] = []
    first = asyncio.create_task(store.update(lambda _tx: ran.append("first")))
    second = asyncio.create_task(store.update(lambda _tx: ran.append("second")))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.gather(first, second, return_exceptions=True)
    assert ran == ["first"]


async def test_a_stopped_store_refuses_writers() -> None:
    """Writers before the start and after the stop get an answer instead of waiting for ever."""
    async with running_store() as store:
        pass
    with pytest.raises(NodeStopped):
        await store.update(lambda _tx: None)


async def test_a_write_that_was_on_its_way_when_the_store_stopped_is_uncertain() -> None:
    """A store that stops while the log has an entry does not say that the write failed: others may commit it."""
    store = Store(VirtualClock())
    log = MemoryLog(store)
    log.propose = lambda *_: asyncio.Future()  # type: ignore[assignment,method-assign]
    store.attach(log)
    serving = asyncio.create_task(store.run())
    await asyncio.sleep(0)
    writing = asyncio.create_task(store.update(lambda tx: tx.nodes.create(node(1))))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    late = asyncio.create_task(store.update(lambda tx: tx.nodes.create(node(2))))
    await asyncio.sleep(0)
    serving.cancel()
    results = await asyncio.gather(writing, late, serving, return_exceptions=True)
    assert [(type(r), getattr(r, "uncertain", None)) for r in results[:2]] == [(NodeStopped, True), (NodeStopped, False)]


async def test_snapshot_and_restore_by_difference(store: Store, clock: VirtualClock) -> None:
    """Restoring makes the tables equal to the snapshot, versions included, and tells listeners the difference. [store 43]"""
    for number in (1, 2, 3):
        await store.update(lambda tx, n=number: (tx.nodes.create(node(n)), tx.services.create(service(f"s{n}"))))
    snapshot = store.capture()()
    async with running_store(clock) as other:
        await other.update(lambda tx: (tx.nodes.create(node(1)), tx.nodes.create(node(9)), tx.services.create(service("extra"))))
        commits = recorded(other)
        other.prepare(snapshot)()
        actions = [(e.kind.value, e.action.name, e.obj.id) for e in commits[0].events]
        assert other.capture()() == snapshot
    assert actions == [
        ("node", "UPDATE", "id00001"),
        ("node", "CREATE", "id00002"),
        ("node", "CREATE", "id00003"),
        ("node", "REMOVE", "id00009"),
        ("service", "CREATE", "id-s1"),
        ("service", "CREATE", "id-s2"),
        ("service", "CREATE", "id-s3"),
        ("service", "REMOVE", "id-extra"),
    ]


async def test_snapshot_is_immutable(store: Store) -> None:
    """A captured view does not change with later commits. [store 31]"""
    await store.update(lambda tx: tx.nodes.create(node(1)))
    build = store.capture()
    await store.update(lambda tx: tx.nodes.create(node(2)))
    assert [n.id for n in build().nodes] == ["id00001"]


async def test_watch_filters_and_ends(store: Store) -> None:
    """A watch yields the commits that hold a wanted event, reduced to those; leaving it unsubscribes. [store 48]"""
    with store.watch(lambda e: e.action is Action.CREATE and e.obj.id == "id00002") as watch:
        await store.update(lambda tx: tx.nodes.create(node(1)))
        await store.update(lambda tx: (tx.nodes.create(node(2)), tx.nodes.create(node(3))))
        commit = await watch.next()
        assert [e.obj.id for e in commit.events] == ["id00002"]
    assert store._listeners == []


WRITES = st.lists(st.tuples(st.sampled_from("cud"), st.integers(0, 5), st.sampled_from("xyz")), max_size=30)


def attempt(tx: Tx, write: tuple[str, int, str]) -> None:
    """One write of a random history; may raise what the rules raise."""
    kind, number, name = write
    object_id = f"id{number}"
    if kind == "c":
        tx.services.create(service(f"{name}{number % 2}", object_id))
    elif kind == "d":
        tx.services.delete(object_id)
    else:
        edited = copy_of(tx.services.get(object_id) or service("none", object_id))
        edited.spec.annotations.name = name
        tx.services.update(edited)


@settings(max_examples=60, deadline=None)
@given(histories=st.lists(WRITES, max_size=6))
def test_replay_gives_the_same_tables(histories: list[list[tuple[str, int, str]]]) -> None:
    """The entries alone rebuild the tables and indexes exactly, whatever mixture of writes and failures made them. [store 46]"""

    async def run() -> None:
        async with running_store() as store:
            for writes in histories:
                await store.batch(writes, attempt)
            log = store._log
            assert isinstance(log, MemoryLog)
            replayed = Store(VirtualClock())
            for index, entry in enumerate(log.entries, 1):
                replayed.apply(index, entry, None)
            assert replayed.capture()() == store.capture()()
            assert replayed.services._indexes == store.services._indexes

    asyncio.run(run())
