"""The pass: which waiting task goes where, and what the others are told (spec sections 3.4, 6, 7)."""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterable, Sequence

from pyswarm.api import defaults, times
from pyswarm.api import v1 as api
from pyswarm.manager.changes import Change, Update
from pyswarm.manager.loop import Decision
from pyswarm.manager.scheduler import generic, spread
from pyswarm.manager.scheduler.filters import Pipeline
from pyswarm.manager.scheduler.mirror import Mirror
from pyswarm.manager.scheduler.nodeinfo import NodeInfo, version_of
from pyswarm.manager.scheduler.volumes import Volumes
from pyswarm.manager.store import Event, View, copy_of

S = api.TaskState
ASSIGNED = "scheduler assigned task to node"
CONFIRMED = "scheduler confirmed task can run on preassigned node"


class Pass(enum.Enum):
    """The one thing that may need doing. Two decisions in one transaction would not see what each other takes of a node."""

    PLACE = 1


class Scheduler:
    """A `Loop`: mirrors nodes and tasks, and decides placements for what waits."""

    name = "scheduler"
    quiet = 0.05
    patience = 1.0

    def __init__(self) -> None:
        self._mirror = Mirror()

    def everything(self, view: View) -> Iterable[Pass]:
        """Rebuild the mirror; look at all that waits."""
        self._mirror.rebuild(view)
        return tuple(Pass)

    def on_event(self, event: Event) -> Iterable[Pass]:
        """Keep the mirror; work is waiting when something arrived or room was made."""
        return tuple(Pass) if self._mirror.on_event(event) else ()

    def decide(self, view: View, key: Pass, now: float) -> Decision:  # noqa: ARG002 - there is one key
        """Place what can be placed, at most one transaction full, and say why the rest waits.

        Preassigned tasks go first, so that global services get their resources before replicated ones.
        """
        work = _Placement(self._mirror, view, now)
        work.confirm(list(self._mirror.preassigned.values()))
        for group in _groups(self._mirror.unassigned.values()):
            if work.full:
                break
            work.place(group)
        return Decision(changes=[*work.changes, *work.volumes.changes()], again=work.full)


def _groups(waiting: Iterable[api.Task]) -> list[list[api.Task]]:
    """Tasks that every filter treats alike: same service and spec version; a task without spec version stands alone."""
    groups: dict[tuple[str, object], list[api.Task]] = {}
    for task in waiting:
        version: object = task.spec_version.index if task.HasField("spec_version") else task.id
        groups.setdefault((task.service_id, version), []).append(task)
    return [groups[key] for key in sorted(groups, key=str)]


class _Placement:
    """One decision in the making: the changes so far and the nodes as they would then be."""

    def __init__(self, mirror: Mirror, view: View, now: float) -> None:
        self.changes: list[Change] = []
        self.volumes = Volumes(view)
        self._mirror = mirror
        self._view = view
        self._now = now
        self._forks: dict[str, NodeInfo] = {}

    @property
    def full(self) -> bool:
        """No more fits one transaction."""
        return len(self.changes) >= defaults.MAX_TRANSACTION_CHANGES

    def _info(self, node_id: str) -> NodeInfo:
        return self._forks.get(node_id) or self._mirror.nodes[node_id]

    def _infos(self) -> Iterable[NodeInfo]:
        return (self._forks.get(i, info) for i, info in self._mirror.nodes.items())

    def confirm(self, waiting: Sequence[api.Task]) -> None:
        """Check tasks whose node is given."""
        for waiting_task in sorted(waiting, key=lambda t: t.id):
            task = self._view.tasks.get(waiting_task.id)
            if self.full:
                return
            if task is None or task.status.state != S.PENDING or task.node_id not in self._mirror.nodes:
                continue
            if self._shut_down_unwanted(task):
                continue
            info = self._info(task.node_id)
            pipeline = Pipeline(task, self.volumes)
            if pipeline.passes(info):
                self._assign(task, info, CONFIRMED)
            else:
                self._explain(task, pipeline.explain())

    def place(self, group: Sequence[api.Task]) -> None:
        """Spread a group of equal tasks; those without a node get their reason."""
        waiting = (t for t in map(self._current, group) if t is not None and not self._shut_down_unwanted(t))
        first = next(waiting, None)
        if first is None:
            return
        service = self._view.services.get(first.service_id) if first.service_id else None
        if service is None and first.service_id:
            return
        outdated = service is not None and service.spec_version.index > first.spec_version.index
        version = version_of(first)
        pipeline = Pipeline(first, self.volumes)

        def rank(info: NodeInfo) -> tuple[int, int, int]:
            return info.rank(version, self._now)

        descriptors = spread.descriptors_of(first.spec.placement)
        tree = spread.build(self._infos(), descriptors, first.service_id, pipeline.passes, rank)
        for task in itertools.chain((first,), waiting):
            if self.full:
                return
            taken = tree.take(self._info, pipeline.passes)
            if taken is not None:
                node_id, leaf = taken
                leaf.give_back(self._assign(task, self._info(node_id), ASSIGNED), rank)
            elif not outdated:
                reasons = pipeline.explain()
                self._explain(task, f"no suitable node ({reasons})" if reasons else "no suitable node")

    def _current(self, waiting: api.Task) -> api.Task | None:
        """The task as the transaction sees it, if it still waits for a node."""
        task = self._view.tasks.get(waiting.id)
        return task if task is not None and task.status.state == S.PENDING and not task.node_id else None

    def _shut_down_unwanted(self, task: api.Task) -> bool:
        """A task nobody wants any more ends here: no agent will ever report its end."""
        if task.desired_state < S.SHUTDOWN:
            return False
        if task.desired_state == S.SHUTDOWN and not self.full:
            edited = copy_of(task)
            edited.status.state = S.SHUTDOWN
            edited.status.err = ""
            edited.status.timestamp.CopyFrom(times.timestamp(self._now))
            self.changes.append(Update(edited))
        return True

    def _assign(self, task: api.Task, info: NodeInfo, message: str) -> NodeInfo:
        edited = copy_of(task)
        edited.node_id = info.node.id
        wanted = task.spec.resources.reservations.generic
        claimed = generic.claim(info.generic, wanted) if wanted else []
        del edited.assigned_generic_resources[:]
        edited.assigned_generic_resources.extend(claimed)
        self.volumes.attach(edited, info.node)
        edited.status.Clear()
        edited.status.state = S.ASSIGNED
        edited.status.message = message
        edited.status.timestamp.CopyFrom(times.timestamp(self._now))
        self.changes.append(Update(edited))
        fork = self._forks.get(info.node.id)
        if fork is None:
            fork = self._forks[info.node.id] = info.fork()
        fork.take(task, claimed)
        return fork

    def _explain(self, task: api.Task, reason: str) -> None:
        """Tell a waiting task why; nothing is written when it has been told already."""
        if task.status.err == reason:
            return
        edited = copy_of(task)
        edited.status.err = reason
        edited.status.timestamp.CopyFrom(times.timestamp(self._now))
        self.changes.append(Update(edited))
