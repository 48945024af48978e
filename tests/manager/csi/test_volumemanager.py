"""The leader's volume manager against a real plugin on a Unix socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import pytest
import structlog.testing

from pyswarm.api import v1 as api
from pyswarm.api.csi import csi_pb2 as csi
from pyswarm.clock import SystemClock
from pyswarm.csi.plugins import Plugin, Plugins
from pyswarm.manager.csi import VolumeManager
from pyswarm.manager.dispatcher import statuses
from pyswarm.manager.store import Commit, Kind, Store, Tx, by, copy_of
from tests.manager.csi.support import A, P, node, states, volume
from tests.support.csidriver import Driver, Fault

S = grpc.StatusCode
NODES = ("n1", "n2", "n3", "n4")


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that must come."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - it may come from another process
            await asyncio.sleep(0.005)


class Leader:
    """A store, plugins, and the volume manager of the present leader."""

    def __init__(self, store: Store, *plugins: Plugin) -> None:
        self.store = store
        self._plugins = plugins
        self._running: asyncio.Task[None] | None = None
        self._connections: list[Plugins] = []

    async def replace(self) -> None:
        """Another leader, which knows nothing but the store."""
        await self.stop()
        self._connections.append(Plugins(self._plugins))
        manager = VolumeManager(self.store, self._connections[-1], SystemClock())
        self._running = asyncio.create_task(manager.run())
        await asyncio.sleep(0)

    async def stop(self) -> None:
        """No leader."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
            self._running = None
        while self._connections:
            await self._connections.pop().close()

    async def write(self, *objects: api.Volume | api.Node | api.Secret) -> None:
        """Create or replace."""

        def change(tx: Tx) -> None:
            for obj in objects:
                table = getattr(tx, type(obj).__name__.lower() + "s")
                edited, old = copy_of(obj), table.get(obj.id)
                if old is not None:
                    edited.meta.CopyFrom(old.meta)
                (table.create if old is None else table.update)(edited)

        await self.store.update(change)

    async def edit(self, name: str, change: Callable[[api.Volume], object]) -> None:
        """Change a volume."""

        def write(tx: Tx) -> None:
            edited = copy_of(tx.volumes.find(by.name(name))[0])
            change(edited)
            tx.volumes.update(edited)

        await self.store.update(write)

    def volume(self, name: str) -> api.Volume:
        """As stored."""
        return self.store.volumes.find(by.name(name))[0]

    def has(self, name: str) -> bool:
        """Whether it is there."""
        return bool(self.store.volumes.find(by.name(name)))


@pytest.fixture
async def driver(tmp_path: Path) -> AsyncIterator[Driver]:
    """A plugin that serves."""
    async with Driver(tmp_path / "root").serving(tmp_path / "driver.sock") as serving:
        yield serving


@pytest.fixture
async def leader(store: Store, tmp_path: Path) -> AsyncIterator[Leader]:
    """A leader that knows the plugin, and four nodes with it."""
    made = Leader(store, Plugin("driver", tmp_path / "driver.sock"))
    await made.write(*(node(n) for n in NODES))
    await made.replace()
    yield made
    await made.stop()


async def test_create(leader: Leader, driver: Driver, tmp_path: Path) -> None:
    """A new volume is made by its own plugin and what that says is stored; nothing is asked twice. [scheduling 132, 133]"""
    async with Driver(tmp_path / "else").serving(tmp_path / "else.sock") as other:
        leader._plugins = (*leader._plugins, Plugin("else", tmp_path / "else.sock"))
        await leader.write(volume("before", made=False))
        await leader.replace()
        await until(lambda: leader.volume("before").HasField("volume_info"))
        await leader.write(volume("v", made=False))
        await until(lambda: leader.volume("v").HasField("volume_info"))
        info = leader.volume("v").volume_info
        assert (info.volume_id, dict(info.volume_context)) == ("csi-v", {"made": "yes"})
        assert driver.trace() == ["CreateVolume", "CreateVolume"]
        assert other.calls == []


