"""`pyswarmctl volume` and the mounts of cluster volumes."""

from __future__ import annotations

import pytest

from pyswarm.api import v1 as api

from .conftest import Run
from .fake import Manager, object_id

A = api.VolumeAccessMode
P = api.VolumePublishStatus
WORDS = (
    *("volume", "create", "data", "--driver", "nfs", "-o", "server=10.0.0.1", "--opt", "path=/a=b", "--group", "g", "--label", "a=b"),
    *("--scope", "multi", "--sharing", "onewriter", "--fs-type", "ext4", "--mount-flag", "noatime", "--secret", "key=pw"),
    *("--required-bytes", "1g", "--limit-bytes", "2g", "--availability", "pause"),
    *("--topology-required", "region=R1,zone=Z1", "--topology-required", "region=R2", "--topology-preferred", "zone=Z1"),
)


def stored(**fields: object) -> api.Volume:
    """A volume named data."""
    made = api.Volume(id=object_id(70), **fields)  # type: ignore[arg-type]
    made.spec.annotations.name = "data"
    made.spec.driver.CopyFrom(api.Driver(name="nfs", options={"server": "10.0.0.1"}))
    made.spec.access_mode.CopyFrom(A(scope=A.MULTI_NODE, sharing=A.ALL, mount=A.MountVolume()))
    made.meta.version.index = 5
    return made


def test_create(manager: Manager, run: Run) -> None:
    """Every flag ends in its field; secrets are looked up by name."""
    manager.add(api.Secret(id=object_id(30), spec=api.SecretSpec(annotations=api.Annotations(name="pw"))))
    assert run(*WORDS).stdout == object_id(1000) + "\n"
    [request] = manager.requests("CreateVolume")
    spec: api.VolumeSpec = request.spec  # type: ignore[attr-defined]
    assert (spec.annotations.name, dict(spec.annotations.labels), spec.group) == ("data", {"a": "b"}, "g")
    assert (spec.driver.name, dict(spec.driver.options)) == ("nfs", {"server": "10.0.0.1", "path": "/a=b"})
    assert (spec.access_mode.scope, spec.access_mode.sharing) == (A.MULTI_NODE, A.ONE_WRITER)
    assert (spec.access_mode.mount.fs_type, list(spec.access_mode.mount.mount_flags)) == ("ext4", ["noatime"])
    assert [(s.key, s.secret) for s in spec.secrets] == [("key", object_id(30))]
    assert (spec.capacity_range.required_bytes, spec.capacity_range.limit_bytes) == (1 << 30, 2 << 30)
    assert spec.availability == api.VolumeSpec.PAUSE
    places = spec.AccessibilityRequirements
    assert [dict(t.segments) for t in places.requisite] == [{"region": "R1", "zone": "Z1"}, {"region": "R2"}]
    assert [dict(t.segments) for t in places.preferred] == [{"zone": "Z1"}]


def test_create_in_short(manager: Manager, run: Run) -> None:
    """Without more words it is for one task, mounted, of any size, anywhere."""
    run("volume", "create", "data", "-d", "nfs")
    [request] = manager.requests("CreateVolume")
    expected = api.VolumeSpec(annotations=api.Annotations(name="data"), driver=api.Driver(name="nfs"))
    expected.access_mode.mount.SetInParent()
    assert request.spec == expected  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--driver", ""), "--driver is required"),
        (("-d", "x", "--scope", "all"), '--scope must be single or multi, not "all"'),
        (("-d", "x", "--sharing", "some"), "--sharing must be none, readonly, onewriter or all"),
        (("-d", "x", "--type", "file"), "--type must be mount or block"),
        (("-d", "x", "--type", "block", "--fs-type", "ext4"), "are for volumes of --type mount"),
        (("-d", "x", "--availability", "off"), "--availability must be active, pause or drain"),
        (("-d", "x", "--topology-required", "zone"), "topology zone is not key=value"),
        (("-d", "x", "--required-bytes", "2g", "--limit-bytes", "1g"), "--required-bytes is more than --limit-bytes"),
        (("-d", "x", "--secret", "pw"), "--secret pw is not key=value"),
        (("-d", "x", "-o", "a=1", "-o", "a=2"), "--opt names a twice"),
    ],
)
def test_bad_words(dead: object, run: Run, words: tuple[str, ...], complaint: str) -> None:
    """A volume that cannot be meant is refused before anybody is asked."""
    result = run("volume", "create", "data", *words)
    assert result.exit_code == 2
    assert complaint in result.stderr


