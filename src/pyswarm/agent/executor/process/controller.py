"""One task's process, driven through its life."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from pyswarm.agent.executor import ExecutorError, ExitError
from pyswarm.agent.executor.memory import TaskFiles
from pyswarm.agent.executor.process.output import read_output, selection
from pyswarm.agent.executor.process.recipe import Recipe
from pyswarm.agent.executor.process.supervised import Supervised
from pyswarm.agent.executor.spec import container_spec
from pyswarm.api import v1 as api
from pyswarm.api.tasks import stop_grace_period
from pyswarm.clock import Clock

_NANO = 1_000_000_000
_T = TypeVar("_T")


class ProcessController:
    """The process of one task. All it knows lies in the task's directory, so a later daemon goes on where this one left off."""

    def __init__(
        self,
        task: api.Task,
        recipe: Recipe,
        supervised: Supervised,
        clock: Clock,
        files: TaskFiles,
        *,
        volumes: Callable[[], Awaitable[None]],
    ) -> None:
        """`volumes` links the task's cluster volumes; it raises TemporaryError while one is not mounted on this machine."""
        self._task = task
        self._recipe = recipe
        self._supervised = supervised
        self._files = files
        self._volumes = volumes
        self._clock = clock
        self._starting: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    async def update(self, task: api.Task) -> None:
        """Takes note of the desired state; a process is never changed in place."""
        self._check_open()
        self._task = task

    async def prepare(self) -> None:
        """Make the task's directory, secrets and configs first."""
        self._check_open()
        if not self._supervised.prepared():
            await self._link_volumes()
            await self._files.deliver()
        await self._supervised.prepare(self._recipe)

    async def start(self) -> None:
        """Start the process. It runs to its end behind a cancelled caller, so that a stop that follows finds it."""
        self._check_open()
        await self._settled()
        self._starting = asyncio.create_task(self._start(), name=f"start {self._task.id}")
        self._starting.add_done_callback(_retrieve)
        await asyncio.shield(self._starting)

    async def wait(self) -> None:
        """Until it ended."""
        self._check_open()
        ended = await self._unless_closed(self._supervised.ended())
        await self._files.discard_early()
        if ended.code:
            raise ExitError(ended.code, ended.error)

    async def shutdown(self) -> None:
        """Its stop signal, then a kill of it and all it started after its grace period."""
        self._check_open()
        await self._settled()
        await self._supervised.stop(self._recipe.stop_signal, stop_grace_period(container_spec(self._task)))
        await self._files.discard_early()

    async def terminate(self) -> None:
        """SIGKILL, to it and all it started."""
        self._check_open()
        await self._settled()
        await self._supervised.stop(9, 0.0)
        await self._files.discard_early()

    async def remove(self) -> None:
        """Stop it and delete its directory, output included, and its files in memory. Raises TemporaryError while it does not end."""
        self._check_open()
        await self.shutdown()
        await self._supervised.delete()
        await self._files.discard()

    async def close(self) -> None:
        """End what waits here; the process is left alone."""
        self._check_open()
        self._closing.set()
        if self._starting is not None and not self._starting.done():
            await asyncio.wait([self._starting])

    async def container_status(self) -> api.ContainerStatus | None:
        """The task id stands for a container's; the pid is 0 once it ended."""
        started, ended = self._supervised.started(), self._supervised.outcome()
        if started is None:
            return None
        pid = started.child.pid if ended is None else 0
        return api.ContainerStatus(container_id=self._task.id, pid=pid, exit_code=ended.code if ended is not None else 0)

    async def port_status(self) -> api.PortStatus | None:
        """None: a process opens the machine's ports by itself."""
        return None

    async def logs(self, options: api.LogSubscriptionOptions) -> AsyncGenerator[api.LogMessage, None]:
        """What it printed, line by line, as far as it is kept (the newest 8 to 16 MiB)."""
        self._check_open()
        context = api.LogContext(service_id=self._task.service_id, node_id=self._task.node_id, task_id=self._task.id)
        output = read_output(self._supervised.path, selection(options), self._nothing_more, self._clock)
        async with contextlib.aclosing(output) as lines:
            async for line in lines:
                moment = Timestamp(seconds=line.at // _NANO, nanos=line.at % _NANO)
                stream = api.LogStream.LOG_STREAM_STDOUT if line.stream == 1 else api.LogStream.LOG_STREAM_STDERR
                yield api.LogMessage(context=context, timestamp=moment, stream=stream, data=line.data)
        self._check_open()

    async def _start(self) -> None:
        if self._supervised.started() is None and self._supervised.outcome() is None:
            await self._link_volumes()
            await self._files.deliver()  # The machine, and its memory with it, may have been restarted since they were placed.
        await self._supervised.start()

    async def _link_volumes(self) -> None:
        try:
            await self._volumes()
        except OSError as error:
            raise ExecutorError(f"linking volumes in {self._supervised.path} failed: {error.strerror or error}") from error

    def _nothing_more(self) -> bool:
        return self._closing.is_set() or self._supervised.outcome() is not None or not self._supervised.path.exists()

    async def _unless_closed(self, work: Awaitable[_T]) -> _T:
        """The result of `work`, given up when this object is closed meanwhile."""
        working = asyncio.ensure_future(work)
        closing = asyncio.ensure_future(self._closing.wait())
        try:
            await asyncio.wait({working, closing}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                self._check_open()
            return await working
        finally:
            for waiter in (working, closing):
                waiter.cancel()
            await asyncio.wait({working, closing})

    async def _settled(self) -> None:
        if self._starting is not None and not self._starting.done():
            await asyncio.wait([self._starting])

    def _check_open(self) -> None:
        if self._closing.is_set():
            raise ExecutorError("exec: controller closed")


def _retrieve(work: asyncio.Task[None]) -> None:
    """Marks a failure as seen: the caller may have been cancelled, and the next call meets the failure itself."""
    if not work.cancelled():
        work.exception()