async def test_publish_and_unpublish(leader: Leader, driver: Driver) -> None:
    """Pending ones are published, with what the plugin says, or taken back, and their entries go. [scheduling 134, 138]"""
    await leader.write(volume("v", made=False))
    await until(lambda: leader.volume("v").HasField("volume_info"))
    await leader.edit("v", lambda v: v.publish_status.extend(P(node_id=n, state=P.PENDING_PUBLISH) for n in ("n3", "n4")))
    await until(lambda: states(leader.store, "v") == {"n3": "PUBLISHED", "n4": "PUBLISHED"})

    def turn(v: api.Volume) -> None:
        for entry in v.publish_status:
            entry.state = P.PENDING_UNPUBLISH
        v.publish_status.extend(P(node_id=n, state=P.PENDING_PUBLISH) for n in ("n1", "n2"))

    await leader.edit("v", turn)
    await until(lambda: states(leader.store, "v") == {"n1": "PUBLISHED", "n2": "PUBLISHED"})
    assert {e.node_id: dict(e.publish_context) for e in leader.volume("v").publish_status} == {
        n: {"device": f"csi-v@csi-{n}"} for n in ("n1", "n2")
    }
    assert driver.volumes["csi-v"].nodes == {"csi-n1", "csi-n2"}


async def test_partial_failure(leader: Leader, driver: Driver) -> None:
    """What works is stored, what fails says so in the volume and is tried again until it works. [scheduling 135]"""
    wait = asyncio.Event()
    await leader.write(volume("v", made=False))
    await until(lambda: leader.volume("v").HasField("volume_info"))
    await leader.edit("v", lambda v: v.publish_status.extend(P(node_id=n, state=P.PENDING_PUBLISH) for n in ("n3", "n4")))
    await until(lambda: states(leader.store, "v") == {"n3": "PUBLISHED", "n4": "PUBLISHED"})
    driver.faults["ControllerUnpublishVolume"] = [Fault(None), Fault(S.INTERNAL, "stuck"), Fault(gate=wait)]
    driver.faults["ControllerPublishVolume"] = [Fault(None), Fault(S.RESOURCE_EXHAUSTED, "full")]

    def turn(v: api.Volume) -> None:
        for entry in v.publish_status:
            entry.state = P.PENDING_UNPUBLISH
        v.publish_status.extend(P(node_id=n, state=P.PENDING_PUBLISH) for n in ("n1", "n2"))

    await leader.edit("v", turn)
    await until(
        lambda: (
            states(leader.store, "v")
            == {
                "n1": "PUBLISHED",
                "n2": "PENDING_PUBLISH (error publishing volume: plugin driver: full)",
                "n4": "PENDING_UNPUBLISH (error unpublishing volume: plugin driver: stuck)",
            }
        )
    )
    wait.set()
    await until(lambda: states(leader.store, "v") == {"n1": "PUBLISHED", "n2": "PUBLISHED"})


async def test_delete(leader: Leader, driver: Driver) -> None:
    """A volume that is to go is deleted by its plugin first; while that fails the object stays. [scheduling 136]"""
    await leader.write(volume("v", made=False, secrets={"key": "s"}), api.Secret(id="s", spec=api.SecretSpec(data=b"geheim")))
    await until(lambda: leader.volume("v").HasField("volume_info"))
    wait = asyncio.Event()
    driver.faults["DeleteVolume"] = [Fault(S.INTERNAL), Fault(None, gate=wait)]
    await leader.edit("v", lambda v: setattr(v, "pending_delete", True))
    await until(lambda: len(driver.asked(csi.DeleteVolumeRequest)) == 2)
    assert leader.volume("v").pending_delete
    wait.set()
    await until(lambda: not leader.has("v"))
    assert driver.volumes == {}
    assert [dict(request.secrets) for request in driver.asked(csi.DeleteVolumeRequest)] == [{"key": "geheim"}] * 2


async def test_a_plugin_without_controller(leader: Leader, driver: Driver) -> None:
    """Nothing is asked of it: volumes go by their names, nodes get them without context. [scheduling 137, 138]"""
    driver.controller = False
    await leader.write(volume("v", made=False))
    await until(lambda: leader.volume("v").HasField("volume_info"))
    assert leader.volume("v").volume_info.volume_id == "v"
    await leader.edit("v", lambda v: v.publish_status.add(node_id="n1", state=P.PENDING_PUBLISH))
    await until(lambda: states(leader.store, "v") == {"n1": "PUBLISHED"})
    assert not leader.volume("v").publish_status[0].publish_context
    await leader.edit("v", lambda v: setattr(v.publish_status[0], "state", P.PENDING_UNPUBLISH))
    await until(lambda: states(leader.store, "v") == {})
    await leader.edit("v", lambda v: setattr(v, "pending_delete", True))
    await until(lambda: not leader.has("v"))
    assert driver.trace() == []


