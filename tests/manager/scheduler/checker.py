"""Whether placements are right: every filter, and the exact spread. Written from the specification, without the scheduler's code.

What is looked at is an end: nodes, tasks, and which of the tasks were placed since a moment after which nothing but placements happened.
Then room only shrank and counts only grew, so it can be said what must still hold:

* a task that waits fits on no node;
* a node that got a task had, before its last one, no more tasks of the service than any other node of its place that has room even now (and
  where all new tasks are alike, no higher rank: tasks of the service, tasks);
* the same goes for branches of the spread preferences, level by level.
"""

from __future__ import annotations

import ipaddress
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from pyswarm.api import v1 as api

S = api.TaskState
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
ORDER = (
    "{} not available for new tasks", "insufficient resources on {}", "missing plugin on {}", "scheduling constraints not satisfied on {}",
    "unsupported platform on {}", "host-mode port already in use on {}", "max replicas per node limit exceed",
)  # fmt: skip
READY, RESOURCES, PLUGINS, CONSTRAINTS, PLATFORM, PORTS, REPLICAS = ORDER


@dataclass
class Seat:
    """A node with what is on it."""

    node: api.Node
    cpus: int = 0
    memory: int = 0
    amounts: Counter[str] = field(default_factory=Counter)
    names: set[tuple[str, str]] = field(default_factory=set)
    ports: Counter[tuple[int, int]] = field(default_factory=Counter)
    services: Counter[str] = field(default_factory=Counter)
    active: int = 0

    def take(self, task: api.Task) -> None:
        """Count a task that has not ended."""
        self.cpus += task.spec.resources.reservations.nano_cpus
        self.memory += task.spec.resources.reservations.memory_bytes
        for held in task.assigned_generic_resources:
            if held.HasField("named_resource_spec"):
                name = held.named_resource_spec.kind, held.named_resource_spec.value
                assert name not in self.names, f"{name} given twice on {self.node.id}"
                self.names.add(name)
            else:
                self.amounts[held.discrete_resource_spec.kind] += held.discrete_resource_spec.value
        self.ports.update(ports(task))
        if task.desired_state <= S.COMPLETE:
            self.services[task.service_id] += 1
            self.active += 1

    def left_of(self, kind: str) -> int:
        """How much or how many of a kind are free."""
        described = self.node.description.resources.generic
        amounts = [i.discrete_resource_spec.value for i in described if i.discrete_resource_spec.kind == kind]
        names = [i.named_resource_spec.value for i in described if i.named_resource_spec.kind == kind]
        return sum(amounts) - self.amounts[kind] if amounts else sum((kind, name) not in self.names for name in names)


def ports(task: api.Task) -> set[tuple[int, int]]:
    """Host ports that must be free."""
    host = api.PortConfig.PublishMode.HOST
    return {(p.protocol, p.published_port) for p in task.endpoint.ports if p.publish_mode == host and p.published_port}


def refusal(task: api.Task, seat: Seat) -> str:
    """The first filter that keeps one more task like this off the node; empty when it suits."""
    node, wanted = seat.node, task.spec.resources.reservations
    if node.status.state != api.NodeStatus.State.READY or node.spec.availability != api.NodeSpec.Availability.ACTIVE:
        return READY
    if wanted.nano_cpus or wanted.memory_bytes or wanted.generic:
        has = node.description.resources
        if wanted.nano_cpus > has.nano_cpus - seat.cpus or wanted.memory_bytes > has.memory_bytes - seat.memory:
            return RESOURCES
        if any(seat.left_of(w.discrete_resource_spec.kind) < w.discrete_resource_spec.value for w in wanted.generic):
            return RESOURCES
    if lacks_plugin(task, node):
        return PLUGINS
    if not all(satisfied(expression, node) for expression in task.spec.placement.constraints):
        return CONSTRAINTS
    if task.spec.placement.platforms and not any(runs(node, p) for p in task.spec.placement.platforms):
        return PLATFORM
    if any(seat.ports[port] for port in ports(task)):
        return PORTS
    limit = task.spec.placement.max_replicas
    return REPLICAS if limit and seat.services[task.service_id] >= limit else ""


def lacks_plugin(task: api.Task, node: api.Node) -> bool:
    """Whether a network, volume or log driver is missing."""
    if not node.description.HasField("engine"):
        return False
    listed = [(p.type, p.name) for p in node.description.engine.plugins]

    def there(kind: str, name: str) -> bool:
        return (kind, name) in listed or (kind, name + ":latest") in listed

    drivers = [m.volume_options.driver_config.name for m in task.spec.container.mounts if m.type == api.Mount.Type.VOLUME]
    networks = [a.network.driver_state.name for a in task.networks]
    log = task.spec.log_driver.name
    logs = log not in {"", "none"} and any(kind == "Log" for kind, _ in listed)
    return (
        any(d not in {"", "local"} and not there("Volume", d) for d in drivers)
        or any(n and not there("Network", n) for n in networks)
        or (logs and not there("Log", log))
    )


