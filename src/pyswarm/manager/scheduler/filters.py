"""Which nodes may run a task, and why the others may not (spec section 4).

A filter is asked once per group of equal tasks whether it applies; if so it gives the check to run per node. Every refusal carries its
sentence, so no task is ever pending without a reason; and a check says what the node lacks, for whoever wants to know it exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from pyswarm.api import v1 as api
from pyswarm.errors import Unknown
from pyswarm.manager import constraints
from pyswarm.manager.scheduler import generic
from pyswarm.manager.scheduler.nodeinfo import NodeInfo, host_ports
from pyswarm.manager.scheduler.volumes import Volumes

CPUS, MEMORY = "CPUs", "memory"
"""What the resources filter finds lacking; else it is a kind of generic resource."""

Check: TypeAlias = Callable[[NodeInfo], str]
"""What a node lacks, in a word or two; empty when it suits."""


@dataclass(frozen=True, slots=True, eq=False)
class Filter:
    """`prepare` gives the check for a task, or None when the filter does not concern it. `refusal` has `{}` for the node count."""

    name: str
    prepare: Callable[[api.Task], Check | None]
    refusal: str

    def explain(self, nodes: int) -> str:
        """The sentence for this many refused nodes."""
        return self.refusal.format(f"{nodes} node" if nodes == 1 else f"{nodes} nodes")


_AVAILABILITIES = {number: name for name, number in api.NodeSpec.Availability.items()}
_PROTOCOLS: dict[int, str] = {number: name.lower() for name, number in api.PortConfig.Protocol.items()}
_STATES = {number: name for name, number in api.NodeStatus.State.items()}


def _ready(_task: api.Task) -> Check | None:
    return lambda info: "" if info.ready else _unready(info.node)


def _unready(node: api.Node) -> str:
    # What its operator wants comes first: that is what the reader can change.
    availability = node.spec.availability
    if availability != api.NodeSpec.Availability.ACTIVE:
        return _AVAILABILITIES.get(availability, "INACTIVE")
    return _STATES.get(node.status.state, "UNKNOWN")


def _resources(task: api.Task) -> Check | None:
    wanted = task.spec.resources.reservations
    cpus, memory, kinds = wanted.nano_cpus, wanted.memory_bytes, wanted.generic
    if not (cpus or memory or kinds):
        return None

    def check(info: NodeInfo) -> str:
        if cpus > info.cpus:
            return CPUS
        if memory > info.memory:
            return MEMORY
        return generic.lacking(info.generic, kinds) if kinds else ""

    return check


def _plugins(task: api.Task) -> Check | None:
    wanted = [
        ("Volume", m.volume_options.driver_config.name)
        for m in task.spec.container.mounts
        if m.type == api.Mount.Type.VOLUME and m.volume_options.driver_config.name not in {"", "local"}
    ]
    wanted += [("Network", a.network.driver_state.name) for a in task.networks if a.network.driver_state.name]
    log = task.spec.log_driver.name
    if log in {"", "none"}:
        log = ""
    if not wanted and not log:
        return None

    def check(info: NodeInfo) -> str:
        if not info.node.description.HasField("engine"):
            return ""
        have = {(p.type, p.name.removesuffix(":latest")) for p in info.node.description.engine.plugins}
        have |= {(p.type, p.name) for p in info.node.description.engine.plugins}
        knows_logs = any(kind == "Log" for kind, _ in have)
        needed = [*wanted, ("Log", log)] if log and knows_logs else wanted
        return next((f"{kind} {name}" for kind, name in needed if (kind, name) not in have), "")

    return check


def _constraints(task: api.Task) -> Check | None:
    if not task.spec.placement.constraints:
        return None
    try:
        parsed = constraints.parse(task.spec.placement.constraints)
    except Unknown:
        return None
    return lambda info: constraints.violated(parsed, info.node)


_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def _platform(task: api.Task) -> Check | None:
    wanted = [(p.os, _ARCHITECTURES.get(p.architecture, p.architecture)) for p in task.spec.placement.platforms]
    if not wanted:
        return None

    missing = ", ".join(f"{os or 'any'}/{arch or 'any'}" for os, arch in wanted)

    def check(info: NodeInfo) -> str:
        if not info.node.description.HasField("platform"):
            return missing
        have = info.node.description.platform
        arch = _ARCHITECTURES.get(have.architecture, have.architecture)
        return "" if any((not os or os == have.os) and (not a or a == arch) for os, a in wanted) else missing

    return check


def _host_ports(task: api.Task) -> Check | None:
    wanted = host_ports(task)
    if not wanted:
        return None

    def check(info: NodeInfo) -> str:
        taken = wanted & info.ports.keys()
        return ", ".join(f"{port}/{_PROTOCOLS.get(protocol, protocol)}" for protocol, port in sorted(taken)) if taken else ""

    return check


def _max_replicas(task: api.Task) -> Check | None:
    limit, service = task.spec.placement.max_replicas, task.service_id
    return (lambda info: "" if info.by_service.get(service, 0) < limit else str(limit)) if limit else None


def _cluster_volumes(_task: api.Task) -> Check | None:
    """Volumes are shared between tasks and nodes, so what may be had of them is asked of the pass: see `Pipeline`."""
    return None


VOLUMES = Filter("volumes", _cluster_volumes, "cannot fulfill requested CSI volume mounts on {}")

FILTERS: Sequence[Filter] = (
    Filter("ready", _ready, "{} not available for new tasks"),
    Filter("resources", _resources, "insufficient resources on {}"),
    Filter("plugins", _plugins, "missing plugin on {}"),
    Filter("constraints", _constraints, "scheduling constraints not satisfied on {}"),
    Filter("platform", _platform, "unsupported platform on {}"),
    Filter("host ports", _host_ports, "host-mode port already in use on {}"),
    Filter("max replicas", _max_replicas, "max replicas per node limit exceed"),
    VOLUMES,
)


def explain(refused: Mapping[Filter, int]) -> str:
    """The refusals with their counts of nodes, most frequent first; equal counts in filter order. Empty when nothing was refused."""
    counted = [(f, refused[f]) for f in FILTERS if refused.get(f)]
    return "; ".join(f.explain(n) for f, n in sorted(counted, key=lambda pair: -pair[1]))


class Pipeline:
    """The filters that concern a task, in order."""

    def __init__(self, task: api.Task, volumes: Volumes) -> None:
        """`volumes` are the cluster volumes as the pass sees them."""
        prepared = ((f, f.prepare(task)) for f in FILTERS)
        self._checks = [(f, check) for f, check in prepared if check is not None]
        mountable = volumes.check(task)
        if mountable is not None:
            self._checks.append((VOLUMES, lambda info: mountable(info.node)))

    def refusing(self, info: NodeInfo) -> Filter | None:
        """The first filter that does not let the node through; None when it suits."""
        for f, check in self._checks:
            if check(info):
                return f
        return None

    def refusal(self, info: NodeInfo) -> tuple[Filter, str] | None:
        """The filter that does not let the node through, and what the node lacks; None when it suits."""
        return next(((f, lacking) for f, check in self._checks if (lacking := check(info))), None)
