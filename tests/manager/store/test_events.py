"""What listeners hear, how long they may take, and entries that do not fit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from pyswarm.api import v1 as api
from pyswarm.manager.store import Action, Commit, Event, Exists, Kind, NameConflict, NotExist, Store, by, copy_of
from tests.support.clock import VirtualClock
from tests.support.loops import new_store

TABLES = ("nodes", "services", "tasks")


def made(table: str, number: int) -> Any:
    """An object of one of the three tables."""
    obj = {"nodes": api.Node, "services": api.Service, "tasks": api.Task}[table](id=f"id{number}")
    if table == "services":
        obj.spec.annotations.name = f"name{number}"
    return obj


def follow(copies: dict[Kind, dict[str, Any]], event: Event) -> None:
    """Apply an event to a plain copy of the tables."""
    copy = copies.setdefault(event.kind, {})
    if event.action is Action.REMOVE:
        assert copy.pop(event.obj.id) == event.obj
    else:
        assert (event.obj.id in copy) is (event.action is Action.UPDATE)
        assert event.old == (copy.get(event.obj.id) if event.action is Action.UPDATE else None)
        copy[event.obj.id] = event.obj


async def test_events_tell_everything(store: Store) -> None:
    """Each change is one event in one commit, and whoever copied the tables keeps the copy equal by them. [store 41]"""
    await store.update(lambda tx: [getattr(tx, t).create(made(t, 0)) for t in TABLES])
    copies = {Kind(t[:-1]): {o.id: o for o in getattr(store, t)} for t in TABLES}
    commits: list[Commit] = []
    store.on_commit(commits.append)

    def edit(tx: Any, table: str) -> None:
        fresh = copy_of(getattr(tx, table).get("id0"))
        (fresh.annotations if table == "tasks" else fresh.spec.annotations).labels["a"] = "b"
        getattr(tx, table).update(fresh)

    changes: list[Callable[[Any], object]] = []
    for table in TABLES:
        changes += [
            lambda tx, t=table: getattr(tx, t).create(made(t, 1)),  # type: ignore[misc]
            lambda tx, t=table: edit(tx, t),  # type: ignore[misc]
            lambda tx, t=table: getattr(tx, t).delete("id1"),  # type: ignore[misc]
        ]
    for change in changes:
        await store.update(change)
        (event,) = commits[-1].events
        follow(copies, event)
        assert copies == {Kind(t[:-1]): {o.id: o for o in getattr(store, t)} for t in TABLES}
    assert len(commits) == len(changes)
    assert [c.index for c in commits] == sorted({c.index for c in commits})


async def test_watchers_hear_what_they_want(store: Store) -> None:
    """Two watchers with different wishes, each in order; one that left hears no more. [store 48]"""

    def wants(*ids: str) -> Callable[[Event], bool]:
        return lambda event: event.obj.id in ids

    async def heard(watch: Any) -> list[str]:
        async with asyncio.timeout(5):
            return [e.obj.id for e in (await watch.next()).events]

    with store.watch(wants("a", "both")) as first, store.watch(wants("b", "both")) as second:
        for name in ("a", "b", "both", "neither"):
            await store.update(lambda tx, name=name: tx.nodes.create(api.Node(id=name)))  # type: ignore[misc]
        assert [await heard(first), await heard(first)] == [["a"], ["both"]]
        assert [await heard(second), await heard(second)] == [["b"], ["both"]]
        first.__exit__()
        await store.update(lambda tx: tx.nodes.delete("both"))
        assert await heard(second) == ["both"]
        assert first._commits.empty()


async def test_a_slow_watcher_misses_nothing(store: Store) -> None:
    """Commits wait for a watcher that does not read, and come in order. [store 49]"""
    with store.watch(lambda event: event.kind is Kind.NODE) as watch:
        for start in range(0, 10_000, 500):
            await store.batch(range(start, start + 500), lambda tx, n: tx.nodes.create(api.Node(id=f"{n:05}")))
        ids: list[str] = []
        while len(ids) < 10_000:
            async with asyncio.timeout(5):
                ids += [e.obj.id for e in (await watch.next()).events]
    assert ids == [f"{n:05}" for n in range(10_000)]


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ([(1, api.Node(id="a")), (2, api.Node(id="b"))], NotExist),
        ([(1, api.Node(id="a")), (3, api.Node(id="b"))], NotExist),
        ([(1, api.Node(id="here"))], Exists),
    ],
)
def test_an_entry_that_does_not_fit_is_an_error(changes: list[tuple[int, api.Node]], error: type[Exception]) -> None:
    """Tables that differ from the log are never guessed around: the error goes to the log, which ends the process. [store 45]"""
    store = new_store(api.Node(id="here"))
    request = api.InternalRaftRequest()
    for action, node in changes:
        request.action.add(action=action, node=node)  # type: ignore[arg-type]
    commits: list[Commit] = []
    store.on_commit(commits.append)
    with pytest.raises(error):
        store.apply(5, request, None)
    assert commits == []


async def test_networks(store: Store) -> None:
    """Names are unique; a deleted network's name is free again. [store 21]"""

    def network(number: int, name: str) -> api.Network:
        return api.Network(id=f"id{number}", spec=api.NetworkSpec(annotations=api.Annotations(name=name)))

    await store.update(lambda tx: [tx.networks.create(network(n, f"name{n}")) for n in (1, 2, 3)])
    with pytest.raises(Exists):
        await store.update(lambda tx: tx.networks.create(network(1, "name4")))
    with pytest.raises(NameConflict):
        await store.update(lambda tx: tx.networks.create(network(4, "NAME1")))
    assert [len(store.networks.find(by.name(n))) for n in ("name1", "name2", "invalid")] == [1, 1, 0]
    await store.update(lambda tx: tx.networks.delete("id1"))
    assert store.networks.find(by.name("name1")) == []
    await store.update(lambda tx: tx.networks.create(network(4, "name1")))
    assert [n.id for n in store.networks.find(by.name("name1"))] == ["id4"]


async def test_a_failing_item_does_not_end_a_batch(store: Store, clock: VirtualClock) -> None:
    """Item 209 of 405 fails: its error comes back, and the other 404 are stored. [store 37]"""

    def create(tx: Any, number: int) -> None:
        tx.nodes.create(api.Node(id=f"n{number}"))
        if number == 209:
            raise ValueError("bad item")

    sizes: list[int] = []
    store.on_commit(lambda commit: sizes.append(len(commit.events)))
    errors = await store.batch(range(405), create)
    assert [n for n, error in enumerate(errors) if error is not None] == [209]
    assert len(store.nodes) == 404
    assert "n209" not in store.nodes
    assert sizes == [200, 200, 4]
