"""A swarm of pure parts: a store, control loops, a scheduler and agents of a few lines, on virtual time, without event loop.

Everything happens in steps, one decision or one round of reports each, so that tests can interfere between any two of them. With `fresh`
the loops are replaced by new ones after every step that changed something: a leader change between any two commits.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.api.tasks import goal_of, is_runnable
from pyswarm.manager import constraints
from pyswarm.manager.changes import Change, Create, Delete, Update, apply, write
from pyswarm.manager.loop import Loop
from pyswarm.manager.orchestrator import nodes
from pyswarm.manager.orchestrator.constraintenforcer import ConstraintEnforcer
from pyswarm.manager.orchestrator.global_ import Global
from pyswarm.manager.orchestrator.jobs import Jobs
from pyswarm.manager.orchestrator.reaper import Reaper
from pyswarm.manager.orchestrator.replicated import Replicated
from pyswarm.manager.orchestrator.slots import in_order, is_global
from pyswarm.manager.store import Event, Kind, Store, Tx, View, by, copy_of
from tests.support import invariants, swarm
from tests.support.clock import VirtualClock

S = api.TaskState
COMMIT_SECONDS = 0.0001
NEXT = {S.NEW: S.PENDING, S.ASSIGNED: S.ACCEPTED, S.ACCEPTED: S.PREPARING, S.PREPARING: S.READY, S.READY: S.STARTING}


@dataclass(frozen=True)
class Fate:
    """How a task's container behaves. Seconds; None is never."""

    start: float | None = 0.0
    life: float | None = None
    end: api.TaskState.ValueType = S.FAILED
    stop: float | None = 0.0
    rejected: bool = False


@dataclass
class Load:
    """What the scheduler knows of a node."""

    node: api.Node
    records: int
    memory: int

    @classmethod
    def of(cls, view: View, node: api.Node) -> Load:
        """The node with all that is on it."""
        found = view.tasks.find(by.node(node.id))
        used = sum(_reserved(t) for t in found if t.status.state <= S.RUNNING)
        return cls(node, len(found), node.description.resources.memory_bytes - used)

    def fits(self, task: api.Task) -> bool:
        """Its constraints are met and its memory is free."""
        return constraints.node_matches(self.node, task.spec.placement) and (not _reserved(task) or _reserved(task) <= self.memory)

    def take(self, task: api.Task) -> None:
        """Reckon with one more task."""
        self.records += 1
        self.memory -= _reserved(task)


@dataclass
class Runner:
    """One loop with what its driver would keep."""

    loop: Loop[Any]
    dirty: dict[Hashable, None] = field(default_factory=dict)
    wakes: dict[Hashable, float] = field(default_factory=dict)


def all_loops(new_id: Callable[[], str]) -> list[Loop[Any]]:
    """The loops of the orchestrator package."""
    return [Replicated(new_id), Global(new_id), Jobs(new_id), ConstraintEnforcer(), Reaper()]


