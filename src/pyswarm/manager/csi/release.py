"""Takes volumes back from nodes where no task uses them any more (spec/scheduling-and-allocation, section 20.4). Pure.

A loop of its own, apart from the scheduler: who uses a volume stands in the tasks, and the scheduler writes a task and its volume's entry
for the node in one transaction, so that the two can never be seen apart.
"""

from __future__ import annotations

from collections.abc import Iterable

from pyswarm.api import v1 as api
from pyswarm.manager.changes import Update
from pyswarm.manager.loop import Decision
from pyswarm.manager.store import Action, Event, View, by, copy_of

P = api.VolumePublishStatus
S = api.TaskState


def uses(task: api.Task) -> bool:
    """Whether a task holds its volumes: it was given to a node and has not ended."""
    return bool(task.node_id) and S.ASSIGNED <= task.status.state <= S.RUNNING


class VolumeRelease:
    """Implements `Loop[str]`; keys are volume ids.

    It waits a little longer than the scheduler: a volume that the next task on the same node takes over at once need not be mounted anew.
    """

    name = "volume release"
    quiet = 0.3
    patience = 3.0

    def __init__(self) -> None:
        self._of_node: dict[str, dict[str, None]] = {}

    def on_event(self, event: Event) -> Iterable[str]:
        """A volume that changed; the volumes of a task that ended; the volumes that a removed node had."""
        match event.obj:
            case api.Volume() as volume:
                self._remember(volume)
                return (volume.id,) if event.action is not Action.REMOVE and volume.publish_status else ()
            case api.Task() as task if task.volumes and (event.action is Action.REMOVE or not uses(task)):
                return [volume.id for volume in task.volumes]
            case api.Node() as node if event.action is Action.REMOVE:
                return self._of_node.pop(node.id, ())
        return ()

    def everything(self, view: View) -> Iterable[str]:
        """All volumes that some node has."""
        self._of_node.clear()
        for volume in view.volumes:
            self._remember(volume)
        return [volume.id for volume in view.volumes if volume.publish_status]

    def decide(self, view: View, key: str, now: float) -> Decision:  # noqa: ARG002 - nothing here depends on time
        """The volume with the entries moved on of those nodes that have no use for it."""
        volume = view.volumes.get(key)
        if volume is None:
            return Decision()
        using = {task.node_id for task in view.tasks.find(by.volume(key)) if uses(task)}
        changed = copy_of(volume)
        for entry in changed.publish_status:
            entry.state = _next(entry, used=entry.node_id in using, there=view.nodes.get(entry.node_id) is not None)
        return Decision([Update(changed)]) if changed != volume else Decision()

    def _remember(self, volume: api.Volume) -> None:
        for entry in volume.publish_status:
            self._of_node.setdefault(entry.node_id, {})[volume.id] = None


def _next(entry: api.VolumePublishStatus, *, used: bool, there: bool) -> P.State.ValueType:
    """The state that an entry belongs in."""
    if used:
        return entry.state
    if entry.state == P.PENDING_PUBLISH:
        # The node never heard of it. The plugin may have begun, and is asked to take it back, or a volume that cannot be published would
        # be held for ever by tasks that are gone.
        return P.PENDING_UNPUBLISH
    if not there:
        # Removed from the cluster: nobody is left to unmount it.
        return P.PENDING_UNPUBLISH
    return P.PENDING_NODE_UNPUBLISH if entry.state == P.PUBLISHED else entry.state
