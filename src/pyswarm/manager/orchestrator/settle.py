"""One slot: replace what died, let go what waits, end what is double (spec/orchestration, sections 9 and 10.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pyswarm.api import v1 as api
from pyswarm.api.tasks import goal_of
from pyswarm.manager.changes import Change, Create
from pyswarm.manager.orchestrator import restart
from pyswarm.manager.orchestrator.release import release_at
from pyswarm.manager.orchestrator.rolling import Config
from pyswarm.manager.orchestrator.situation import Situation
from pyswarm.manager.orchestrator.slots import Slot
from pyswarm.manager.orchestrator.tasks import by_creation, want

S = api.TaskState


@dataclass(slots=True)
class Outcome:
    """What a slot needs now, and when to look again; `wake` None when only events matter."""

    changes: list[Change] = field(default_factory=list)
    wake: float | None = None

    def wait_until(self, at: float) -> None:
        """Look again at this moment at the latest."""
        self.wake = at if self.wake is None else min(self.wake, at)


def settle(situation: Situation, slot: Slot, *, replace: bool = True) -> Outcome:
    """Everything one slot needs apart from scaling and from starting its update.

    With `replace` False, what died gets no successor: the place may have no new tasks now (a paused node of a global service).
    """
    outcome = Outcome()
    dead: list[api.Task] = []
    alive: list[api.Task] = []
    for task in slot.runnable:
        over = task.status.state > S.RUNNING or situation.is_stranded(task)
        if over and not _held(situation, slot, task, outcome):
            dead.append(task)
        else:
            alive.append(task)
    for task in dead:
        outcome.changes += want(task, S.SHUTDOWN)
    if dead and replace:
        outcome.changes += _replacement(situation, slot, dead, alive)
    alive = _end_doubles(situation, alive, outcome)
    if outcome.changes:
        return outcome  # they decide when the others may start: looked at again with their events
    for task in alive:
        if task.desired_state < S.RUNNING and task.status.state <= S.RUNNING:
            _release(situation, slot, task, outcome)
    return outcome


def _held(situation: Situation, slot: Slot, task: api.Task, outcome: Outcome) -> bool:
    """A replacement that died before it was let go is dealt with only then: what cannot start must not be retried without delay."""
    if task.desired_state >= S.RUNNING:
        return False
    at = release_at(situation, slot, task)
    if at <= situation.now:
        return False
    outcome.wait_until(at)
    return True


def _replacement(situation: Situation, slot: Slot, dead: Sequence[api.Task], alive: Sequence[api.Task]) -> list[Change]:
    """A successor for the dead, unless the slot has a task that can take its place or the policy forbids it.

    The policy asked is that of the newest up-to-date task among the dead. In a start-first update an outdated task that is still alive
    is no successor to an up-to-date one, but the other way round it is.
    """
    current = [t for t in dead if not situation.is_dirty(t)]
    if any(not situation.is_dirty(t) for t in alive) or (alive and not current):
        return []
    subject = max(current or dead, key=by_creation)
    upto = [t for t in slot.tasks if by_creation(t) <= by_creation(subject)]
    if not restart.may_restart(upto, subject):
        return []
    return [Create(situation.new_task(slot.place, S.READY, after=slot.tasks))]


def _end_doubles(situation: Situation, alive: list[api.Task], outcome: Outcome) -> list[api.Task]:
    """One task to a slot: an up-to-date one if there is any; start-first a living outdated one as well until that runs. Returns who stays.

    Two outdated ones are what an update left that was overtaken in the middle by another; that one's turn may be far away, or, on a paused
    node, never come.
    """
    if len(alive) < 2:
        return alive
    current: list[api.Task] = []
    outdated: list[api.Task] = []
    for task in alive:
        (outdated if situation.is_dirty(task) else current).append(task)
    stays = sorted(current, key=lambda t: (t.status.state != S.RUNNING, t.desired_state < S.RUNNING, by_creation(t)))[:1]
    if stays:
        waits = stays[0].status.state != S.RUNNING and Config.of(situation.service).start_first
        outdated = [t for t in outdated if waits and t.status.state <= S.RUNNING]
    stays += sorted(outdated, key=_usefulness)[-1:]
    for task in alive:
        if all(task is not other for other in stays):
            outcome.changes += want(task, S.SHUTDOWN)
    return stays


def _usefulness(task: api.Task) -> tuple[bool, bool, float, str]:
    """Sort key of outdated tasks: what runs serves the users, what is newer is nearer to what they want."""
    return task.status.state == S.RUNNING, task.status.state < S.RUNNING, *by_creation(task)


def _release(situation: Situation, slot: Slot, task: api.Task, outcome: Outcome) -> None:
    at = release_at(situation, slot, task)
    if at <= situation.now:
        outcome.changes += want(task, goal_of(task))
    else:
        outcome.wait_until(at)
