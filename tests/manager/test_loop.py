"""The driver of control loops: what it decides, when, and what it does with failures."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import pytest

from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.manager import loop as driver
from pyswarm.manager.changes import Create, Delete
from pyswarm.manager.loop import Decision, Driver
from pyswarm.manager.orchestrator.reaper import Reaper
from pyswarm.manager.orchestrator.replicated import Replicated
from pyswarm.manager.store import Action, Commit, Event, Kind, Store, View, copy_of
from tests.support.clock import VirtualClock, settle
from tests.support.log import MemoryLog
from tests.support.swarm import cluster, ids, node, service, task

S = api.TaskState
Rule = Callable[[View, str, float], Decision]


class Script:
    """A loop over services whose decisions the test gives."""

    name = "script"

    def __init__(self, rule: Rule, quiet: float = 0.0, patience: float = 0.0) -> None:
        self.rule = rule
        self.quiet = quiet
        self.patience = patience
        self.asked: list[tuple[str, float]] = []

    def on_event(self, event: Event) -> Iterable[str]:
        """Services are keys."""
        return (event.obj.id,) if event.kind is Kind.SERVICE and event.action is not Action.REMOVE else ()

    def everything(self, view: View) -> Iterable[str]:
        """All services."""
        return [s.id for s in view.services]

    def decide(self, view: View, key: str, now: float) -> Decision:
        """Ask the rule."""
        self.asked.append((key, now))
        return self.rule(view, key, now)


def nothing(_view: View, _key: str, _now: float) -> Decision:
    """Nothing to do."""
    return Decision()


@contextlib.asynccontextmanager
async def driven(loop: Any, store: Store, clock: VirtualClock) -> AsyncIterator[None]:
    """The loop's driver runs for the length of the block."""
    running = asyncio.create_task(Driver(loop, store, clock).run())
    await settle()
    try:
        yield
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def put(store: Store, *services: api.Service) -> None:
    """Create or replace services in one commit."""

    def write(tx: Any) -> None:
        for s in services:
            old = tx.services.get(s.id)
            if old is None:
                tx.services.create(s)
            else:
                changed = copy_of(old)
                changed.spec.CopyFrom(s.spec)
                tx.services.update(changed)

    await store.update(write)
    await settle()


def asked(loop: Script) -> list[str]:
    """The keys asked about, in order."""
    return [key for key, _ in loop.asked]


async def test_start_and_events(store: Store, clock: VirtualClock) -> None:
    """All keys at the start, later those that events touch; several changes in one commit are one decision."""
    await put(store, service("a"), service("b"))
    loop = Script(nothing)
    async with driven(loop, store, clock):
        assert asked(loop) == ["a", "b"]
        await put(store, service("b", 2))
        await put(store, service("b", 3), service("b", 4), service("c"))
        assert asked(loop) == ["a", "b", "b", "b", "c"]


async def test_decisions_see_earlier_ones(store: Store, clock: VirtualClock) -> None:
    """Decisions of one pass share a transaction and see what the ones before them wrote."""
    seen: list[int] = []

    def rule(view: View, key: str, _now: float) -> Decision:
        seen.append(len(view.tasks))
        return Decision([Create(task(f"t-{key}", on="n1"))])

    await put(store, service("a"), service("b"))
    async with driven(Script(rule), store, clock):
        assert seen == [0, 1]
    assert len(store.tasks) == 2


async def test_again(store: Store, clock: VirtualClock) -> None:
    """A decision that is not finished is asked again, without any event."""

    def rule(view: View, _key: str, _now: float) -> Decision:
        number = len(view.tasks)
        return Decision([Create(task(f"t{number}", on="n1"))], again=number < 4)

    await put(store, service("a"))
    commits: list[Commit] = []
    store.on_commit(commits.append)
    async with driven(Script(rule), store, clock):
        assert len(store.tasks) == 5
    assert len(commits) == 5


async def test_wake(store: Store, clock: VirtualClock) -> None:
    """A key is looked at again when it asked to be; a later decision replaces the moment."""
    wakes: list[float | None] = [clock.now() + 10, clock.now() + 3, None]
    start = clock.now()
    loop = Script(lambda *_: Decision(wake=wakes.pop(0)))
    await put(store, service("a"))
    async with driven(loop, store, clock):
        await clock.advance(1)
        await put(store, service("a", 2))
        await clock.advance(60)
    assert [at - start for _, at in loop.asked] == [0, 1, 3]


async def test_wake_while_busy(store: Store, clock: VirtualClock) -> None:
    """A key whose moment has come is not kept waiting by others that never rest."""

    def rule(_view: View, key: str, now: float) -> Decision:
        if key == "busy":
            clock._now += 1.0
            return Decision(again=len(loop.asked) < 20)
        return Decision(wake=now + 3 if len(loop.asked) < 4 else None)

    loop = Script(rule)
    await put(store, service("busy"), service("timed"))
    async with driven(loop, store, clock):
        pass
    assert "timed" in asked(loop)[3:10]


