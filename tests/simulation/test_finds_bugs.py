"""The simulation finds bugs: each one planted here, of a kind that has been made before, is noticed within a few seeds.

Without this, a simulation that finds nothing would mean nothing. Each search begins at a seed that is known to find its bug; it goes on a
while from there, because the stories of seeds change with the code.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import random
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from pyswarm.agent.database import Database
from pyswarm.agent.executor.fake import FakeExecutor
from pyswarm.api import v1 as api
from pyswarm.manager import leadership
from pyswarm.manager.dispatcher import statuses
from pyswarm.manager.loop import Decision
from pyswarm.manager.orchestrator import orchestrator, settle
from pyswarm.manager.orchestrator.reaper import Reaper
from pyswarm.manager.orchestrator.replicated import Replicated
from pyswarm.manager.scheduler import filters
from pyswarm.manager.store import Store
from pyswarm.manager.store.store import _request
from pyswarm.raft import node as raft_node
from pyswarm.raft.council import Council
from pyswarm.raft.replica import Replica
from pyswarm.rpc import forward, relay
from tests.simulation.cluster import Cluster, Violation, run
from tests.simulation.nodes import SimNode
from tests.simulation.raft.cluster import unfiltered
from tests.simulation.scenarios import SCENARIOS, Scenario

TRIES = 40
BUSY = Scenario(workers=2, users=2, services=2, span=20, busy=True)
WOKEN = Scenario(workers=1, managers=3, users=8, services=1, tick=0.1, heartbeat_tick=1, faults=("freeze_leader",), pause=3.0)
TROUBLED = Scenario(workers=3, users=2, span=30, pause=1.0)


def found(scenario: Scenario | str, first: int = 0, **changes: Any) -> str:
    """What the first seed that finds something finds. `changes` are made to the scenario."""
    for seed in range(first, first + TRIES):
        made = SCENARIOS[scenario](random.Random(seed)) if isinstance(scenario, str) else scenario
        try:
            run(seed, dataclasses.replace(made, **changes))
        except Violation as violation:
            print(f"seed {seed}: {violation.what}")
            return violation.what
    raise AssertionError(f"none of {TRIES} seeds noticed anything")


# --- the log


def test_log_without_the_message_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    """PySyncObj as it comes does not keep managers equal, or itself alive, when they crash and hand over."""
    monkeypatch.setattr(raft_node, "Replica", functools.partial(Replica, judge=unfiltered))
    assert found("crashes")


def lie(cluster: Cluster) -> None:
    """Disks that say they synced."""
    for manager in cluster.managers:
        for disk in (manager.disks._log, manager.disks._snapshots):
            disk.lies = True


@pytest.mark.parametrize("managers", [1, 3])
def test_disk_that_lies(managers: int) -> None:
    """What was acknowledged is gone after all managers lost power."""
    assert found("crashes", managers=managers, faults=("blackout", "kill_leader"), prepare=lie)


def test_store_that_answers_too_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that does not wait for its log acknowledges what is not there, or not for long."""

    waited = Store._commit_group

    async def commit_group(self: Store, log: Any) -> None:
        if not self.services:
            await waited(self, log)  # the cluster is still being set up
            return
        group = self._collect(log)
        proposing = asyncio.ensure_future(log.propose(_request(group.tx.changes), group.tx)) if group.tx.changes else None
        await asyncio.sleep(0)
        refused = proposing.exception() if proposing is not None and proposing.done() else None
        for waiting, result, own in group.members:
            if not waiting.done.done():
                error = own or refused
                waiting.done.set_exception(error) if error else waiting.done.set_result(result)
        if proposing is not None:
            await asyncio.gather(proposing, return_exceptions=True)

    monkeypatch.setattr(Store, "_commit_group", commit_group)
    assert "no order of the calls" in found(BUSY, 18, managers=3, workers=1, services=1, faults=("kill_leader", "freeze_leader"), pause=3.0)


def test_manager_that_reads_without_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    """A manager that answers reads from its own store, without the leader and without a barrier, tells old news."""

    async def read_barrier(self: Council) -> None:
        """Trust in the own store."""

    monkeypatch.setattr(Council, "read_barrier", read_barrier)
    monkeypatch.setattr(forward, "PROXIED_LOCAL", forward.PROXIED_LOCAL - {"Control"})
    assert "no order of the calls" in found(BUSY, managers=3, users=3, span=8)


def test_leader_of_the_past_that_answers_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A leader that was stopped for a while, and answers what came meanwhile before it hears of the next one, tells old news."""

    async def read_barrier(self: Council) -> None:
        """Trust that whoever led a moment ago still leads."""

    monkeypatch.setattr(Council, "read_barrier", read_barrier)
    assert "no order of the calls" in found(WOKEN, 1)


def test_leader_of_the_past_whose_duties_end_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Duties that were told to end, and have not when the next leader's entries come, are noticed."""

    async def stand_down(self: raft_node.RaftNode) -> None:
        """Apply at once."""

    monkeypatch.setattr(raft_node.RaftNode, "_stand_down", stand_down)
    assert "without leading" in found(WOKEN, 5)


