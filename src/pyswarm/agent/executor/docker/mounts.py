"""Mounts of a container spec as the engine wants them. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from pyswarm.agent.executor import ExecutorError
from pyswarm.api import v1 as api

Body = dict[str, object]
_TYPES = {api.Mount.BIND: "bind", api.Mount.VOLUME: "volume", api.Mount.TMPFS: "tmpfs", api.Mount.NPIPE: "npipe"}
_UNITS = ((1 << 30, "g"), (1 << 20, "m"), (1 << 10, "k"))


def mount_bodies(mounts: Iterable[api.Mount]) -> list[Body]:
    """The typed mounts. Cluster volumes are bind mounts by now; raises ExecutorError for any other type."""
    return [_mount(mount) for mount in mounts if not _needs_options(mount)]


def tmpfs_bodies(mounts: Iterable[api.Mount]) -> dict[str, str]:
    """Target to options of those tmpfs mounts that set exec or noexec, which a typed mount cannot say before API 1.46.

    Each mount goes to the engine in exactly one of the two forms: it refuses the two together.
    """
    return {mount.target: _tmpfs_options(mount) for mount in mounts if _needs_options(mount)}


def volume_bodies(mounts: Iterable[api.Mount]) -> list[Body]:
    """The volumes to create beforehand: those with a driver of their own."""
    return [
        {
            "Name": mount.source,
            "Driver": mount.volume_options.driver_config.name,
            "DriverOpts": dict(mount.volume_options.driver_config.options),
            "Labels": dict(mount.volume_options.labels),
        }
        for mount in mounts
        if mount.type == api.Mount.VOLUME and mount.volume_options.HasField("driver_config")
    ]


def _mount(mount: api.Mount) -> Body:
    kind = _TYPES.get(mount.type)
    if kind is None:
        raise ExecutorError(f"the docker executor does not know the type of mount {mount.target} ({mount.type})")
    body: Body = {"Type": kind, "Target": mount.target}
    if mount.source:
        body["Source"] = mount.source
    if mount.readonly:
        body["ReadOnly"] = True
    if mount.HasField("bind_options"):
        body["BindOptions"] = _bind_options(mount.bind_options)
    if mount.HasField("volume_options"):
        body["VolumeOptions"] = _volume_options(mount.volume_options)
    if mount.type == api.Mount.TMPFS and mount.HasField("tmpfs_options"):
        options = {"SizeBytes": mount.tmpfs_options.size_bytes, "Mode": mount.tmpfs_options.mode}
        body["TmpfsOptions"] = {key: value for key, value in options.items() if value}
    return body


def _bind_options(options: api.Mount.BindOptions) -> Body:
    flags = {
        "NonRecursive": options.nonrecursive,
        "CreateMountpoint": options.createmountpoint,
        "ReadOnlyNonRecursive": options.readonlynonrecursive,
        "ReadOnlyForceRecursive": options.readonlyforcerecursive,
    }
    propagation = api.Mount.BindOptions.Propagation.Name(options.propagation).lower()
    return {"Propagation": propagation, **{key: True for key, value in flags.items() if value}}


def _volume_options(options: api.Mount.VolumeOptions) -> Body:
    body: Body = {}
    if options.nocopy:
        body["NoCopy"] = True
    if options.labels:
        body["Labels"] = dict(options.labels)
    if options.HasField("driver_config"):
        body["DriverConfig"] = {"Name": options.driver_config.name, "Options": dict(options.driver_config.options)}
    return body


def _needs_options(mount: api.Mount) -> bool:
    return mount.type == api.Mount.TMPFS and bool(_execution(mount))


def _execution(mount: api.Mount) -> str:
    """`exec` or `noexec` if the mount's options name one of them; the last wins, as in the kernel."""
    words = [word for word in mount.tmpfs_options.options.lower().split(",") if word in {"exec", "noexec"}]
    return words[-1] if words else ""


def _tmpfs_options(mount: api.Mount) -> str:
    options = mount.tmpfs_options
    parts = ["ro"] if mount.readonly else []
    if options.mode:
        parts.append(f"mode={options.mode:o}")
    if options.size_bytes:
        parts.append(f"size={_size(options.size_bytes)}")
    return ",".join([*parts, _execution(mount)])


def _size(octets: int) -> str:
    """In the largest unit that divides it evenly."""
    for unit, letter in _UNITS:
        if octets % unit == 0:
            return f"{octets // unit}{letter}"
    return str(octets)
