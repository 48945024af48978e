"""The pass: which waiting task goes where, and what the others are told (spec sections 3.4, 6, 7)."""

from __future__ import annotations

import enum
from collections.abc import Iterable

from pyswarm.api import defaults, times
from pyswarm.api import v1 as api
from pyswarm.manager.changes import Change, Update
from pyswarm.manager.loop import Decision
from pyswarm.manager.scheduler import generic
from pyswarm.manager.scheduler.filters import Pipeline, explain
from pyswarm.manager.scheduler.mirror import Group, Mirror
from pyswarm.manager.scheduler.needs import GroupKey, Needs, needs_of, wants_volumes
from pyswarm.manager.scheduler.nodeinfo import NodeInfo, version_of
from pyswarm.manager.scheduler.spread import Plan
from pyswarm.manager.scheduler.volumes import Volumes
from pyswarm.manager.store import Event, View, copy_of

S = api.TaskState
PENDING, SHUTDOWN = S.PENDING, S.SHUTDOWN
ASSIGNED = "scheduler assigned task to node"
CONFIRMED = "scheduler confirmed task can run on preassigned node"
QUIET_SECONDS = 0.05
PLAN_SECONDS = 1.0
"""For so long a plan may be used: failures grow old, and then count less."""


class Pass(enum.Enum):
    """The one thing that may need doing. Two decisions in one transaction would not see what each other takes of a node."""

    PLACE = 1


PLACE = (Pass.PLACE,)


class Scheduler:
    """A `Loop`: mirrors nodes and tasks, and decides placements for what waits.

    A decision counts in the mirror from the moment it is made. When `decide` is called again although the one before was not committed,
    that one is taken back first: so it may be called as often as one likes.
    """

    name = "scheduler"
    patience = 1.0

    def __init__(self) -> None:
        self._mirror = Mirror()
        self._plans = _Plans(self._mirror)

    @property
    def quiet(self) -> float:
        """A burst is waited for, unless a transaction is filled already by what came: then there is nothing to be gained."""
        return QUIET_SECONDS if self._mirror.arrived < defaults.MAX_TRANSACTION_CHANGES else 0.0

    def everything(self, view: View) -> Iterable[Pass]:
        """Rebuild the mirror; look at all that waits."""
        self._mirror.rebuild(view)
        self._plans = _Plans(self._mirror)
        return PLACE

    def on_event(self, event: Event) -> Iterable[Pass]:
        """Keep the mirror; work is waiting when something arrived or room was made."""
        return PLACE if self._mirror.on_event(event) else ()

    def decide(self, view: View, key: Pass, now: float) -> Decision:  # noqa: ARG002 - there is one key
        """Place what can be placed, at most one transaction full, and say why the rest waits.

        Preassigned tasks go first, so that global services get their resources before replicated ones.
        """
        self._mirror.take_back()
        self._mirror.arrived = 0
        work = _Placement(self._mirror, self._plans, view, now)
        work.end_unwanted()
        work.confirm()
        for group_key, group in list(self._mirror.groups.items()):
            if work.full:
                break
            work.place(group_key, group)
        return Decision(changes=[*work.changes, *work.volumes.changes()], again=work.full)


