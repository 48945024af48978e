"""One task: why it is where it is. Pure; whatever takes a walk over many objects is gathered before (see `walk`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.api.jobs import is_current, is_job
from pyswarm.api.private import why_pb2 as pb
from pyswarm.api.tasks import is_runnable, is_terminal, stop_grace_period, task_time
from pyswarm.manager.dispatcher.assignments import SECRET, find_dependency, task_dependencies
from pyswarm.manager.dispatcher.orphans import away_since, is_away
from pyswarm.manager.orchestrator import nodes, restart
from pyswarm.manager.orchestrator.global_ import Obstacle, obstacle
from pyswarm.manager.orchestrator.jobslots import Progress, progress_of
from pyswarm.manager.orchestrator.release import Hold, hold
from pyswarm.manager.orchestrator.rolling import rolling_back
from pyswarm.manager.orchestrator.situation import Situation
from pyswarm.manager.orchestrator.slots import Slot, is_global
from pyswarm.manager.orchestrator.tasks import by_creation, created
from pyswarm.manager.orchestrator.update import blamed
from pyswarm.manager.why.nodes import Survey
from pyswarm.manager.why.updates import PAUSED, Standing

S = api.TaskState
_UNHAPPY = frozenset({S.COMPLETE, S.FAILED, S.REJECTED, S.ORPHANED})
_FIELD_OF = {type(getattr(pb.Explanation(), f.name)): f.name for f in pb.Explanation.DESCRIPTOR.oneofs_by_name["reason"].fields}
_NO_IMAGE = ("no such image", "pull access denied", "manifest unknown", "manifest for ", "repository does not exist", "error pulling image")
"""How engines say, in lower case, that they cannot have an image."""

_GIVES_UP = {
    None: pb.Failed.NO,
    restart.Forbids.CONDITION: pb.Failed.CONDITION,
    restart.Forbids.ATTEMPTS: pb.Failed.MAX_ATTEMPTS,
    restart.Forbids.SUCCESS: pb.Failed.SUCCESS,
}
Reason: TypeAlias = Message
"""One of the messages that `Explanation.reason` may be."""


@dataclass(frozen=True, slots=True)
class Case:
    """A task in its place, and the moment. `service` is None when the task has none, or it is gone."""

    situation: Situation
    service: api.Service | None
    slot: Slot
    task: api.Task
    orphan_after: float
    """Seconds after which tasks on a node that stays away are given up."""
    survey: Survey | None = None
    standing: Standing | None = None

    @property
    def node(self) -> api.Node | None:
        """The task's node, if it has one and that exists."""
        return self.situation.node(self.task.node_id) if self.task.node_id else None

    @property
    def service_gone(self) -> bool:
        """It had a service."""
        return bool(self.task.service_id) and self.service is None

    @property
    def wants_survey(self) -> bool:
        """It waits for a node, so the nodes have to be asked."""
        waits = self.task.status.state == S.PENDING and is_runnable(self.task)
        return waits and not self.service_gone and _on_bad_node(self) is None

    @property
    def wants_standing(self) -> bool:
        """It runs an outdated version, so one has to know how far the update is."""
        running = self.task.status.state == S.RUNNING and is_runnable(self.task)
        return running and self.outdated and _on_bad_node(self) is None

    @property
    def outdated(self) -> bool:
        """An update has to replace it."""
        return self.service is not None and not self.task.HasField("job_iteration") and self.situation.is_dirty(self.task)

    @property
    def obstacle(self) -> Obstacle | None:
        """Where its place is a node: what keeps new tasks from there at present."""
        return obstacle(self.service, self.node) if self.service is not None and is_global(self.service) else None

    @property
    def earlier(self) -> list[api.Task]:
        """The records of its place up to its own, oldest first."""
        return [t for t in self.slot.tasks if by_creation(t) <= by_creation(self.task)]

    @property
    def successor(self) -> str:
        """Id of the newest record of its place, if that is a later one."""
        later = [t for t in self.slot.tasks if by_creation(t) > by_creation(self.task)]
        return later[-1].id if later else ""


def explanation(case: Case) -> pb.Explanation:
    """The task with its one reason."""
    task, status = case.task, case.task.status
    name = case.service.spec.annotations.name if case.service is not None else task.service_annotations.name
    told = pb.Explanation(
        task_id=task.id,
        service_id=task.service_id,
        service_name=name,
        slot=task.slot,
        node_id=task.node_id,
        desired_state=task.desired_state,
        state=status.state,
        status_message=status.message,
        status_err=status.err,
        place_is_node=is_global(case.service) if case.service is not None else not task.slot,
    )
    reason = _to_run(case) if is_runnable(task) else _to_stop(case)
    field = getattr(told, _FIELD_OF[type(reason)])
    field.SetInParent()
    field.CopyFrom(reason)
    return told


