"""What an assignment message changes on this node: a function of the message and of what the node has (spec/dispatcher-agent-node,
section 20).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from pyswarm.api import v1 as api

COMPLETE = api.AssignmentsMessage.COMPLETE


@dataclass(slots=True)
class Plan:
    """In the order to carry it out: dependencies first, so that whatever order the manager chose, tasks find them."""

    complete: bool
    """Secrets and configs that are not listed go too."""
    secrets: list[api.Secret] = field(default_factory=list)
    secrets_gone: list[str] = field(default_factory=list)
    configs: list[api.Config] = field(default_factory=list)
    configs_gone: list[str] = field(default_factory=list)
    tasks: list[api.Task] = field(default_factory=list)
    tasks_gone: list[str] = field(default_factory=list)
    volumes: list[api.VolumeAssignment] = field(default_factory=list)
    volumes_gone: list[api.VolumeAssignment] = field(default_factory=list)


def plan(message: api.AssignmentsMessage, known_tasks: Collection[str]) -> Plan:
    """Sort a message. A complete one removes every known task that it does not list, started or not; what it removes itself is ignored."""
    made = Plan(complete=message.type == COMPLETE)
    for change in message.changes:
        _sort(made, change.assignment, remove=change.action == api.AssignmentChange.REMOVE)
    if made.complete:
        listed = {task.id for task in made.tasks}
        made.tasks_gone = [task_id for task_id in known_tasks if task_id not in listed]
        made.secrets_gone, made.configs_gone = [], []
    else:
        made.tasks_gone = [task_id for task_id in made.tasks_gone if task_id in known_tasks]
    return made


def from_task_list(message: api.TasksMessage) -> api.AssignmentsMessage:
    """A list of an old manager's Tasks stream as a complete assignment."""
    complete = api.AssignmentsMessage(type=COMPLETE)
    for task in message.tasks:
        complete.changes.add(action=api.AssignmentChange.UPDATE).assignment.task.CopyFrom(task)
    return complete


def _sort(made: Plan, item: api.Assignment, *, remove: bool) -> None:
    match item.WhichOneof("item"):
        case "task":
            if remove:
                made.tasks_gone.append(item.task.id)
            else:
                made.tasks.append(item.task)
        case "secret":
            if remove:
                made.secrets_gone.append(item.secret.id)
            else:
                made.secrets.append(item.secret)
        case "config":
            if remove:
                made.configs_gone.append(item.config.id)
            else:
                made.configs.append(item.config)
        case "volume":
            (made.volumes_gone if remove else made.volumes).append(item.volume)
