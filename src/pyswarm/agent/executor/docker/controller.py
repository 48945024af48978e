"""One task's container, driven through its life (spec/cli-and-executor, sections 19 to 21)."""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncGenerator, Awaitable, Callable

import structlog

from pyswarm.agent.executor import AlreadyStarted, ExecutorError, ExitError, TemporaryError
from pyswarm.agent.executor.docker.containers import NETWORK_LABEL, NODE_LABEL, ContainerRequest
from pyswarm.agent.executor.docker.engine import Engine
from pyswarm.agent.executor.docker.events import Events
from pyswarm.agent.executor.docker.frames import log_parameters
from pyswarm.agent.executor.docker.http import EngineError, Stream
from pyswarm.agent.executor.docker.logs import read_lines
from pyswarm.agent.executor.docker.making import Maker
from pyswarm.agent.executor.docker.patience import Patience
from pyswarm.agent.executor.docker.state import Container, Verdict, container_status, judge_exit, judge_health, port_status
from pyswarm.agent.executor.memory import TaskFiles
from pyswarm.agent.executor.spec import container_spec
from pyswarm.api import v1 as api
from pyswarm.api.tasks import stop_grace_period
from pyswarm.clock import Clock

RETRY = 1.0
"""Seconds between looks while the engine does not answer."""

_log = structlog.get_logger(__name__)