def is_as_wanted(told: pb.Explanation) -> bool:
    """Nothing is to be said about it."""
    return told.WhichOneof("reason") == "as_wanted"


# --- a task that is meant to run


def _to_run(case: Case) -> Reason:
    task, state = case.task, case.task.status.state
    if case.service_gone:
        return _service_gone(case)
    if is_terminal(task):
        return _ended(case)
    if (reason := _on_bad_node(case)) is not None:
        return reason
    if state == S.RUNNING:
        return _running(case)
    if state < S.PENDING:
        return pb.AwaitsAllocation(since=_since(case), networks=[n.target for n in task.spec.networks], lacking=task.status.err)
    if state == S.PENDING:
        return _pending(case)
    if (missing := _missing(case)) is not None:
        return missing
    if state == S.READY and task.desired_state < S.RUNNING:
        held = hold(case.situation, case.slot, task)
        if held.until > case.situation.now:
            return _held(case, held)
    return _starting(case)


def _on_bad_node(case: Case) -> Reason | None:
    """Its node is away, or wanted empty. While others only wait to hear from a node, what runs there counts as running."""
    task, node = case.task, case.node
    if not task.node_id or is_terminal(task):
        return None
    silent = node is None or node.status.state != api.NodeStatus.READY
    if nodes.is_down(node) or (silent and S.ASSIGNED <= task.status.state < S.RUNNING):
        return _away(case)
    return pb.NodeDrained(node_id=task.node_id) if nodes.is_drained(node) else None


def _pending(case: Case) -> Reason:
    found = case.survey or Survey()
    if found.suitable:
        return pb.AwaitsScheduler(suitable=found.suitable)
    return pb.NoSuitableNode(nodes=found.nodes, refusals=found.refusals(), reservations=case.task.spec.resources.reservations)


def _running(case: Case) -> Reason:
    if case.service is None or not case.outdated:
        return pb.AsWanted(since=_since(case))
    status, back = case.service.update_status, rolling_back(case.service)
    if case.obstacle is Obstacle.PAUSED:
        return pb.NodePaused(node_id=case.task.node_id)
    if _update_is_off(case.service):
        failed = case.standing.failures if case.standing is not None else 0
        return pb.UpdatePaused(rollback=back, message=status.message, failed_task=blamed(status), failures=failed)
    waits = pb.UpdateWaits(rollback=back, replaced_by=_runnable_successor(case))
    if (numbers := case.standing) is not None:
        waits.parallelism, waits.pending, waits.busy = numbers.config.parallelism, numbers.pending, numbers.busy
        if numbers.free_at is not None:
            waits.delay_until.CopyFrom(times.timestamp(numbers.free_at))
    return waits


def _update_is_off(service: api.Service | None) -> bool:
    """There is one, and it does not go on."""
    return service is not None and service.HasField("update_status") and service.update_status.state in PAUSED


def _runnable_successor(case: Case) -> str:
    later = [t for t in case.slot.runnable if by_creation(t) > by_creation(case.task)]
    return later[-1].id if later else ""


def _held(case: Case, held: Hold) -> Reason:
    if held.stopping is not None and held.patience >= held.delay:
        old = held.stopping
        return pb.AwaitsPredecessor(task_id=old.id, state=old.status.state, node_id=old.node_id, until=times.timestamp(held.patience))
    before = case.earlier[-2] if len(case.earlier) > 1 else None
    return pb.AwaitsDelay(
        until=times.timestamp(held.delay),
        attempt=restart.used(case.earlier, case.task),
        max_attempts=case.task.spec.restart.max_attempts,
        predecessor=before.id if before is not None else "",
        error=before.status.err if before is not None else "",
        exit_code=before.status.container.exit_code if before is not None else 0,
    )


def _missing(case: Case) -> Reason | None:
    missing = pb.DependencyMissing()
    for key in task_dependencies(case.task):
        if find_dependency(case.situation.view, key) is None:
            (missing.secrets if key[0] == SECRET else missing.configs).append(key[1])
    return missing if missing.secrets or missing.configs else None


def _starting(case: Case) -> Reason:
    task = case.task
    if task.status.err and _is_about_image(task):
        return pb.ImageUnavailable(image=task.spec.container.image, error=task.status.err)
    return pb.Starting(since=_since(case), error=task.status.err)


