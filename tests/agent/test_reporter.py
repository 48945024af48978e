"""Statuses on their way."""

from __future__ import annotations

import asyncio
import random

import pytest

from pyswarm.agent.reporter import MOST_AT_ONCE, Reporter
from pyswarm.api import v1 as api
from pyswarm.errors import NotFound, PermissionDenied, SwarmError, Unavailable
from tests.agent.fakes import FakeClient, FakeManager, S
from tests.support.clock import settle


def status(state: S.ValueType, message: str = "") -> api.TaskStatus:
    """A status."""
    return api.TaskStatus(state=state, message=message)


async def serve(reporter: Reporter, manager: FakeManager) -> BaseException | None:
    """Let the reporter send until it has nothing left or a session's error; returns the error."""
    serving = asyncio.create_task(reporter.serve(FakeClient(manager), "s"))
    await settle(200)
    serving.cancel()
    (result,) = await asyncio.gather(serving, return_exceptions=True)
    return None if isinstance(result, asyncio.CancelledError) else result


async def test_many_statuses_share_a_call() -> None:
    """What waits goes out together, at most 1024 to a call. [dispatcher trap 34]"""
    reporter, manager = Reporter(), FakeManager()
    for number in range(MOST_AT_ONCE + 5):
        reporter.report(f"t{number}", status(S.RUNNING))
    assert await serve(reporter, manager) is None
    assert [len(batch) for batch in manager.reports] == [MOST_AT_ONCE, 5]
    assert len(reporter) == 0


async def test_lower_states_do_not_replace_higher_ones() -> None:
    """A pending RUNNING survives a late STARTING; an equal state with other facts replaces it. [dispatcher 116]"""
    reporter, manager = Reporter(), FakeManager()
    reporter.report("t", status(S.RUNNING, "a"))
    reporter.report("t", status(S.STARTING))
    assert await serve(reporter, manager) is None
    reporter.report("t", status(S.RUNNING, "b"))
    reporter.report("t", status(S.RUNNING, "c"))
    assert await serve(reporter, manager) is None
    assert [(b["t"].state, b["t"].message) for b in manager.reports] == [(S.RUNNING, "a"), (S.RUNNING, "c")]


async def test_failed_call_is_repeated_in_the_next_session() -> None:
    """An error ends the session's loop; what was not delivered is sent later, unless something newer came. [dispatcher 113, 117]"""
    reporter, manager = Reporter(), FakeManager()
    manager.report_errors = [Unavailable("gone")]
    reporter.report("a", status(S.RUNNING))
    reporter.report("b", status(S.RUNNING))
    assert isinstance(await serve(reporter, manager), Unavailable)
    reporter.report("a", status(S.FAILED))
    reporter.report("b", status(S.STARTING))
    assert await serve(reporter, manager) is None
    assert [{i: s.state for i, s in b.items()} for b in manager.reports] == [{"a": S.FAILED, "b": S.RUNNING}]


async def test_cancelled_call_is_repeated() -> None:
    """A call cut off by the end of the session keeps its statuses."""
    reporter, manager = Reporter(), FakeManager()
    reporter.report("t", status(S.RUNNING))
    serving = asyncio.create_task(reporter.serve(FakeClient(manager), "s"))
    await asyncio.sleep(0)
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    assert manager.reports == []
    assert await serve(reporter, manager) is None
    assert manager.states("t") == [S.RUNNING]


async def test_not_found_counts_as_delivered() -> None:
    """What the manager does not know is as good as delivered; a lost registration ends the session instead. [dispatcher 113, trap 33]"""
    reporter, manager = Reporter(), FakeManager()
    manager.report_errors = [NotFound("task not found")]
    reporter.report("t", status(S.RUNNING))
    assert await serve(reporter, manager) is None
    assert len(reporter) == 0
    manager.report_errors = [NotFound("node not registered")]
    reporter.report("t", status(S.RUNNING))
    assert isinstance(await serve(reporter, manager), NotFound)
    assert len(reporter) == 1


async def test_one_refused_task_does_not_hold_back_the_others() -> None:
    """When a call is refused for one task, the others are delivered and that one is dropped. [dispatcher trap 24]"""
    reporter, manager = Reporter(), FakeManager()
    refusal = PermissionDenied("cannot update a task not assigned this node")
    manager.report_errors = [refusal, None, refusal, None]
    for name in "abc":
        reporter.report(name, status(S.RUNNING))
    assert await serve(reporter, manager) is None
    assert [list(b) for b in manager.reports] == [["a"], ["c"]]
    manager.report_errors = [refusal]
    reporter.report("b", status(S.RUNNING))
    assert await serve(reporter, manager) is None
    assert len(reporter) == 0


async def test_removed_tasks_are_not_reported() -> None:
    """A task taken away is not spoken of any more."""
    reporter, manager = Reporter(), FakeManager()
    reporter.report("t", status(S.RUNNING))
    reporter.forget("t")
    assert await serve(reporter, manager) is None
    assert manager.reports == []


async def test_volumes() -> None:
    """Volumes no longer in use are told until it succeeds. [dispatcher 118]"""
    reporter, manager = Reporter(), FakeManager()
    reporter.volume_unpublished("v")
    assert await serve(reporter, manager) is None
    assert manager.unpublished == ["v"]


@pytest.mark.parametrize("seed", range(5))
async def test_every_task_ends_at_its_last_status(seed: int) -> None:
    """100 tasks, four states in any order, some calls failing: all end at COMPLETE, nothing is delivered twice. [dispatcher 115]"""
    rng = random.Random(seed)
    reporter, manager = Reporter(), FakeManager()
    states = [S.ACCEPTED, S.PREPARING, S.READY, S.COMPLETE]
    events = [(f"t{n}", state) for n in range(100) for state in states]
    rng.shuffle(events)
    for task_id, state in events:
        reporter.report(task_id, status(state))
        if rng.random() < 0.1:
            errors: list[SwarmError | None] = [Unavailable("x")] if rng.random() < 0.1 else []
            manager.report_errors = errors
            await serve(reporter, manager)
    manager.report_errors = []
    await serve(reporter, manager)
    for number in range(100):
        seen = manager.states(f"t{number}")
        assert max(seen) == S.COMPLETE
        assert len(seen) == len(set(seen))
