"""The worker with a real database file, a fake executor and virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pyswarm.agent.database import Database, StoredTask
from pyswarm.agent.disk import InlineDisk, ThreadDisk
from pyswarm.agent.executor import ExecutorError
from pyswarm.agent.reporter import Reporter
from pyswarm.agent.worker import Worker
from pyswarm.api import v1 as api
from tests.agent.fakes import FakeClient, FakeEngine, FakeExecutor, FakeManager, S, SecretExecutor, message, task
from tests.support.clock import VirtualClock, settle


class Node:
    """A worker with what it needs, and a manager that hears its reports."""

    def __init__(self, path: Path, clock: VirtualClock, executor: FakeExecutor) -> None:
        self.path = path
        self.clock = clock
        self.executor = executor
        self.reporter = Reporter()
        self.manager = FakeManager()
        self.worker = Worker(executor=executor, database=path, reporter=self.reporter, clock=clock, rng=random.Random(1), disk=InlineDisk())

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Node]:
        """Run worker and reporter for the length of a `with` block."""
        tasks = [
            asyncio.create_task(self.worker.run()),
            asyncio.create_task(self.reporter.serve(FakeClient(self.manager), "s")),
        ]
        await settle()
        try:
            yield self
        finally:
            for running in tasks:
                running.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def assign(self, sent: api.AssignmentsMessage) -> None:
        """Let a message be carried out."""
        self.worker.assign(sent)
        await settle(200)

    def stored(self) -> dict[str, StoredTask]:
        """What is on disk."""
        database = Database(self.path)
        database.open()
        try:
            return {entry.task.id: entry for entry in database.load()}
        finally:
            database.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The database's file."""
    return tmp_path / "tasks.db"


@pytest.fixture
def node(path: Path, clock: VirtualClock) -> Node:
    """A node whose executor knows secrets."""
    return Node(path, clock, SecretExecutor())


def using(made: api.Task, secret_id: str) -> api.Task:
    """Let a task use a secret."""
    made.spec.container.secrets.add(secret_id=secret_id)
    return made


async def test_assigned_task_runs_and_is_reported(node: Node) -> None:
    """A task goes through its states; each is stored before it is reported, the last one is known to the manager."""
    async with node.running():
        await node.assign(message(task("t")))
        assert node.manager.states("t")[-1] == S.RUNNING
        assert node.stored()["t"].task.status.state == S.RUNNING
        assert node.executor.engine.running == {"t"}


async def test_complete_and_incremental(node: Node) -> None:
    """Complete messages replace everything, incremental ones only what they name. [dispatcher 121, 122]"""
    worker = node.worker
    async with node.running():
        await node.assign(message(task("t1"), api.Secret(id="s1"), api.Config(id="c1"), remove=[task("x"), api.Secret(id="x")]))
        assert set(node.stored()) == {"t1"}
        assert (len(worker.dependencies.secrets), len(worker.dependencies.configs)) == (1, 1)
        await node.assign(message(task("t2"), api.Secret(id="s2"), complete=False))
        await node.assign(message(task("t2"), complete=False))
        assert set(node.stored()) == {"t1", "t2"}
        assert worker.dependencies.secrets.get("s1").id == "s1"
        await node.assign(message(remove=[task("t1"), api.Secret(id="s1"), api.Config(id="c1"), task("never")], complete=False))
        assert set(node.stored()) == {"t2"}
        assert node.executor.did("t1")[-3:] == ["wait", "remove", "close"]
        assert (len(worker.dependencies.secrets), len(worker.dependencies.configs)) == (1, 0)
        await node.assign(message())
        assert node.stored() == {}
        assert node.executor.engine.containers == {}
        assert len(worker.dependencies.secrets) == 0


async def test_own_status_counts(node: Node) -> None:
    """A manager's older copy does not set a task back; a task unknown here starts where the manager says. [dispatcher 126, 127]"""
    async with node.running():
        await node.assign(message(task("t")))
        await node.assign(message(task("t", S.RUNNING, S.ASSIGNED), task("u", S.RUNNING, S.RUNNING)))
        assert node.stored()["t"].task.status.state == S.RUNNING
        assert node.executor.did("u") == ["wait"]
        assert min(node.manager.states("u")) == S.RUNNING


async def test_lower_desired_state_is_not_stored(node: Node) -> None:
    """An update that would lower the desired state leaves no trace, so a restart does not follow it either. [dispatcher trap 36]"""
    async with node.running():
        await node.assign(message(task("t", S.SHUTDOWN)))
        await node.assign(message(task("t", S.RUNNING)))
        assert node.stored()["t"].task.desired_state == S.SHUTDOWN