class DockerController:
    """The container of one task. It is addressed by its name, which holds the task id, so any later daemon finds it again."""

    def __init__(
        self,
        engine: Engine,
        events: Events,
        task: api.Task,
        request: ContainerRequest,
        clock: Clock,
        files: TaskFiles,
        *,
        check_mounted: Callable[[], None] = lambda: None,
    ) -> None:
        """`check_mounted` raises TemporaryError while a cluster volume of the task is not mounted on this machine."""
        self._engine = engine
        self._events = events
        self._task = task
        self._request = request
        self._name = request.name
        self._clock = clock
        self._patience = Patience()
        self._files = files
        self._check_mounted = check_mounted
        self._maker = Maker(engine, request, files)
        self._streams: set[Stream] = set()
        self._seen: Container | None = None
        self._closed = False

    async def update(self, task: api.Task) -> None:
        """Takes note of the desired state; a container is never changed in place."""
        self._check_open()
        self._task = task

    async def prepare(self) -> None:
        """Networks, volumes, image (pulled unless present), container."""
        self._check_open()
        self._check_mounted()
        await self._patiently("prepare", self._maker.prepare)

    async def start(self) -> None:
        """Start it and, with a health check, wait for its verdict."""
        self._check_open()
        self._check_mounted()  # The machine may have been restarted since the preparation.
        await self._patiently("start", self._start)

    async def wait(self) -> None:
        """Until it ended; a failing health check stops it and fails the task."""
        self._check_open()
        try:
            await self._until(judge_exit)
        except ExitError:
            await self._files.discard_early()
            raise
        await self._files.discard_early()

    async def shutdown(self) -> None:
        """Stop it within its grace period."""
        self._check_open()
        await self._maker.end_pull()
        await self._patiently("shutdown", self._stop, endless=True)

    async def terminate(self) -> None:
        """SIGKILL."""
        self._check_open()
        await self._maker.end_pull()
        await self._patiently("terminate", lambda: self._engine.kill(self._name), endless=True)
        await self._files.discard_early()

    async def remove(self) -> None:
        """Stop it, delete it, then delete the networks made for it that nobody else uses."""
        self._check_open()
        await self._maker.end_pull()
        try:
            await self._stop()
        except ExecutorError as error:
            _log.debug("stopping before removal failed", container=self._name, error=str(error))
        await self._engine.remove(self._name)
        await self._files.discard()
        for network in self._request.networks:
            await self._remove_network(str(network["Name"]))

    async def close(self) -> None:
        """End what waits here; the container is left alone. A second call raises ExecutorError, as every other does from then on."""
        self._check_open()
        self._closed = True
        self._events.wake(self._name)
        for stream in list(self._streams):
            stream.close()
        await self._maker.close()

    async def container_status(self) -> api.ContainerStatus | None:
        """One inspect; `port_status` right after it uses the same answer."""
        self._seen = await self._engine.inspect(self._name)
        return container_status(self._seen) if self._seen is not None else None

    async def port_status(self) -> api.PortStatus | None:
        """The bound host ports, IPv4 and IPv6 bindings of a port counted once."""
        seen, self._seen = self._seen, None
        container = seen if seen is not None else await self._engine.inspect(self._name)
        return port_status(container, self._task.endpoint) if container is not None else None

    async def logs(self, options: api.LogSubscriptionOptions) -> AsyncGenerator[api.LogMessage, None]:
        """The container's output, at most 10 MiB/s. Empty for one that never ran, unless followed: then it waits for the start."""
        self._check_open()
        parameters = log_parameters(options)
        if not await self._ready_for_logs(follow=options.follow):
            return
        stream = await self._engine.logs(self._name, parameters)
        if self._closed:
            stream.close()  # Closed while it was being opened.
        self._streams.add(stream)
        context = api.LogContext(service_id=self._task.service_id, node_id=self._task.node_id, task_id=self._task.id)
        try:
            async with contextlib.aclosing(read_lines(stream, self._clock)) as lines:
                async for line in lines:
                    yield api.LogMessage(context=context, timestamp=line.timestamp, stream=line.stream, data=line.data)
        finally:
            self._streams.discard(stream)
            stream.close()
        self._check_open()

    async def _start(self) -> None:
        await self._maker.settled()
        container = await self._engine.inspect(self._name)
        if container is None:
            raise ExecutorError(f"Error response from daemon: No such container: {self._name}")
        started = container.status != "created"
        if container.status in {"dead", "removing"}:
            raise ExecutorError(f"container {self._name} cannot be started: it is {container.status}")
        if not started:
            await self._maker.start()
        if container.health_checked:
            await self._until(judge_health)
        if started:
            raise AlreadyStarted

    async def _until(self, judge: Callable[[Container], Verdict]) -> None:
        """Looks now and after every sign of change. An engine that is away is waited for: the container may well run on without it."""
        with self._events.watching(self._name) as watch:
            while True:
                try:
                    container = await self._engine.inspect(self._name)
                except ExecutorError as error:
                    if not _passing(error):
                        raise
                    await self._clock.sleep(RETRY)
                    self._check_open()
                    continue
                if container is None:
                    raise ExecutorError("dockerexec: container destroyed")
                verdict = judge(container)
                if verdict is Verdict.DONE:
                    return
                if verdict is Verdict.UNHEALTHY:
                    await self._stop_unhealthy()
                await watch.changed()
                self._check_open()

    async def _stop_unhealthy(self) -> None:
        try:
            await self._stop()
        except ExecutorError as error:
            raise ExecutorError(f"unhealthy container shutdown failed: {error}") from error
        raise ExecutorError("dockerexec: unhealthy container")

    async def _stop(self) -> None:
        await self._maker.settled()
        grace = stop_grace_period(container_spec(self._task))
        await self._engine.stop(self._name, math.ceil(grace))
        await self._files.discard_early()

    async def _remove_network(self, name: str) -> None:
        """Only what this node made for this network: a network of the user's with the same name stays."""
        labels = await self._engine.network_labels(name)
        if labels is not None and NETWORK_LABEL in labels and labels.get(NODE_LABEL) == self._task.node_id:
            await self._engine.remove_network(name)

    async def _ready_for_logs(self, *, follow: bool) -> bool:
        with self._events.watching(self._name) as watch:
            while True:
                container = await self._engine.inspect(self._name)
                if container is not None and container.tty:
                    raise ExecutorError("logs not supported on services with TTY")
                if container is not None and container.status != "created":
                    return True
                if not follow or self._task.desired_state > api.TaskState.COMPLETE:
                    return False
                await watch.changed()
                self._check_open()

    async def _patiently(self, operation: str, call: Callable[[], Awaitable[None]], *, endless: bool = False) -> None:
        try:
            await call()
        except ExecutorError as error:
            verdict = self._patience.judge(operation, error, self._clock.monotonic(), endless=endless)
            if verdict is error:
                raise
            raise verdict from error
        self._patience.settle(operation)

    def _check_open(self) -> None:
        if self._closed:
            raise ExecutorError("exec: controller closed")


def _passing(error: ExecutorError) -> bool:
    """Trouble of the engine, not of the request."""
    return isinstance(error, TemporaryError) or (isinstance(error, EngineError) and error.status >= 500)
