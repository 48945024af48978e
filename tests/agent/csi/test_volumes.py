"""Volumes of a node: mounted and unmounted through a real plugin on a Unix socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
import structlog.testing

from pyswarm.agent.csi.volumes import NodeVolumes
from pyswarm.agent.dependencies import Dependencies, NotAuthorized, needs_dependencies
from pyswarm.agent.disk import InlineDisk
from pyswarm.agent.executor import ExecutorError, TemporaryError
from pyswarm.api import v1 as api
from pyswarm.api.csi import csi_pb2 as csi
from pyswarm.clock import SystemClock
from pyswarm.csi.plugins import Plugin, Plugins
from pyswarm.errors import FailedPrecondition
from tests.agent.csi.support import A, assignment, made
from tests.support.csidriver import Driver, Fault

S = grpc.StatusCode


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that must come."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - it may come from another process
            await asyncio.sleep(0.005)


class Node:
    """A node's volumes, with tasks that may use some, and what was reported."""

    def __init__(self, tmp_path: Path, *plugins: str) -> None:
        self.tmp_path = tmp_path
        self.names = plugins or ("driver",)
        self.secrets = {"s": api.Secret(id="s", spec=api.SecretSpec(data=b"geheim"))}
        self.used: set[str] = set()
        self.reported: list[str] = []
        self.volumes: NodeVolumes

    @asynccontextmanager
    async def living(self) -> AsyncIterator[Node]:
        """One life of the daemon."""
        self.volumes = NodeVolumes(
            Plugins(Plugin(name, self.tmp_path / f"{name}.sock") for name in self.names),
            self.tmp_path / "volumes",
            SystemClock(),
            InlineDisk(),
            secret=self.secrets.get,
            in_use=self.used.__contains__,
            released=self.reported.append,
        )
        await self.volumes.load()
        running = asyncio.create_task(self.volumes.run())
        try:
            yield self
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    def mounted(self, volume_id: str) -> bool:
        """Whether a task could use it."""
        try:
            return self.volumes.path(volume_id).is_dir()
        except TemporaryError:
            return False

    def why_not(self, volume_id: str) -> str:
        """What a task is told that wants it now."""
        with pytest.raises(TemporaryError) as caught:
            self.volumes.path(volume_id)
        return str(caught.value)


@pytest.fixture
async def driver(tmp_path: Path) -> AsyncIterator[Driver]:
    """A plugin that serves, with two volumes for this node."""
    async with Driver(tmp_path / "root").serving(tmp_path / "driver.sock") as serving:
        made(serving, "v", "w")
        yield serving


@pytest.fixture
async def node(driver: Driver, tmp_path: Path) -> AsyncIterator[Node]:
    """A node that runs."""
    async with Node(tmp_path).living() as living:
        yield living


async def test_life(node: Node, driver: Driver) -> None:
    """A volume is there for tasks from the moment it is mounted until it is taken back; then that is reported. [dispatcher 124]"""
    node.volumes.add(assignment("v", secret="s"))
    assert node.why_not("v") == "volume v: published path is unavailable"
    await until(lambda: node.mounted("v"))
    (node.volumes.path("v") / "file").write_text("kept")
    assert (driver.root / "csi-v" / "file").read_text() == "kept"
    assert dict(driver.asked(csi.NodeStageVolumeRequest)[0].secrets) == {"key": "geheim"}
    node.volumes.remove(assignment("v"))
    assert node.why_not("v") == "volume v: volume being removed"
    await until(lambda: node.reported == ["v"])
    assert node.why_not("v") == "volume v: published path is unavailable"
    assert driver.trace() == ["NodeStageVolume", "NodePublishVolume", "NodeUnpublishVolume", "NodeUnstageVolume"]
    assert sorted(p.name for p in (node.tmp_path / "volumes").rglob("*")) == ["held", "published", "staged"]
    assert (driver.root / "csi-v" / "file").read_text() == "kept"


async def test_the_same_again_changes_nothing(node: Node, driver: Driver) -> None:
    """A complete assignment names what is mounted already; only what is new about a volume is carried out."""
    for _ in range(2):
        node.volumes.add(assignment("v"))
        await until(lambda: node.mounted("v"))
    assert driver.trace() == ["NodeStageVolume", "NodePublishVolume"]
    changed = assignment("v", sharing=A.READ_ONLY)
    node.volumes.add(changed)
    await until(lambda: node.mounted("v"))
    assert driver.trace() == ["NodeStageVolume", "NodePublishVolume"] * 2


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("method", ["NodeStageVolume", "NodePublishVolume", "NodeUnpublishVolume", "NodeUnstageVolume", "Probe"])
async def test_a_call_that_fails(node: Node, driver: Driver, method: str, late: bool) -> None:
    """Refused, or carried out with the answer lost: it is tried until it works, and ends the same."""
    driver.faults[method] = [Fault(S.UNAVAILABLE, late=late)]
    node.volumes.add(assignment("v"))
    await until(lambda: node.mounted("v"))
    node.volumes.remove(assignment("v"))
    await until(lambda: node.reported == ["v"])
    kept = driver.volumes["csi-v"]
    assert (kept.staged, kept.targets) == (set(), set())


