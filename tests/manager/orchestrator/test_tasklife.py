"""The table of observed transitions."""

from __future__ import annotations

import itertools

import pytest

from pyswarm.api import v1 as api
from pyswarm.manager.changes import Create, Update, apply
from pyswarm.manager.orchestrator.tasklife import OBSERVED, TRANSITIONS, IllegalStep, Owner, check, owners, violations
from pyswarm.manager.store import Tx
from tests.support.loops import new_store
from tests.support.swarm import task

S = api.TaskState


def test_no_state_falls() -> None:
    """Every pair in the table goes up, and none ends in REMOVE. [orchestration 13]"""
    for before, after in itertools.chain.from_iterable(TRANSITIONS.values()):
        assert after != S.REMOVE
        assert before is None or before < after


def test_all_pairs_of_states() -> None:
    """Every state but NEW is reached from some state; nothing leaves a terminal one."""
    for after in OBSERVED[1:]:
        assert any(owners(before, after) for before in OBSERVED)
    for before, after in itertools.product(OBSERVED, OBSERVED):
        if before > S.RUNNING:
            assert not owners(before, after)


@pytest.mark.parametrize(
    ("before", "after", "who"),
    [
        (None, S.NEW, {Owner.ORCHESTRATOR}),
        (S.NEW, S.PENDING, {Owner.ALLOCATOR}),
        (S.PENDING, S.ASSIGNED, {Owner.SCHEDULER}),
        (S.PENDING, S.RUNNING, set()),
        (S.RUNNING, S.COMPLETE, {Owner.AGENT}),
        (S.RUNNING, S.REJECTED, {Owner.ENFORCER}),
        (S.PREPARING, S.REJECTED, {Owner.AGENT, Owner.ENFORCER}),
        (S.RUNNING, S.ORPHANED, {Owner.DISPATCHER, Owner.CONTROL}),
        (S.PENDING, S.ORPHANED, {Owner.CONTROL}),
        (S.FAILED, S.RUNNING, set()),
    ],
)
def test_owners(before: api.TaskState.ValueType | None, after: api.TaskState.ValueType, who: set[Owner]) -> None:
    """Each transition belongs to the components the specification names."""
    assert owners(before, after) == who


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        (task("t"), task("t", state=S.READY), "moved from RUNNING to READY"),
        (task("t", desired=S.SHUTDOWN), task("t"), "desired state fell"),
        (task("t", 1), task("t", 2), "changed its service or slot"),
        (task("t", state=S.ASSIGNED, on="a"), task("t", state=S.ASSIGNED, on="b"), "changed its node"),
        (None, task("t", state=S.REMOVE), "REMOVE is observed"),
        (None, task("t", state=S.RUNNING), "without a node"),
    ],
)
def test_violations_are_named(old: api.Task | None, new: api.Task, what: str) -> None:
    """A wrong step is described."""
    assert any(what in sentence for sentence in violations(old, new))


def test_right_steps_pass() -> None:
    """The usual life has nothing wrong with it."""
    life = [task("t", state=s, on="n1" if s >= S.ASSIGNED else "") for s in OBSERVED if s <= S.COMPLETE]
    assert all(violations(a, b) == [] for a, b in itertools.pairwise(life))


def test_wrong_steps_are_not_written() -> None:
    """Whatever a control loop decides, a wrong step does not get into a transaction; one that ends what was wrong before does."""
    store = new_store(task("t", state=S.RUNNING, on="n1"), task("odd", 2))
    for wrong in (
        Update(task("t", state=S.READY, on="n1")),
        Update(task("t", state=S.RUNNING, on="n2")),
        Create(task("new", state=S.REMOVE)),
    ):
        tx = Tx(store, 1, 0.0)
        with pytest.raises(IllegalStep, match=f"task {wrong.obj.id} "):
            apply(tx, [wrong])
        assert not tx.changes
    check(task("odd", 2), task("odd", 2, desired=S.SHUTDOWN))