async def test_quiet_and_patience(store: Store, clock: VirtualClock) -> None:
    """Waits for a pause in the events, within its patience."""
    loop = Script(nothing, quiet=1.0, patience=2.5)
    async with driven(loop, store, clock):
        start = clock.now()
        await put(store, service("a"))
        await clock.advance(0.9)
        await put(store, service("b"))
        assert loop.asked == []
        await clock.advance(1.0)
        assert [at - start for _, at in loop.asked] == pytest.approx([1.9, 1.9])
        loop.asked.clear()
        start = clock.now()
        for n in range(6):
            await put(store, service(f"s{n}"))
            await clock.advance(0.6)
        assert loop.asked[0][1] - start == pytest.approx(2.5)


async def test_failing_key_is_retried_and_stops_no_other(store: Store, clock: VirtualClock) -> None:
    """An error of one key leaves nothing behind, is tried again after a second, and does not disturb the rest."""
    broken = True

    def rule(_view: View, key: str, _now: float) -> Decision:
        if key == "bad" and broken:
            return Decision([Create(task("half", on="n1")), Delete(Kind.TASK, "missing")])
        return Decision([] if f"t-{key}" in store.tasks else [Create(task(f"t-{key}", on="n1"))])

    loop = Script(rule)
    await put(store, service("bad"), service("good"))
    async with driven(loop, store, clock):
        assert {t.id for t in store.tasks} == {"t-good"}
        broken = False
        await clock.advance(driver.RETRY_SECONDS + 0.1)
        assert {t.id for t in store.tasks} == {"t-good", "t-bad"}
    assert asked(loop) == ["bad", "good", "bad"]


async def test_refused_commit_is_retried(clock: VirtualClock) -> None:
    """When the log refuses, the keys stay dirty."""
    store = Store(clock)
    log = MemoryLog(store)
    store.attach(log)
    serving = asyncio.create_task(store.run())
    loop = Script(lambda view, key, now: Decision([] if len(view.tasks) else [Create(task("t", on="n1"))]))
    await settle()
    await put(store, service("a"))
    log.leading = False
    async with driven(loop, store, clock):
        assert len(store.tasks) == 0
        log.leading = True
        await clock.advance(driver.RETRY_SECONDS + 0.1)
        assert len(store.tasks) == 1
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


async def test_stopped_driver_listens_no_more(store: Store, clock: VirtualClock) -> None:
    """Cancelling the run leaves no listener behind."""
    loop = Script(nothing)
    async with driven(loop, store, clock):
        pass
    await put(store, service("a"))
    assert loop.asked == []


def passes(store: Store) -> list[int]:
    """How many tasks each commit from now on deletes; filled as it happens."""
    found: list[int] = []

    def listen(commit: Commit) -> None:
        gone = sum(e.kind is Kind.TASK and e.action is Action.REMOVE for e in commit.events)
        if gone:
            found.append(gone)

    store.on_commit(listen)
    return found


def removed(task_id: str) -> api.Task:
    """A task to be removed that nobody has."""
    return task(task_id, 1, S.COMPLETE, S.REMOVE)


async def remove(store: Store, *ids: str) -> None:
    """Mark tasks for removal in one commit."""

    def write(tx: Any) -> None:
        for i in ids:
            tx.tasks.update(_marked(tx.tasks.get(i)))

    await store.update(write)


def _marked(found: api.Task) -> api.Task:
    marked = copy_of(found)
    marked.desired_state = S.REMOVE
    return marked


async def create(store: Store, *tasks: api.Task) -> None:
    """Create tasks in one commit."""
    await store.update(lambda tx: [tx.tasks.create(t) for t in tasks])


async def test_reaper_batches(store: Store, clock: VirtualClock) -> None:
    """A quarter of a second after the first event, one pass; with more than a thousand at once. [orchestration 165]"""
    many = [f"t{n:04d}" for n in range(1001)]
    await create(store, *(task(i, n, S.COMPLETE) for n, i in enumerate(["one", "two", *many], 1)))
    found = passes(store)
    async with driven(Reaper(), store, clock):
        await clock.advance(0.5)
        assert found == []
        await remove(store, "one")
        await clock.advance(0.24)
        assert found == []
        await clock.advance(0.02)
        assert found == [1]
        await clock.advance(0.5)
        assert found == [1]
        found.clear()
        await remove(store, *many)
        await clock.advance(0.1)
        assert sum(found) == 1001
        found.clear()
        await remove(store, "two")
        await clock.advance(0.3)
        assert found == [1]


async def test_orchestrator_on_its_driver(store: Store, clock: VirtualClock) -> None:
    """The replicated orchestrator brings a service up through the real driver, and a failed task back after its delay."""
    await store.update(lambda tx: (tx.clusters.create(cluster()), tx.nodes.create(node("n1"))))
    async with driven(Replicated(ids()), store, clock):
        await put(store, service("svc", 450))
        await settle(500)
        assert sorted(t.slot for t in store.tasks) == list(range(1, 451))
        first = copy_of(next(iter(store.tasks)))
        first.status.state = S.FAILED
        first.status.timestamp.CopyFrom(times.timestamp(clock.now()))
        await store.update(lambda tx: tx.tasks.update(first))
        await settle()
        (new,) = [t for t in store.tasks if t.desired_state == S.READY]
        await clock.advance(4.9)
        assert store.tasks.get(new.id) == new
        await clock.advance(0.2)
        released = store.tasks.get(new.id)
        assert released is not None
        assert released.desired_state == S.RUNNING
