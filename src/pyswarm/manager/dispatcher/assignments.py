"""What one Assignments stream tells its node: a function of what it has told so far and of each commit (spec/dispatcher-agent-node,
section 9).

Where the reference is known to be wrong it is not followed: dependencies are released exactly once, as soon as their last user ends,
however it ends; only what was sent is taken back; a publish entry or volume that vanishes is noticed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from pyswarm.api import v1 as api
from pyswarm.api.stable import same_task
from pyswarm.manager.store import Action, Event, View, by

S = api.TaskState
V = api.VolumePublishStatus
UPDATE, REMOVE = api.AssignmentChange.UPDATE, api.AssignmentChange.REMOVE
SECRET, CONFIG, TASK, VOLUME = api.ResourceType.SECRET, api.ResourceType.CONFIG, api.ResourceType.TASK, api.ResourceType.VOLUME
_ORDER = (SECRET, CONFIG, VOLUME, TASK)

Item: TypeAlias = api.Task | api.Secret | api.Config | api.VolumeAssignment
Key: TypeAlias = tuple[api.ResourceType.ValueType, str]


@dataclass(slots=True)
class Dependency:
    """Who uses a secret or config (ids of tasks and volumes), and whether the node has it."""

    users: set[str]
    sent: bool = False


@dataclass(slots=True)
class KnownVolume:
    """A volume's publish state towards this node, as last seen."""

    state: V.State.ValueType
    assignment: api.VolumeAssignment


class Assignments:
    """One stream's knowledge. `start` once, then `on_event` for every commit; `take` whenever a message is due."""

    def __init__(self, node_id: str) -> None:
        self._node_id = node_id
        self._tasks: dict[str, api.Task] = {}
        self._volumes: dict[str, KnownVolume] = {}
        self._dependencies: dict[Key, Dependency] = {}
        self._pending: dict[Key, tuple[api.AssignmentChange.AssignmentAction.ValueType, Item]] = {}
        self._sequence = 0

    def start(self, view: View) -> None:
        """Collect everything the node has to know."""
        for task in view.tasks.find(by.node(self._node_id)):
            self._on_task(view, task)
        for volume in view.volumes:
            self._on_volume(view, volume)

    def on_event(self, view: View, event: Event) -> bool:
        """Take note of a change; whether it changes what the node has to know. `view` is the store after the commit."""
        match event.obj:
            case api.Task() as task if event.action is Action.REMOVE:
                return self._on_task_gone(task.id)
            case api.Task() as task if event.action is Action.UPDATE:
                return self._on_task(view, task)
            case api.Volume() as volume if event.action is Action.REMOVE:
                return self._on_volume_gone(volume.id)
            case api.Volume() as volume:
                return self._on_volume(view, volume)
        # Tasks are created without a node, or long before an agent may see them; secrets and configs never change.
        return False

    def take(self) -> api.AssignmentsMessage:
        """The next message of the stream: first a complete one, then what changed since the last."""
        first = self._sequence == 0
        message = api.AssignmentsMessage(
            type=api.AssignmentsMessage.COMPLETE if first else api.AssignmentsMessage.INCREMENTAL,
            applies_to="" if first else str(self._sequence),
            results_in=str(self._sequence + 1),
        )
        for kind in _ORDER:
            for key, (action, item) in self._pending.items():
                if key[0] == kind:
                    message.changes.append(_change(action, item))
        self._pending.clear()
        self._sequence += 1
        return message

    # --- tasks

    def _on_task(self, view: View, task: api.Task) -> bool:
        state = task.status.state
        if state < S.ASSIGNED:
            return False
        known = self._tasks.get(task.id)
        self._tasks[task.id] = task
        released = state > S.RUNNING and self._release(task.id, task_dependencies(task))
        if known is not None and state > S.ASSIGNED and same_task(known, task):
            return released
        if state <= S.RUNNING:
            self._add_task_dependencies(view, task)
        self._pending[TASK, task.id] = (UPDATE, task)
        return True

    def _on_task_gone(self, task_id: str) -> bool:
        known = self._tasks.pop(task_id, None)
        if known is None:
            return False
        self._release(task_id, task_dependencies(known))
        self._pending[TASK, task_id] = (REMOVE, api.Task(id=task_id))
        return True

    # --- dependencies

    def _add_task_dependencies(self, view: View, task: api.Task) -> None:
        mounted = {(SECRET, ref.secret_id) for ref in task.spec.container.secrets}
        for key in task_dependencies(task):
            # A secret named in the container is sent again for each task that starts to use it.
            self._use(view, key, task.id, again=key in mounted)

    def _use(self, view: View, key: Key, user: str, *, again: bool = False) -> None:
        dependency = self._dependencies.setdefault(key, Dependency(set()))
        if user in dependency.users:
            return
        dependency.users.add(user)
        item = find_dependency(view, key)
        if item is not None and (again or not dependency.sent):
            self._pending[key] = (UPDATE, item)
            dependency.sent = True

    def _release(self, user: str, keys: Iterable[Key]) -> bool:
        """End the user's claim; whether anything is taken back from the node."""
        removed = False
        for key in keys:
            dependency = self._dependencies.get(key)
            if dependency is None or user not in dependency.users:
                continue
            dependency.users.discard(user)
            if dependency.users:
                continue
            del self._dependencies[key]
            if dependency.sent:
                self._pending[key] = (REMOVE, api.Secret(id=key[1]) if key[0] == SECRET else api.Config(id=key[1]))
                removed = True
        return removed

    # --- volumes

    def _on_volume(self, view: View, volume: api.Volume) -> bool:
        entry = next((e for e in volume.publish_status if e.node_id == self._node_id), None)
        if entry is None:
            return self._on_volume_gone(volume.id)
        known = self._volumes.get(volume.id)
        if entry.state == V.PENDING_PUBLISH or (known is not None and known.state == entry.state):
            return False
        assignment = _volume_assignment(volume, entry)
        if entry.state == V.PENDING_UNPUBLISH:
            return known is not None and self._forget_volume(volume.id)
        self._volumes[volume.id] = KnownVolume(entry.state, assignment)
        if entry.state == V.PUBLISHED:
            for reference in assignment.secrets:
                if not _has_driver(view, reference.secret):
                    self._use(view, (SECRET, reference.secret), volume.id)
            self._pending[VOLUME, volume.id] = (UPDATE, assignment)
        else:
            # Sent even if this stream never published it: the node may have restarted in between.
            self._pending[VOLUME, volume.id] = (REMOVE, assignment)
        return True

    def _on_volume_gone(self, volume_id: str) -> bool:
        known = self._volumes.get(volume_id)
        if known is None:
            return False
        if known.state == V.PUBLISHED:
            self._pending[VOLUME, volume_id] = (REMOVE, known.assignment)
            self._forget_volume(volume_id)
            return True
        return self._forget_volume(volume_id)

    def _forget_volume(self, volume_id: str) -> bool:
        known = self._volumes.pop(volume_id)
        return self._release(volume_id, [(SECRET, ref.secret) for ref in known.assignment.secrets])


