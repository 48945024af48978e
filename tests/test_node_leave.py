"""A worker leaves its cluster for good."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import pytest

from pyswarm.agent.csi import records
from pyswarm.agent.database import Database
from pyswarm.agent.executor import Executor, ExecutorError
from pyswarm.agent.executor.fake import FakeExecutor
from pyswarm.agent.executor.process import ProcessExecutor, shim
from pyswarm.api import v1 as api
from pyswarm.clock import SystemClock
from pyswarm.csi.plugins import Plugin, Plugins
from pyswarm.errors import FailedPrecondition, SwarmError
from pyswarm.node_leave import leave
from pyswarm.node_state import Settings, StateDirectory, StateDirectoryError
from pyswarm.rpc.caller import MANAGER, WORKER
from tests.agent.csi.support import assignment, made
from tests.ca import pki
from tests.support.csidriver import Driver
from tests.support.engine import container_task

S = api.TaskState


def home(path: Path, role: str = WORKER) -> StateDirectory:
    """The directory of node `n1`."""
    directory = StateDirectory(path)
    directory.certificates.mkdir(parents=True)
    certificate = pki.make(pki.name("n1", "cluster1", (role,)))
    (directory.certificates / "swarm-node.crt").write_bytes(certificate.pem)
    directory.remotes.write_text("[]")
    directory.save_settings(Settings(executor="process"))
    directory.raft.mkdir()
    return directory


def remember(directory: StateDirectory, *tasks: api.Task) -> None:
    """What the worker's database knows."""
    database = Database(directory.tasks)
    database.open()
    database.save(tasks)
    database.close()


def left(directory: StateDirectory) -> list[str]:
    """The names of what is still there."""
    return sorted(entry.name for entry in directory.path.iterdir())


def giving(executor: Executor) -> Callable[[str], Awaitable[Executor]]:
    """Makes this executor for whomever."""

    async def make(_node_id: str) -> Executor:
        return executor

    return make


async def test_a_worker_leaves(tmp_path: Path) -> None:
    """What it runs ends, also what its database does not know; nothing is left but the lock; another leave finds nobody."""
    directory = home(tmp_path)
    executor = ProcessExecutor(directory.path)
    pids = []
    known, unknown = (container_task("/bin/sleep", args=["1000"]) for _ in range(2))
    for task in (known, unknown):
        controller = executor.controller(task)
        await controller.prepare()
        await controller.start()
        status = await controller.container_status()
        assert status is not None
        pids.append(status.pid)
    known.status.state = S.RUNNING
    remember(directory, known)
    asked: list[str] = []

    async def maker(node_id: str) -> Executor:
        asked.append(node_id)
        return ProcessExecutor(directory.path)

    await leave(directory, maker, SystemClock())
    assert asked == ["n1"]
    for pid in pids:
        fields = shim.stat_fields(pid)
        assert not fields or fields[0] in "ZX"
    assert left(directory) == ["daemon.lock"]
    with pytest.raises(SwarmError, match="--leave: no node lives in"):
        await leave(directory, maker, SystemClock())


async def test_its_volumes_are_unmounted(tmp_path: Path) -> None:
    """What an earlier life mounted is unmounted by its plugin; data is never deleted through a mount that is still there."""
    (tmp_path / "state").mkdir()
    directory, driver = home(tmp_path / "state"), Driver(tmp_path / "root")
    made(driver, "v")
    (driver.root / "csi-v" / "file").write_text("kept")
    volumes, socket = directory.tasks.parent / "volumes", Plugin("driver", tmp_path / "s")
    records.save(volumes, assignment("v"))
    (volumes / "published").mkdir()
    (volumes / "published" / "v").symlink_to(driver.root / "csi-v")
    driver.volumes["csi-v"].targets.add(str(volumes / "published" / "v"))
    (volumes / "published" / "strange").mkdir()
    async with driver.serving(tmp_path / "s"):
        with pytest.raises(FailedPrecondition, match="published/strange may be a mounted volume: unmount it"):
            await leave(directory, giving(FakeExecutor(SystemClock())), SystemClock(), Plugins([socket]))
    assert driver.trace() == ["NodeUnpublishVolume", "NodeUnstageVolume"]
    assert driver.volumes["csi-v"].targets == set()
    (volumes / "published" / "strange").rmdir()
    await leave(directory, giving(FakeExecutor(SystemClock())), SystemClock(), Plugins([socket]))
    assert left(directory) == ["daemon.lock"]
    assert (driver.root / "csi-v" / "file").read_text() == "kept"


class Stubborn(FakeExecutor):
    """Cannot remove what it should."""

    async def remove_strays(self, keep: Iterable[str]) -> None:
        """No."""
        raise ExecutorError("the engine is away")


async def test_what_cannot_be_removed_is_not_forgotten(tmp_path: Path) -> None:
    """Without an engine the node says so and stays who it is, so that it can leave later."""
    directory = home(tmp_path)
    before = left(directory)
    with pytest.raises(FailedPrecondition, match="node n1 did not leave, for it cannot remove its tasks: the engine is away"):
        await leave(directory, giving(Stubborn(SystemClock())), SystemClock())
    assert left(directory) == sorted([*before, "daemon.lock", "worker"])
    executor = FakeExecutor(SystemClock())
    await leave(directory, giving(executor), SystemClock())
    assert left(directory) == ["daemon.lock"]
    assert executor.closed


async def test_a_manager_does_not(tmp_path: Path) -> None:
    """Its cluster counts on it: it is told how to be demoted first, and nothing changes."""
    directory = home(tmp_path, MANAGER)
    before = left(directory)
    with pytest.raises(
        FailedPrecondition, match=r"is a manager: its cluster must do without it first\. Demote it \(pyswarmctl node demote n1\)"
    ):
        await leave(directory, giving(FakeExecutor(SystemClock())), SystemClock())
    assert left(directory) == sorted([*before, "daemon.lock"])


async def test_a_running_daemon_is_left_alone(tmp_path: Path) -> None:
    """A directory in use is refused."""
    directory = home(tmp_path)
    with directory.locked(), pytest.raises(StateDirectoryError, match="is in use by another pyswarmd"):
        await leave(directory, giving(FakeExecutor(SystemClock())), SystemClock())


async def test_a_damaged_certificate(tmp_path: Path) -> None:
    """A file that does not say who the node is is named."""
    directory = home(tmp_path)
    (directory.certificates / "swarm-node.crt").write_bytes(b"nonsense")
    with pytest.raises(SwarmError, match=r"swarm-node\.crt does not say who the node is"):
        await leave(directory, giving(FakeExecutor(SystemClock())), SystemClock())