class World:
    """See the module. `fate` says how each task's container behaves; `now` is virtual time in seconds, `skew` how much
    the leader's clock is ahead of it, `tick` how long a commit takes."""

    def __init__(
        self,
        *objects: Any,
        fate: Callable[[api.Task], Fate] = lambda _: Fate(),
        fresh: bool = False,
        loops: Callable[[Callable[[], str]], list[Loop[Any]]] = all_loops,
        now: float = 1_000_000.0,
    ) -> None:
        self.now = now
        self.fate = fate
        self.fresh = fresh
        self.store = Store(VirtualClock())
        self.commits: list[list[Event]] = []
        self.agents = True
        self.skew = 0.0
        self.last_change = now
        self.tick = COMMIT_SECONDS
        self._loops = loops
        self._new_id = swarm.ids()
        self._index = 10
        self._since: dict[tuple[str, str], float] = {}
        self.runners: list[Runner] = []
        self.new_leader()
        self.put(*objects)

    # --- the user's side

    def put(self, *objects: Any) -> None:
        """Create or replace objects in one commit."""
        self.change(*(Update(self._at_version(o)) if self._has(o) else Create(o) for o in objects))

    def change(self, *changes: Change) -> list[Event]:
        """Commit changes; the loops see the events, the invariants are checked."""
        self.now += self.tick
        tx = Tx(self.store, self._index, self.now)
        for change in changes:
            write(tx, change)
        return self._commit(tx)

    def edit_service(self, edit: Callable[[api.ServiceSpec], Any], service_id: str = "svc") -> None:
        """UpdateService: the old spec becomes the previous one, the version moves, the update status is cleared, a job runs again."""
        service = copy_of(self.service(service_id))
        service.previous_spec.CopyFrom(service.spec)
        service.previous_spec_version.CopyFrom(service.spec_version)
        edit(service.spec)
        service.spec_version.index = service.meta.version.index
        if service.HasField("job_status"):
            service.job_status.job_iteration.index += 1
        service.ClearField("update_status")
        self.change(Update(service))

    def set_image(self, image: str, service_id: str = "svc") -> None:
        """Update a service to another image."""
        self.edit_service(lambda spec: setattr(spec.task.container, "image", image), service_id)

    def scale(self, replicas: int, service_id: str = "svc") -> None:
        """Update a service to another number of replicas."""
        self.edit_service(lambda spec: setattr(spec.replicated, "replicas", replicas), service_id)

    def manual_rollback(self, service_id: str = "svc") -> None:
        """UpdateService with rollback to the previous spec; a job just runs again."""
        service = copy_of(self.service(service_id))
        spec, version = copy_of(service.spec), service.spec_version.index
        service.spec.CopyFrom(service.previous_spec)
        service.spec_version.index = service.previous_spec_version.index
        service.previous_spec.CopyFrom(spec)
        service.previous_spec_version.index = version
        status = api.UpdateStatus(state=api.UpdateStatus.ROLLBACK_STARTED, message="manually requested rollback")
        status.started_at.CopyFrom(times.timestamp(self.now))
        if service.HasField("job_status"):
            service.job_status.job_iteration.index += 1
        else:
            service.update_status.CopyFrom(status)
        self.change(Update(service))

    def edit_node(self, node_id: str, **fields: Any) -> None:
        """Change a node's `state` or `availability`."""
        node = copy_of(self.store.nodes.get(node_id) or api.Node())
        if "state" in fields:
            node.status.state = fields["state"]
        if "availability" in fields:
            node.spec.availability = fields["availability"]
        self.change(Update(node))

    def remove_node(self, node_id: str) -> None:
        """RemoveNode: its live tasks become ORPHANED in the same commit."""
        changes: list[Change] = []
        for task in self.store.tasks.find(by.node(node_id)):
            if task.status.state < S.COMPLETE:
                orphan = copy_of(task)
                orphan.status.CopyFrom(api.TaskStatus(state=S.ORPHANED, timestamp=times.timestamp(self.now)))
                changes.append(Update(orphan))
        self.change(*changes, Delete(Kind.NODE, node_id))

    def remove_service(self, service_id: str = "svc") -> None:
        """RemoveService."""
        self.change(Delete(Kind.SERVICE, service_id))

    def delete(self, task_id: str) -> None:
        """RemoveTask."""
        self.change(Delete(Kind.TASK, task_id))

    def report(self, task_id: str, state: api.TaskState.ValueType) -> None:
        """An agent's report."""
        self.change(Update(self._reported(self.task(task_id), state)))

    # --- looking

    def service(self, service_id: str = "svc") -> api.Service:
        """The stored service."""
        found = self.store.services.get(service_id)
        assert found is not None
        return found

    def task(self, task_id: str) -> api.Task:
        """A stored task."""
        found = self.store.tasks.get(task_id)
        assert found is not None
        return found

    def tasks(self, service_id: str = "svc") -> list[api.Task]:
        """All records of a service, oldest first."""
        return in_order(self.store.tasks.find(by.service(service_id)))

    def live(self, service_id: str = "svc") -> list[api.Task]:
        """The tasks meant to run, by slot and node."""
        return sorted((t for t in self.tasks(service_id) if is_runnable(t)), key=lambda t: (t.slot, t.node_id))

    def running(self, image: str | None = None) -> int:
        """How many tasks run and are to."""
        found = [t for t in self.store.tasks if t.desired_state == goal_of(t) and t.status.state == S.RUNNING]
        return sum(image is None or t.spec.container.image == image for t in found)

    def update_state(self, service_id: str = "svc") -> str:
        """The name of the service's update state; empty without status."""
        service = self.service(service_id)
        return api.UpdateStatus.UpdateState.Name(service.update_status.state) if service.HasField("update_status") else ""

    def place(self, task: api.Task) -> int | str:
        """A task's slot, or its node where nodes are the places."""
        service = self.store.services.get(task.service_id)
        by_node = is_global(service) if service is not None else not task.slot
        return task.node_id if by_node else task.slot

    def picture(self) -> dict[Any, Any]:
        """What the store has come to, without ids and times: records per place in order, and the update states."""
        places: dict[Any, list[Any]] = {}
        for task in in_order(self.store.tasks):
            place = (task.service_id, task.job_iteration.index, self.place(task))
            facts = (task.spec.container.image, S.Name(task.desired_state), S.Name(task.status.state))
            places.setdefault(place, []).append(facts)
        return {"tasks": places, "updates": {s.id: self.update_state(s.id) for s in self.store.services}}

    # --- time

    def new_leader(self) -> None:
        """Replace all loops by new ones."""
        self.runners = [Runner(loop) for loop in self._loops(self._new_id)]
        for runner in self.runners:
            runner.dirty.update(dict.fromkeys(runner.loop.everything(self.store)))

    def run(self, seconds: float, limit: int = 100_000) -> None:
        """Let everything happen that happens within a span."""
        end = self.now + seconds
        for _ in range(limit):
            if self.step():
                continue
            after = min([*self._wakes(), *self._agent_times()], default=end + 1)
            if after > end:
                self.now = max(self.now, end)
                return
            self.now = max(self.now, after)
        raise AssertionError("does not come to rest")

    def step(self) -> bool:
        """One decision, or one round of scheduler and agents; False when nothing is to be done now."""
        return self._decide() or self._live()

    def settle(self) -> None:
        """Decisions only, until there are none."""
        while self._decide():
            pass

    def _wakes(self) -> Iterable[float]:
        return [at for runner in self.runners for at in runner.wakes.values()]

    # --- loops

    def _decide(self) -> bool:
        for runner in self.runners:
            for key in [k for k, at in runner.wakes.items() if at <= self.now]:
                del runner.wakes[key]
                runner.dirty[key] = None
            if not runner.dirty:
                continue
            key = next(iter(runner.dirty))
            del runner.dirty[key]
            self._decide_one(runner, key)
            return True
        invariants.check_slots(self.store)
        return False

    def _decide_one(self, runner: Runner, key: Any) -> None:
        self.now += self.tick
        leader_now = self.now + self.skew
        tx = Tx(self.store, self._index, leader_now)
        decision = runner.loop.decide(tx, key, leader_now)
        apply(tx, decision.changes)
        assert len(tx.changes) <= 1000
        if decision.wake is None:
            runner.wakes.pop(key, None)
        else:
            assert decision.wake > leader_now
            runner.wakes[key] = decision.wake - self.skew
        if decision.again:
            runner.dirty[key] = None
        if tx.changes:
            self._commit(tx)
            if self.fresh:
                self.new_leader()

    def _commit(self, tx: Tx) -> list[Event]:
        events: list[Event] = []
        undo = self.store.on_commit(lambda commit: events.extend(commit.events))
        self._index += 1
        self.store.apply(self._index, api.InternalRaftRequest(), tx)
        undo()
        self.commits.append(events)
        self.last_change = self.now
        for runner in self.runners:
            for event in events:
                runner.dirty.update(dict.fromkeys(runner.loop.on_event(event)))
        invariants.check_events(events)
        invariants.check_created(self.store, events)
        invariants.check_jobs(self.store)
        return events

    # --- scheduler and agents

    def _live(self) -> bool:
        if not self.agents:
            return False
        changes: list[Change] = []
        load = {n.id: Load.of(self.store, n) for n in self.store.nodes if _takes_tasks(n)}
        for task in in_order(self.store.tasks):
            after = self._after(task, load)
            if after is not None:
                changes.append(Update(after))
        if changes:
            self.change(*changes)
        return bool(changes)

    def _after(self, task: api.Task, load: dict[str, Load]) -> api.Task | None:
        state = task.status.state
        if state == S.PENDING and is_runnable(task):
            fitting = [n for n in ([task.node_id] if task.node_id else load) if n in load and load[n].fits(task)]
            if not fitting:
                return None
            chosen = min(fitting, key=lambda n: (load[n].records, n))
            load[chosen].take(task)
            placed = self._reported(task, S.ASSIGNED)
            placed.node_id = chosen
            return placed
        if state == S.NEW and is_runnable(task):
            return self._reported(task, S.PENDING)
        step, at = self._agent(task)
        return self._reported(task, step) if step is not None and at <= self.now else None

    def _agent(self, task: api.Task) -> tuple[api.TaskState.ValueType | None, float]:
        """The next state an agent will report, and when."""
        state, fate = task.status.state, self.fate(task)
        if not S.ASSIGNED <= state <= S.RUNNING or nodes.is_down(self.store.nodes.get(task.node_id)):
            return None, 0.0
        if task.desired_state > S.COMPLETE:
            return self._later(task, "stop", fate.stop, S.SHUTDOWN)
        if state == S.PREPARING and fate.rejected:
            return S.REJECTED, self.now
        if state == S.RUNNING:
            return self._later(task, "life", fate.life, fate.end)
        if state == S.STARTING:
            return self._later(task, "start", fate.start, S.RUNNING)
        if state == S.READY and task.desired_state < S.RUNNING:
            return None, 0.0
        return NEXT[state], self.now

    def _later(
        self, task: api.Task, what: str, span: float | None, state: api.TaskState.ValueType
    ) -> tuple[api.TaskState.ValueType | None, float]:
        if span is None:
            return None, 0.0
        return state, self._since.setdefault((task.id, what), self.now) + span

    def _agent_times(self) -> Sequence[float]:
        if not self.agents:
            return ()
        found = (self._agent(t) for t in self.store.tasks)
        return [at for step, at in found if step is not None and at > self.now]

    def _reported(self, task: api.Task, state: api.TaskState.ValueType) -> api.Task:
        moved = copy_of(task)
        moved.status.state = state
        leader_now = self.now + self.skew
        moved.status.timestamp.CopyFrom(times.timestamp(self.now if state > S.ASSIGNED else leader_now))
        if state > S.ASSIGNED:
            moved.status.applied_at.CopyFrom(times.timestamp(leader_now))
        return moved

    def _has(self, obj: Any) -> bool:
        return obj.id in getattr(self.store, type(obj).__name__.lower() + "s")

    def _at_version(self, obj: Any) -> Any:
        stored = getattr(self.store, type(obj).__name__.lower() + "s").get(obj.id)
        obj = copy_of(obj)
        obj.meta.CopyFrom(stored.meta)
        return obj


def _reserved(task: api.Task) -> int:
    return task.spec.resources.reservations.memory_bytes


def _takes_tasks(node: api.Node) -> bool:
    return node.status.state == api.NodeStatus.READY and node.spec.availability == api.NodeSpec.ACTIVE


__all__ = ["Fate", "World", "all_loops"]
