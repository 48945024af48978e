"""Tasks that only pretend to run: for tests and the simulation. Follows a script, on the clock it is given, without threads or chance."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from dataclasses import dataclass, field

from pyswarm.agent.executor import AlreadyPrepared, AlreadyStarted, ExecutorError, ExitError, TemporaryError
from pyswarm.agent.executor.spec import container_spec
from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.clock import Clock, wait_for

KILLED = 137


@dataclass(frozen=True, slots=True)
class Script:
    """How a task behaves. Times are seconds; `run_seconds` None runs until it is stopped, `stop_seconds` is what a graceful stop takes.

    Texts that are not empty are errors: `refuse` of the executor itself, the others of the controller. Prepare and start each fail
    `temporary_failures` times before they do anything.
    """

    prepare_seconds: float = 0.0
    start_seconds: float = 0.0
    run_seconds: float | None = None
    stop_seconds: float = 0.0
    exit_code: int = 0
    refuse: str = ""
    prepare_error: str = ""
    start_error: str = ""
    stop_error: str = ""
    temporary_failures: int = 0
    output: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class FakeLine:
    """Something a task wrote, at a moment in seconds since the epoch."""

    at: float
    data: bytes
    stream: api.LogStream.ValueType = api.LogStream.LOG_STREAM_STDOUT


@dataclass(slots=True)
class FakeContainer:
    """One task on a host. `changed` wakes whoever waits for its end, `wrote` whoever follows its output."""

    task: api.Task
    script: Script
    started_at: float | None = None
    exit_code: int | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    output: list[FakeLine] = field(default_factory=list)
    wrote: asyncio.Event = field(default_factory=asyncio.Event)

    def write(self, line: FakeLine) -> None:
        """It writes a line."""
        self.output.append(line)
        self.wrote.set()
        self.wrote = asyncio.Event()

    def due(self) -> float | None:
        """When it ends by itself, None when it does not."""
        if self.started_at is None or self.script.run_seconds is None:
            return None
        return self.started_at + self.script.run_seconds

    def end(self, code: int) -> None:
        """It ends now, whatever its script says; the first end counts."""
        if self.exit_code is None:
            self.exit_code = code
            self.changed.set()
            self.wrote.set()


@dataclass(slots=True)
class FakeHost:
    """What survives the daemon: the containers by task id, and the calls made (`prepare <task id>`) in order."""

    containers: dict[str, FakeContainer] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)

    def end(self, task_id: str, code: int) -> None:
        """Make a task's container end, as a crash would."""
        self.containers[task_id].end(code)

    def write(self, task_id: str, line: FakeLine) -> None:
        """Make a task's container write a line."""
        self.containers[task_id].write(line)


