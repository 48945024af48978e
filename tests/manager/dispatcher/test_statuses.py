"""Reported statuses: which are stored, and when."""

from __future__ import annotations

import asyncio

import pytest

from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.errors import InvalidArgument, PermissionDenied
from pyswarm.manager.dispatcher import statuses
from pyswarm.manager.store import Commit, by
from tests.manager.dispatcher.support import Harness, S, create, task
from tests.support.clock import settle
from tests.support.log import MemoryLog

V = api.VolumePublishStatus


def status(state: S.ValueType, message: str = "") -> api.TaskStatus:
    """A report."""
    return api.TaskStatus(state=state, message=message, timestamp=times.timestamp(5.0))


@pytest.mark.parametrize("stored", S.values())
@pytest.mark.parametrize("reported", S.values())
def test_states_never_go_back(stored: S.ValueType, reported: S.ValueType) -> None:
    """For every pair of states: a lower one is refused, an equal or higher one stored. [dispatcher 49; orchestration 11, 12]"""
    after = statuses.merged(task("t", stored), status(reported, "new"), "m1", 9.0)
    assert (after is not None) == (reported >= stored)


def test_stored_status_is_signed() -> None:
    """The whole status is replaced; the manager adds itself and its time and keeps the reporter's. [dispatcher 52, 53]"""
    running = task("t", S.RUNNING)
    running.status.err = "old"
    report = status(S.RUNNING, "started")
    report.container.container_id = "c"
    after = statuses.merged(running, report, "m1", 9.0)
    assert after is not None
    assert (after.status.err, after.status.container.container_id) == ("", "c")
    assert (after.status.applied_by, times.seconds_of(after.status.applied_at)) == ("m1", 9.0)
    assert times.seconds_of(after.status.timestamp) == 5.0


def test_news_of_the_same_state_keep_its_time() -> None:
    """What is added to a state later does not move the moment at which it was reached: delays and windows count from there."""
    ended = statuses.merged(task("t", S.RUNNING), status(S.FAILED), "m1", 9.0)
    assert ended is not None
    again = statuses.merged(ended, status(S.FAILED, "exit code 1"), "m2", 99.0)
    assert again is not None
    assert (again.status.message, again.status.applied_by, times.seconds_of(again.status.applied_at)) == ("exit code 1", "m2", 9.0)


def test_repetition_is_not_written() -> None:
    """The same status again, whenever applied, changes nothing. [dispatcher 55]"""
    once = statuses.merged(task("t", S.ASSIGNED), status(S.RUNNING), "m1", 9.0)
    assert once is not None
    assert statuses.merged(once, status(S.RUNNING), "m2", 99.0) is None


def test_batch_keeps_the_highest_and_of_equals_the_latest() -> None:
    """Reports that arrive out of order in one batch end in the most advanced one. [dispatcher 54]"""
    batch = statuses.Batch()
    for state, message in [(S.RUNNING, "a"), (S.STARTING, "b"), (S.RUNNING, "c")]:
        batch.add_tasks([statuses.TaskReport("t", status(state, message))])
    assert batch.tasks["t"].message == "c"


def test_batch_taken_back_yields_to_newer() -> None:
    """What could not be written returns, unless something as advanced came meanwhile."""
    older, newer = statuses.Batch(), statuses.Batch()
    older.add_tasks([statuses.TaskReport("a", status(S.RUNNING, "old")), statuses.TaskReport("b", status(S.RUNNING, "old"))])
    older.add_volumes([statuses.VolumeReport("v", "n")])
    newer.add_tasks([statuses.TaskReport("a", status(S.RUNNING, "new")), statuses.TaskReport("b", status(S.STARTING, "new"))])
    newer.merge_older(older)
    assert {i: s.message for i, s in newer.tasks.items()} == {"a": "new", "b": "old"}
    assert list(newer.volumes) == [statuses.VolumeReport("v", "n")]


