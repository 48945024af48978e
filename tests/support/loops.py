"""Running a control loop's decisions without driver, clock or event loop."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TypeVar

from pyswarm.api import v1 as api
from pyswarm.manager import changes as changing
from pyswarm.manager.changes import Change, apply
from pyswarm.manager.loop import Loop
from pyswarm.manager.store import Event, Store, Tx
from tests.support.clock import VirtualClock

K = TypeVar("K", bound=Hashable)


def new_store(*objects: object) -> Store:
    """A store without log that holds the given messages."""
    store = Store(VirtualClock())
    write(store, *objects)
    return store


def write(store: Store, *objects: object) -> None:
    """Insert or replace messages directly, as a replay would."""
    for obj in objects:
        getattr(store, type(obj).__name__.lower() + "s").put(obj)


def commit(store: Store, changes: list[Change], now: float = 0.0, version: int = 1, *, decided: bool = True) -> list[Event]:
    """Apply changes to the store as one committed entry; returns its events. `decided`: a control loop wants them, so they are checked."""
    tx = Tx(store, version, now)
    if decided:
        apply(tx, changes)
    else:
        for change in changes:
            changing.write(tx, change)
    events: list[Event] = []
    undo = store.on_commit(lambda c: events.extend(c.events))

    store.apply(version + 1, api.InternalRaftRequest(), tx)
    undo()
    return events


def settle(loop: Loop[K], store: Store, now: float, limit: int = 1000) -> list[Change]:
    """Decide for all keys until nothing changes; returns all changes made. Raises AssertionError when `limit` rounds are not enough."""
    made: list[Change] = []
    for version in range(1, limit + 1):
        for key in loop.everything(store):
            decision = loop.decide(store, key, now)
            if decision.changes:
                made += decision.changes
                for event in commit(store, list(decision.changes), now, version):
                    list(loop.on_event(event))
                break
        else:
            return made
    raise AssertionError(f"{loop.name} does not settle")