class FakeController:
    """A controller that follows its script."""

    def __init__(self, task: api.Task, script: Script, host: FakeHost, clock: Clock) -> None:
        self._task = task
        self._script = script
        self._host = host
        self._clock = clock
        self._failures: dict[str, int] = {}
        self._closed = False

    async def update(self, task: api.Task) -> None:
        """Takes note of it."""
        self._begin("update")
        self._task = task

    async def prepare(self) -> None:
        """As scripted."""
        self._begin("prepare")
        if self._task.id in self._host.containers:
            raise AlreadyPrepared
        await self._trouble("prepare", self._script.prepare_seconds, self._script.prepare_error)
        self._host.containers[self._task.id] = FakeContainer(self._task, self._script)

    async def start(self) -> None:
        """As scripted."""
        self._begin("start")
        container = self._container()
        if container.started_at is not None:
            raise AlreadyStarted
        await self._trouble("start", self._script.start_seconds, self._script.start_error)
        container.started_at = self._clock.now()
        for line in self._script.output:
            container.write(FakeLine(container.started_at, line))

    async def wait(self) -> None:
        """Until its time is over or somebody ended it."""
        self._begin("wait")
        container = self._container()
        while container.exit_code is None:
            due = container.due()
            if due is not None and due <= self._clock.now():
                container.end(self._script.exit_code)
            else:
                await wait_for(container.changed, self._clock, None if due is None else due - self._clock.now())
        if container.exit_code:
            raise ExitError(container.exit_code)

    async def shutdown(self) -> None:
        """As scripted; the exit code of a stopped task is the script's, or 137 when the stop outlasts the grace period."""
        self._begin("shutdown")
        if self._script.stop_error:
            raise ExecutorError(self._script.stop_error)
        container = self._host.containers.get(self._task.id)
        if container is None or container.started_at is None or container.exit_code is not None:
            return
        spec = container_spec(self._task)
        grace = times.seconds_of(spec.stop_grace_period) if spec.HasField("stop_grace_period") else self._script.stop_seconds
        await self._clock.sleep(min(grace, self._script.stop_seconds))
        container.end(self._script.exit_code if self._script.stop_seconds <= grace else KILLED)

    async def terminate(self) -> None:
        """At once."""
        self._begin("terminate")
        container = self._host.containers.get(self._task.id)
        if container is not None and container.started_at is not None:
            container.end(KILLED)

    async def remove(self) -> None:
        """At once."""
        self._begin("remove")
        container = self._host.containers.pop(self._task.id, None)
        if container is not None:
            container.end(KILLED)

    async def close(self) -> None:
        """A second call is an error, as with real ones."""
        self._begin("close")
        self._closed = True

    async def container_status(self) -> api.ContainerStatus | None:
        """The task id stands for a container's."""
        container = self._host.containers.get(self._task.id)
        if container is None:
            return None
        pid = 1 if container.started_at is not None and container.exit_code is None else 0
        return api.ContainerStatus(container_id=self._task.id, pid=pid, exit_code=container.exit_code or 0)

    async def port_status(self) -> api.PortStatus | None:
        """The host ports the task asks for."""
        ports = [port for port in self._task.endpoint.ports if port.publish_mode == api.PortConfig.HOST]
        return api.PortStatus(ports=ports) if ports else None

    async def logs(self, options: api.LogSubscriptionOptions) -> AsyncGenerator[api.LogMessage, None]:
        """What it wrote: the scripted output at its start, and what the host made it write."""
        self._begin("logs")
        container = self._host.containers.get(self._task.id)
        if container is None:
            return
        context = api.LogContext(service_id=self._task.service_id, node_id=self._task.node_id, task_id=self._task.id)
        position = 0 if not options.tail else max(0, len(container.output) + options.tail + 1)
        while True:
            wrote, over = container.wrote, container.exit_code is not None or not options.follow
            fresh = container.output[position:]
            position += len(fresh)
            for line in fresh:
                moment = times.timestamp(line.at)
                if line.stream in (options.streams or (line.stream,)) and times.seconds_of(options.since) <= line.at:
                    yield api.LogMessage(context=context, timestamp=moment, stream=line.stream, data=line.data)
            if over:
                return
            await wrote.wait()

    def _begin(self, call: str) -> None:
        if self._closed:
            raise ExecutorError("exec: controller closed")
        self._host.calls.append(f"{call} {self._task.id}")

    def _container(self) -> FakeContainer:
        container = self._host.containers.get(self._task.id)
        if container is None:
            raise ExecutorError(f"No such container: {self._task.id}")
        return container

    async def _trouble(self, call: str, seconds: float, error: str) -> None:
        if self._failures.get(call, 0) < self._script.temporary_failures:
            self._failures[call] = self._failures.get(call, 0) + 1
            raise TemporaryError(f"{call}: not now")
        await self._clock.sleep(seconds)
        if error:
            raise ExecutorError(error)


class FakeExecutor:
    """Makes controllers that follow `script`, or what it says about each task. `host` carries containers from one executor to the next."""

    def __init__(
        self,
        clock: Clock,
        script: Script | Callable[[api.Task], Script] = Script(),
        host: FakeHost | None = None,
        description: api.NodeDescription | None = None,
    ) -> None:
        self._clock = clock
        self._script = script
        self.host = host if host is not None else FakeHost()
        self.description = description if description is not None else default_description()
        self.nodes: list[api.Node] = []
        self.keys: list[Sequence[api.EncryptionKey]] = []
        self.closed = False

    async def describe(self) -> api.NodeDescription:
        """The description given, or one of 8 processors and 16 GiB."""
        return self.description

    async def configure(self, node: api.Node) -> None:
        """Remembered in `nodes`."""
        self.nodes.append(node)

    async def set_network_keys(self, keys: Sequence[api.EncryptionKey]) -> None:
        """Remembered in `keys`."""
        self.keys.append(keys)

    def controller(self, task: api.Task) -> FakeController:
        """A controller for any container task, unless the script refuses it."""
        container_spec(task)
        script = self._script(task) if callable(self._script) else self._script
        if script.refuse:
            raise ExecutorError(script.refuse)
        return FakeController(task, script, self.host, self._clock)

    async def remove_strays(self, keep: Iterable[str]) -> None:
        """Forgets the containers that are not kept."""
        kept = set(keep)
        for task_id in [task_id for task_id in self.host.containers if task_id not in kept]:
            self.host.containers.pop(task_id).end(KILLED)

    async def close(self) -> None:
        """Remembered in `closed`."""
        self.closed = True


def default_description() -> api.NodeDescription:
    """A node of 8 processors and 16 GiB."""
    return api.NodeDescription(
        hostname="fake",
        platform=api.Platform(os="linux", architecture="x86_64"),
        resources=api.Resources(nano_cpus=8_000_000_000, memory_bytes=16 << 30),
        engine=api.EngineDescription(engine_version="fake"),
    )
