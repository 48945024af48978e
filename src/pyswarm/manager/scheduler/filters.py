"""Which nodes may run a task, and why the others may not (spec section 4).

A filter is asked once per group of equal tasks whether it applies; if so it gives the check to run per node. Every refusal carries its
sentence, so no task is ever pending without a reason; and a check says what the node lacks, for whoever wants to know it exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


@dataclass(frozen=True, slots=True)
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
    ready, active = api.NodeStatus.State.READY, api.NodeSpec.Availability.ACTIVE

    def check(info: NodeInfo) -> str:
        state, availability = info.node.status.state, info.node.spec.availability
        if state == ready and availability == active:
            return ""
        # What its operator wants comes first: that is what the reader can change.
        return _AVAILABILITIES.get(availability, "INACTIVE") if availability != active else _STATES.get(state, "UNKNOWN")

    return check


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
        taken = wanted & info.ports
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


class Pipeline:
    """The filters that concern one task, in order, with counts of what each refused."""

    def __init__(self, task: api.Task, volumes: Volumes) -> None:
        """`volumes` are the cluster volumes as the pass sees them."""
        prepared = ((f, f.prepare(task)) for f in FILTERS)
        self._checks = [(f, check) for f, check in prepared if check is not None]
        mountable = volumes.check(task)
        if mountable is not None:
            self._checks.append((VOLUMES, lambda info: mountable(info.node)))
        self._refused: dict[str, int] = {}

    def passes(self, info: NodeInfo) -> bool:
        """Whether every filter lets the node through; the first that does not is counted."""
        for f, check in self._checks:
            if check(info):
                self._refused[f.name] = self._refused.get(f.name, 0) + 1
                return False
        return True

    def refusal(self, info: NodeInfo) -> tuple[Filter, str] | None:
        """The filter that does not let the node through, and what the node lacks; None when it suits. Not counted."""
        return next(((f, lacking) for f, check in self._checks if (lacking := check(info))), None)

    def explain(self) -> str:
        """The refusals, most frequent first; equal counts in filter order. Empty when nothing was refused."""
        refused = [(f, self._refused[f.name]) for f, _ in self._checks if f.name in self._refused]
        return "; ".join(f.explain(n) for f, n in sorted(refused, key=lambda pair: -pair[1]))
