"""Tasks of a node that stays away for a day are given up: a control loop over nodes that are down.

The clock starts when the node went down and survives a change of leader: what the store remembers of that moment is the node object's
last update, because a node that is down is written by nobody but users. A user's change of such a node (drain, labels) may therefore
lengthen the wait after a leader change; it never shortens it (spec/dispatcher-agent-node, section 5).
"""

from __future__ import annotations

from collections.abc import Iterable

from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.manager.changes import Update
from pyswarm.manager.loop import Decision
from pyswarm.manager.store import Action, Event, Kind, View, by, copy_of

S = api.TaskState
AWAY = frozenset({api.NodeStatus.DOWN, api.NodeStatus.DISCONNECTED})
MOST_AT_ONCE = 200


class OrphanLoop:
    """Keys are node ids; times are wall clock."""

    name = "orphans"
    quiet = 0.0
    patience = 0.0

    def __init__(self, after: float, not_before: float) -> None:
        """`after`: how long a node may stay away. `not_before`: nobody is given up earlier, so that nodes can greet a new leader first."""
        self._after = after
        self._not_before = not_before
        self._left: dict[str, float] = {}

    def on_event(self, event: Event) -> Iterable[str]:
        """A node that changed its state, or vanished."""
        if event.kind is not Kind.NODE or not isinstance(event.obj, api.Node):
            return
        node = event.obj
        if event.action is Action.REMOVE or not is_away(node):
            self._left.pop(node.id, None)
        elif node.id in self._left:
            return
        else:
            self._left[node.id] = away_since(node)
        yield node.id

    def everything(self, view: View) -> Iterable[str]:
        """All nodes that are away."""
        self._left = {node.id: away_since(node) for node in view.nodes if is_away(node)}
        return list(self._left)

    def decide(self, view: View, key: str, now: float) -> Decision:
        """Wait for the day to pass, then give up what the node may still be running."""
        node = view.nodes.get(key)
        left = self._left.get(key)
        if node is None or left is None or not is_away(node):
            return Decision()
        due = max(left + self._after, self._not_before)
        if now < due:
            return Decision(wake=due)
        lost = [task for task in view.tasks.find(by.node(key)) if S.ASSIGNED <= task.status.state <= S.RUNNING]
        return Decision(changes=[Update(_orphaned(task)) for task in lost[:MOST_AT_ONCE]], again=len(lost) > MOST_AT_ONCE)


def is_away(node: api.Node) -> bool:
    """Its agent does not answer, and its tasks are given up unless it comes back."""
    return node.status.state in AWAY


def away_since(node: api.Node) -> float:
    """When a node that is away went, in seconds, as far as the store remembers."""
    return times.seconds_of(node.meta.updated_at)


def _orphaned(task: api.Task) -> api.Task:
    changed = copy_of(task)
    changed.status.state = S.ORPHANED
    return changed