def test_list(manager: Manager, run: Run) -> None:
    """What each is for and how far it is."""
    manager.add(stored())
    assert run("volume", "ls", "-q").stdout == object_id(70) + "\n"
    assert run("volume", "ls").stdout.splitlines()[2].split("  ")[-1] == "being created"
    for status, fields in (
        ("free", {}),
        ("on 1 node", {"publish_status": [P(node_id="n")]}),
        ("on 2 nodes", {"publish_status": [P(node_id="n"), P(node_id="m")]}),
        ("being removed", {"pending_delete": True}),
    ):
        manager.add(stored(volume_info=api.VolumeInfo(volume_id="csi"), **fields))  # type: ignore[arg-type]
        heading, _, row = run("volume", "ls").stdout.splitlines()
        assert heading.split() == ["ID", "Name", "Group", "Driver", "Availability", "Status"]
        assert [cell.strip() for cell in row.split("  ") if cell.strip()] == [object_id(70), "data", "nfs", "ACTIVE", status]


def test_inspect(manager: Manager, run: Run) -> None:
    """The spec, what became of it, and each node with what went wrong there."""
    info = api.VolumeInfo(volume_id="csi-1", capacity_bytes=1 << 30, accessible_topology=[api.Topology(segments={"zone": "Z1"})])
    made = stored(volume_info=info, publish_status=[P(node_id="n", message="error publishing volume: full")])
    made.spec.secrets.add(key="key", secret="s1")
    manager.add(made)
    manager.add(api.Node(id="n", description=api.NodeDescription(hostname="host-1")))
    shown = [" ".join(line.split()) for line in run("volume", "inspect", "data").stdout.splitlines()]
    for line in (
        *("Name : data", "Driver : nfs", "server : 10.0.0.1", "Scope : MULTI_NODE", "Sharing : ALL", "Type : mount", "CSI ID : csi-1"),
        *("Status : on 1 node", "Size : 1.0 GiB", "Reachable from : zone=Z1", "Secret key : s1"),
        "host-1 PENDING_PUBLISH error publishing volume: full",
    ):
        assert line in shown, shown


def test_update(manager: Manager, run: Run) -> None:
    """Availability and labels of the volume as it is; nothing new is an error."""
    manager.add(stored())
    assert run("volume", "update", "data", "--availability", "drain", "--label", "x=y").stdout == object_id(70) + "\n"
    [request] = manager.requests("UpdateVolume")
    assert request.volume_version.index == 5  # type: ignore[attr-defined]
    assert request.spec.availability == api.VolumeSpec.DRAIN  # type: ignore[attr-defined]
    assert dict(request.spec.annotations.labels) == {"x": "y"}  # type: ignore[attr-defined]
    assert request.spec.driver.name == "nfs"  # type: ignore[attr-defined]
    result = run("volume", "update", "data", "--availability", "drain")
    assert (result.exit_code, result.stderr) == (1, "Error: No change for volume data\n")


@pytest.mark.parametrize("force", [False, True])
def test_remove(manager: Manager, run: Run, force: bool) -> None:
    """By name; forced only if asked for."""
    manager.add(stored())
    assert run("volume", "rm", *(["-f"] if force else []), "data").stdout == object_id(70) + "\n"
    [request] = manager.requests("RemoveVolume")
    assert (request.volume_id, request.force) == (object_id(70), force)  # type: ignore[attr-defined]
    assert "volume data not found; 'pyswarmctl volume ls' shows what there is" in run("volume", "rm", "data").stderr


def test_mounts(manager: Manager, run: Run) -> None:
    """A service mounts a volume by name, or any of a group, maybe read-only."""
    flags = [word for mount in ("data:/d", "group:g:/g:ro", "x:y:rw") for word in ("--cluster-volume", mount)]
    run("service", "create", "--name", "s", "--image", "i", *flags)
    [request] = manager.requests("CreateService")
    mounts = request.spec.task.container.mounts  # type: ignore[attr-defined]
    assert [(m.type, m.source, m.target, m.readonly) for m in mounts] == [
        (api.Mount.CLUSTER, "data", "/d", False),
        (api.Mount.CLUSTER, "group:g", "/g", True),
        (api.Mount.CLUSTER, "x", "y", False),
    ]
    for wrong in ("data", "data:", ":/d", "group:g", "data:/d:rx", "data:/d:"):
        result = run("service", "create", "--name", "s", "--image", "i", "--cluster-volume", wrong)
        assert result.exit_code == 2, wrong
        assert f'cluster volume format "{wrong}" not supported' in result.stderr
