"""One task driven on virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pyswarm.agent.executor import ExecutorError, TemporaryError
from pyswarm.agent.taskmanager import TaskManager
from pyswarm.api import v1 as api
from pyswarm.api.stable import same_status
from tests.agent.fakes import FakeController, FakeEngine, S, task
from tests.support.clock import VirtualClock, settle


class Driven:
    """A task manager and all it reported."""

    def __init__(self, clock: VirtualClock, made: api.Task, script: dict[str, list[Any]] | None = None, *, held: bool = False) -> None:
        self.engine = FakeEngine()
        self.calls: list[tuple[str, str]] = []
        self.reports: list[api.TaskStatus] = []
        controller = FakeController(made, self.engine, self.calls, script or {})
        self.manager = TaskManager(
            made, controller, report=lambda _, s: self.reports.append(s), clock=clock, rng=random.Random(1), held=held
        )

    @property
    def states(self) -> list[int]:
        """Reported states in order."""
        return [s.state for s in self.reports]

    @property
    def did(self) -> list[str]:
        """Controller calls in order."""
        return [name for name, _ in self.calls]

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        """Run it for the length of a `with` block."""
        running = asyncio.create_task(self.manager.run())
        await settle()
        try:
            yield running
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def forever() -> None:
    """Never return."""
    await asyncio.Event().wait()


async def test_life(clock: VirtualClock) -> None:
    """Desired ACCEPTED, then READY, then RUNNING: each call once, every state reported in order. [dispatcher 131; orchestration 3, 5, 9]"""
    d = Driven(clock, task("t", S.ACCEPTED))
    async with d.running():
        assert d.states == [S.ACCEPTED]
        assert d.manager.update(task("t", S.READY))
        await settle()
        assert d.manager.update(task("t", S.RUNNING))
        await settle()
        d.engine.exit("t")
        await settle()
        assert d.states == [S.ACCEPTED, S.PREPARING, S.READY, S.STARTING, S.RUNNING, S.COMPLETE]
        assert d.did == ["update", "prepare", "update", "start", "wait"]
        assert d.reports[-1].container.container_id == "c-t"


async def test_updates_that_change_nothing(clock: VirtualClock) -> None:
    """A lower desired state, another task's id, or the same again is not accepted. [dispatcher 132]"""
    d = Driven(clock, task("t", S.RUNNING))
    assert not d.manager.update(task("t", S.READY))
    assert not d.manager.update(task("u", S.SHUTDOWN))
    assert not d.manager.update(task("t", S.RUNNING, S.FAILED))
    assert d.manager.task.status.state == S.ASSIGNED


async def test_shutdown_interrupts_the_wait_at_once(clock: VirtualClock) -> None:
    """No time passes between the update and the shutdown, which is called once. [dispatcher 133, trap 32; orchestration 7]"""
    d = Driven(clock, task("t"))
    async with d.running():
        before = clock.now()
        d.manager.update(task("t", S.SHUTDOWN))
        await settle()
        assert clock.now() == before
        assert d.did == ["prepare", "start", "wait", "update", "shutdown"]
        assert d.states[-1] == S.SHUTDOWN


async def test_update_does_not_restart_what_it_does_not_change(clock: VirtualClock) -> None:
    """READY becomes RUNNING while preparing: the preparation goes on, the update is told afterwards."""
    gate = asyncio.Event()
    d = Driven(clock, task("t", S.READY), {"prepare": [gate.wait]})
    async with d.running():
        d.manager.update(task("t", S.RUNNING))
        await settle()
        assert d.did == ["prepare"]
        gate.set()
        await settle()
        assert d.did == ["prepare", "update", "start", "wait"]


async def test_shutdown_while_preparing(clock: VirtualClock) -> None:
    """A preparation nobody wants any more is cancelled before the shutdown begins."""
    d = Driven(clock, task("t"), {"prepare": [forever]})
    async with d.running():
        d.manager.update(task("t", S.SHUTDOWN))
        await settle()
        assert d.did == ["prepare", "update", "shutdown"]
        assert d.states == [S.ACCEPTED, S.PREPARING, S.SHUTDOWN]


async def test_temporary_failures_are_tried_again(clock: VirtualClock) -> None:
    """Twice temporarily failed: error noted, state kept, tried again about 1 s and 2 s later, then success. [dispatcher 134]"""
    d = Driven(clock, task("t"), {"prepare": [TemporaryError("a"), TemporaryError("b")]})
    async with d.running():
        assert (d.reports[-1].state, d.reports[-1].err) == (S.PREPARING, "a")
        await clock.advance(0.4)
        assert d.did == ["prepare"]
        await clock.advance(0.7)
        assert d.did == ["prepare"] * 2
        assert d.reports[-1].err == "b"
        await clock.advance(2.1)
        assert d.states[-1] == S.RUNNING
        assert d.reports[-1].err == ""


async def test_foreign_cancellation_is_tried_again(clock: VirtualClock) -> None:
    """A call that was cancelled, but not by us, changes nothing and is made again. [dispatcher 138; orchestration 5]"""
    d = Driven(clock, task("t"), {"start": [asyncio.CancelledError()]})
    async with d.running():
        assert d.states[-1] == S.STARTING
        await clock.advance(1)
        assert d.states[-1] == S.RUNNING


