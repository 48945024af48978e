"""What a job's place has come to, and what it needs (spec/orchestration, sections 8.3 to 8.5).

A place is a slot of a replicated job, or a node of a global one. Only the records of the job's present iteration count in it, and they are
all that its progress is read from: the reaper keeps them as long as they are needed (see `needed`).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Sequence

from pyswarm.api import v1 as api
from pyswarm.api.jobs import is_current
from pyswarm.manager import constraints
from pyswarm.manager.changes import Change, Create, Delete
from pyswarm.manager.orchestrator import nodes, restart
from pyswarm.manager.orchestrator.settle import Outcome, settle
from pyswarm.manager.orchestrator.situation import Situation
from pyswarm.manager.orchestrator.slots import Slot
from pyswarm.manager.orchestrator.tasks import want
from pyswarm.manager.store import Kind

S = api.TaskState


class Progress(enum.Enum):
    """How far a place has come in this iteration."""

    OPEN = "nothing is under way, and something may begin"
    BUSY = "a task is meant to run, or has failed and is still to be handled"
    COMPLETE = "a task was completed"
    SPENT = "the last task failed and its policy allows no other"


def present(service: api.Service, slot: Slot) -> Slot:
    """The place with the records of the job's present iteration only; the very same when it has no others."""
    tasks = [t for t in slot.tasks if is_current(service, t)]
    return slot if len(tasks) == len(slot.tasks) else Slot(slot.place, tasks)


def progress_of(slot: Slot) -> Progress:
    """How far a place (see `present`) has come."""
    if S.COMPLETE in [t.status.state for t in slot.tasks]:
        return Progress.COMPLETE
    if slot.runnable:
        return Progress.BUSY
    if not slot.tasks or restart.may_restart(slot.tasks, slot.tasks[-1]):
        return Progress.OPEN
    return Progress.SPENT


def needed(service: api.Service, tasks: Sequence[api.Task]) -> set[str]:
    """Ids of those of a place's records, oldest first, from which the job's progress is read: completed ones, and the last."""
    current = [t for t in tasks if is_current(service, t)]
    return {t.id for t in current if t is current[-1] or t.status.state == S.COMPLETE}


def settle_slot(situation: Situation, slot: Slot, *, replace: bool = True) -> Outcome:
    """Restarts, delayed starts and doubles of one place (see `present`). Where one task was completed, no other need run."""
    if progress_of(slot) is Progress.COMPLETE:
        return Outcome(list(stop(slot.runnable)))
    return settle(situation, slot, replace=replace)


def settle_node(situation: Situation, slot: Slot) -> Outcome:
    """What one node, with all its records, needs of a global job.

    Records of earlier iterations go, completed ones too, and so does whatever is left of a node that is gone. A live task that only
    violates the constraints is left to the constraint enforcer.
    """
    node = situation.node(str(slot.place))
    if node is None:
        return Outcome([Delete(Kind.TASK, t.id) for t in slot.tasks])
    service, current = situation.service, present(situation.service, slot)
    old = [c for t in slot.tasks if not is_current(service, t) for c in want(t, S.REMOVE)]
    outcome = _settle_current(situation, current, node)
    if progress_of(current) is Progress.OPEN and _is_candidate(situation, node):
        outcome.changes.append(Create(situation.new_task(slot.place, S.COMPLETE, after=slot.tasks)))
    outcome.changes += old
    return outcome


def _settle_current(situation: Situation, slot: Slot, node: api.Node) -> Outcome:
    if nodes.is_invalid(node):
        return Outcome(list(stop(slot.runnable)))
    if not _fits(situation, node):
        return Outcome(list(stop(t for t in slot.runnable if t.status.state > S.RUNNING)))
    return settle_slot(situation, slot, replace=node.spec.availability == api.NodeSpec.ACTIVE)


def _is_candidate(situation: Situation, node: api.Node) -> bool:
    """A new task may come to the node: it is at hand, wanted, and fits."""
    ready = node.status.state == api.NodeStatus.READY and node.spec.availability == api.NodeSpec.ACTIVE
    return ready and _fits(situation, node)


def _fits(situation: Situation, node: api.Node) -> bool:
    return constraints.node_matches(node, situation.service.spec.task.placement)


def stop(tasks: Iterable[api.Task]) -> Iterator[Change]:
    """Shut them down."""
    for task in tasks:
        yield from want(task, S.SHUTDOWN)
