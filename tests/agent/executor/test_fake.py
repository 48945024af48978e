"""The scripted executor, on virtual time."""

from __future__ import annotations

import asyncio

import pytest

from pyswarm.agent.executor import AlreadyPrepared, AlreadyStarted, ExecutorError, ExitError, TemporaryError
from pyswarm.agent.executor.fake import FakeExecutor, Script
from pyswarm.api import v1 as api
from tests.support.clock import VirtualClock, settle
from tests.support.engine import container_task


async def test_runs_its_time(clock: VirtualClock) -> None:
    """A task takes the scripted times and ends with the scripted code."""
    executor = FakeExecutor(clock, Script(prepare_seconds=1, start_seconds=2, run_seconds=10, exit_code=3, output=(b"x\n",)))
    task = container_task("x")
    controller = executor.controller(task)

    async def life() -> float:
        await controller.prepare()
        await controller.start()
        with pytest.raises(ExitError, match="3"):
            await controller.wait()
        return clock.now()

    began = clock.now()
    running = asyncio.create_task(life())
    await clock.advance(100)
    assert await running - began == 13
    assert [message.data async for message in controller.logs(api.LogSubscriptionOptions())] == [b"x\n"]
    assert executor.host.calls[:3] == [f"prepare {task.id}", f"start {task.id}", f"wait {task.id}"]


async def test_adoption_and_crash(clock: VirtualClock) -> None:
    """Containers survive the executor; a crash from outside ends the wait."""
    first = FakeExecutor(clock)
    task = container_task("x")
    controller = first.controller(task)
    await controller.prepare()
    await controller.start()
    await controller.close()
    with pytest.raises(ExecutorError, match="controller closed"):
        await controller.wait()
    second = FakeExecutor(clock, host=first.host).controller(task)
    with pytest.raises(AlreadyPrepared):
        await second.prepare()
    with pytest.raises(AlreadyStarted):
        await second.start()
    waiting = asyncio.create_task(second.wait())
    await settle()
    first.host.end(task.id, 9)
    with pytest.raises(ExitError, match="9"):
        await waiting


@pytest.mark.parametrize(("takes", "code"), [(1.0, 0), (60.0, 137)])
async def test_stop(clock: VirtualClock, takes: float, code: int) -> None:
    """A stop takes its time, and becomes a kill after the grace period."""
    executor = FakeExecutor(clock, Script(stop_seconds=takes))
    controller = executor.controller(container_task("x"))
    await controller.shutdown()
    await controller.prepare()
    await controller.start()
    stop = asyncio.create_task(controller.shutdown())
    await clock.advance(5)
    await stop
    status = await controller.container_status()
    assert status is not None
    assert status.exit_code == code
    await controller.remove()
    assert executor.host.containers == {}


async def test_scripted_trouble(clock: VirtualClock) -> None:
    """Scripts refuse, fail for a while, or fail for good, task by task."""
    scripts = {"a": Script(refuse="no"), "b": Script(temporary_failures=1, start_error="broken"), "c": Script(prepare_error="bad")}
    executor = FakeExecutor(clock, lambda task: scripts[task.service_annotations.name])
    with pytest.raises(ExecutorError, match="no"):
        executor.controller(container_task("x", name="a"))
    controller = executor.controller(container_task("x", name="b"))
    with pytest.raises(TemporaryError):
        await controller.prepare()
    await controller.prepare()
    with pytest.raises(TemporaryError):
        await controller.start()
    with pytest.raises(ExecutorError, match="broken"):
        await controller.start()
    with pytest.raises(ExecutorError, match="bad"):
        await executor.controller(container_task("x", name="c")).prepare()
    await executor.remove_strays(())
    assert executor.host.containers == {}
