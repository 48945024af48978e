"""Which nodes may run a task, and why the others may not (spec section 4).

A filter is asked once per group of equal tasks whether it applies; if so it gives the check to run per node. Every refusal carries its
sentence, so no task is ever pending without a reason.
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

Check: TypeAlias = Callable[[NodeInfo], bool]


@dataclass(frozen=True, slots=True)
class Filter:
    """`prepare` gives the check for a task, or None when the filter does not concern it. `refusal` has `{}` for the node count."""

    name: str
    prepare: Callable[[api.Task], Check | None]
    refusal: str

    def explain(self, nodes: int) -> str:
        """The sentence for this many refused nodes."""
        return self.refusal.format(f"{nodes} node" if nodes == 1 else f"{nodes} nodes")


def _ready(_task: api.Task) -> Check | None:
    ready, active = api.NodeStatus.State.READY, api.NodeSpec.Availability.ACTIVE

    def check(info: NodeInfo) -> bool:
        return info.node.status.state == ready and info.node.spec.availability == active

    return check


def _resources(task: api.Task) -> Check | None:
    wanted = task.spec.resources.reservations
    cpus, memory, kinds = wanted.nano_cpus, wanted.memory_bytes, wanted.generic
    if not (cpus or memory or kinds):
        return None

    def check(info: NodeInfo) -> bool:
        return cpus <= info.cpus and memory <= info.memory and (not kinds or generic.enough(info.generic, kinds))

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

    def check(info: NodeInfo) -> bool:
        if not info.node.description.HasField("engine"):
            return True
        have = {(p.type, p.name.removesuffix(":latest")) for p in info.node.description.engine.plugins}
        have |= {(p.type, p.name) for p in info.node.description.engine.plugins}
        knows_logs = any(kind == "Log" for kind, _ in have)
        return all(w in have for w in wanted) and (not log or not knows_logs or ("Log", log) in have)

    return check


def _constraints(task: api.Task) -> Check | None:
    if not task.spec.placement.constraints:
        return None
    try:
        parsed = constraints.parse(task.spec.placement.constraints)
    except Unknown:
        return None
    return lambda info: constraints.matches(parsed, info.node)


_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def _platform(task: api.Task) -> Check | None:
    wanted = [(p.os, _ARCHITECTURES.get(p.architecture, p.architecture)) for p in task.spec.placement.platforms]
    if not wanted:
        return None

    def check(info: NodeInfo) -> bool:
        if not info.node.description.HasField("platform"):
            return False
        have = info.node.description.platform
        arch = _ARCHITECTURES.get(have.architecture, have.architecture)
        return any((not os or os == have.os) and (not a or a == arch) for os, a in wanted)

    return check


def _host_ports(task: api.Task) -> Check | None:
    wanted = host_ports(task)
    return (lambda info: not wanted & info.ports) if wanted else None


def _max_replicas(task: api.Task) -> Check | None:
    limit, service = task.spec.placement.max_replicas, task.service_id
    return (lambda info: info.by_service.get(service, 0) < limit) if limit else None


def _cluster_volumes(task: api.Task) -> Check | None:
    """Cluster volumes are not supported yet: a task that wants one fits nowhere, and says so."""
    if any(m.type == api.Mount.Type.CLUSTER for m in task.spec.container.mounts):
        return lambda _info: False
    return None


FILTERS: Sequence[Filter] = (
    Filter("ready", _ready, "{} not available for new tasks"),
    Filter("resources", _resources, "insufficient resources on {}"),
    Filter("plugins", _plugins, "missing plugin on {}"),
    Filter("constraints", _constraints, "scheduling constraints not satisfied on {}"),
    Filter("platform", _platform, "unsupported platform on {}"),
    Filter("host ports", _host_ports, "host-mode port already in use on {}"),
    Filter("max replicas", _max_replicas, "max replicas per node limit exceed"),
    Filter("volumes", _cluster_volumes, "cannot fulfill requested CSI volume mounts on {}"),
)


class Pipeline:
    """The filters that concern one task, in order, with counts of what each refused."""

    def __init__(self, task: api.Task) -> None:
        prepared = ((f, f.prepare(task)) for f in FILTERS)
        self._checks = [(f, check) for f, check in prepared if check is not None]
        self._refused: dict[str, int] = {}

    def passes(self, info: NodeInfo) -> bool:
        """Whether every filter lets the node through; the first that does not is counted."""
        for f, check in self._checks:
            if not check(info):
                self._refused[f.name] = self._refused.get(f.name, 0) + 1
                return False
        return True

    def explain(self) -> str:
        """The refusals, most frequent first; equal counts in filter order. Empty when nothing was refused."""
        refused = [(f, self._refused[f.name]) for f, _ in self._checks if f.name in self._refused]
        return "; ".join(f.explain(n) for f, n in sorted(refused, key=lambda pair: -pair[1]))
