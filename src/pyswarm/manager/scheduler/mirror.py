"""The scheduler's mirror: which tasks wait, and what every node carries (spec section 3.1 to 3.3).

Rebuilt from the store when the scheduler starts, then kept up to date from commits. It holds nothing that the store does not, but for one
thing: claims. What has been decided is counted at once, so that the next decision sees it, and is confirmed by the event of its commit.
What was not confirmed when the next decision is made never happened, and is taken back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice

import structlog

from pyswarm.api import tasks as task_facts
from pyswarm.api import v1 as api
from pyswarm.manager.scheduler.needs import GroupKey, group_of
from pyswarm.manager.scheduler.nodeinfo import FAULTY_COUNT, NodeInfo, is_active, occupies, version_of
from pyswarm.manager.scheduler.pool import Pools
from pyswarm.manager.store import Action, Event, Kind, View

S = api.TaskState
PENDING, ASSIGNED, RUNNING, SHUTDOWN = S.PENDING, S.ASSIGNED, S.RUNNING, S.SHUTDOWN
log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Group:
    """Tasks without a node that every filter treats alike. Those in `told` carry `reason` as their error already."""

    waiting: dict[str, api.Task] = field(default_factory=dict)
    told: dict[str, api.Task] = field(default_factory=dict)
    reason: str = ""

    def __bool__(self) -> bool:
        return bool(self.waiting or self.told)

    def first(self, count: int) -> list[api.Task]:
        """At most so many of its tasks, those that are new first."""
        return list(islice(chain(self.waiting.values(), self.told.values()), count))

    def put(self, task: api.Task) -> None:
        """Take a task in, or its newer version."""
        self.drop(task.id)
        told = self.reason and task.status.err == self.reason
        (self.told if told else self.waiting)[task.id] = task

    def drop(self, task_id: str) -> None:
        """It does not wait any more."""
        if self.waiting.pop(task_id, None) is None:
            self.told.pop(task_id, None)

    def say(self, reason: str) -> None:
        """From now on this is what its tasks are to be told."""
        if reason != self.reason:
            self.reason = reason
            self.waiting, self.told = {**self.waiting, **self.told}, {}


class Mirror:
    """Tasks by what the scheduler has to do with them, and nodes by id.

    `unwanted` are those that are to be shut down before they ever got a node. `homes` says which nodes have active tasks of a service,
    `failing` which have ever seen one fail. `arrived` counts what came to wait since it was last set to zero; `disturbed` grows whenever
    something that placements depend on changed, except by a claim.
    """

    def __init__(self) -> None:
        self.nodes: dict[str, NodeInfo] = {}
        self.pools = Pools(self.nodes)
        self.tasks: dict[str, api.Task] = {}
        self.groups: dict[GroupKey, Group] = {}
        self.preassigned: dict[str, api.Task] = {}
        self.unwanted: dict[str, api.Task] = {}
        self.homes: dict[str, dict[str, None]] = {}
        self.failing: dict[str, None] = {}
        self.arrived = 0
        self.disturbed = 0
        self._homeless: dict[str, dict[str, api.Task]] = {}
        self._claims: dict[str, api.Task] = {}
        self._ever_preassigned: set[str] = set()

    def rebuild(self, view: View) -> None:
        """Start over from the store."""
        self.__init__()  # type: ignore[misc]  # one place that says what empty is
        for node in view.nodes:
            self._set_node(node)
        for task in view.tasks:
            if PENDING <= task.status.state <= RUNNING:
                self._enter(task)

    def on_event(self, event: Event) -> bool:
        """Follow one change; whether it may have made room or brought work."""
        if isinstance(event.obj, api.Task):
            return self._on_task(event.action, event.obj)
        if isinstance(event.obj, api.Node):
            return self._on_node(event.action, event.obj)
        if event.kind is Kind.VOLUME:
            return bool(self.groups or self.preassigned)
        return event.kind is Kind.SERVICE and event.action is not Action.CREATE

    # --- claims

    def claim(self, waiting: api.Task, assigned: api.Task) -> None:
        """Count a decision: `waiting`, which has been taken from those that wait, becomes `assigned`, which names the node."""
        self._claims[waiting.id] = waiting
        self.tasks[waiting.id] = assigned
        self._count_on(self.nodes[assigned.node_id], assigned, claimed=True)

    def take_back(self) -> None:
        """Forget the claims that no event has confirmed."""
        unconfirmed, self._claims = self._claims, {}
        for task_id, task in unconfirmed.items():
            self._leave(task_id)
            self._enter(task)

    def _confirm(self, task: api.Task) -> bool:
        """Whether a task is as it was claimed to become; then it counts already."""
        claimed, info = self.tasks[task.id], self.nodes.get(task.node_id)
        if claimed.node_id != task.node_id or info is None or is_active(claimed) != is_active(task):
            return False
        del self._claims[task.id]
        self.tasks[task.id] = info.tasks[task.id] = task
        return True

    # --- nodes

    def _on_node(self, action: Action, node: api.Node) -> bool:
        self.disturbed += 1
        self.pools.touch(node.id)
        if action is not Action.REMOVE:
            self._set_node(node)
            return True
        info = self.nodes.pop(node.id, None)
        if info is not None and info.tasks:
            self._homeless[node.id] = info.tasks
        for service in info.by_service if info is not None else ():
            self.homes[service].pop(node.id, None)
        self.failing.pop(node.id, None)
        return True  # nothing fits better, but what waits is to be told the truth

    def _set_node(self, node: api.Node) -> None:
        info = self.nodes.get(node.id)
        if info is not None:
            info.set_node(node)
            return
        # Tasks may have been here before their node object, or have outlived the one before.
        info = self.nodes[node.id] = NodeInfo.of(node, self._homeless.pop(node.id, {}).values())
        for service in info.by_service:
            self.homes.setdefault(service, {})[node.id] = None

    def _count_on(self, info: NodeInfo, task: api.Task, *, claimed: bool = False) -> None:
        if info.add(task):
            self._changed(info, task.service_id, claimed=claimed)

    def _changed(self, info: NodeInfo, service: str, *, claimed: bool = False) -> None:
        node_id = info.node.id
        self.pools.touch(node_id)
        if not claimed:
            self.disturbed += 1
        if service in info.by_service:
            self.homes.setdefault(service, {})[node_id] = None
        elif service in self.homes:
            self.homes[service].pop(node_id, None)
            if not self.homes[service]:
                del self.homes[service]

    # --- tasks

    def _on_task(self, action: Action, task: api.Task) -> bool:
        if action is Action.REMOVE:
            return self._leave(task.id)
        state = task.status.state
        if state == ASSIGNED and task.id in self._claims and self._confirm(task):
            return False
        if state < PENDING:
            return False
        return self._on_ended(task) if state > RUNNING else self._enter(task)

    def _on_ended(self, task: api.Task) -> bool:
        known = self.tasks.get(task.id)
        if known is None:
            return False
        failed = task.status.state in {S.FAILED, S.REJECTED} and known.status.state != task.status.state
        info = self.nodes.get(known.node_id)
        if failed and info is not None and task.id not in self._ever_preassigned:
            self._record_failure(info, task)
        self._leave(task.id)
        return True

    def _record_failure(self, info: NodeInfo, task: api.Task) -> None:
        self.disturbed += 1
        self.failing[info.node.id] = None
        if info.record_failure(version_of(task), task_facts.task_time(task)) == FAULTY_COUNT:
            log.warning("tasks of a service keep failing on a node: it becomes the last choice", node=info.node.id, service=task.service_id)

    def _enter(self, task: api.Task) -> bool:
        """Take in a task that is PENDING to RUNNING; whether there is something to schedule."""
        known = self.tasks.get(task.id)
        if known is not None and (known.node_id != task.node_id or task.status.state == PENDING):
            self._leave(task.id)
        self.tasks[task.id] = task
        if occupies(task):
            self._arrive(task)
            return False
        if task.node_id:
            self._ever_preassigned.add(task.id)
        return self._wait(task)

    def _arrive(self, task: api.Task) -> None:
        """It has its node."""
        if self._claims.pop(task.id, None) is None:
            self.preassigned.pop(task.id, None)
        info = self.nodes.get(task.node_id)
        if info is not None:
            self._count_on(info, task)
        else:
            self._homeless.setdefault(task.node_id, {})[task.id] = task

    def _wait(self, task: api.Task) -> bool:
        if task.desired_state > SHUTDOWN:
            return False  # nobody wants it, and whoever said so deletes it
        self.arrived += 1
        if task.desired_state == SHUTDOWN:
            self.unwanted[task.id] = task
        elif task.node_id:
            self.preassigned[task.id] = task
        else:
            self.groups.setdefault(group_of(task), Group()).put(task)
        return True

    def _stop_waiting(self, task: api.Task) -> None:
        if self.preassigned.pop(task.id, None) is not None or self.unwanted.pop(task.id, None) is not None or task.node_id:
            return
        key = group_of(task)
        if key in self.groups:
            self.drop(key, self.groups[key], task)

    def drop(self, key: GroupKey, group: Group, task: api.Task) -> None:
        """A task of a group waits no more."""
        group.drop(task.id)
        if not group:
            self.groups.pop(key, None)

    def _leave(self, task_id: str) -> bool:
        """Forget a task; whether a node got room by it."""
        task = self.tasks.pop(task_id, None)
        if task is None:
            return False
        self._claims.pop(task_id, None)
        self._ever_preassigned.discard(task_id)
        self._stop_waiting(task)
        info = self.nodes.get(task.node_id)
        if info is not None and info.remove(task_id):
            self._changed(info, task.service_id)
            return True
        if task.node_id in self._homeless:
            self._homeless[task.node_id].pop(task_id, None)
            if not self._homeless[task.node_id]:
                del self._homeless[task.node_id]
        return False

    def unassigned(self) -> Iterator[str]:
        """The ids of tasks that wait for a node to be chosen."""
        return chain.from_iterable(chain(group.waiting, group.told) for group in self.groups.values())

    def with_service(self, service: str) -> Iterable[NodeInfo]:
        """The nodes that have active tasks of a service."""
        return (self.nodes[node_id] for node_id in self.homes.get(service, ()))