async def test_wrong_session(d: Harness) -> None:
    """A report of another session is refused and not stored. [dispatcher 48; orchestration 11]"""
    await create(d.store, task("t", S.ASSIGNED))
    await d.register()
    with pytest.raises(InvalidArgument):
        await d.report("wrong", ("t", status(S.RUNNING)))
    await d.clock.advance(1)
    assert d.state("t") == S.ASSIGNED


async def test_reports_are_written_together(d: Harness) -> None:
    """Within 100 ms they share one commit; lower states are left out. [dispatcher 49, 54; orchestration 11]"""
    await create(d.store, task("t1", S.NEW), task("t2", S.NEW), task("t4", S.SHUTDOWN))
    _, session = await d.register()
    commits: list[Commit] = []
    d.store.on_commit(commits.append)
    await d.report(session, ("t1", status(S.ASSIGNED)), ("t4", status(S.RUNNING)))
    await d.clock.advance(0.05)
    await d.report(session, ("t2", status(S.RUNNING)), ("t2", status(S.STARTING)))
    await d.clock.advance(0.04)
    assert commits == []
    await d.clock.advance(0.02)
    assert [len(c.events) for c in commits] == [2]
    assert [d.state(t) for t in ("t1", "t2", "t4")] == [S.ASSIGNED, S.RUNNING, S.SHUTDOWN]


async def test_foreign_task_refuses_the_request(d: Harness) -> None:
    """One task of another node and nothing of the request is stored. [dispatcher 50; orchestration 11]"""
    await create(d.store, task("mine", S.ASSIGNED), task("other", S.ASSIGNED, "n2"))
    _, session = await d.register()
    with pytest.raises(PermissionDenied, match=r"^cannot update a task not assigned this node$"):
        await d.report(session, ("mine", status(S.RUNNING)), ("other", status(S.RUNNING)))
    await d.clock.advance(1)
    assert d.state("mine") == S.ASSIGNED


async def test_unknown_tasks_and_missing_statuses_are_passed_over(d: Harness) -> None:
    """They are accepted and the others stored; so is a task deleted in between. [dispatcher 51, 59]"""
    await create(d.store, task("t", S.ASSIGNED), task("gone", S.ASSIGNED))
    _, session = await d.register()
    await d.report(session, ("stranger", status(S.RUNNING)), ("t", None), ("t", status(S.RUNNING)), ("gone", status(S.RUNNING)))
    await d.store.update(lambda tx: tx.tasks.delete("gone"))
    await d.clock.advance(0.2)
    assert d.state("t") == S.RUNNING


async def test_a_repetition_commits_nothing(d: Harness) -> None:
    """An agent that repeats all its statuses after a reconnect costs no write. [dispatcher 55]"""
    await create(d.store, task("t", S.ASSIGNED))
    _, session = await d.register()
    await d.report(session, ("t", status(S.RUNNING)))
    await d.clock.advance(0.2)
    commits: list[Commit] = []
    d.store.on_commit(commits.append)
    await d.report(session, ("t", status(S.RUNNING)))
    await d.clock.advance(0.2)
    assert commits == []


async def test_a_crowd_waits_for_the_next_write(d: Harness) -> None:
    """Of very many reports between two writes the first are answered at once, the others when the write begins: nodes gather meanwhile."""
    await create(d.store, task("t", S.ASSIGNED))
    _, session = await d.register()
    most = d.service._config.crowd
    calls = [asyncio.create_task(d.report(session, ("t", status(S.RUNNING)))) for _ in range(most + 10)]
    await settle()
    assert [call.done() for call in calls] == [True] * most + [False] * 10
    await d.clock.advance(0.1)
    await asyncio.gather(*calls)
    assert d.state("t") == S.RUNNING
    await asyncio.wait_for(d.report(session, ("t", status(S.COMPLETE))), 10)


