"""The node service of a real plugin on a Unix socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pyswarm.agent.csi.nodeplugin import NodePlugin
from pyswarm.api import v1 as api
from pyswarm.api.csi import csi_pb2 as csi
from pyswarm.csi.connection import Connection
from pyswarm.errors import FailedPrecondition, InvalidArgument
from tests.agent.csi.support import A, assignment, made
from tests.support.csidriver import Driver


@pytest.fixture
async def driver(tmp_path: Path) -> AsyncIterator[Driver]:
    """A plugin that serves, with volume v made and published to this node."""
    async with Driver(tmp_path / "root").serving(tmp_path / "s") as serving:
        made(serving, "v")
        yield serving


@pytest.fixture
async def plugin(driver: Driver, tmp_path: Path) -> AsyncIterator[NodePlugin]:
    """The plugin as a node sees it, with the directories that it expects."""
    (tmp_path / "staged" / "v").mkdir(parents=True)
    (tmp_path / "published").mkdir()
    connection = Connection("driver", tmp_path / "s")
    yield NodePlugin(connection, tmp_path)
    await connection.close()


async def test_in_order(plugin: NodePlugin, driver: Driver, tmp_path: Path) -> None:
    """Stage, publish, unpublish, unstage, with everything that the plugin has to know. [scheduling 139; dispatcher 147]"""
    wanted = assignment("v", sharing=A.READ_ONLY)
    await plugin.stage(wanted, {"key": "geheim"})
    await plugin.publish(wanted, {"key": "geheim"})
    assert (tmp_path / "published" / "v").is_dir()
    [staged], [published] = driver.asked(csi.NodeStageVolumeRequest), driver.asked(csi.NodePublishVolumeRequest)
    for request in (staged, published):
        assert request.volume_id == "csi-v"
        assert request.staging_target_path == str(tmp_path / "staged" / "v")
        assert dict(request.publish_context) == {"device": "csi-v@csi-node"}
        assert dict(request.volume_context) == {"made": "yes"}
        assert dict(request.secrets) == {"key": "geheim"}
        mode = request.volume_capability.access_mode
        assert mode.Mode.Name(mode.mode) == "MULTI_NODE_READER_ONLY"
    assert (published.target_path, published.readonly) == (str(tmp_path / "published" / "v"), True)
    await plugin.unpublish(wanted)
    await plugin.unstage(wanted)
    assert driver.trace() == ["NodeStageVolume", "NodePublishVolume", "NodeUnpublishVolume", "NodeUnstageVolume"]
    assert not (tmp_path / "published" / "v").exists()


async def test_out_of_order(plugin: NodePlugin, driver: Driver) -> None:
    """Publishing what was not staged, and unstaging what is published, is refused without a call. [scheduling 139; dispatcher 147]"""
    wanted = assignment("v")
    with pytest.raises(FailedPrecondition, match=r"^volume requires staging but was not staged$"):
        await plugin.publish(wanted, {})
    await plugin.stage(wanted, {})
    await plugin.publish(wanted, {})
    with pytest.raises(FailedPrecondition, match=r"^Volume v is not unpublished$"):
        await plugin.unstage(wanted)
    assert driver.trace() == ["NodeStageVolume", "NodePublishVolume"]


async def test_what_an_earlier_life_did(plugin: NodePlugin, driver: Driver) -> None:
    """What another life of the daemon staged and published can be undone: the plugin is asked, not the memory."""
    kept = driver.volumes["csi-v"]
    kept.staged, kept.targets = {str(plugin._directory / "staged" / "v")}, {str(plugin._directory / "published" / "v")}
    await plugin.unpublish(assignment("v"))
    await plugin.unstage(assignment("v"))
    assert (kept.staged, kept.targets) == (set(), set())


async def test_without_staging(plugin: NodePlugin, driver: Driver) -> None:
    """A plugin that knows no staging publishes at once. [scheduling 139; dispatcher 147]"""
    driver.stages = False
    wanted = assignment("v")
    await plugin.stage(wanted, {})
    await plugin.publish(wanted, {})
    await plugin.unpublish(wanted)
    await plugin.unstage(wanted)
    assert driver.trace() == ["NodePublishVolume", "NodeUnpublishVolume"]
    assert driver.asked(csi.NodePublishVolumeRequest)[0].staging_target_path == ""


async def test_incomplete_assignments(plugin: NodePlugin, driver: Driver) -> None:
    """Without CSI id or access mode nothing is asked."""
    nameless, modeless = assignment("v"), assignment("v")
    nameless.volume_id = ""
    modeless.ClearField("access_mode")
    for call in (plugin.stage, plugin.publish):
        with pytest.raises(InvalidArgument, match=r"^Volume ID missing in request$"):
            await call(nameless, {})
        with pytest.raises(InvalidArgument, match=r"^AccessMode missing in request$"):
            await call(modeless, {})
    assert driver.calls == []


async def test_info(plugin: NodePlugin, driver: Driver) -> None:
    """Id, limit and place as the plugin says; no place is none."""
    assert await plugin.info() == api.NodeCSIInfo(plugin_name="driver", node_id="csi-node")
    driver.limit, driver.topology = 3, {"zone": "Z1"}
    info = await plugin.info()
    assert (info.max_volumes_per_node, dict(info.accessible_topology.segments)) == (3, {"zone": "Z1"})