@pytest.mark.parametrize("method", ["NodeStageVolume", "NodePublishVolume", "NodeUnpublishVolume", "NodeUnstageVolume"])
async def test_a_daemon_that_dies_during_a_call(driver: Driver, tmp_path: Path, method: str) -> None:
    """The next life, told the same by the manager, ends in the same place."""
    gate = asyncio.Event()
    node, kind = Node(tmp_path), getattr(csi, f"{method}Request")
    removing = "Un" in method
    async with node.living():
        if removing:
            node.volumes.add(assignment("v"))
            await until(lambda: node.mounted("v"))
        driver.faults[method] = [Fault(None, gate=gate)]
        (node.volumes.remove if removing else node.volumes.add)(assignment("v"))
        await until(lambda: driver.asked(kind))
    gate.set()
    async with node.living():
        (node.volumes.remove if removing else node.volumes.add)(assignment("v"))
        await until(lambda: node.reported == ["v"] if removing else node.mounted("v"))
        kept = driver.volumes["csi-v"]
        assert (len(kept.staged), len(kept.targets)) == ((0, 0) if removing else (1, 1))


async def test_removal_of_what_this_life_never_saw(node: Node, driver: Driver) -> None:
    """The plugin is asked nevertheless: an earlier life may have mounted it. [scheduling 142 in part]"""
    node.volumes.remove(assignment("v"))
    await until(lambda: node.reported == ["v"])
    assert driver.trace() == ["NodeUnpublishVolume", "NodeUnstageVolume"]


async def test_what_the_manager_has_forgotten(driver: Driver, tmp_path: Path) -> None:
    """What an earlier life mounted and nobody names any more is unmounted once the manager has said everything; what it names stays."""
    node = Node(tmp_path)
    async with node.living():
        for volume_id in ("v", "w"):
            node.volumes.add(assignment(volume_id, secret="s"))
            await until(lambda volume_id=volume_id: node.mounted(volume_id))
    noted = list((tmp_path / "volumes" / "held").iterdir())
    assert sorted(path.name for path in noted) == ["v", "w"]
    assert all(path.stat().st_mode & 0o777 == 0o600 and b"geheim" not in path.read_bytes() for path in noted)
    (tmp_path / "volumes" / "held" / "broken").write_bytes(b"\xff")
    async with node.living():
        node.volumes.add(assignment("w"))
        node.volumes.settle()
        await until(lambda: node.mounted("w") and not driver.volumes["csi-v"].targets)
        await until(lambda: node.reported == ["v"])
        assert driver.volumes["csi-v"].staged == set()
    assert sorted(path.name for path in (tmp_path / "volumes" / "held").iterdir()) == ["broken", "w"]


