"""The plugins that the daemon is told of, and connections to them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest

from pyswarm.api import v1 as api
from pyswarm.api.csi import csi_pb2 as csi
from pyswarm.csi.access import capability, secrets_of
from pyswarm.csi.connection import Connection
from pyswarm.csi.plugins import Plugin, Plugins, parse, parse_all
from pyswarm.errors import Aborted, DeadlineExceeded, FailedPrecondition, InvalidArgument, NotFound, SwarmError, Unavailable
from tests.support.csidriver import Driver, Fault

A = api.VolumeAccessMode


def test_parsing() -> None:
    """A name and the absolute path of a socket; empty words are no plugins."""
    assert parse("nfs=unix:///run/nfs.sock") == Plugin("nfs", Path("/run/nfs.sock"))
    assert [p.name for p in parse_all(["a=unix:///a", "", "b.example.org=unix:///b=c"])] == ["a", "b.example.org"]


@pytest.mark.parametrize(
    ("texts", "complaint"),
    [
        (["nfs"], "is not NAME=unix:///PATH"),
        (["=unix:///x"], "is not NAME"),
        (["nfs=/run/nfs.sock"], "no address of a Unix socket"),
        (["nfs=tcp://1.2.3.4:5"], "no address of a Unix socket"),
        (["nfs=unix://run/nfs.sock"], "must be absolute"),
        (["nfs=unix:///" + "x" * 107], "longer than 107 bytes"),
        (["a=unix:///1", "a=unix:///2"], "plugin a is named twice"),
    ],
)
def test_bad_plugins(texts: list[str], complaint: str) -> None:
    """What cannot be is refused with the reason."""
    with pytest.raises(InvalidArgument, match=complaint):
        parse_all(texts)


@pytest.mark.parametrize(
    ("scope", "sharing", "mode"),
    [
        (A.SINGLE_NODE, A.NONE, "SINGLE_NODE_WRITER"),
        (A.SINGLE_NODE, A.READ_ONLY, "SINGLE_NODE_READER_ONLY"),
        (A.SINGLE_NODE, A.ONE_WRITER, "SINGLE_NODE_WRITER"),
        (A.SINGLE_NODE, A.ALL, "SINGLE_NODE_WRITER"),
        (A.MULTI_NODE, A.NONE, "UNKNOWN"),
        (A.MULTI_NODE, A.READ_ONLY, "MULTI_NODE_READER_ONLY"),
        (A.MULTI_NODE, A.ONE_WRITER, "MULTI_NODE_SINGLE_WRITER"),
        (A.MULTI_NODE, A.ALL, "MULTI_NODE_MULTI_WRITER"),
    ],
)
def test_access_modes(scope: A.Scope.ValueType, sharing: A.Sharing.ValueType, mode: str) -> None:
    """Scope and sharing together are one mode of the plugin's; file system and flags, or block, go with it. [scheduling 137 in part]"""
    mounted = capability(A(scope=scope, sharing=sharing, mount=A.MountVolume(fs_type="ext4", mount_flags=["noatime"])))
    assert csi.VolumeCapability.AccessMode.Mode.Name(mounted.access_mode.mode) == mode
    assert (mounted.mount.fs_type, list(mounted.mount.mount_flags)) == ("ext4", ["noatime"])
    assert capability(A(scope=scope, sharing=sharing, block=A.BlockVolume())).WhichOneof("access_type") == "block"


def test_secrets() -> None:
    """Under the keys that the volume gives them; those that are missing, elsewhere, or no text, are left out."""
    kept = {
        "s1": api.Secret(id="s1", spec=api.SecretSpec(data=b"geheim")),
        "s2": api.Secret(id="s2", spec=api.SecretSpec(driver=api.Driver(name="vault"))),
        "s3": api.Secret(id="s3", spec=api.SecretSpec(data=b"\xff")),
    }
    references = [api.VolumeSecret(key=f"key-{n}", secret=f"s{n}") for n in range(1, 5)]
    assert secrets_of(references, kept.get) == {"key-1": "geheim"}


async def test_check(tmp_path: Path) -> None:
    """A plugin that answers passes; one that is not there ends the start with its name, the socket, and what to do."""
    socket = tmp_path / "s"
    plugins = Plugins([Plugin("mine", socket)])
    async with Driver(tmp_path / "root").serving(socket):
        await plugins.check()
    await plugins.close()
    try:
        with pytest.raises(FailedPrecondition, match=f"--csi-plugin mine: .*no socket {socket}; start the plugin first"):
            await plugins.check()
        with pytest.raises(NotFound, match='driver "other" not found'):
            plugins.get("other")
    finally:
        await plugins.close()


async def test_errors_are_the_plugins_own_without_its_secrets(tmp_path: Path) -> None:
    """A refusal keeps its status and words, but a secret that was sent along is covered in them; a hung call ends in time."""
    driver = Driver(tmp_path / "root")
    connection = Connection("mine", tmp_path / "s")
    ask, request = connection.ask, csi.DeleteVolumeRequest(volume_id="v", secrets={"key": "geheim", "long": "geheimnis"})
    async with driver.serving(tmp_path / "s"):
        driver.faults["DeleteVolume"] = [Fault(grpc.StatusCode.ABORTED, "wrong password geheimnis, not geheim")]
        with pytest.raises(Aborted) as caught:
            await ask(connection.controller.DeleteVolume, request, hide=request.secrets.values())
        assert caught.value.message == "plugin mine: wrong password ***, not ***"
        assert caught.value.__suppress_context__
        driver.ready = False
        with pytest.raises(FailedPrecondition, match="plugin mine is not ready"):
            await connection.probe()
        driver.faults["DeleteVolume"] = [Fault(gate=asyncio.Event())]
        with pytest.raises(DeadlineExceeded, match=r"did not answer DeleteVolume within 0\.05 s"):
            await ask(connection.controller.DeleteVolume, request, seconds=0.05)
    with pytest.raises(Unavailable, match="no socket"):
        await ask(connection.controller.DeleteVolume, request)
    await connection.close()


async def test_a_restarted_plugin_is_found_again(tmp_path: Path) -> None:
    """The same connection serves after the plugin was away."""
    driver = Driver(tmp_path / "root")
    connection = Connection("mine", tmp_path / "s")
    try:
        async with driver.serving(tmp_path / "s"):
            await connection.info()
        with pytest.raises(SwarmError):
            await connection.info()
        async with driver.serving(tmp_path / "s"):
            async with asyncio.timeout(30):
                while True:
                    try:
                        assert (await connection.info()).name == "driver"
                    except Unavailable:
                        continue
                    break
    finally:
        await connection.close()