# --- a task that is not


def _to_stop(case: Case) -> Reason:
    task = case.task
    if is_terminal(task):
        return _over(case)
    if task.node_id and (case.node is None or case.node.status.state != api.NodeStatus.READY):
        return _away(case)
    if case.service_gone:
        return _service_gone(case)
    stopping = pb.Stopping(since=_told_since(task), replaced_by=case.successor)
    stopping.grace.CopyFrom(times.duration(_grace(task)))
    return stopping


def _over(case: Case) -> Reason:
    task, state = case.task, case.task.status.state
    if not case.successor and task.desired_state < S.REMOVE and state != S.COMPLETE:
        if case.obstacle is Obstacle.PAUSED:
            return pb.NodePaused(node_id=task.node_id)
        if case.obstacle is Obstacle.DRAINED:
            return pb.NodeDrained(node_id=task.node_id)
    if state == S.COMPLETE:
        enough = restart.forbidden(case.earlier, task) in {restart.Forbids.SUCCESS, restart.Forbids.CONDITION}
        done = enough or task.desired_state in {S.COMPLETE, S.REMOVE}
    else:
        done = state not in _UNHAPPY and not _gave_way(case)
    return pb.AsWanted(since=_since(case), replaced_by=case.successor) if done else _ended(case)


def _gave_way(case: Case) -> bool:
    """It was stopped, by a drain for example, and although its place is to have a task its policy allows no other."""
    task, service = case.task, case.service
    if service is None or case.successor or task.status.state != S.SHUTDOWN or task.desired_state >= S.REMOVE:
        return False
    if case.obstacle is not None:
        return False
    if is_job(service.spec):
        return is_current(service, task) and progress_of(case.slot) is Progress.SPENT
    return restart.forbidden(case.earlier, task) is not None


def _ended(case: Case) -> Reason:
    """It ended, whatever is going to be done about it."""
    failed = _failed(case)
    if case.task.status.state == S.REJECTED and _is_about_image(case.task):
        return pb.ImageUnavailable(image=case.task.spec.container.image, error=failed.error, failed=failed)
    return failed


def _failed(case: Case) -> pb.Failed:
    task, earlier = case.task, case.earlier
    run = restart.run(earlier, task)
    failed = pb.Failed(
        error=task.status.err,
        exit_code=task.status.container.exit_code,
        at=_since(case),
        times=_trailing(run),
        gives_up=_GIVES_UP[None if case.successor or case.service is None else restart.forbidden(earlier, task)],
        max_attempts=task.spec.restart.max_attempts,
        replaced_by=case.successor,
    )
    if len(run) > 1:
        failed.last_restart.CopyFrom(times.timestamp(created(run[-1])))
    if is_runnable(task) and task.desired_state < S.RUNNING and not case.service_gone:
        # It died before it was let go; what comes next waits for the same moment.
        until = hold(case.situation, case.slot, task).until
        if until > case.situation.now:
            failed.restart_at.CopyFrom(times.timestamp(until))
    return failed


def _trailing(run: Sequence[api.Task]) -> int:
    """How many records at the end of the run ended by themselves."""
    count = 0
    for record in reversed(run):
        if record.status.state not in _UNHAPPY:
            break
        count += 1
    return count


def _service_gone(case: Case) -> Reason:
    gone = pb.ServiceGone(since=_told_since(case.task))
    gone.grace.CopyFrom(times.duration(_grace(case.task)))
    return gone


# --- both


def _away(case: Case) -> Reason:
    node, away = case.node, pb.NodeAway(node_id=case.task.node_id, replaced_by=case.successor)
    if node is None:
        return away
    away.state, away.message = node.status.state, node.status.message
    away.since.CopyFrom(times.timestamp(away_since(node)))
    if is_away(node):
        away.given_up_at.CopyFrom(times.timestamp(away_since(node) + case.orphan_after))
    return away


def _since(case: Case) -> Timestamp:
    return times.timestamp(task_time(case.task))


def _told_since(task: api.Task) -> Timestamp:
    """Its record was last written when it was told to stop: an agent that stops a task says nothing until it has."""
    return times.timestamp(times.seconds_of(task.meta.updated_at))


def _grace(task: api.Task) -> float:
    """Nothing has to be stopped of a task that no agent has."""
    return stop_grace_period(task.spec.container) if task.status.state >= S.ASSIGNED else 0.0


def _is_about_image(task: api.Task) -> bool:
    text = task.status.err.lower()
    return task.status.state != S.FAILED and any(words in text for words in _NO_IMAGE)
