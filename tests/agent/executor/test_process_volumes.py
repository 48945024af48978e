"""Cluster volumes of real processes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pyswarm.agent.dependencies import Dependencies
from pyswarm.agent.executor import ExecutorError, TemporaryError
from pyswarm.agent.executor.process import ProcessExecutor
from pyswarm.api import v1 as api
from tests.support.engine import container_task


class Volumes:
    """Volume directories below a path, mounted when told."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.mounted: set[str] = set()

    def place(self, volume_id: str) -> Path:
        """Below the path."""
        return self._path / volume_id

    def path(self, volume_id: str) -> Path:
        """There, once mounted."""
        if volume_id not in self.mounted:
            raise TemporaryError(f"volume {volume_id}: published path is unavailable")
        return self.place(volume_id)


@pytest.fixture
def volumes(tmp_path: Path) -> Volumes:
    """One volume with a file, not mounted yet."""
    (tmp_path / "mnt" / "v-id").mkdir(parents=True)
    (tmp_path / "mnt" / "v-id" / "file").write_text("kept")
    return Volumes(tmp_path / "mnt")


@pytest.fixture
async def executor(tmp_path: Path, volumes: Volumes) -> AsyncIterator[ProcessExecutor]:
    """An executor on a node that has the volume."""
    made, node = ProcessExecutor(tmp_path, hostname="here"), Dependencies()
    node.volumes = volumes
    made.use_dependencies(node)
    yield made
    await made.remove_strays(())
    await made.close()


def shell(script: str, target: str = "data", source: str = "v") -> api.Task:
    """A task that runs a shell script and mounts the volume."""
    task = container_task("/bin/sh", args=["-c", script])
    task.spec.container.mounts.add(type=api.Mount.CLUSTER, source=source, target=target)
    task.volumes.add(id="v-id", source=source, target=target)
    return task


async def test_a_process_finds_its_volumes(executor: ProcessExecutor, volumes: Volumes, tmp_path: Path) -> None:
    """It waits until the volume is mounted; then it reads and writes it where its environment says; its end leaves the volume alone."""
    task = shell('cd "$PYSWARM_VOLUMES_DIR" && cat sub/data/file && echo more > sub/data/new', "sub/data", "{{.Node.Hostname}}")
    controller = executor.controller(task)
    with pytest.raises(TemporaryError, match="volume v-id: published path is unavailable"):
        await controller.prepare()
    volumes.mounted.add("v-id")
    await controller.prepare()
    await controller.start()
    await controller.wait()
    lines = [message.data async for message in controller.logs(api.LogSubscriptionOptions())]
    assert lines == [b"kept"]
    await controller.remove()
    assert (tmp_path / "mnt" / "v-id" / "new").read_text() == "more\n"
    assert (tmp_path / "mnt" / "v-id" / "file").read_text() == "kept"
    assert not (tmp_path / "worker" / "tasks" / task.id).exists()


async def test_a_volume_that_went_before_the_start(executor: ProcessExecutor, volumes: Volumes) -> None:
    """The machine may have been restarted after the preparation: the start waits for the volume again."""
    volumes.mounted.add("v-id")
    controller = executor.controller(shell("true"))
    await controller.prepare()
    volumes.mounted.clear()
    with pytest.raises(TemporaryError):
        await controller.start()
    volumes.mounted.add("v-id")
    await controller.start()
    await controller.wait()
    await controller.remove()


@pytest.mark.parametrize("target", ["/data", "..", "a/../../b", ".", ""])
def test_targets_outside(executor: ProcessExecutor, target: str) -> None:
    """A process has no file system of its own: what would lie outside its directory is refused with the remedy."""
    with pytest.raises(ExecutorError, match="name a directory relative to PYSWARM_VOLUMES_DIR"):
        executor.controller(shell("true", target))


def test_refusals(executor: ProcessExecutor) -> None:
    """A volume that the manager gave no one, and another user's process, are refused; other mounts still are."""
    lost = shell("true")
    del lost.volumes[:]
    with pytest.raises(ExecutorError, match=r"cluster volume v \(mount data\) was not attached to the task"):
        executor.controller(lost)
    foreign = shell("true")
    foreign.spec.container.user = "nobody"
    with pytest.raises(ExecutorError, match="leave the user out"):
        executor.controller(foreign)
    mounting = shell("true")
    mounting.spec.container.mounts.add(type=api.Mount.BIND, source="/a", target="b")
    with pytest.raises(ExecutorError, match="has no mounts"):
        executor.controller(mounting)