class _Plans:
    """The plan in use: the next transaction goes on where the one before ended, unless something else happened to the nodes."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._key: GroupKey | None = None
        self._plan: Plan | None = None
        self._made = (0, 0.0)

    def of(self, key: GroupKey, task: api.Task, now: float, volumes: Volumes) -> Plan:
        """Where the tasks of a group go, of which `task` is one."""
        if wants_volumes(task):
            self._plan = None
        disturbed, made = self._made
        if self._plan is None or key != self._key or disturbed != self._mirror.disturbed or not 0 <= now - made < PLAN_SECONDS:
            self._plan = Plan(self._mirror, self._mirror.pools.of(task, volumes), version_of(task), now)
            self._key, self._made = key, (self._mirror.disturbed, now)
        return self._plan


class _Placement:
    """One decision in the making."""

    def __init__(self, mirror: Mirror, plans: _Plans, view: View, now: float) -> None:
        self.changes: list[Change] = []
        self.volumes = Volumes(view)
        self._mirror = mirror
        self._plans = plans
        self._view = view
        self._now = times.timestamp(now)
        self._statuses = {m: api.TaskStatus(state=S.ASSIGNED, message=m, timestamp=self._now) for m in (ASSIGNED, CONFIRMED)}
        self._seconds = now

    @property
    def full(self) -> bool:
        """No more fits one transaction."""
        return len(self.changes) >= defaults.MAX_TRANSACTION_CHANGES

    def end_unwanted(self) -> None:
        """A task nobody wants any more ends here: no agent will ever report its end."""
        for waiting in list(self._mirror.unwanted.values()):
            task = self._current(waiting)
            if task is None:
                continue
            if self.full:
                return
            edited = copy_of(task)
            edited.status.state = S.SHUTDOWN
            edited.status.err = ""
            edited.status.timestamp.CopyFrom(self._now)
            self.changes.append(Update(edited))

    def confirm(self) -> None:
        """Check tasks whose node is given."""
        pipelines: dict[Needs, Pipeline] = {}
        for waiting in list(self._mirror.preassigned.values()):
            if self.full:
                return
            task, info = self._current(waiting), self._mirror.nodes.get(waiting.node_id)
            if task is None or info is None or task.desired_state >= SHUTDOWN or self._is_gone(info):
                continue
            needs = needs_of(task)
            if needs not in pipelines:
                pipelines[needs] = Pipeline(task, self.volumes)
            refusing = pipelines[needs].refusing(info)
            if refusing is None:
                del self._mirror.preassigned[task.id]
                self._assign(task, info, CONFIRMED)
            else:
                self._explain(task, explain({refusing: 1}))

    def place(self, key: GroupKey, group: Group) -> None:
        """Spread a group of equal tasks; those without a node get their reason."""
        (first,) = group.first(1)
        service = self._view.services.get(first.service_id) if first.service_id else None
        if service is None and first.service_id:
            return
        plan = self._plans.of(key, first, self._seconds, self.volumes)
        for waiting in group.first(defaults.MAX_TRANSACTION_CHANGES - len(self.changes)):
            task = self._current(waiting)
            if task is None or task.desired_state >= SHUTDOWN:
                continue
            taken = plan.take()
            if taken is None:
                break
            info, leaf = taken
            if self._is_gone(info):
                continue
            self._mirror.drop(key, group, task)
            self._assign(task, info, ASSIGNED)
            leaf.offer(info)
        else:
            return
        if service is None or service.spec_version.index <= first.spec_version.index:
            self._tell(group, plan.pool.explain())

    def _is_gone(self, info: NodeInfo) -> bool:
        """The node was removed in this very transaction: the event that follows has whoever wanted it looked at again."""
        return self._view.nodes.get(info.node.id) is None

    def _tell(self, group: Group, reason: str) -> None:
        """Write down for each task of a group why it waits, unless it has been told."""
        group.say(reason)
        for waiting in list(group.waiting.values()):
            if self.full:
                return
            task = self._current(waiting)
            if task is not None and not self._explain(task, reason):
                group.put(task)

    def _current(self, waiting: api.Task) -> api.Task | None:
        """The task as the transaction sees it, if it still waits as it did."""
        task = self._view.tasks.get(waiting.id)
        return task if task is not None and task.status.state == PENDING and task.node_id == waiting.node_id else None

    def _assign(self, task: api.Task, info: NodeInfo, message: str) -> None:
        edited = copy_of(task)
        edited.node_id = info.node.id
        wanted = task.spec.resources.reservations.generic if task.spec.HasField("resources") else ()
        if edited.assigned_generic_resources:
            del edited.assigned_generic_resources[:]
        if wanted:
            edited.assigned_generic_resources.extend(generic.claim(info.generic, wanted))
        if edited.volumes or wants_volumes(edited):
            self.volumes.attach(edited, info.node)
        edited.status.CopyFrom(self._statuses[message])
        self.changes.append(Update(edited))
        self._mirror.claim(task, edited)

    def _explain(self, task: api.Task, reason: str) -> bool:
        """Tell a waiting task why; False when it has been told already, and nothing is written."""
        if task.status.err == reason:
            return False
        edited = copy_of(task)
        edited.status.err = reason
        edited.status.timestamp.CopyFrom(self._now)
        self.changes.append(Update(edited))
        return True
