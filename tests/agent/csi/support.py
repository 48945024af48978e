"""Volumes as a manager assigns them."""

from __future__ import annotations

from pyswarm.api import v1 as api
from pyswarm.api.csi import csi_pb2 as csi
from tests.support.csidriver import Driver, Kept, Mode

A = api.VolumeAccessMode


def assignment(volume_id: str, *, driver: str = "driver", sharing: A.Sharing.ValueType = A.ALL, secret: str = "") -> api.VolumeAssignment:
    """Volume `<id>`, for the plugin `csi-<id>`, published to the node csi-node."""
    made = api.VolumeAssignment(id=volume_id, volume_id=f"csi-{volume_id}", driver=api.Driver(name=driver))
    made.access_mode.CopyFrom(A(scope=A.MULTI_NODE, sharing=sharing, mount=A.MountVolume()))
    made.volume_context["made"] = "yes"
    made.publish_context["device"] = f"csi-{volume_id}@csi-node"
    if secret:
        made.secrets.add(key="key", secret=secret)
    return made


def made(driver: Driver, *volume_ids: str) -> None:
    """Let the driver have made these and published them to this node."""
    for volume_id in volume_ids:
        (driver.root / f"csi-{volume_id}").mkdir(parents=True, exist_ok=True)
        volume = csi.Volume(volume_id=f"csi-{volume_id}")
        driver.volumes[volume.volume_id] = Kept(volume, Mode.MULTI_NODE_MULTI_WRITER, nodes={"csi-node"})
