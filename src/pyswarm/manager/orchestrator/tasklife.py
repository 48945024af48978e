"""Who may move a task's observed state where, and what never changes (spec/orchestration, sections 2.2 and 2.3).

Tables and pure checks. What the control loops write is checked before it is written (`manager.changes`); agents' reports never move a
state back (`dispatcher.statuses`). The test harnesses check every commit.
"""

from __future__ import annotations

import enum
from typing import TypeAlias

from pyswarm.api import v1 as api

S = api.TaskState
State: TypeAlias = api.TaskState.ValueType


class Owner(enum.StrEnum):
    """A component that writes observed states."""

    ORCHESTRATOR = "orchestrator"
    ALLOCATOR = "allocator"
    SCHEDULER = "scheduler"
    AGENT = "agent"
    ENFORCER = "enforcer"
    DISPATCHER = "dispatcher"
    CONTROL = "control"


UP = (S.NEW, S.PENDING, S.ASSIGNED, S.ACCEPTED, S.PREPARING, S.READY, S.STARTING, S.RUNNING)
OBSERVED = (*UP, S.COMPLETE, S.SHUTDOWN, S.FAILED, S.REJECTED, S.ORPHANED)
_AGENTS = UP[UP.index(S.ASSIGNED) :]
_BEFORE_START = _AGENTS[: _AGENTS.index(S.STARTING)]

_Pairs: TypeAlias = frozenset[tuple[State | None, State]]
TRANSITIONS: dict[Owner, _Pairs] = {
    Owner.ORCHESTRATOR: frozenset({(None, S.NEW)}),
    Owner.ALLOCATOR: frozenset({(S.NEW, S.PENDING)}),
    Owner.SCHEDULER: frozenset({(S.PENDING, S.ASSIGNED), (S.PENDING, S.SHUTDOWN)}),
    Owner.AGENT: frozenset(
        {(a, b) for i, a in enumerate(_AGENTS) for b in _AGENTS[i + 1 :]}
        | {(a, S.SHUTDOWN) for a in _AGENTS}
        | {(a, S.REJECTED) for a in _BEFORE_START}
        | {(a, b) for a in _AGENTS for b in (S.COMPLETE, S.FAILED)}
    ),
    Owner.ENFORCER: frozenset((a, S.REJECTED) for a in UP),
    Owner.DISPATCHER: frozenset((a, S.ORPHANED) for a in _AGENTS),
    Owner.CONTROL: frozenset((a, S.ORPHANED) for a in UP),
}
"""Pairs (from, to); None is no record yet. The agent's steps may be skipped over: reports are collected, and only the last one counts.

Skipping is why an agent may seem to go from ASSIGNED to COMPLETE or FAILED. REMOVE is wanted of tasks, never observed.
"""


def owners(before: State | None, after: State) -> frozenset[Owner]:
    """Who may make this transition; empty when nobody may."""
    return frozenset(owner for owner, pairs in TRANSITIONS.items() if (before, after) in pairs)


class IllegalStep(Exception):
    """A control loop wants something that no task may do: an error of ours, which must not reach the log."""


def check(old: api.Task | None, new: api.Task) -> None:
    """Raises IllegalStep, naming the task and all that is wrong, when the record must not be written over the older one.

    What was wrong with that already, as another program may have left it, does not keep anybody from ending the task.
    """
    if (found := violations(old, new)) and old is not None:
        known = violations(None, old)
        found = [wrong for wrong in found if wrong not in known]
    if found:
        raise IllegalStep(f"task {new.id} {', '.join(found)}")


def violations(old: api.Task | None, new: api.Task) -> list[str]:
    """What is wrong with a record, or with the step from an older one; empty when nothing is. One sentence each."""
    found: list[str] = []
    state = new.status.state
    if state not in OBSERVED:
        found.append(f"{S.Name(state)} is observed")
    if S.ASSIGNED <= state <= S.RUNNING and not new.node_id:
        found.append(f"{S.Name(state)} without a node")
    if old is None:
        return found
    before = old.status.state
    if state != before and not owners(before, state):
        found.append(f"moved from {S.Name(before)} to {S.Name(state)}")
    if new.desired_state < old.desired_state:
        found.append(f"desired state fell from {S.Name(old.desired_state)} to {S.Name(new.desired_state)}")
    if (new.service_id, new.slot) != (old.service_id, old.slot):
        found.append("changed its service or slot")
    if old.HasField("job_iteration") != new.HasField("job_iteration") or old.job_iteration.index != new.job_iteration.index:
        found.append("changed its job iteration")
    if old.node_id and new.node_id != old.node_id:
        found.append("changed its node")
    return found
