"""When a replacement that was made with desired state READY may start (spec/orchestration, sections 9.2 and 10.4).

SwarmKit's leader remembers this with the replacement; here it is read off the slot's records. The predecessor is the record made before:

- it still is meant to run: a start-first update, start at once;
- it had ended by itself when the replacement was made: a restart, wait for the policy's delay, unless the policy forbids restarts (then an
  update made the replacement) or the node is drained;
- it was alive then: an update, or an eviction; only the eviction from a node that went down has to wait for the delay, recognised by the
  node and by the spec versions being equal;
- there is no record of it any more: the delay in the replacement's own spec.

Besides, at most STOP_WAIT seconds, for every earlier task of the slot that still has to stop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pyswarm.api import v1 as api
from pyswarm.api.tasks import is_runnable, task_time
from pyswarm.manager.orchestrator import nodes, restart
from pyswarm.manager.orchestrator.situation import Situation
from pyswarm.manager.orchestrator.slots import Slot
from pyswarm.manager.orchestrator.tasks import by_creation, created

S = api.TaskState
STOP_WAIT = 60.0
_ENDED_BY_ITSELF = frozenset({S.COMPLETE, S.FAILED, S.REJECTED, S.ORPHANED})


def due(start: float, span: float, now: float) -> float:
    """The moment `span` seconds after `start`.

    A start further ahead than the span itself comes from a clock that was ahead of this leader's: then at once, not an hour later.
    """
    return start + span if start <= now + span else now


@dataclass(frozen=True, slots=True)
class Hold:
    """What a READY task waits for. Moments in seconds since the epoch, not after `now` when they are over."""

    delay: float
    """When the policy's delay ends."""
    stopping: api.Task | None = None
    """An earlier task of the slot that still has to stop."""
    patience: float = 0.0
    """For that one nobody waits any longer than this."""

    @property
    def until(self) -> float:
        """When it may start at the latest."""
        return max(self.delay, self.patience)


def hold(situation: Situation, slot: Slot, task: api.Task) -> Hold:
    """What keeps a READY task from starting."""
    now = situation.now
    made = _made(task)
    earlier = [t for t in slot.tasks if by_creation(t) < by_creation(task)]
    if not earlier:
        return Hold(due(made, restart.delay(task.spec), now))
    if is_runnable(earlier[-1]):
        return Hold(now)
    delay = due(made, _delay(situation, earlier, task), now)
    stopping = next((t for t in reversed(earlier) if _has_to_stop(situation, t)), None)
    return Hold(delay) if stopping is None else Hold(delay, stopping, due(made, STOP_WAIT, now))


def release_at(situation: Situation, slot: Slot, task: api.Task) -> float:
    """The moment at which a READY task may start; not after `now` when it may already. Seconds since the epoch."""
    return hold(situation, slot, task).until


def _made(task: api.Task) -> float:
    """When it was made, by the clock of who leads: its creation is later than that if earlier records are from a clock that was ahead.

    Its status was written since; without this, tasks that fail would be restarted without delay until the clock has caught up.
    """
    return min(created(task), task_time(task) or created(task))


def _delay(situation: Situation, earlier: Sequence[api.Task], task: api.Task) -> float:
    predecessor = earlier[-1]
    node = situation.node(predecessor.node_id) if predecessor.node_id else None
    if nodes.is_drained(node):
        return 0.0
    if _had_ended(predecessor, task):
        return restart.delay(predecessor.spec) if is_restart(earlier, task) else 0.0
    lost = bool(predecessor.node_id) and nodes.is_down(node)
    same = predecessor.spec_version.index == task.spec_version.index
    return restart.delay(predecessor.spec) if lost and same else 0.0


def is_restart(earlier: Sequence[api.Task], task: api.Task) -> bool:
    """Whether the restart of an ended task made this one, and not an update; `earlier` are the records before it, oldest first."""
    return _had_ended(earlier[-1], task) and restart.may_restart(earlier, earlier[-1])


def _had_ended(predecessor: api.Task, task: api.Task) -> bool:
    """Whether it was over, and not because the manager asked, when the other was made."""
    return predecessor.status.state in _ENDED_BY_ITSELF and task_time(predecessor) <= created(task)


def _has_to_stop(situation: Situation, task: api.Task) -> bool:
    """An agent has it and will report its end. What was never assigned counts as stopped, and so does what is on a lost node."""
    alive = S.ASSIGNED <= task.status.state <= S.RUNNING and not is_runnable(task)
    return alive and bool(task.node_id) and not nodes.is_down(situation.node(task.node_id))