async def test_leaving(node: Node, driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that leaves for good unmounts all it has; what cannot be unmounted is named."""
    for volume_id in ("v", "w"):
        node.volumes.add(assignment(volume_id))
    await until(lambda: node.mounted("v") and node.mounted("w"))
    node.used.add("w")
    monkeypatch.setattr("pyswarm.agent.csi.volumes.LEAVE_SECONDS", 0.3)
    with pytest.raises(FailedPrecondition, match=r"these volumes cannot be unmounted: .*w; the log says why"):
        await node.volumes.leave()
    await until(lambda: node.reported == ["v"])
    node.used.clear()
    node.volumes.task_ended(api.Task(volumes=[api.VolumeAttachment(id="w")]))
    monkeypatch.setattr("pyswarm.agent.csi.volumes.LEAVE_SECONDS", 20)
    await node.volumes.leave()
    assert driver.volumes["csi-w"].targets == set()


async def test_it_stays_while_a_task_uses_it(node: Node, driver: Driver) -> None:
    """Nothing is unmounted under a task's feet, whatever the manager believes; the end of the task lets it go at once."""
    node.volumes.add(assignment("v"))
    await until(lambda: node.mounted("v"))
    node.used.add("v")
    with structlog.testing.capture_logs() as logs:
        node.volumes.remove(assignment("v"))
        await until(lambda: len(logs) >= 2)
    assert {entry["error"] for entry in logs} == {"a task on this node still uses it"}
    assert driver.trace() == ["NodeStageVolume", "NodePublishVolume"]
    node.used.clear()
    node.volumes.task_ended(api.Task(volumes=[api.VolumeAttachment(id="v"), api.VolumeAttachment(id="other")]))
    await until(lambda: node.reported == ["v"])


async def test_a_slow_plugin_holds_up_nobody_else(node: Node, driver: Driver) -> None:
    """A call that hangs concerns its own volume only; one taken back meanwhile is unmounted after it."""
    gate = asyncio.Event()
    driver.faults["NodeStageVolume"] = [Fault(None, gate=gate)]
    node.volumes.add(assignment("v"))
    await until(lambda: driver.asked(csi.NodeStageVolumeRequest))
    node.volumes.add(assignment("w"))
    await until(lambda: node.mounted("w"))
    node.volumes.remove(assignment("v"))
    assert not node.mounted("v")
    gate.set()
    await until(lambda: node.reported == ["v"])
    assert driver.volumes["csi-v"].staged == set()


async def test_no_plugin(node: Node, driver: Driver) -> None:
    """A volume without plugin here is never mounted, and given back at once: nothing of it can be here."""
    with structlog.testing.capture_logs() as logs:
        node.volumes.add(assignment("v", driver="strange"))
        await until(lambda: logs)
    assert "cannot get plugin strange" in logs[0]["error"]
    node.volumes.remove(assignment("v", driver="strange"))
    node.volumes.remove(assignment("x", driver="strange"))
    await until(lambda: sorted(node.reported) == ["v", "x"])
    (node.tmp_path / "volumes" / "staged" / "y").mkdir(parents=True)
    node.volumes.remove(assignment("y", driver="strange"))
    with structlog.testing.capture_logs() as logs:
        await until(lambda: logs)
    assert "y" not in node.reported
    assert driver.calls == []


async def test_ids_are_no_paths(node: Node, driver: Driver) -> None:
    """A volume whose id would lead elsewhere is never mounted."""
    with structlog.testing.capture_logs() as logs:
        for wrong in ("../v", "..", "/v"):
            node.volumes.add(assignment(wrong))
        await until(lambda: len(logs) >= 3)
    assert all("is no volume's ID" in entry["error"] for entry in logs)
    assert driver.calls == []


async def test_secrets_are_sent_never_logged(node: Node, driver: Driver) -> None:
    """The plugin gets them; no log line has them, even when the plugin repeats them."""
    driver.faults["NodeStageVolume"] = [Fault(S.INTERNAL, "bad geheim")]
    with structlog.testing.capture_logs() as logs:
        node.volumes.add(assignment("v", secret="s"))
        await until(lambda: node.mounted("v"))
    assert [dict(r.secrets) for r in driver.asked(csi.NodeStageVolumeRequest)] == [{"key": "geheim"}] * 2
    assert "geheim" not in str(logs)
    assert "bad ***" in str(logs)


async def test_description(tmp_path: Path) -> None:
    """Plugins that answer are listed by name; those that do not, or have no node service, are not. [scheduling 140; dispatcher 148]"""
    async with (
        Driver(tmp_path / "1", node_id="n1").serving(tmp_path / "one.sock"),
        Driver(tmp_path / "2", serves_nodes=False).serving(tmp_path / "two.sock"),
        Driver(tmp_path / "3", node_id="n3").serving(tmp_path / "three.sock"),
        Node(tmp_path, "one", "three", "two").living() as node,
    ):
        listed = await node.volumes.describe()
        assert [(info.plugin_name, info.node_id) for info in listed] == [("one", "n1"), ("three", "n3")]
    async with Node(tmp_path, "one").living() as lonely:
        assert await lonely.volumes.describe() == []


async def test_a_plugin_that_goes_away_is_still_described(tmp_path: Path) -> None:
    """It may be starting anew, and what it has here must find it again."""
    async with Node(tmp_path).living() as node:
        async with Driver(tmp_path / "root").serving(tmp_path / "driver.sock"):
            before = await node.volumes.describe()
        assert len(before) == 1
        assert await node.volumes.describe() == before


def test_tasks_see_their_own_volumes_only() -> None:
    """A task reaches the volumes that it was given, once they are mounted; no other. [scheduling 141; dispatcher 146]"""

    class Mounted:
        def place(self, volume_id: str) -> Path:
            return Path("/mnt") / volume_id

        def path(self, volume_id: str) -> Path:
            return self.place(volume_id)

    everything = Dependencies()
    task = api.Task(volumes=[api.VolumeAttachment(id="volume1")])
    with pytest.raises(ExecutorError, match="this node has no cluster volumes"):
        everything.of(task).volume("volume1")
    everything.volumes = Mounted()
    assert everything.of(task).volume("volume1") == Path("/mnt/volume1")
    for ask in (everything.of(task).volume, everything.of(task).place):
        with pytest.raises(NotAuthorized, match=r"^task not authorized to access volume volume2$"):
            ask("volume2")
    assert needs_dependencies(task)
    assert not needs_dependencies(api.Task())