async def test_restart_adopts(path: Path, clock: VirtualClock) -> None:
    """A new daemon waits for the running container, starts nothing, and reports again. [dispatcher 125]"""
    engine = FakeEngine()
    async with Node(path, clock, FakeExecutor(engine)).running() as first:
        await first.assign(message(task("t"), task("done", S.SHUTDOWN)))
    assert engine.running == {"t"}
    async with Node(path, clock, FakeExecutor(engine)).running() as second:
        assert second.executor.did("t") == ["wait"]
        assert second.manager.states("t") == [S.RUNNING]
        assert second.manager.states("done") == [S.SHUTDOWN]
        await second.assign(message(task("t")))
        assert second.executor.did("t") == ["wait"]


async def test_crash_between_states_adopts(path: Path, clock: VirtualClock) -> None:
    """A daemon killed before it wrote RUNNING finds the container started and goes on from there."""
    engine = FakeEngine()
    engine.containers["t"] = asyncio.Event()
    engine.running.add("t")
    database = Database(path)
    database.open()
    database.save([task("t", S.RUNNING, S.PREPARING)])
    database.close()
    async with Node(path, clock, FakeExecutor(engine)).running() as node:
        assert node.executor.did("t") == ["prepare", "start", "wait"]
        assert node.manager.states("t")[-1] == S.RUNNING


async def test_interrupted_removal_is_completed(path: Path, clock: VirtualClock) -> None:
    """A task that was being removed when the daemon died is removed by the next one and not reported. [dispatcher 125]"""
    engine = FakeEngine()
    engine.containers["t"] = asyncio.Event()
    database = Database(path)
    database.open()
    database.save([task("t", S.RUNNING, S.RUNNING)])
    database.save(dropped=["t"])
    database.close()
    async with Node(path, clock, FakeExecutor(engine)).running() as node:
        assert node.executor.did("t") == ["remove", "close"]
        assert node.stored() == {}
        assert node.manager.reports == []
    assert engine.containers == {}


async def test_unlisted_tasks_go_with_the_first_complete_message(path: Path, clock: VirtualClock) -> None:
    """After a restart what the manager does not list is removed, started or not. [dispatcher trap 35]"""
    engine = FakeEngine()
    first = Node(path, clock, FakeExecutor(engine))
    first.executor.refused["bad"] = ExecutorError("no")
    async with first.running():
        await first.assign(message(task("a"), task("b"), task("bad")))
    second = Node(path, clock, FakeExecutor(engine))
    second.executor.refused["bad"] = ExecutorError("no")
    async with second.running():
        await second.assign(message(task("a")))
        assert set(second.stored()) == {"a"}
        assert engine.running == {"a"}


async def test_strays_are_swept_once(path: Path, clock: VirtualClock) -> None:
    """After the first complete message containers of unknown tasks are removed; a failed sweep is repeated with the next one."""
    engine = FakeEngine()
    engine.containers["stray"] = asyncio.Event()
    node = Node(path, clock, FakeExecutor(engine))
    node.executor.sweep_errors = [ExecutorError("engine restarting")]
    async with node.running():
        await node.assign(message(task("t0"), complete=False))
        assert node.executor.swept == []
        await node.assign(message(task("t")))
        assert "stray" in engine.containers
        await node.assign(message(task("t")))
        assert set(engine.containers) == {"t"}
        assert node.executor.swept == [{"t"}]
        await node.assign(message(task("t")))
        assert len(node.executor.swept) == 1


async def test_tasks_that_come_during_the_sweep_wait(path: Path, clock: VirtualClock) -> None:
    """They are not in the sweep's list, so they must not have containers before it ends; listed ones run at once."""
    node = Node(path, clock, FakeExecutor())
    node.executor.sweep_gate = asyncio.Event()
    async with node.running():
        await node.assign(message(task("a")))
        await node.assign(message(task("b"), complete=False))
        assert node.executor.engine.running == {"a"}
        assert node.manager.states("b")[-1] == S.PREPARING
        node.executor.sweep_gate.set()
        await settle(200)
        assert node.executor.engine.running == {"a", "b"}


async def test_resumed_tasks_wait_for_their_secrets(path: Path, clock: VirtualClock) -> None:
    """After a restart a task that needs a secret is not prepared before the manager sent it; others are. [dispatcher trap 37]"""
    database = Database(path)
    database.open()
    database.save([using(task("needs", S.RUNNING, S.PREPARING), "s"), task("plain", S.RUNNING, S.PREPARING)])
    database.close()
    async with Node(path, clock, SecretExecutor()).running() as node:
        assert node.executor.engine.running == {"plain"}
        await node.assign(message(using(task("needs"), "s"), task("plain"), api.Secret(id="s")))
        assert node.executor.engine.running == {"plain", "needs"}