def runs(node: api.Node, wanted: api.Platform) -> bool:
    """Whether a node is of a platform."""
    if not node.description.HasField("platform"):
        return False
    has = node.description.platform
    same = ARCHITECTURES.get(has.architecture, has.architecture) == ARCHITECTURES.get(wanted.architecture, wanted.architecture)
    return wanted.os in {"", has.os} and (not wanted.architecture or same)


def satisfied(expression: str, node: api.Node) -> bool:
    """Whether a (well-formed) constraint holds."""
    operator = "==" if "==" in expression else "!="
    key, value = (part.strip() for part in expression.split(operator, 1))
    low = key.lower()
    if low == "node.ip":
        inside = bool(node.status.addr) and ipaddress.ip_address(node.status.addr) in ipaddress.ip_network(value, strict=False)
        return inside == (operator == "==")
    plain = {
        "node.id": node.id,
        "node.hostname": node.description.hostname,
        "node.role": "manager" if node.role else "worker",
        "node.platform.os": node.description.platform.os,
        "node.platform.arch": node.description.platform.architecture,
    }
    if low in plain:
        actual = plain[low]
    elif low.startswith("node.labels."):
        actual = node.spec.annotations.labels.get(key[12:], "")
    else:
        assert low.startswith("engine.labels."), expression
        actual = node.description.engine.labels.get(key[14:], "")
    return (actual.lower() == value.lower()) == (operator == "==")


def place_of(task: api.Task, node: api.Node) -> tuple[str, ...]:
    """The values of the spread preferences."""
    found = []
    for preference in task.spec.placement.preferences:
        descriptor = preference.spread.spread_descriptor
        if descriptor.lower().startswith("node.labels.") and descriptor[12:]:
            found.append(node.spec.annotations.labels.get(descriptor[12:], ""))
        elif descriptor.lower().startswith("engine.labels.") and descriptor[14:]:
            found.append(node.description.engine.labels.get(descriptor[14:], ""))
    return tuple(found)


def explanation(refusals: Iterable[str]) -> str:
    """The sentence for a task, from what each node refuses it for."""
    counted = sorted(Counter(refusals).items(), key=lambda pair: (-pair[1], ORDER.index(pair[0])))
    reasons = "; ".join(text.format(f"{n} node" if n == 1 else f"{n} nodes") for text, n in counted)
    return f"no suitable node ({reasons})" if reasons else "no suitable node"


def group_of(task: api.Task) -> tuple[object, ...]:
    """Tasks that must be treated alike."""
    if task.HasField("spec_version"):
        return task.service_id, task.spec_version.index
    return task.service_id, *(part.SerializeToString(deterministic=True) for part in (task.spec, task.endpoint, *task.networks))


def seated(nodes: Iterable[api.Node], tasks: Iterable[api.Task]) -> dict[str, Seat]:
    """Nodes with what is on them."""
    seats = {node.id: Seat(node) for node in nodes}
    for task in tasks:
        if S.ASSIGNED <= task.status.state <= S.RUNNING and task.node_id in seats:
            seats[task.node_id].take(task)
    return seats


def check(nodes: Sequence[api.Node], tasks: Sequence[api.Task], services: Iterable[api.Service], before: Collection[str] = ()) -> int:
    """Raise AssertionError where a placement is not as it must be. `before` are the tasks that had their node; how many were looked at."""
    seats = seated(nodes, tasks)
    known = {service.id for service in services} | {""}
    groups: dict[tuple[object, ...], list[api.Task]] = defaultdict(list)
    for task in tasks:
        if S.PENDING <= task.status.state <= S.ASSIGNED and task.id not in before and task.desired_state <= S.COMPLETE:
            groups[group_of(task)].append(task)
    of_service = Counter(group[0].service_id for group in groups.values())
    for group in groups.values():
        fixed = [t for t in group if "preassigned" in t.status.message]
        free = [t for t in group if t not in fixed] if fixed else group
        check_filters([t for t in group if t.node_id], seats, alone=len(groups) == 1)
        if free and free[0].service_id in known:
            check_fits(free, seats, alone=len(groups) == 1 and not fixed)
            if of_service[free[0].service_id] == 1 and not fixed:
                check_spread(free, seats, alone=len(groups) == 1)
    return sum(map(len, groups.values()))


