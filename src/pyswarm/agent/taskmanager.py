"""Drives one task: one controller call at a time, the state table for the rest (spec/dispatcher-agent-node, section 21).

Everything about a task happens in the one coroutine `TaskManager.run`, its removal included, so no two calls can ever overlap. News (an
update, the removal) interrupts a call only when it changes what should be done; what was interrupted is decided anew at once, while a call
that failed for a passing reason is tried again after a growing, scattered delay.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

import structlog

from pyswarm.agent import taskstate
from pyswarm.agent.executor import Controller, ExecutorError
from pyswarm.agent.taskstate import Operation, Outcome, Step
from pyswarm.agent.timing import task_delay
from pyswarm.api import v1 as api
from pyswarm.api.stable import same_task
from pyswarm.clock import Clock, wait_for
from pyswarm.errors import Cancelled

log = structlog.get_logger(__name__)
REMOVE_ATTEMPTS = 5


class Interrupted(Exception):
    """A call was given up because of news. Never leaves this module."""


class TaskManager:
    """One task on this node. `task` is private to it; `report` is called with each new status and must not block."""

    def __init__(
        self,
        task: api.Task,
        controller: Controller,
        *,
        report: Callable[[str, api.TaskStatus], None],
        clock: Clock,
        rng: random.Random,
        held: bool = False,
    ) -> None:
        """`held` keeps it from preparing and starting until `release`."""
        self._task = api.Task()
        self._task.CopyFrom(task)
        self._controller = controller
        self._report = report
        self._clock = clock
        self._rng = rng
        self._held = held
        self._news = asyncio.Event()
        self._untold = False
        self._removing = False
        self._failures = 0

    @property
    def task(self) -> api.Task:
        """The task as this manager sees it; read only."""
        return self._task

    def logs(self, options: api.LogSubscriptionOptions) -> AsyncGenerator[api.LogMessage, None]:
        """What the task wrote and writes, as `Controller.logs`. Reading is no operation: it runs beside them."""
        return self._controller.logs(options)

    def accepts(self, task: api.Task) -> bool:
        """Whether `update` would take it: it differs, and does not lower the desired state."""
        forward = task.id == self._task.id and task.desired_state >= self._task.desired_state
        return forward and not self._removing and not same_task(task, self._task)

    def update(self, task: api.Task) -> bool:
        """Follow a new version of the task, keeping the status known here. Whether it was accepted."""
        if not self.accepts(task):
            if task.desired_state < self._task.desired_state:
                log.error("desired state never goes back", task=self._task.id, asked=task.desired_state, present=self._task.desired_state)
            return False
        fresh = api.Task()
        fresh.CopyFrom(task)
        fresh.status.CopyFrom(self._task.status)
        self._task = fresh
        self._untold = True
        self._news.set()
        return True

    def release(self) -> None:
        """It may prepare and start from now on."""
        self._held = False
        self._news.set()

    def remove(self) -> None:
        """Stop what runs and delete all of it; `run` returns when that is done."""
        self._removing = True
        self._news.set()

    async def run(self) -> None:
        """Drive the task until it is removed. Cancelling leaves container or process as they are."""
        try:
            while not self._removing:
                await self._turn()
            await self._remove()
        finally:
            await self._close()

    async def _turn(self) -> None:
        """One look at the task, and one step or a wait."""
        self._news.clear()
        if self._untold and not await self._tell():
            return
        step = taskstate.next_step(self._task.desired_state, self._task.status.state)
        if step is None or (self._held and step.operation in {Operation.PREPARE, Operation.START}):
            await self._news.wait()
        elif step.operation is None:
            self._publish(taskstate.succeeded(self._task.status, step))
        else:
            await self._operate(step, step.operation)

    async def _tell(self) -> bool:
        """Pass an update on to the controller; whether the turn may go on."""
        self._untold = False
        error = await self._call(self._controller.update(self._task), lambda: not self._removing)
        if isinstance(error, Interrupted):
            return False
        match taskstate.outcome(error):
            case Outcome.RETRY:
                self._untold = True
                await self._pause()
                return False
            case Outcome.FATAL:
                log.error("controller refused the update", task=self._task.id, error=str(error))
        return True

    async def _operate(self, step: Step, operation: Operation) -> None:
        """Carry out an operation and publish what became of it."""
        error = await self._call(getattr(self._controller, operation.value)(), lambda: self._still_wanted(operation))
        if isinstance(error, Interrupted):
            self._failures = 0
            return
        result = taskstate.outcome(error)
        if error is None or result is Outcome.SUCCESS:
            status = taskstate.succeeded(self._task.status, step)
        else:
            bug = None if isinstance(error, ExecutorError | Cancelled | TimeoutError) else error
            log.info(
                "task operation failed", task=self._task.id, operation=operation.value, outcome=result.value, error=str(error), exc_info=bug
            )
            status = taskstate.failed(self._task.status, error)
        self._publish(await self._with_runtime(status, error))
        if result is Outcome.RETRY:
            await self._pause()
        else:
            self._failures = 0

    def _still_wanted(self, operation: Operation) -> bool:
        """Whether a running call is what the task needs after the news."""
        if self._removing:
            # Removal begins with a graceful stop; one that is under way need not start over.
            return operation is Operation.SHUTDOWN
        step = taskstate.next_step(self._task.desired_state, self._task.status.state)
        if step is None or step.operation is not operation:
            return False
        # Waiting costs nothing to repeat, and the controller should hear of the update now, not when the task ends.
        return not (operation is Operation.WAIT and self._untold)

    async def _call(self, work: Coroutine[Any, Any, None], wanted: Callable[[], bool]) -> BaseException | None:
        """Await one controller call; returns its error, None, or Interrupted once it ended because news made it unwanted."""
        call = asyncio.ensure_future(work)
        interrupted = False
        try:
            while not call.done() and not interrupted:
                news = asyncio.ensure_future(self._news.wait())
                try:
                    await asyncio.wait({call, news}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    news.cancel()
                if not call.done():
                    self._news.clear()
                    interrupted = not wanted()
        finally:
            call.cancel()
            (error,) = await asyncio.gather(call, return_exceptions=True)
        if interrupted and error is not None:
            return Interrupted()
        # Cancelled by somebody else, further down: not the task's fault.
        return Cancelled("operation cancelled") if isinstance(error, asyncio.CancelledError) else error

    async def _with_runtime(self, status: api.TaskStatus, error: BaseException | None) -> api.TaskStatus:
        if status.state < api.TaskState.STARTING:
            return status
        try:
            container = await self._controller.container_status()
            ports = await self._controller.port_status()
        except Exception as failure:  # noqa: BLE001 - whatever the executor raises, the status itself must get through
            log.debug("container status unknown", task=self._task.id, error=str(failure))
            container = ports = None
        return taskstate.with_runtime(status, container, ports, error)

    def _publish(self, status: api.TaskStatus) -> None:
        changed = taskstate.stamped(self._task.status, status, self._clock.now())
        if changed is not None:
            self._task.status.CopyFrom(changed)
            self._report(self._task.id, changed)

    async def _pause(self) -> None:
        """Wait before another attempt; news end the wait."""
        self._failures += 1
        if await wait_for(self._news, self._clock, task_delay(self._failures, self._rng)):
            self._failures = 0

    async def _remove(self) -> None:
        """Ask the controller a few times; what is left then is swept away when the daemon starts again."""
        for attempt in range(1, REMOVE_ATTEMPTS + 1):
            try:
                await self._controller.remove()
            except Exception as error:  # noqa: BLE001 - a supervisor: logged and tried again
                log.warning("task not removed", task=self._task.id, attempt=attempt, error=str(error))
                if attempt < REMOVE_ATTEMPTS:
                    await self._clock.sleep(task_delay(attempt, self._rng))
            else:
                return

    async def _close(self) -> None:
        try:
            await self._controller.close()
        except Exception as error:  # noqa: BLE001 - the end of the task: nobody is left to tell
            log.warning("controller not closed", task=self._task.id, error=str(error))