async def test_a_plugin_that_publishes_nothing(leader: Leader, driver: Driver) -> None:
    """A new leader asks what it can do before it concludes that there is nothing to do. [scheduling 138 in part]"""
    driver.publishes = False
    await leader.stop()
    await leader.write(volume("v", n1=P.PENDING_PUBLISH, n2=P.PENDING_UNPUBLISH))
    await leader.replace()
    await until(lambda: states(leader.store, "v") == {"n1": "PUBLISHED"})
    assert driver.trace() == []
    assert len(driver.asked(csi.ControllerGetCapabilitiesRequest)) == 1


async def test_nobody_to_ask(leader: Leader, driver: Driver, tmp_path: Path) -> None:
    """A driver without plugin, a node without the plugin, a plugin that is not ready or away: said, and tried until it changes."""
    driver.ready = False
    await leader.write(volume("strange", driver="strange", n1=P.PENDING_PUBLISH), volume("v", n1=P.PENDING_PUBLISH))
    why = "error publishing volume: "
    strange = f'{why}driver "strange" not found: start pyswarmd with --csi-plugin strange=unix:///PATH'
    await until(lambda: states(leader.store, "strange") == {"n1": f"PENDING_PUBLISH ({strange})"})
    await until(lambda: states(leader.store, "v") == {"n1": f"PENDING_PUBLISH ({why}plugin driver is not ready)"})
    await leader.write(node("n1", "other"))
    driver.ready = True
    driver.on_create_volume(csi.CreateVolumeRequest(name="v", volume_capabilities=[csi.VolumeCapability()]))
    missing = "CSI node ID not found for given Swarm node ID: plugin driver does not run on node n1"
    await until(lambda: states(leader.store, "v") == {"n1": f"PENDING_PUBLISH ({why}{missing})"})
    await leader.write(node("n1"))
    await until(lambda: states(leader.store, "v") == {"n1": "PUBLISHED"})


async def test_a_removed_node(leader: Leader, driver: Driver) -> None:
    """The id of a removed node is lost; a volume that only it had is taken back from everywhere."""
    await leader.write(volume("v", made=False))
    await until(lambda: leader.volume("v").HasField("volume_info"))
    await leader.edit("v", lambda v: v.publish_status.add(node_id="n1", state=P.PENDING_PUBLISH))
    await until(lambda: states(leader.store, "v") == {"n1": "PUBLISHED"})
    await leader.store.update(lambda tx: tx.nodes.delete("n1"))
    await leader.edit("v", lambda v: setattr(v.publish_status[0], "state", P.PENDING_UNPUBLISH))
    await until(lambda: states(leader.store, "v") == {})
    assert [request.node_id for request in driver.asked(csi.ControllerUnpublishVolumeRequest)] == [""]


async def test_secrets_are_sent_never_logged(leader: Leader, driver: Driver) -> None:
    """They reach the plugin; no log line and no message in the store holds them, even when the plugin repeats them."""
    driver.faults = {name: [Fault(S.INTERNAL, "bad geheim")] for name in ("CreateVolume", "ControllerPublishVolume")}
    with structlog.testing.capture_logs() as logs:
        await leader.write(api.Secret(id="s", spec=api.SecretSpec(data=b"geheim")), volume("v", made=False, secrets={"key": "s"}))
        await until(lambda: leader.volume("v").HasField("volume_info"))
        wait = asyncio.Event()
        driver.faults["ControllerPublishVolume"].append(Fault(None, gate=wait))
        await leader.edit("v", lambda v: v.publish_status.add(node_id="n1", state=P.PENDING_PUBLISH))
        await until(lambda: "bad ***" in states(leader.store, "v")["n1"])
        wait.set()
        await until(lambda: states(leader.store, "v") == {"n1": "PUBLISHED"})
    assert {dict(r.secrets)["key"] for r in driver.asked(csi.CreateVolumeRequest, csi.ControllerPublishVolumeRequest)} == {"geheim"}
    assert "geheim" not in str(logs)
    assert "bad ***" in str(logs)


async def test_a_slow_plugin_holds_up_nobody_else(leader: Leader, driver: Driver) -> None:
    """A call that hangs concerns its own volume only."""
    wait = asyncio.Event()
    driver.faults["CreateVolume"] = [Fault(None, gate=wait)]
    await leader.write(volume("slow", made=False))
    await until(lambda: driver.asked(csi.CreateVolumeRequest))
    await leader.write(volume("quick", made=False))
    await until(lambda: leader.volume("quick").HasField("volume_info"))
    assert not leader.volume("slow").HasField("volume_info")
    wait.set()
    await until(lambda: leader.volume("slow").HasField("volume_info"))