async def test_news_end_the_pause(clock: VirtualClock) -> None:
    """An update during the pause before another attempt is followed at once."""
    d = Driven(clock, task("t"), {"prepare": [TemporaryError("a")]})
    async with d.running():
        d.manager.update(task("t", S.SHUTDOWN))
        await settle()
        assert d.states[-1] == S.SHUTDOWN


@pytest.mark.parametrize(("operation", "state"), [("prepare", S.REJECTED), ("start", S.FAILED), ("wait", S.FAILED)])
async def test_fatal_failures(clock: VirtualClock, operation: str, state: S.ValueType) -> None:
    """A failure for good ends in REJECTED or FAILED and is not tried again; a bug in an executor is one too.

    [dispatcher 137; orchestration 4]
    """
    for error in (ExecutorError("test error"), ZeroDivisionError("test error")):
        d = Driven(clock, task("t"), {operation: [error]})
        async with d.running():
            await clock.advance(60)
            assert (d.states[-1], d.reports[-1].err) == (state, "test error")
            assert d.did.count(operation) == 1


async def test_non_zero_exit(clock: VirtualClock) -> None:
    """The exit code is in the container status and the error in words. [dispatcher 139; orchestration 6]"""
    d = Driven(clock, task("t"))
    async with d.running():
        d.engine.exit("t", 3)
        await settle()
        last = d.reports[-1]
        assert (last.state, last.message, last.err, last.container.exit_code) == (S.FAILED, "started", "task: non-zero exit (3)", 3)


async def test_failed_shutdown(clock: VirtualClock) -> None:
    """A stop that fails ends in FAILED, not SHUTDOWN. [orchestration 2.4]"""
    d = Driven(clock, task("t"), {"shutdown": [ExecutorError("stuck")]})
    async with d.running():
        d.manager.update(task("t", S.SHUTDOWN))
        await settle()
        assert (d.states[-1], d.reports[-1].err) == (S.FAILED, "stuck")


async def test_adoption(clock: VirtualClock) -> None:
    """A task that was starting when the daemon died finds its container started, and goes on. [dispatcher 136, 139; orchestration 3, 5]"""
    d = Driven(clock, task("t", S.RUNNING, S.PREPARING))
    d.engine.containers["t"] = asyncio.Event()
    d.engine.running.add("t")
    async with d.running():
        assert d.states == [S.READY, S.STARTING, S.RUNNING]
        assert d.did == ["prepare", "start", "wait"]


async def test_held_tasks_may_stop_but_not_start(clock: VirtualClock) -> None:
    """A held task prepares and starts only when released; a shutdown is carried out regardless."""
    d = Driven(clock, task("t", S.RUNNING, S.PREPARING), held=True)
    async with d.running():
        assert d.did == []
        d.manager.release()
        await settle()
        assert d.states[-1] == S.RUNNING
    d = Driven(clock, task("t", S.SHUTDOWN, S.PREPARING), held=True)
    async with d.running():
        assert d.did == ["shutdown"]


async def test_removal(clock: VirtualClock) -> None:
    """Removal interrupts, removes, closes and ends; nothing overlaps and updates are refused. [dispatcher 131]"""
    d = Driven(clock, task("t"))
    async with d.running() as running:
        d.manager.remove()
        d.manager.remove()
        assert not d.manager.update(task("t", S.SHUTDOWN))
        await settle()
        assert running.done()
        assert d.did == ["prepare", "start", "wait", "remove", "close"]


async def test_removal_lets_a_graceful_stop_finish(clock: VirtualClock) -> None:
    """A stop under way is not cut short by the removal."""
    gate = asyncio.Event()
    d = Driven(clock, task("t"), {"shutdown": [gate.wait]})
    async with d.running() as running:
        d.manager.update(task("t", S.SHUTDOWN))
        await settle()
        d.manager.remove()
        await settle()
        assert d.did[-1] == "shutdown"
        gate.set()
        await settle()
        assert d.did[-3:] == ["shutdown", "remove", "close"]
        assert running.done()


async def test_removal_is_tried_several_times(clock: VirtualClock) -> None:
    """A removal that fails is repeated with delays, and given up after a few attempts."""
    d = Driven(clock, task("t"), {"remove": [ExecutorError("busy")] * 9})
    async with d.running() as running:
        d.manager.remove()
        await clock.advance(60)
        assert running.done()
        assert d.did.count("remove") == 5


async def test_cancelling_leaves_the_container(clock: VirtualClock) -> None:
    """The end of the daemon closes controllers and touches no container."""
    d = Driven(clock, task("t"))
    async with d.running():
        pass
    assert d.did == ["prepare", "start", "wait", "close"]
    assert d.engine.running == {"t"}


async def test_no_report_repeats_the_last(clock: VirtualClock) -> None:
    """Only changes are reported, with times that never go back. [dispatcher 143]"""
    d = Driven(clock, task("t"), {"prepare": [TemporaryError("same")] * 4})
    async with d.running():
        await clock.advance(30)
    assert all(not same_status(a, b) for a, b in zip(d.reports, d.reports[1:], strict=False))
    assert [s.timestamp.ToNanoseconds() for s in d.reports] == sorted(s.timestamp.ToNanoseconds() for s in d.reports)
