"""Grouped writes, versions and events."""

from __future__ import annotations

import asyncio

import pytest

from pyswarm.api import v1 as api
from pyswarm.manager.store import Commit, NameConflict, SequenceConflict, Store, by, copy_of


def service(name: str, object_id: str | None = None) -> api.Service:
    """A service with nothing but a name."""
    return api.Service(id=object_id or f"id-{name}", spec=api.ServiceSpec(annotations=api.Annotations(name=name)))


async def test_waiting_writers_share_one_entry(store: Store) -> None:
    """Updates that wait at the same moment become one log entry, each with its own result or error."""
    commits: list[Commit] = []
    store.on_commit(commits.append)
    results = await asyncio.gather(
        store.update(lambda tx: tx.services.create(service("a"))),
        store.update(lambda tx: tx.services.create(service("A", "other"))),
        store.update(lambda tx: tx.services.create(service("b"))),
        return_exceptions=True,
    )
    assert isinstance(results[1], NameConflict)
    assert [len(c.events) for c in commits] == [2]
    assert [s.spec.annotations.name for s in store.services.find(by.everything())] == ["a", "b"]


async def test_stale_update_is_refused(store: Store) -> None:
    """An update made from an older version fails and changes nothing. [store 32]"""
    await store.update(lambda tx: tx.services.create(service("a")))
    old = copy_of(store.services.get("id-a"))
    fresh = await store.update(lambda tx: tx.services.update(old))
    with pytest.raises(SequenceConflict):
        await store.update(lambda tx: tx.services.update(old))
    assert store.services.get("id-a") == fresh