def test_leader_of_the_past_whose_duties_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Duties that run on when leadership is lost are noticed when the next leader's entries come."""
    told = leadership.Leadership._on_leadership

    def on_leadership(self: leadership.Leadership, leading: bool) -> None:
        if leading:
            told(self, leading)

    monkeypatch.setattr(leadership.Leadership, "_on_leadership", on_leadership)
    assert "without leading" in found("politics", faults=("transfer",))


def test_forwarder_that_repeats_what_may_have_happened(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call whose answer was lost is not made again by the manager that passed it on."""
    answered = relay._answered

    def repeat(error: Any, line: Any) -> relay.Answered:
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            return relay.NotExecuted(error.code(), error.details(), line.node_id)
        return answered(error, line)

    monkeypatch.setattr(relay, "_answered", repeat)
    assert "no order of the calls" in found("partitions", faults=("lose_answer",), pause=0.5)


# --- scheduling and services


@pytest.mark.parametrize(("name", "finding"), [("resources", "are reserved"), ("host ports", "have host port")])
def test_scheduler_without_a_filter(monkeypatch: pytest.MonkeyPatch, name: str, finding: str) -> None:
    """A scheduler that ignores what is reserved, or taken, puts too much on a node."""
    monkeypatch.setattr(filters, "FILTERS", tuple(f for f in filters.FILTERS if f.name != name))
    assert finding in found(BUSY)


def test_scheduler_that_ignores_availability(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks on nodes that are drained never come to rest."""
    monkeypatch.setattr(filters, "FILTERS", tuple(f for f in filters.FILTERS if f.name != "ready"))
    assert "in the end" in found(BUSY, span=8, rest=10)


def test_agent_that_does_not_save(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that forgets what it found out about its tasks."""
    monkeypatch.setattr(Database, "save_statuses", lambda self, statuses: None)
    assert "for the database of" in found(BUSY)


def test_agent_that_forgets_its_database_and_does_not_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers of tasks that were taken away meanwhile stay for ever."""

    async def remove_strays(self: FakeExecutor, keep: object) -> None:
        pass

    def forget(worker: SimNode) -> None:
        worker.forgets = True

    monkeypatch.setattr(FakeExecutor, "remove_strays", remove_strays)
    assert "which it was not given" in found(TROUBLED, prepare_worker=forget)


def test_dispatcher_that_loses_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """One report in ten gets lost: tasks never become what they are."""
    written = statuses.write
    count = 0

    def write(tx: Any, report: Any, manager_id: str, now: float) -> None:
        nonlocal count
        count += 1
        if count % 10:
            written(tx, report, manager_id, now)

    monkeypatch.setattr(statuses, "write", write)
    assert "in the end" in found(BUSY)


def test_dispatcher_that_lets_states_fall(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report that comes late must not take a task back."""

    def merged(task: api.Task, status: api.TaskStatus, manager_id: str, now: float) -> api.Task:
        changed = api.Task()
        changed.CopyFrom(task)
        changed.status.CopyFrom(status)
        return changed

    monkeypatch.setattr(statuses, "merged", merged)
    assert "moved from" in found(BUSY)


def test_orchestrator_that_restarts_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slot with two tasks that are to run."""
    decided = Replicated.decide_slot

    def decide_slot(self: Replicated, situation: Any, place: Any) -> Decision:
        decision = decided(self, situation, place)
        created = [c for c in decision.changes if type(c).__name__ == "Create"]
        if created:
            twin = api.Task()
            twin.CopyFrom(created[0].obj)
            twin.id += "x"
            return dataclasses.replace(decision, changes=[*decision.changes, type(created[0])(twin)])
        return decision

    monkeypatch.setattr(Replicated, "decide_slot", decide_slot)
    assert "runnable tasks" in found(BUSY)


def test_orchestrator_that_overlooks_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks that ended are not replaced."""
    matters = orchestrator._matters
    monkeypatch.setattr(orchestrator, "_matters", lambda task, old: task.status.state != api.TaskState.FAILED and matters(task, old))
    assert "tasks running" in found(TROUBLED)


def test_loop_that_forgets_its_appointments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Delayed restarts that nobody looks at again."""
    settled: Callable[..., Any] = settle.settle

    monkeypatch.setattr("pyswarm.manager.orchestrator.replicated.settle", lambda *args: dataclasses.replace(settled(*args), wake=None))
    assert "in the end" in found(TROUBLED)


def test_reaper_that_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records of what is over stay."""
    monkeypatch.setattr(Reaper, "on_event", lambda self, event: ())
    assert any(word in found(BUSY) for word in ("not deleted", "records"))