# --- the whole life, disturbed


async def live(leader: Leader, driver: Driver) -> None:
    """Volume v is made, published to n1, given back by the node, published to n2, forgotten by it, and deleted."""
    await leader.write(volume("v", made=False, scope=A.SINGLE_NODE, sharing=A.NONE))
    await until(lambda: leader.volume("v").HasField("volume_info"))
    for node_id in ("n1", "n2"):
        await leader.edit("v", lambda v, n=node_id: v.publish_status.add(node_id=n, state=P.PENDING_PUBLISH))
        await until(lambda n=node_id: states(leader.store, "v") == {n: "PUBLISHED"})
        assert driver.volumes["csi-v"].nodes == {f"csi-{node_id}"}
        await leader.edit("v", lambda v: setattr(v.publish_status[0], "state", P.PENDING_NODE_UNPUBLISH))
        report = statuses.VolumeReport("v-id", node_id)
        await leader.store.update(lambda tx, r=report: statuses.write(tx, r, "manager", 0.0))
        await until(lambda: states(leader.store, "v") == {})
        assert driver.volumes["csi-v"].nodes == set()
    await leader.edit("v", lambda v: setattr(v, "pending_delete", True))
    await until(lambda: not leader.has("v"))
    assert driver.volumes == {}


STEPS = ("CreateVolume", "ControllerPublishVolume", "ControllerUnpublishVolume", "DeleteVolume")
LIFE = ["CreateVolume", "ControllerPublishVolume", "ControllerUnpublishVolume", *STEPS[1:]]


async def test_the_whole_life(leader: Leader, driver: Driver) -> None:
    """Undisturbed, each call is made once."""
    await live(leader, driver)
    assert driver.trace() == LIFE


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("method", [*STEPS, "Probe", "GetPluginCapabilities", "ControllerGetCapabilities"])
async def test_a_call_that_fails(leader: Leader, driver: Driver, method: str, late: bool) -> None:
    """Whichever call is refused once, or carried out with its answer lost: the volume ends the same, with that call made once more."""
    driver.faults[method] = [Fault(S.UNAVAILABLE, late=late)]
    await live(leader, driver)
    assert sorted(driver.trace()) == sorted([*LIFE, *([method] if method in STEPS else [])])


@pytest.mark.parametrize("method", STEPS)
async def test_a_leader_that_changes_during_a_call(leader: Leader, driver: Driver, method: str) -> None:
    """The plugin still carries out what an old leader asked, maybe after the new one has asked the same: the volume ends the same."""
    gate = asyncio.Event()
    driver.faults[method] = [Fault(None, gate=gate)]
    kind = getattr(csi, f"{method}Request")

    async def change() -> None:
        await until(lambda: driver.asked(kind))
        await leader.replace()
        await until(lambda: len(driver.asked(kind)) >= 2)
        gate.set()

    changing = asyncio.create_task(change())
    await live(leader, driver)
    await changing


async def test_a_leader_that_changes_after_every_step(leader: Leader, driver: Driver) -> None:
    """Replaced after each single commit, leaders together do what one does, no call more."""
    commits: asyncio.Queue[int] = asyncio.Queue()

    def on_commit(commit: Commit) -> None:
        if any(event.kind is Kind.VOLUME for event in commit.events):
            commits.put_nowait(commit.index)

    async def change() -> None:
        while True:
            await commits.get()
            await leader.replace()

    undo = leader.store.on_commit(on_commit)
    changing = asyncio.create_task(change())
    try:
        await live(leader, driver)
    finally:
        undo()
        changing.cancel()
        await asyncio.gather(changing, return_exceptions=True)
    assert set(driver.trace()) == set(LIFE)


async def test_a_plugin_that_crashes_between_steps(leader: Leader, store: Store, tmp_path: Path) -> None:
    """Away and back at any time, with what it had: the volume ends the same."""
    driver = Driver(tmp_path / "root")
    going = True

    async def flicker() -> None:
        while going:
            async with driver.serving(tmp_path / "driver.sock"):
                before = len(driver.trace())
                await until(lambda: not going or len(driver.trace()) != before)  # noqa: B023 - awaited before it changes
                await asyncio.sleep(0.02)
        async with driver.serving(tmp_path / "driver.sock"):
            await done.wait()

    done = asyncio.Event()
    flickering = asyncio.create_task(flicker())
    await live(leader, driver)
    going = False
    done.set()
    await flickering
