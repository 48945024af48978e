"""The worker with a real plugin: volumes and the tasks that use them."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import structlog.testing

from pyswarm.agent.disk import InlineDisk
from pyswarm.agent.reporter import Reporter
from pyswarm.agent.worker import Worker
from pyswarm.api import v1 as api
from pyswarm.clock import SystemClock
from pyswarm.csi.plugins import Plugin, Plugins
from tests.agent.csi.support import assignment, made
from tests.agent.csi.test_volumes import until
from tests.agent.fakes import FakeClient, FakeManager, S, SecretExecutor, message, task
from tests.support.csidriver import Driver


async def test_volumes_go_after_their_tasks(tmp_path: Path) -> None:
    """Volumes are mounted with the secrets that came along, and stay until the last task that uses them has ended here.

    [dispatcher 121 in part; scheduling 142 in part]
    """
    driver, manager, reporter = Driver(tmp_path / "root"), FakeManager(), Reporter()
    made(driver, "v")
    worker = Worker(
        executor=SecretExecutor(),
        database=tmp_path / "worker" / "tasks.db",
        reporter=reporter,
        clock=SystemClock(),
        rng=random.Random(1),
        disk=InlineDisk(),
        plugins=Plugins([Plugin("driver", tmp_path / "driver.sock")]),
    )
    (tmp_path / "worker").mkdir()
    wanted, secret = assignment("v", secret="s"), api.Secret(id="s", spec=api.SecretSpec(data=b"geheim"))
    user = task("t")
    user.volumes.add(id="v", source="v", target="/v")
    async with driver.serving(tmp_path / "driver.sock"):
        running = [asyncio.create_task(worker.run()), asyncio.create_task(reporter.serve(FakeClient(manager), "s"))]
        try:
            worker.assign(message(user, wanted, secret))
            await until(lambda: driver.volumes["csi-v"].targets and manager.states("t")[-1:] == [S.RUNNING])
            assert dict(driver.calls[-1].secrets) == {"key": "geheim"}  # type: ignore[attr-defined]
            with structlog.testing.capture_logs() as logs:
                worker.assign(message(remove=[wanted], complete=False))
                await until(lambda: any(entry.get("error") == "a task on this node still uses it" for entry in logs))
            assert driver.volumes["csi-v"].targets
            assert manager.unpublished == []
            ended = task("t", S.SHUTDOWN)
            ended.volumes.extend(user.volumes)
            worker.assign(message(ended, complete=False))
            await until(lambda: manager.unpublished == ["v"])
            assert (driver.volumes["csi-v"].targets, driver.volumes["csi-v"].staged) == (set(), set())
        finally:
            for each in running:
                each.cancel()
            await asyncio.gather(*running, return_exceptions=True)