def task_dependencies(task: api.Task) -> list[Key]:
    """Secrets and configs of a task, each once."""
    keys: list[Key] = [(r.resource_type, r.resource_id) for r in task.spec.resource_references if r.resource_type in (SECRET, CONFIG)]
    if task.spec.HasField("container"):
        keys += [(SECRET, ref.secret_id) for ref in task.spec.container.secrets]
        keys += [(CONFIG, ref.config_id) for ref in task.spec.container.configs]
    return list(dict.fromkeys(keys))


def find_dependency(view: View, key: Key) -> api.Secret | api.Config | None:
    """The object to send. A secret kept by an external driver has no value here, and no driver can be asked for it yet."""
    if key[0] == CONFIG:
        return view.configs.get(key[1])
    secret = view.secrets.get(key[1])
    return None if secret is None or secret.spec.HasField("driver") else secret


def _has_driver(view: View, secret_id: str) -> bool:
    secret = view.secrets.get(secret_id)
    return secret is not None and secret.spec.HasField("driver")


def _volume_assignment(volume: api.Volume, entry: api.VolumePublishStatus) -> api.VolumeAssignment:
    assignment = api.VolumeAssignment(
        id=volume.id,
        volume_id=volume.volume_info.volume_id,
        volume_context=volume.volume_info.volume_context,
        publish_context=entry.publish_context,
        secrets=volume.spec.secrets,
    )
    if volume.spec.HasField("driver"):
        assignment.driver.CopyFrom(volume.spec.driver)
    if volume.spec.HasField("access_mode"):
        assignment.access_mode.CopyFrom(volume.spec.access_mode)
    return assignment


def _change(action: api.AssignmentChange.AssignmentAction.ValueType, item: Item) -> api.AssignmentChange:
    change = api.AssignmentChange(action=action)
    match item:
        case api.Task():
            change.assignment.task.CopyFrom(item)
        case api.Secret():
            change.assignment.secret.CopyFrom(item)
        case api.Config():
            change.assignment.config.CopyFrom(item)
        case api.VolumeAssignment():
            change.assignment.volume.CopyFrom(item)
    return change