def check_filters(placed: Sequence[api.Task], seats: dict[str, Seat], *, alone: bool) -> None:
    """Every filter, for tasks on their nodes."""
    for node_id, task in {(t.node_id, group_of(t)): t for t in placed}.items():
        seat = seats[node_id[0]]
        nothing = Seat(seat.node)
        assert not refusal(task, nothing), f"{task.id} cannot be on {seat.node.id}: {refusal(task, nothing)}"
        has, wanted = seat.node.description.resources, task.spec.resources.reservations
        assert not wanted.nano_cpus or seat.cpus <= has.nano_cpus, f"too many CPUs reserved on {seat.node.id}"
        assert not wanted.memory_bytes or seat.memory <= has.memory_bytes, f"too much memory reserved on {seat.node.id}"
        assert all(seat.left_of(w.discrete_resource_spec.kind) >= 0 for w in wanted.generic), f"{seat.node.id} gave more than it has"
        assert all(seat.ports[port] == 1 for port in ports(task)), f"a host port is used twice on {seat.node.id}"
        limit = task.spec.placement.max_replicas
        assert not limit or not alone or seat.services[task.service_id] <= limit, f"more than {limit} replicas on {seat.node.id}"
    for task in placed:
        held: Counter[str] = Counter()
        for item in task.assigned_generic_resources:
            named = item.HasField("named_resource_spec")
            held[item.named_resource_spec.kind if named else item.discrete_resource_spec.kind] += (
                1 if named else item.discrete_resource_spec.value
            )
        wanted_amounts = {w.discrete_resource_spec.kind: w.discrete_resource_spec.value for w in task.spec.resources.reservations.generic}
        assert dict(held) == wanted_amounts, f"{task.id} holds {dict(held)}, not {wanted_amounts}"


def check_fits(group: Sequence[api.Task], seats: dict[str, Seat], *, alone: bool) -> None:
    """Those that wait fit nowhere, and are told why. `alone`: nobody else was placed meanwhile, so the reason must be exact."""
    waiting = [t for t in group if not t.node_id]
    if not waiting:
        return
    refusals = {node_id: refusal(waiting[0], seat) for node_id, seat in seats.items()}
    roomy = [node_id for node_id, why in refusals.items() if not why]
    assert not roomy, f"{waiting[0].id} waits ({waiting[0].status.err}) although it fits on {roomy}"
    told = {t.status.err for t in waiting}
    assert all(t.startswith("no suitable node") for t in told), told
    assert not alone or told == {explanation(refusals.values())}, f"told {told}, not {explanation(refusals.values())}"


def check_spread(group: Sequence[api.Task], seats: dict[str, Seat], *, alone: bool) -> None:
    """Those that were placed are level. To be asked only for the one group of its service that was placed."""
    sample = group[0]
    refusals = {node_id: refusal(sample, seat) for node_id, seat in seats.items()}
    places = {node_id: place_of(sample, seat.node) for node_id, seat in seats.items()}
    taken = {t.node_id for t in group if t.node_id}
    check_branches(sample.service_id, seats, places, taken, {n for n, why in refusals.items() if not why})
    check_nodes(sample.service_id, seats, places, taken, refusals, alone=alone)


def check_branches(
    service: str, seats: dict[str, Seat], places: dict[str, tuple[str, ...]], taken: set[str], roomy: set[str]
) -> None:  # fmt: skip
    """At each level, no branch that got a task has more than one task above a sibling that has room."""
    counts: Counter[tuple[str, ...]] = Counter()
    room, got = set(), set()
    for node_id, place in places.items():
        for depth in range(1, len(place) + 1):
            counts[place[:depth]] += seats[node_id].services[service]
            if node_id in roomy:
                room.add(place[:depth])
            if node_id in taken:
                got.add(place[:depth])
    lowest: dict[tuple[str, ...], int] = {}
    for branch in room:
        lowest[branch[:-1]] = min(counts[branch], lowest.get(branch[:-1], counts[branch]))
    for branch in got:
        if branch[:-1] in lowest:
            assert counts[branch] - 1 <= lowest[branch[:-1]], f"{branch} has {counts[branch]}, a sibling with room {lowest[branch[:-1]]}"


def check_nodes(
    service: str, seats: dict[str, Seat], places: dict[str, tuple[str, ...]], taken: set[str], refusals: dict[str, str], *, alone: bool
) -> None:
    """In each place, no node that got a task was worse before its last one than one that has room."""

    def rank(seat: Seat, less: int = 0) -> tuple[int, int]:
        return seat.services[service] - less, seat.active - less if alone else 0

    best: dict[tuple[str, ...], tuple[int, int]] = {}
    for node_id, why in refusals.items():
        if not why:
            place, at = places[node_id], rank(seats[node_id])
            best[place] = min(at, best.get(place, at))
    for node_id in taken:
        place = places[node_id]
        if place in best:
            assert rank(seats[node_id], 1) <= best[place], f"{node_id} at {rank(seats[node_id])}, another with room at {best[place]}"
