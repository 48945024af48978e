"""What a log selector means, given what the store says. Pure (spec/dispatcher-agent-node, section 24)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from pyswarm.api import tasks
from pyswarm.api import v1 as api
from pyswarm.errors import InvalidArgument
from pyswarm.manager.store import View, by

S = api.TaskState

NOT_STARTED = "starting container failed"
"""How a Docker Engine says that a container was made and could not be started."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A selector, ready to be asked."""

    services: frozenset[str]
    nodes: frozenset[str]
    tasks: frozenset[str]

    def has(self, task: api.Task) -> bool:
        """Whether the task is listed itself or belongs to a service that is."""
        return task.id in self.tasks or task.service_id in self.services


@dataclass(frozen=True, slots=True)
class Selection:
    """The nodes to ask, sorted, and the listed tasks that no node has."""

    nodes: tuple[str, ...]
    pending: tuple[str, ...]


def wanted(request: api.SubscribeLogsRequest) -> Wanted:
    """What a request selects. Raises InvalidArgument when that is nothing."""
    if not request.HasField("selector"):
        raise InvalidArgument("log selector must be provided")
    selector = request.selector
    if not (selector.service_ids or selector.node_ids or selector.task_ids):
        raise InvalidArgument("log selector must not be empty")
    return Wanted(frozenset(selector.service_ids), frozenset(selector.node_ids), frozenset(selector.task_ids))


def select(view: View, selector: Wanted, *, follow: bool) -> Selection:
    """Where the output is now. Ids of tasks and services that do not exist select nothing; nodes are taken at their word.

    Without `follow` a service counts with the tasks that have come as far as running. Tasks that certainly never wrote anything are
    left out then: a Docker Engine would wait for ever for their start.
    """
    nodes, pending = set(selector.nodes), set()
    for task in _listed(view, selector):
        if not follow and (never_ran(task) or (task.id not in selector.tasks and task.status.state < S.RUNNING)):
            continue
        if task.node_id:
            nodes.add(task.node_id)
        else:
            pending.add(task.id)
    return Selection(tuple(sorted(nodes)), tuple(sorted(pending)))


def narrowed(view: View, selector: Wanted, node_id: str) -> api.LogSelector:
    """What to ask one node for when it is not to follow: the selector as it is, unless tasks there never ran; then the others by id."""
    on_node = view.tasks.find(by.node(node_id))
    meant = on_node if node_id in selector.nodes else [task for task in on_node if selector.has(task)]
    if any(never_ran(task) for task in meant):
        return api.LogSelector(task_ids=sorted(task.id for task in meant if not never_ran(task)))
    return whole(selector)


def whole(selector: Wanted) -> api.LogSelector:
    """The selector as a message."""
    return api.LogSelector(service_ids=sorted(selector.services), node_ids=sorted(selector.nodes), task_ids=sorted(selector.tasks))


def spent(view: View, selector: Wanted, gone: Collection[str]) -> bool:
    """Whether nothing selected can write another line. `gone` are the selected ids that were removed from the store."""
    if not selector.nodes.issubset(gone) or not selector.services.issubset(gone):
        return False
    listed = _listed(view, selector)
    known = {task.id for task in listed}
    return all(tasks.is_terminal(task) for task in listed) and selector.tasks.issubset(known.union(gone))


def never_ran(task: api.Task) -> bool:
    """It has ended and there was no process that could have written anything."""
    state = task.status.state
    return state == S.REJECTED or (state == S.FAILED and task.status.err.startswith(NOT_STARTED))


def _listed(view: View, selector: Wanted) -> list[api.Task]:
    found = {task.id: task for service_id in selector.services for task in view.tasks.find(by.service(service_id))}
    for task_id in selector.tasks:
        task = view.tasks.get(task_id)
        if task is not None:
            found[task_id] = task
    return list(found.values())
