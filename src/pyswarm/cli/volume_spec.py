"""From the flags of `volume create` and `volume update` to a spec. Pure.

SwarmKit's command line has no volumes; the flags are called as those of `docker volume create`.
"""

from __future__ import annotations

from collections.abc import Iterable

from pyswarm.api import v1 as api
from pyswarm.cli import flags
from pyswarm.cli.flagset import BOOL, STRING, STRINGS, Flag, FlagError, Given, Kind

A = api.VolumeAccessMode
_SCOPES = {"single": A.SINGLE_NODE, "multi": A.MULTI_NODE}
_SHARINGS = {"none": A.NONE, "readonly": A.READ_ONLY, "onewriter": A.ONE_WRITER, "all": A.ALL}
_TYPES = {"mount": "mount", "block": "block"}
_AVAILABILITIES = {"active": api.VolumeSpec.ACTIVE, "pause": api.VolumeSpec.PAUSE, "drain": api.VolumeSpec.DRAIN}


def topology(text: str) -> api.Topology:
    """`<key>=<value>[,<key>=<value>...]`. Raises FlagError."""
    segments = dict(part.partition("=")[::2] for part in text.split(","))
    if "" in segments or "" in segments.values():
        raise FlagError(f"topology {text} is not key=value[,key=value...]")
    return api.Topology(segments=segments)


TOPOLOGY = Kind("topology", topology, many=True)
AVAILABILITY = Flag("availability", STRING, "whether tasks may use it (active, pause: no new ones, drain: none)", default='"active"')

CREATE_FLAGS = [
    AVAILABILITY,
    Flag("driver", STRING, "name of the storage plugin; required", "d"),
    Flag("fs-type", STRING, "file system to mount it with"),
    Flag("group", STRING, "group of volumes that are as good as each other"),
    Flag("label", STRINGS, "label (key=value)"),
    Flag("limit-bytes", STRING, "largest size (10g, 512m)"),
    Flag("mount-flag", STRINGS, "option to mount it with"),
    Flag("opt", STRINGS, "option of the driver (key=value)", "o"),
    Flag("required-bytes", STRING, "smallest size (10g, 512m)"),
    Flag("scope", STRING, "nodes that may use it at a time (single, multi)", default='"single"'),
    Flag("secret", STRINGS, "secret for the driver (key=name)"),
    Flag("sharing", STRING, "how tasks share it (none, readonly, onewriter, all)", default='"none"'),
    Flag("topology-preferred", TOPOLOGY, "best place for it (key=value[,key=value])"),
    Flag("topology-required", TOPOLOGY, "place that it must be reachable from (key=value[,key=value])"),
    Flag("type", STRING, "what tasks see of it (mount, block)", default='"mount"'),
]
UPDATE_FLAGS = [AVAILABILITY, Flag("label", STRINGS, "label (key=value); those given replace all that the volume has, '' removes them")]
REMOVE_FLAGS = [Flag("force", BOOL, "forget it at once, whatever uses it; its plugin is not asked and may keep the data", "f")]


def build(name: str, given: Given) -> api.VolumeSpec:
    """The spec of a new volume, its secrets left out (see `secrets`). Raises FlagError."""
    if not given.text("driver"):
        raise FlagError("--driver is required: the name of a plugin that pyswarmd was started with (--csi-plugin)")
    spec = api.VolumeSpec(annotations=api.Annotations(name=name), group=given.text("group"))
    spec.driver.CopyFrom(api.Driver(name=given.text("driver"), options=_pairs("opt", given.texts("opt"))))
    mode = spec.access_mode
    mode.scope = flags.choice("scope", given.text("scope", "single"), _SCOPES)
    mode.sharing = flags.choice("sharing", given.text("sharing", "none"), _SHARINGS)
    if flags.choice("type", given.text("type", "mount"), _TYPES) == "block":
        if given.any("fs-type", "mount-flag"):
            raise FlagError("--fs-type and --mount-flag are for volumes of --type mount")
        mode.block.SetInParent()
    else:
        mode.mount.CopyFrom(A.MountVolume(fs_type=given.text("fs-type"), mount_flags=given.texts("mount-flag")))
    if given.any("topology-required", "topology-preferred"):
        spec.AccessibilityRequirements.requisite.extend(given.items_of("topology-required", api.Topology))
        spec.AccessibilityRequirements.preferred.extend(given.items_of("topology-preferred", api.Topology))
    if given.any("required-bytes", "limit-bytes"):
        required, limit = (flags.memory(given.text(flag, "0")) for flag in ("required-bytes", "limit-bytes"))
        if limit and required > limit:
            raise FlagError("--required-bytes is more than --limit-bytes")
        spec.capacity_range.CopyFrom(api.CapacityRange(required_bytes=required, limit_bytes=limit))
    edit(spec, given)
    return spec


def edit(spec: api.VolumeSpec, given: Given) -> None:
    """What can change later: labels and availability. Raises FlagError."""
    if "label" in given:
        spec.annotations.labels.clear()
        spec.annotations.labels.update(flags.labels(given.texts("label")))
    if "availability" in given:
        spec.availability = flags.choice("availability", given.text("availability"), _AVAILABILITIES)


def secrets(given: Given) -> dict[str, str]:
    """Key for the driver to the name of the secret. Raises FlagError."""
    return _pairs("secret", given.texts("secret"))


def _pairs(flag: str, values: Iterable[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for value in values:
        key, equals, text = value.partition("=")
        if not (key and equals and text):
            raise FlagError(f"--{flag} {value} is not key=value")
        if key in found:
            raise FlagError(f"--{flag} names {key} twice")
        found[key] = text
    return found