async def test_a_full_batch_does_not_wait(d: Harness) -> None:
    """At 10 000 reports the batch is written at once, in commits of at most 200 changes; 9 999 wait. [dispatcher 56, 57]"""

    def many(tx: object) -> None:
        for number in range(400):
            tx.tasks.create(task(f"t{number}", S.ASSIGNED))  # type: ignore[attr-defined]

    await d.store.update(many)
    leadership = d.service._leadership
    assert leadership is not None
    object.__setattr__(leadership.config, "batch_items", 400)
    _, session = await d.register()
    sizes: list[int] = []
    d.store.on_commit(lambda c: sizes.append(len(c.events)))
    await d.report(session, *((f"t{n}", status(S.RUNNING)) for n in range(399)))
    await settle()
    assert sizes == []
    await d.report(session, ("t399", status(S.RUNNING)))
    await settle(200)
    assert sum(sizes) == 400
    assert max(sizes) <= 200


async def test_volume_reports(d: Harness) -> None:
    """The node's publish entry becomes PENDING_UNPUBLISH, others stay; unknown volumes and `false` do nothing. [dispatcher 58]"""
    volume = api.Volume(id="v")
    volume.spec.driver.name = "csi"
    for node_id in ("n1", "n2"):
        volume.publish_status.add(node_id=node_id, state=V.PENDING_NODE_UNPUBLISH)
    await create(d.store, volume)
    _, session = await d.register()

    async def send(volume_id: str, *, unpublished: bool) -> None:
        request = api.UpdateVolumeStatusRequest(session_id=session)
        request.updates.add(id=volume_id, unpublished=unpublished)
        await d.service.UpdateVolumeStatus(request, d.caller())
        await d.clock.advance(0.2)

    await send("v", unpublished=False)
    await send("stranger", unpublished=True)
    assert {e.state for e in d.store.volumes.find(by.everything())[0].publish_status} == {V.PENDING_NODE_UNPUBLISH}
    await send("v", unpublished=True)
    entries = d.store.volumes.find(by.everything())[0].publish_status
    assert [(e.node_id, e.state) for e in entries] == [("n1", V.PENDING_UNPUBLISH), ("n2", V.PENDING_NODE_UNPUBLISH)]


async def test_a_failing_log_delays_reports_and_loses_none(d: Harness) -> None:
    """While the log refuses, reports wait; what came later wins."""
    await create(d.store, task("a", S.ASSIGNED), task("b", S.ASSIGNED))
    _, session = await d.register()
    log = d.store._log
    assert isinstance(log, MemoryLog)
    log.leading = False
    await d.report(session, ("a", status(S.STARTING)), ("b", status(S.RUNNING)))
    await d.clock.advance(0.3)
    await d.report(session, ("a", status(S.RUNNING)))
    log.leading = True
    await d.clock.advance(2.0)
    assert (d.state("a"), d.state("b")) == (S.RUNNING, S.RUNNING)


async def test_a_failing_log_does_not_save_the_silent(d: Harness) -> None:
    """A node whose grace ends while the log refuses is marked down as soon as it can be; its streams end then."""
    reader, _ = await d.register()
    log = d.store._log
    assert isinstance(log, MemoryLog)
    log.leading = False
    await d.clock.advance(20)
    assert d.node().status.state == api.NodeStatus.READY
    assert not reader.ended
    log.leading = True
    await d.clock.advance(2)
    assert d.node().status.state == api.NodeStatus.DOWN
    assert reader.ended


async def test_a_node_that_returns_before_it_could_be_marked_down(d: Harness) -> None:
    """The log refuses the write of DOWN; the node registers meanwhile and stays READY."""
    await d.register()
    log = d.store._log
    assert isinstance(log, MemoryLog)
    log.leading = False
    await d.clock.advance(20)
    reader, session = await d.register()
    log.leading = True
    await d.clock.advance(4)
    await d.heartbeat(session)
    assert d.node().status.state == api.NodeStatus.READY
    assert not reader.ended
