"""Nodes: the list and the summary."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from pyswarm.api import v1 as api
from pyswarm.cli import columns, units
from pyswarm.cli.columns import entry
from pyswarm.cli.show import parts


def listing(nodes: Iterable[api.Node]) -> str:
    """`node ls`."""
    rows = [
        (
            node.id,
            node.spec.annotations.name or node.description.hostname,
            api.NodeSpec.Membership.Name(node.spec.membership),
            api.NodeStatus.State.Name(node.status.state),
            api.NodeSpec.Availability.Name(node.spec.availability),
            _manager(node),
        )
        for node in nodes
    ]
    return columns.table(columns.LIST, ["ID", "Name", "Membership", "Status", "Availability", "Manager Status"], rows)


def _manager(node: api.Node) -> str:
    if node.HasField("manager_status"):
        reachability = api.RaftMemberStatus.Reachability.Name(node.manager_status.reachability)
        return f"{reachability} *" if node.manager_status.leader else reachability
    return "UNKNOWN" if node.spec.desired_role == api.NodeRole.MANAGER else ""


def summary(node: api.Node) -> str:
    """`node inspect`, without the task table."""
    lines = [
        *parts.if_any("ID", node.id),
        *parts.if_any("Hostname", node.description.hostname),
        *_pairs("Node Labels", node.spec.annotations.labels),
        "Status:\t",
        entry("  State", api.NodeStatus.State.Name(node.status.state)),
        *parts.if_any("  Message", node.status.message),
        entry("  Availability", api.NodeSpec.Availability.Name(node.spec.availability)),
        *parts.if_any("  Address", node.status.addr),
        *_manager_status(node),
        *_description(node.description),
    ]
    return columns.SUMMARY.text(lines)


def _pairs(label: str, values: Mapping[str, str]) -> list[str]:
    return parts.if_any(label, " ".join(f"{key}={value}" for key, value in parts.sorted_map(values)))


def _manager_status(node: api.Node) -> Iterator[str]:
    if not node.HasField("manager_status"):
        return
    status = node.manager_status
    yield "Manager status:\t"
    yield from parts.if_any("  Address", status.addr)
    yield entry("  Raft status", api.RaftMemberStatus.Reachability.Name(status.reachability))
    yield entry("  Leader", "yes" if status.leader else "no")


def _description(description: api.NodeDescription) -> Iterator[str]:
    if description.HasField("platform"):
        yield "Platform:\t"
        yield from parts.if_any("  Operating System", description.platform.os)
        yield from parts.if_any("  Architecture", description.platform.architecture)
    if description.HasField("resources"):
        yield "Resources:\t"
        yield entry("  CPUs", str(description.resources.nano_cpus // 10**9))
        yield entry("  Memory", units.format_memory(description.resources.memory_bytes))
        yield "  Generic Resources:\t"
        for resource in description.resources.generic:
            kind, value = parts.generic(resource)
            yield entry(f"    {kind}", value)
    if description.HasField("engine"):
        yield from _engine(description.engine)


def _engine(engine: api.EngineDescription) -> Iterator[str]:
    yield "Plugins:\t"
    types: dict[str, list[str]] = {}
    for plugin in engine.plugins:
        types.setdefault(plugin.type, []).append(plugin.name)
    for kind, names in sorted(types.items()):
        yield entry(f"  {kind}", f"[{' '.join(names)}]")
    yield from parts.if_any("Engine Version", engine.engine_version)
    yield from _pairs("Engine Labels", engine.labels)
