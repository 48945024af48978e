"""The control API of cluster volumes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pyswarm.api import v1 as api
from pyswarm.manager.control import ControlService
from pyswarm.manager.store import Store
from tests.manager.control.support import FP, IA, ME, NF, UNK, names_of, refused
from tests.support.loops import write

A = api.VolumeAccessMode
MOUNTED = A(mount=A.MountVolume())


def spec(name: str = "vol") -> api.VolumeSpec:
    """A valid spec."""
    return api.VolumeSpec(annotations=api.Annotations(name=name), driver=api.Driver(name="driver"), access_mode=MOUNTED)


async def made(control: ControlService, wanted: api.VolumeSpec | None = None) -> api.Volume:
    """CreateVolume; the new volume."""
    return (await control.CreateVolume(api.CreateVolumeRequest(spec=wanted or spec()), ME)).volume


@pytest.mark.parametrize(
    ("wanted", "complaint"),
    [
        (None, "spec must not be nil"),
        (api.VolumeSpec(annotations=api.Annotations(name="v"), access_mode=MOUNTED), "driver must be specified"),
        (api.VolumeSpec(driver=api.Driver(name="d"), access_mode=MOUNTED), "meta: name must be provided"),
        (api.VolumeSpec(annotations=api.Annotations(name="v"), driver=api.Driver()), "AccessMode must not be nil"),
        (
            api.VolumeSpec(annotations=api.Annotations(name="v"), driver=api.Driver(), access_mode=A()),
            "Volume AccessMode must specify either Mount or Block access type",
        ),
    ],
)
async def test_refused_specs(today: ControlService, store: Store, wanted: api.VolumeSpec | None, complaint: str) -> None:
    """What no volume can be made from is refused, in this order, and nothing is stored. [control 120; scheduling 144]"""
    with refused(IA, complaint, exactly=True):
        await today.CreateVolume(api.CreateVolumeRequest(spec=wanted), ME)
    assert len(store.volumes) == 0


async def test_secrets(today: ControlService, store: Store) -> None:
    """Secrets are named by id; all that are missing are told at once. [control 120; scheduling 144]"""
    write(store, api.Secret(id="s1", spec=api.SecretSpec(annotations=api.Annotations(name="name1"))))
    wanted = spec()
    for key, secret in (("a", "s1"), ("b", "name1"), ("c", "s3")):
        wanted.secrets.add(key=key, secret=secret)
    with refused(IA, "secrets not found: name1, s3", exactly=True):
        await made(today, wanted)
    del wanted.secrets[1]
    with refused(IA, "secret not found: s3", exactly=True):
        await made(today, wanted)
    del wanted.secrets[1]
    created = await made(today, wanted)
    assert (created.spec, created.HasField("volume_info")) == (wanted, False)
    with refused(UNK, "name conflicts with an existing object", exactly=True):
        await made(today, spec())


async def test_update(today: ControlService) -> None:
    """Labels and availability change, and are what is returned. [control 121; scheduling 144]"""
    volume = await made(today)
    wanted = spec()
    wanted.annotations.labels["a"] = "b"
    wanted.availability = api.VolumeSpec.DRAIN
    request = api.UpdateVolumeRequest(volume_id=volume.id, volume_version=volume.meta.version, spec=wanted)
    answer = (await today.UpdateVolume(request, ME)).volume
    assert answer.spec == wanted
    assert answer.meta.version.index > volume.meta.version.index
    assert (await today.GetVolume(api.GetVolumeRequest(volume_id=volume.id), ME)).volume == answer
    with refused(UNK, "update out of sequence", exactly=True):
        await today.UpdateVolume(request, ME)
    request.volume_version.index = 0
    with refused(UNK, "update out of sequence", exactly=True):
        await today.UpdateVolume(request, ME)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda s: setattr(s.annotations, "name", "other"), "Name"),
        (lambda s: setattr(s, "group", "other"), "Group"),
        (lambda s: s.AccessibilityRequirements.SetInParent(), "AccessibilityRequirements"),
        (lambda s: s.driver.options.update(a="b"), "Driver"),
        (lambda s: s.ClearField("driver"), "Driver"),
        (lambda s: setattr(s.access_mode, "sharing", A.ALL), "AccessMode"),
        (lambda s: s.secrets.add(key="a"), "Secrets"),
        (lambda s: setattr(s.capacity_range, "limit_bytes", 1), "CapacityRange"),
    ],
)
async def test_what_never_changes(today: ControlService, store: Store, change: Callable[[api.VolumeSpec], object], field: str) -> None:
    """The plugin was told already: a change of it is refused, by name, and changes nothing. [control 121; scheduling 144]"""
    volume = await made(today)
    wanted = spec()
    wanted.availability = api.VolumeSpec.PAUSE
    change(wanted)
    with refused(IA, f"{field} cannot be updated", exactly=True):
        await today.UpdateVolume(api.UpdateVolumeRequest(volume_id=volume.id, volume_version=volume.meta.version, spec=wanted), ME)
    assert store.volumes.get(volume.id) == volume


async def test_incomplete_updates(today: ControlService) -> None:
    """Id, spec and version are needed, in this order; then the volume. [control 121; scheduling 144]"""
    request = api.UpdateVolumeRequest()
    with refused(IA, "VolumeID must not be empty", exactly=True):
        await today.UpdateVolume(request, ME)
    request.volume_id = "x"
    with refused(IA, "Spec must not be empty", exactly=True):
        await today.UpdateVolume(request, ME)
    request.spec.CopyFrom(spec())
    with refused(IA, "VolumeVersion must not be empty", exactly=True):
        await today.UpdateVolume(request, ME)
    request.volume_version.index = 3
    with refused(NF, "volume x not found", exactly=True):
        await today.UpdateVolume(request, ME)


async def test_remove(today: ControlService, store: Store) -> None:
    """An unused volume is marked, again and again; a published one is not, unless forced: then it is gone. [control 123; scheduling 144]"""
    volume = await made(today)
    for request in (api.RemoveVolumeRequest(volume_id=volume.id),) * 2:
        await today.RemoveVolume(request, ME)
        assert (store.volumes.get(volume.id) or api.Volume()).pending_delete
    info = api.VolumeInfo(volume_id="csi")
    write(store, api.Volume(id="created", spec=spec("created"), volume_info=info))
    await today.RemoveVolume(api.RemoveVolumeRequest(volume_id="created"), ME)
    assert (store.volumes.get("created") or api.Volume()).pending_delete
    published = api.Volume(id="used", spec=spec("used"), volume_info=info, publish_status=[api.VolumePublishStatus(node_id="n")])
    write(store, published)
    with refused(FP, "volume is still in use", exactly=True):
        await today.RemoveVolume(api.RemoveVolumeRequest(volume_id="used"), ME)
    assert not (store.volumes.get("used") or api.Volume()).pending_delete
    await today.RemoveVolume(api.RemoveVolumeRequest(volume_id="used", force=True), ME)
    assert store.volumes.get("used") is None
    for missing in ("x", ""):
        with refused(NF, f"volume {missing} not found", exactly=True):
            await today.RemoveVolume(api.RemoveVolumeRequest(volume_id=missing), ME)


async def test_get_and_list(today: ControlService, store: Store) -> None:
    """By id, and by all filters at once. [control 122]"""
    for number in (1, 2, 3):
        wanted = spec(f"vol{number}")
        wanted.group = f"group{number % 2}"
        wanted.driver.name = "d"
        wanted.annotations.labels["label1"] = "yes" if number == 1 else "no"
        write(store, api.Volume(id=f"volid{number}", spec=wanted))

    async def listed(**fields: object) -> list[str]:
        request = api.ListVolumesRequest(filters=api.ListVolumesRequest.Filters(**fields))  # type: ignore[arg-type]
        return names_of((await today.ListVolumes(request, ME)).volumes)

    assert await listed(groups=["group1"]) == ["vol1", "vol3"]
    assert await listed(groups=["group1"], id_prefixes=["volid3"]) == ["vol3"]
    assert await listed(drivers=["d"], names=["vol2", "VOL1"]) == ["vol2"]
    assert await listed(labels={"label1": "yes"}) == ["vol1"]
    assert await listed(name_prefixes=["vol"], names=["none"]) == []
    assert await listed(id_prefixes=["volid"], groups=["group1", "group3"], labels={"label1": ""}) == ["vol1", "vol3"]
    assert (await today.GetVolume(api.GetVolumeRequest(volume_id="volid1"), ME)).volume.id == "volid1"
    with refused(NF, "volume  not found", exactly=True):
        await today.GetVolume(api.GetVolumeRequest(), ME)