async def test_refused_task_is_rejected_and_tried_again(node: Node) -> None:
    """No controller: REJECTED is reported; the same task assigned again asks again. [dispatcher 128]"""
    for error in (ExecutorError("no command"), ZeroDivisionError("bug")):
        node.executor.refused["t"] = error
        async with node.running():
            await node.assign(message(task("t"), task("ok")))
            assert node.manager.states("t")[-1] == S.REJECTED
            assert node.stored()["t"].task.status.err == str(error)
            assert node.executor.engine.running >= {"ok"}
            del node.executor.refused["t"]
            await node.assign(message(task("t"), task("ok")))
            assert node.executor.did("t") == []
            await node.assign(message(task("ok")))
            assert set(node.stored()) == {"ok"}
        node = Node(node.path.with_name("second.db"), node.clock, SecretExecutor())


async def test_executor_without_secrets(path: Path, clock: VirtualClock) -> None:
    """One that knows nothing of secrets gets its tasks all the same. [dispatcher 129]"""
    async with Node(path, clock, FakeExecutor()).running() as node:
        await node.assign(message(task("t"), api.Secret(id="s"), api.Config(id="c")))
        assert node.executor.engine.running == {"t"}


async def test_returning_task(node: Node) -> None:
    """A task assigned again while it is being removed starts when the removal is done; one that goes again does not."""
    gate = asyncio.Event()
    for name in ("back", "gone"):
        node.executor.script[name] = {"remove": [gate.wait]}
    async with node.running():
        await node.assign(message(task("back"), task("gone")))
        await node.assign(message())
        await node.assign(message(task("back"), task("gone")))
        await node.assign(message(task("back")))
        assert node.executor.did("back")[-1] == "remove"
        gate.set()
        await settle(300)
        assert node.executor.did("back")[-3:] == ["prepare", "start", "wait"]
        assert set(node.stored()) == {"back"}
        assert node.executor.did("gone")[-1] == "close"


async def test_volumes_are_given_back(node: Node) -> None:
    """A node without the volume's plugin never mounted it, and says so when asked to give it back."""
    async with node.running():
        await node.assign(message(api.VolumeAssignment(id="v"), remove=[api.VolumeAssignment(id="w")], complete=False))
        assert node.manager.unpublished == ["w"]


async def test_leave(node: Node) -> None:
    """All tasks are removed before it returns, and nothing is accepted any more. [dispatcher 112, 123]"""
    gate = asyncio.Event()
    node.executor.script["slow"] = {"remove": [gate.wait]}
    async with node.running():
        await node.assign(message(task("t"), task("slow")))
        leaving = asyncio.create_task(node.worker.leave())
        await settle(100)
        assert not leaving.done()
        gate.set()
        await settle(200)
        assert leaving.done()
        assert node.stored() == {}
        assert node.executor.engine.containers == {}
        await node.assign(message(task("new")))
        assert node.stored() == {}


async def test_all_statuses_are_told_to_a_new_manager(node: Node) -> None:
    """On demand every task's present status is reported again."""
    async with node.running():
        await node.assign(message(task("a"), task("b", S.SHUTDOWN)))
        node.manager.reports.clear()
        node.worker.report_all()
        await settle()
        assert [{i: s.state for i, s in batch.items()} for batch in node.manager.reports] == [{"a": S.RUNNING, "b": S.SHUTDOWN}]


async def test_full_disk_hides_nothing(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the database cannot be written, tasks run and are reported; their statuses are stored once it can be."""
    full = True
    original = Database.save_statuses

    def save(self: Database, statuses: dict[str, api.TaskStatus]) -> None:
        if full:
            raise OSError(28, "No space left on device")
        original(self, statuses)

    monkeypatch.setattr(Database, "save_statuses", save)
    async with node.running():
        await node.assign(message(task("t")))
        await node.clock.advance(1.5)
        assert node.manager.states("t")[-1] == S.RUNNING
        assert node.stored()["t"].task.status.state == S.ASSIGNED
        full = False
        await node.clock.advance(2)
        assert node.stored()["t"].task.status.state == S.RUNNING


async def test_thread(tmp_path: Path, clock: VirtualClock) -> None:
    """With the database in its thread a stop keeps the last statuses, although nobody waited for them."""
    path = tmp_path / "tasks.db"
    executor = FakeExecutor()
    worker = Worker(executor=executor, database=path, reporter=Reporter(), clock=clock, rng=random.Random(1), disk=ThreadDisk())
    running = asyncio.create_task(worker.run())
    worker.assign(message(task("t")))
    async with asyncio.timeout(10):
        while ("wait", "t") not in executor.calls:  # noqa: ASYNC110 - a real thread is involved
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    database = Database(path)
    database.open()
    assert [e.task.status.state for e in database.load()] == [S.RUNNING]
    database.close()
