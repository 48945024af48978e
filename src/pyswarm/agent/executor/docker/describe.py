"""A node as its engine describes it (spec/cli-and-executor, section 16). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pyswarm.api import v1 as api

_CAPABILITIES = {"volumedriver": "Volume", "networkdriver": "Network"}


def description(
    info: Mapping[str, Any], plugins: Iterable[Mapping[str, Any]], generic: Sequence[api.GenericResource] = ()
) -> api.NodeDescription:
    """The description from the answers to /info and /plugins, and the generic resources the operator declared."""
    return api.NodeDescription(
        hostname=str(info.get("Name", "")),
        platform=api.Platform(os=str(info.get("OSType", "")), architecture=str(info.get("Architecture", ""))),
        engine=api.EngineDescription(
            engine_version=str(info.get("ServerVersion", "")),
            labels=_labels(info.get("Labels") or ()),
            plugins=[api.PluginDescription(type=kind, name=name) for kind, name in sorted(_plugins(info, plugins))],
        ),
        resources=api.Resources(
            nano_cpus=int(info.get("NCPU") or 0) * 1_000_000_000,
            memory_bytes=int(info.get("MemTotal") or 0),
            generic=generic,
        ),
    )


def _labels(entries: Iterable[str]) -> dict[str, str]:
    split = (entry.partition("=") for entry in entries)
    return {key: value for key, separator, value in split if separator}


def _plugins(info: Mapping[str, Any], managed: Iterable[Mapping[str, Any]]) -> set[tuple[str, str]]:
    built_in: Mapping[str, Any] = info.get("Plugins") or {}
    found: set[tuple[str, str]] = set()
    for kind in ("Volume", "Network", "Authorization"):
        found.update((kind, str(name)) for name in built_in.get(kind) or ())
    # An engine has overlay networks between machines only where it is itself a node: as one it joins the cluster directly.
    found.discard(("Network", "overlay"))
    for plugin in managed:
        if plugin.get("Enabled"):
            found.update((kind, str(plugin.get("Name", ""))) for kind in _kinds(plugin))
    return found


def _kinds(plugin: Mapping[str, Any]) -> Iterable[str]:
    interface = (plugin.get("Config") or {}).get("Interface") or {}
    for entry in interface.get("Types") or ():
        prefix, capability = _interface_type(entry)
        if prefix == "docker":
            yield _CAPABILITIES.get(capability, capability)


def _interface_type(entry: object) -> tuple[str, str]:
    """Prefix and capability of `docker.volumedriver/1.0`, which engines write as text or as an object."""
    if isinstance(entry, Mapping):
        return str(entry.get("Prefix", "")), str(entry.get("Capability", ""))
    prefix, _, rest = str(entry).partition(".")
    return prefix, rest.partition("/")[0]
