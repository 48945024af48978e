"""The tasks of this node: takes assignments, keeps one task manager per task, remembers everything on disk.

Spec: spec/dispatcher-agent-node, section 20. Assignments are carried out one after another in `Worker.run`; task managers run beside it.
Disk work is done one piece after another, and status changes that happen together share one sync.

Removal survives a crash: a removed task is first marked as no longer assigned, then removed by its controller, then forgotten; a daemon
that starts in between carries on with it. What not even that catches is swept away after the first complete assignment.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path

import structlog

from pyswarm.agent import taskstate
from pyswarm.agent.csi.volumes import NodeVolumes
from pyswarm.agent.database import Database
from pyswarm.agent.dependencies import Dependencies, UsesDependencies, needs_dependencies
from pyswarm.agent.disk import Disk
from pyswarm.agent.executor import Controller, Executor, ExecutorError
from pyswarm.agent.plan import Plan, plan
from pyswarm.agent.reporter import Reporter
from pyswarm.agent.taskmanager import TaskManager
from pyswarm.api import v1 as api
from pyswarm.api.stable import same_task
from pyswarm.clock import Clock
from pyswarm.csi.plugins import Plugins

log = structlog.get_logger(__name__)
DISK_RETRY_SECONDS = 1.0


class Worker:
    """`run` for as long as the agent lives; `assign` at any time."""

    def __init__(
        self,
        *,
        executor: Executor,
        database: Path,
        reporter: Reporter,
        clock: Clock,
        rng: random.Random,
        disk: Disk,
        plugins: Plugins | None = None,
    ) -> None:
        self._executor = executor
        self._database = Database(database)
        self._reporter = reporter
        self._clock = clock
        self._rng = rng
        self._disk = disk
        self._group: asyncio.TaskGroup
        self._inbox: asyncio.Queue[api.AssignmentsMessage] = asyncio.Queue()
        self._tasks: dict[str, api.Task] = {}
        self._managers: dict[str, TaskManager] = {}
        self._removing: dict[str, TaskManager] = {}
        self._returning: dict[str, api.Task] = {}
        self._unsaved: dict[str, api.TaskStatus] = {}
        self._saving: dict[str, api.TaskStatus] = {}
        self._status_changed = asyncio.Event()
        self._all_removed = asyncio.Event()
        self._on_source: list[Callable[[TaskManager], None]] = []
        self._synced = False
        self._swept = False
        self._sweeping = False
        self._leaving = False
        self.dependencies = Dependencies()
        self.volumes = NodeVolumes(
            plugins or Plugins(),
            database.parent / "volumes",
            clock,
            disk,
            secret=self.dependencies.secrets.find,
            in_use=lambda volume_id: _in_use(volume_id, self._managers.values(), self._removing.values()),
            released=reporter.volume_unpublished,
        )
        self.dependencies.volumes = self.volumes
        if isinstance(executor, UsesDependencies):
            executor.use_dependencies(self.dependencies)

    # --- from outside

    def assign(self, message: api.AssignmentsMessage) -> None:
        """Carry out an assignment message, after those before it. Ignored once leaving."""
        if not self._leaving:
            self._inbox.put_nowait(message)

    def report_all(self) -> None:
        """Tell a manager that may know nothing yet the status of every task."""
        for task_id, task in self._tasks.items():
            self._reporter.report(task_id, _status_of(task))

    def sources(self) -> list[TaskManager]:
        """Every task whose output can be read."""
        return [*self._managers.values(), *self._removing.values()]

    def on_source(self, callback: Callable[[TaskManager], None]) -> Callable[[], None]:
        """Call back for each task that appears or changes its state. The callback must be quick and must not raise. Returns undo."""
        self._on_source.append(callback)
        return lambda: self._on_source.remove(callback)

    async def leave(self) -> None:
        """Remove all tasks, take no new ones, and return when they are gone."""
        self._leaving = True
        self._inbox.put_nowait(api.AssignmentsMessage(type=api.AssignmentsMessage.COMPLETE))
        await self._inbox.join()
        while self._removing or self._returning:
            self._all_removed.clear()
            await self._all_removed.wait()

    async def run(self) -> None:
        """Resume the stored tasks, then serve until cancelled. Tasks keep running afterwards. Raises DatabaseError."""
        try:
            await self._disk.run(self._database.open)
            async with asyncio.TaskGroup() as self._group:
                await self._resume()
                await self.volumes.load()
                self._group.create_task(self._save_statuses())
                self._group.create_task(self.volumes.run())
                while True:
                    message = await self._inbox.get()
                    try:
                        await self._carry_out(message)
                    finally:
                        self._inbox.task_done()
        finally:
            # On the way out nothing else runs: block for the last sync rather than lose it.
            self._disk.finish(self._finish)

    def _finish(self) -> None:
        try:
            if self._saving or self._unsaved:
                self._database.save_statuses({**self._saving, **self._unsaved})
        except (sqlite3.Error, OSError) as error:
            log.error("task statuses not saved", error=str(error))
        finally:
            self._database.close()

    # --- assignments

    async def _resume(self) -> None:
        """Go on with what an earlier life of the daemon left, before any manager is heard.

        Tasks that need secrets or configs, which are not on disk, wait for the first complete assignment before they prepare or start.
        """
        stored = await self._disk.run(self._database.load)
        for entry in stored:
            if entry.assigned:
                self._tasks[entry.task.id] = entry.task
                self._start(entry.task, held=needs_dependencies(entry.task))
            else:
                self._finish_removal(entry.task)
        if stored:
            log.info("tasks resumed", tasks=len(self._tasks))

    async def _carry_out(self, message: api.AssignmentsMessage) -> None:
        work = plan(message, self._tasks | self._returning)
        self._take_dependencies(work)
        wanted = [task for task in work.tasks if self._is_news(task)]
        await self._save(wanted, dropped=work.tasks_gone)
        for task in work.tasks:
            self._take(task)
        for task_id in work.tasks_gone:
            self._remove(task_id)
        for volume in work.volumes_gone:
            self.volumes.remove(volume)
        for volume in work.volumes:
            self.volumes.add(volume)
        if work.complete:
            self._after_complete()

    def _take_dependencies(self, work: Plan) -> None:
        secrets, configs = self.dependencies.secrets, self.dependencies.configs
        if (work.secrets or work.configs) and not isinstance(self._executor, UsesDependencies):
            log.warning("the executor supports neither secrets nor configs", secrets=len(work.secrets), configs=len(work.configs))
        if work.complete:
            secrets.reset()
            configs.reset()
        secrets.remove(work.secrets_gone)
        configs.remove(work.configs_gone)
        secrets.add(*work.secrets)
        configs.add(*work.configs)

    def _is_news(self, task: api.Task) -> bool:
        """Whether the task has to be written: new here, or changed in a way its manager accepts."""
        manager = self._managers.get(task.id)
        if manager is not None:
            return manager.accepts(task)
        known = self._tasks.get(task.id)
        return known is None or not same_task(known, task)

    def _take(self, task: api.Task) -> None:
        """Start a task or pass its update on."""
        if task.id in self._removing:
            self._returning[task.id] = task
            return
        manager = self._managers.get(task.id)
        if manager is not None:
            if manager.update(task):
                self._tasks[task.id] = manager.task
            return
        known = self._tasks.get(task.id)
        fresh = api.Task()
        fresh.CopyFrom(task)
        if known is not None:
            # Its controller could not be made before. What this node found out about it counts, not the manager's copy.
            fresh.status.CopyFrom(known.status)
        self._tasks[task.id] = fresh
        self._start(fresh, held=self._sweeping)

    def _start(self, task: api.Task, *, held: bool) -> None:
        """Ask for a controller and supervise the task; without one the task is rejected, and tried again when it is assigned again."""
        controller, error = self._controller(task)
        status = taskstate.stamped(task.status, taskstate.resolved(task.status, error), self._clock.now())
        if status is not None:
            task.status.CopyFrom(status)
        self._on_status(task.id, _status_of(task))
        if controller is None:
            log.warning("no controller for task", task=task.id, error=str(error))
            return
        manager = TaskManager(task, controller, report=self._on_status, clock=self._clock, rng=self._rng, held=held)
        self._managers[task.id] = manager
        self._tasks[task.id] = manager.task
        self._tell_readers(manager)
        self._group.create_task(self._supervise(manager))

    def _controller(self, task: api.Task) -> tuple[Controller | None, Exception | None]:
        try:
            return self._executor.controller(task), None
        except ExecutorError as error:
            return None, error
        except Exception as error:
            # One task that confuses the executor must not stop the others.
            log.error("executor failed to make a controller", task=task.id, exc_info=error)
            return None, error

    # --- removal

    def _remove(self, task_id: str) -> None:
        self._returning.pop(task_id, None)
        task = self._tasks.pop(task_id, None)
        self._reporter.forget(task_id)
        self._unsaved.pop(task_id, None)
        manager = self._managers.pop(task_id, None)
        if manager is not None:
            self._removing[task_id] = manager
            manager.remove()
        elif task is not None:
            self._finish_removal(task)

    def _finish_removal(self, task: api.Task) -> None:
        """Remove a task that nobody supervises: left by an earlier life, or never started here."""
        controller, _ = self._controller(task)
        if controller is None:
            self._group.create_task(self._forget(task.id))
            return
        manager = TaskManager(task, controller, report=self._on_status, clock=self._clock, rng=self._rng)
        self._removing[task.id] = manager
        manager.remove()
        self._group.create_task(self._supervise(manager))

    async def _supervise(self, manager: TaskManager) -> None:
        """Run a task manager to the end of its task, then forget the task."""
        await manager.run()
        await self._forget(manager.task.id)
        self.volumes.task_ended(manager.task)

    async def _forget(self, task_id: str) -> None:
        self._removing.pop(task_id, None)
        returning = self._returning.pop(task_id, None)
        if returning is not None:
            await self._save([returning], forgotten=[task_id])
            self._take(returning)
        elif task_id not in self._tasks:
            await self._save([], forgotten=[task_id])
        self._all_removed.set()

    def _after_complete(self) -> None:
        """The manager has said everything: nothing has to wait for it any more, and what it does not know of can go."""
        if not self._synced:
            self._synced = True
            self.volumes.settle()
            for manager in self._managers.values():
                manager.release()
        if not (self._swept or self._sweeping):
            self._sweeping = True
            self._group.create_task(self._sweep([*self._tasks, *self._removing]))

    async def _sweep(self, keep: Iterable[str]) -> None:
        """Remove what an earlier life left behind. Tasks that come meanwhile do not start before it is done, or they would be swept too."""
        try:
            await self._executor.remove_strays(keep)
        except Exception as error:  # noqa: BLE001 - logged and tried again with the next complete assignment
            log.warning("strays not removed", error=str(error))
        else:
            self._swept = True
        self._sweeping = False
        for manager in self._managers.values():
            manager.release()

    # --- statuses and the disk

    def _on_status(self, task_id: str, status: api.TaskStatus) -> None:
        """A task's status changed: it is reported as soon as it is on disk."""
        if task_id in self._tasks:
            self._unsaved[task_id] = status
            self._status_changed.set()
        manager = self._managers.get(task_id)
        if manager is not None:
            self._tell_readers(manager)
            if status.state > api.TaskState.RUNNING:
                self.volumes.task_ended(manager.task)

    def _tell_readers(self, manager: TaskManager) -> None:
        for callback in tuple(self._on_source):
            callback(manager)

    async def _save_statuses(self) -> None:
        while True:
            await self._status_changed.wait()
            self._status_changed.clear()
            batch, self._unsaved = self._unsaved, {}
            self._saving = batch
            try:
                await self._disk.run(lambda: self._database.save_statuses(batch))  # noqa: B023 - awaited before batch changes
                failed = False
            except (sqlite3.Error, OSError) as error:
                log.error("task statuses not saved", error=str(error))
                self._unsaved = {**{i: s for i, s in batch.items() if i in self._tasks}, **self._unsaved}
                failed = True
            self._saving = {}
            # Reported even then: a full disk must not hide from the manager what happens here.
            for task_id, status in batch.items():
                if task_id in self._tasks:
                    self._reporter.report(task_id, status)
            if failed:
                await self._clock.sleep(DISK_RETRY_SECONDS)
                self._status_changed.set()

    async def _save(self, tasks: Iterable[api.Task], *, dropped: Iterable[str] = (), forgotten: Iterable[str] = ()) -> None:
        """Write tasks. A node whose disk refuses goes on: what it forgets, the manager tells it again."""
        wanted, gone, done = list(tasks), list(dropped), list(forgotten)
        if not (wanted or gone or done):
            return
        try:
            await self._disk.run(lambda: self._database.save(wanted, dropped=gone, forgotten=done))
        except (sqlite3.Error, OSError) as error:
            log.error("tasks not saved", error=str(error))


def _in_use(volume_id: str, managers: Iterable[TaskManager], removing: Iterable[TaskManager]) -> bool:
    """Whether a task that has not ended, or is being removed, was given the volume."""
    running = (manager.task for manager in managers if manager.task.status.state <= api.TaskState.RUNNING)
    leaving = (manager.task for manager in removing)
    return any(attachment.id == volume_id for task in (*running, *leaving) for attachment in task.volumes)


def _status_of(task: api.Task) -> api.TaskStatus:
    """A copy that may be kept: the task's own status changes."""
    status = api.TaskStatus()
    status.CopyFrom(task.status)
    return status
