"""What must hold after every commit and at every start of a container, whatever happened before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pyswarm.agent.executor.fake import FakeHost
from pyswarm.api import v1 as api
from pyswarm.api.jobs import is_current, is_job
from pyswarm.api.tasks import is_runnable
from pyswarm.manager.orchestrator import slots, tasklife
from pyswarm.manager.orchestrator.reaper import needed
from pyswarm.manager.scheduler.nodeinfo import host_ports
from pyswarm.manager.store import Action, Event, Kind, Store, by
from tests.simulation.loop import SimLoop
from tests.simulation.trace import Trace, short
from tests.support import allocation

S = api.TaskState
_REMEMBERED = 30_000
EVICTED = "assigned node no longer meets constraints"


class Judge:
    """Sees every applied entry of every manager. The first finding is kept in `finding` and ends the run."""

    def __init__(self, loop: SimLoop, trace: Trace) -> None:
        self.finding: str | None = None
        self.cause: BaseException | None = None
        self.found = loop.create_future()
        self.index = 0
        self.commits = 0
        self.work = 0
        """Commits that changed a service or a task."""
        self._trace = trace
        self._truth: dict[tuple[Kind, str], Any] = {}
        self._history: dict[int, Sequence[Event]] = {}
        self._leaders: dict[int, str] = {}
        self._doubled: set[tuple[str, int | str]] = set()
        """Places in which a start-first update put a second task; it may stay for a while after the update is gone."""

    def violation(self, text: str, cause: BaseException | None = None) -> None:
        """Something that must never be."""
        self._trace("judge", "VIOLATION: %s", text)
        if self.finding is None:
            self.finding, self.cause = text, cause
            self.found.set_result(None)

    # --- the log

    def applied(self, manager: str, store: Store, index: int, events: Sequence[Event]) -> None:
        """A manager applied an entry: the first one to do so fixes what it says, and it is judged."""
        if index <= self.index:
            known = self._history.get(index, ())
            if index > self.index - _REMEMBERED and not _same(known, events):
                self.violation(f"entry {index} was applied differently by {manager}: {events} instead of {known}")
            return
        self.index = index
        self._history[index] = events
        self._history.pop(index - _REMEMBERED, None)
        self.commits += 1
        self.work += any(isinstance(event.obj, api.Task | api.Service) for event in events)
        self._trace(manager, f"entry {index}: %s", events)
        for event in events:
            self._check_step(index, event)
        if any(isinstance(event.obj, api.Network | api.Node | api.Service | api.Task) for event in events):
            self._check_holdings(store)
        self._check_tasks(store, [event.obj for event in events if isinstance(event.obj, api.Task) and event.action is not Action.REMOVE])

    def restored(self, manager: str, store: Store) -> None:
        """A manager loaded a snapshot; what follows is applied to it."""
        self._trace(manager, "restored a snapshot: %s tasks", len(store.tasks))

    def leads(self, manager: str, store: Store, term: int, index: int) -> None:
        """One leader per term; and whoever leads in the newest term has everything that anybody ever applied, and nothing else."""
        other = self._leaders.setdefault(term, manager)
        if other != manager:
            self.violation(f"{manager} leads in term {term}, and so did {other}")
        if term < max(self._leaders):
            return  # it was frozen, or cut off, and does not know better yet
        if index < self.index:
            self.violation(f"{manager} leads with entry {index}, but {self.index} was applied before")
        else:
            self.compare(manager, store)

    def truth(self, kind: Kind, object_id: str) -> Any:
        """What was committed, as far as any manager applied it; None if there is no such object."""
        return self._truth.get((kind, object_id))

    def compare(self, manager: str, store: Store) -> None:
        """A store that applied everything holds what the entries say."""
        held = {(kind, obj.id): obj for kind in Kind for obj in store.table(kind)}
        if held == self._truth:
            return
        wrong = [f"{kind} {i}" for kind, i in {**held, **self._truth} if held.get((kind, i)) != self._truth.get((kind, i))]
        self.violation(f"the store of {manager} differs from what was committed: {', '.join(wrong[:5])}")

    # --- one change

    def _check_step(self, index: int, event: Event) -> None:
        key = (event.kind, event.obj.id)
        old = self._truth.get(key)
        if event.action is Action.REMOVE:
            self._truth.pop(key, None)
            return
        self._truth[key] = event.obj
        if (old is None) != (event.action is Action.CREATE):
            self.violation(f"{event.kind} {event.obj.id} was {event.action.name.lower()}d, but it was {'not ' if old is None else ''}there")
        if old is not None and event.obj.meta.version.index < old.meta.version.index:
            self.violation(f"the version of {event.kind} {event.obj.id} fell")
        if isinstance(event.obj, api.Task):
            for wrong in tasklife.violations(old, event.obj):
                self.violation(f"task {short(event.obj.id)} {wrong}")

    def _check_holdings(self, store: Store) -> None:
        """No port, VXLAN id, subnet or address belongs to two."""
        try:
            allocation.check(store)
        except AssertionError as double:
            self.violation(str(double))

    def _check_tasks(self, store: Store, tasks: Sequence[api.Task]) -> None:
        for service_id, place in {(t.service_id, _place(store, t)): None for t in tasks}:
            self._check_place(store, service_id, place)
        for node_id in {t.node_id: None for t in tasks if t.node_id}:
            self._check_node(store, node_id)

    def _check_place(self, store: Store, service_id: str, place: int | str) -> None:
        service = store.services.get(service_id)
        if service is None:
            return
        if isinstance(place, int):
            records = store.tasks.find(by.slot(service_id, place))
        else:
            records = [t for t in store.tasks.find(by.node(place)) if t.service_id == service_id]
        if is_job(service.spec):
            self._check_job(store, service)
            records = [t for t in records if is_current(service, t)]
        runnable = [short(t.id) for t in records if is_runnable(t)]
        doubled = (service_id, place) in self._doubled
        self._doubled.discard((service_id, place))
        if len(runnable) > 1:
            self._doubled.add((service_id, place))
        if len(runnable) > 1 + (doubled or _starts_first(service)):
            self.violation(f"{service.spec.annotations.name}.{place} has {len(runnable)} runnable tasks: {runnable}")

    def _check_job(self, store: Store, service: api.Service) -> None:
        if service.spec.HasField("replicated_job"):
            job = service.spec.replicated_job
            current = [t for t in store.tasks.find(by.service(service.id)) if is_current(service, t)]
            at_once = {t.slot for t in current if is_runnable(t)}
            if len(at_once) > job.max_concurrent or any(t.slot >= job.total_completions for t in current):
                self.violation(f"{service.spec.annotations.name} runs {sorted(at_once)}, but has {job}")

    def _check_node(self, store: Store, node_id: str) -> None:
        node = store.nodes.get(node_id)
        if node is None:
            return
        present = [t for t in store.tasks.find(by.node(node_id)) if S.ASSIGNED <= t.status.state <= S.RUNNING]
        if wrong := overcommitted(node.description.resources, present):
            self.violation(f"on node {short(node_id)} {wrong}: {'; '.join(map(_load, present))}")

    # --- the machines

    def starting(self, host: str, capacity: api.Resources, machine: FakeHost, task_id: str, now: float) -> None:
        """A container is about to start: it and all that run there fit."""
        running = [
            c.task
            for i, c in machine.containers.items()
            if c.exit_code is None
            and not self._evicted(i)
            and (i == task_id or c.started_at is not None)
            and not ((due := c.due()) is not None and due <= now)
        ]
        if wrong := overcommitted(capacity, running):
            self.violation(f"on the machine {host} {wrong}, starting {short(task_id)}")

    def _evicted(self, task_id: str) -> bool:
        """The constraint enforcer calls a task REJECTED while it still runs, and what it held is given away at once (as SwarmKit does)."""
        task = self._truth.get((Kind.TASK, task_id))
        return task is not None and task.status.state == S.REJECTED and EVICTED in task.status.err


def _place(store: Store, task: api.Task) -> int | str:
    service = store.services.get(task.service_id)
    return task.node_id if service is not None and slots.is_global(service) else task.slot


def _starts_first(service: api.Service) -> bool:
    return any(api.UpdateConfig.START_FIRST in {s.update.order, s.rollback.order} for s in (service.spec, service.previous_spec))


def overcommitted(capacity: api.Resources, tasks: Iterable[api.Task]) -> str:
    """What these tasks have too little of on one node; empty when they fit."""
    cpus = memory = 0
    ports: set[tuple[int, int]] = set()
    for task in tasks:
        wanted = task.spec.resources.reservations
        cpus += wanted.nano_cpus
        memory += wanted.memory_bytes
        mine = host_ports(task)
        if shared := mine & ports:
            return f"several tasks have host port {sorted(p for _, p in shared)}"
        ports |= mine
    if cpus > capacity.nano_cpus:
        return f"{cpus / 1e9:g} of {capacity.nano_cpus / 1e9:g} processors are reserved"
    if memory > capacity.memory_bytes:
        return f"{memory >> 20} of {capacity.memory_bytes >> 20} MiB of memory are reserved"
    return ""


def _load(task: api.Task) -> str:
    wanted = task.spec.resources.reservations
    size = f"{wanted.nano_cpus / 1e9:g} processors, {wanted.memory_bytes >> 20} MiB"
    place = f"{task.service_annotations.name}.{task.slot or '*'}"
    return f"{short(task.id)} ({place}) {S.Name(task.status.state)}, wanted {S.Name(task.desired_state)}: {size}"


def _same(one: Sequence[Event], other: Sequence[Event]) -> bool:
    return [(e.kind, e.action, e.obj) for e in one] == [(e.kind, e.action, e.obj) for e in other]


def history_too_long(service: api.Service, tasks: Iterable[api.Task], limit: int) -> str:
    """Which place of a service keeps more records than it may; empty when none does."""
    for place, slot in slots.group(tasks, by_node=slots.is_global(service)).items():
        stays = needed(service, slot.tasks) | {t.id for t in slot.tasks if t.status.state <= S.RUNNING}
        if 0 <= limit < len(slot.tasks) and len(slot.tasks) > max(limit, len(stays)):
            return f"{service.spec.annotations.name}.{place} keeps {len(slot.tasks)} records, not {limit}"
    return ""
