"""The Docker controller against a scripted engine, on virtual time."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

import pytest

from pyswarm.agent.executor import AlreadyPrepared, AlreadyStarted, ExecutorError, ExitError, TemporaryError
from pyswarm.agent.executor.docker.containers import container_request
from pyswarm.agent.executor.docker.controller import DockerController
from pyswarm.agent.executor.docker.engine import Engine
from pyswarm.agent.executor.docker.events import Events
from pyswarm.agent.executor.docker.http import EngineError
from pyswarm.agent.executor.docker.state import Container
from pyswarm.agent.executor.files import File, Files, Owner
from pyswarm.agent.executor.memory import Memory, TaskFiles
from pyswarm.api import v1 as api
from tests.agent.executor.engines import DOWN, NAME, ScriptedEngine, ScriptedStream
from tests.support.clock import VirtualClock, settle
from tests.support.tmpfs import files_below, private_tmpfs

UNHEALTHY = "dockerexec: unhealthy container"


@dataclass
class Bench:
    """A controller and what surrounds it."""

    engine: ScriptedEngine
    events: Events
    clock: VirtualClock
    task: api.Task
    files: TaskFiles

    def controller(self) -> DockerController:
        """A fresh controller of the task, as after a restart."""
        request = container_request(self.task, None, files=[{"Source": "/mem/files/0"}])
        return DockerController(cast("Engine", self.engine), self.events, self.task, request, self.clock, self.files)

    def has(self, status: str, **fields: Any) -> None:
        """The engine has the task's container."""
        self.engine.container = Container(id="c" * 64, status=status, **fields)


@pytest.fixture
async def bench(clock: VirtualClock) -> AsyncIterator[Bench]:
    """A scripted engine with a task of one container."""
    engine = ScriptedEngine()
    task = api.Task(id="task", service_id="service", slot=1, node_id="node", desired_state=api.TaskState.RUNNING)
    task.service_annotations.name = "web"
    task.spec.container.image = "busybox"
    events = Events(cast("Engine", engine), lambda: "node", clock, jitter=lambda: 1.0)
    yield Bench(engine, events, clock, task, TaskFiles(Memory(lambda: "node"), "task", None))
    await events.close()


async def under_way(call: Awaitable[None]) -> asyncio.Future[None]:
    """A call that has got as far as it can."""
    future = asyncio.ensure_future(call)
    await settle()
    return future


def some_files(ready: list[str]) -> Files:
    """One file, once something is ready."""
    if not ready:
        raise TemporaryError("dependency not ready")
    owner = Owner(os.geteuid(), os.getegid())
    return Files((File("files/0", b"x", owner, 0o444),), owner)


def add_network(task: api.Task, name: str) -> None:
    """An allocated network on the task."""
    network = task.networks.add().network
    network.id = f"{name}-id"
    network.spec.annotations.name = name
    network.driver_state.name = "bridge"
    network.ipam.driver.name = "default"


async def test_prepare(bench: Bench) -> None:
    """Prepare looks for the image and creates the container; nothing is pulled that is there. [cli 116]"""
    await bench.controller().prepare()
    assert bench.engine.calls == [("has_image", "busybox"), ("create", NAME)]


async def test_prepare_makes_networks_and_volumes_first(bench: Bench) -> None:
    """Networks and volumes come before the container, further networks after it on an old engine; existing ones are fine. [cli 116]"""
    add_network(bench.task, "one")
    add_network(bench.task, "two")
    bench.engine.networks["two"] = {}
    mount = bench.task.spec.container.mounts.add(type=api.Mount.VOLUME, source="v", target="/v")
    mount.volume_options.driver_config.name = "nfs"
    await bench.controller().prepare()
    assert [call[:2] for call in bench.engine.calls] == [
        ("create_network", "one"),
        ("create_network", "two"),
        ("create_volume", "v"),
        ("has_image", "busybox"),
        ("create", NAME),
        ("connect", "two"),
    ]


async def test_files(bench: Bench) -> None:
    """Secrets and configs are there before the container is, wait for what is missing, and go with its end or its removal."""
    with private_tmpfs() as tmpfs:
        ready: list[str] = []
        bench.files = TaskFiles(Memory(lambda: "node", [tmpfs]), "task", lambda: some_files(ready))
        controller = bench.controller()
        with pytest.raises(TemporaryError, match="dependency not ready"):
            await controller.prepare()
        assert bench.engine.count("create") == 0
        ready.append("now")
        bench.engine.failures["create"] = [EngineError(400, "bind source path does not exist: /mem/files/0")]
        with pytest.raises(ExecutorError, match="the Docker Engine at unix:///fake does not see this daemon's files"):
            await controller.prepare()
        await controller.prepare()
        assert len(files_below(tmpfs)) == 1
        await controller.start()
        bench.engine.became(status="exited", exit_code=1, pid=0)
        with pytest.raises(ExitError):
            await controller.wait()
        assert files_below(tmpfs) == []
        bench.engine.container = None
        await controller.prepare()
        bench.engine.failures["stop"] = [DOWN]
        await controller.remove()
        assert files_below(tmpfs) == []


async def test_files_of_a_running_container(bench: Bench) -> None:
    """A container from an earlier life that runs is adopted without its secrets."""
    with private_tmpfs() as tmpfs:
        bench.files = TaskFiles(Memory(lambda: "node", [tmpfs]), "task", lambda: some_files([]))
        bench.has("running", pid=7)
        with pytest.raises(AlreadyStarted):
            await bench.controller().start()


async def test_prepare_twice(bench: Bench) -> None:
    """A container with the task's name counts as prepared; one that vanishes again does not. [cli 117]"""
    bench.has("created")
    with pytest.raises(AlreadyPrepared):
        await bench.controller().prepare()
    bench.engine.container = None
    bench.engine.failures["create"] = [EngineError(409, "Conflict. The name is taken")]
    with pytest.raises(ExecutorError, match=r"^Error response from daemon: Conflict"):
        await bench.controller().prepare()


async def test_pull(bench: Bench) -> None:
    """A missing image is pulled with the spec's login, then the container is created."""
    bench.task.spec.container.image = "registry:5000/a/b:c"
    bench.task.spec.container.pull_options.registry_auth = "secret"
    bench.engine.pulls = [ScriptedStream(b'{"status":"Pulling"}\n{"stat', b'us":"Done"}\n')]
    prepare = await under_way(bench.controller().prepare())
    bench.engine.images.add("registry:5000/a/b:c")
    with pytest.raises(ExecutorError):
        await prepare
    bench.engine.pulls = [ScriptedStream(b'{"status":"Done"}\n')]
    await bench.controller().prepare()
    assert ("pull", "registry:5000/a/b", "c", "secret") in bench.engine.calls


async def test_pull_without_login(bench: Bench) -> None:
    """A refused login is tried once more without one."""
    bench.task.spec.container.image = "a"
    bench.task.spec.container.pull_options.registry_auth = "stale"
    bench.engine.failures["pull"] = [EngineError(401, "unauthorized")]
    bench.engine.pulls = [ScriptedStream(b'{"error":"manifest unknown"}')]
    with pytest.raises(ExecutorError) as caught:
        await bench.controller().prepare()
    assert str(caught.value) == "Error response from daemon: No such image: a (pulling it failed: manifest unknown)"
    assert [call[3] for call in bench.engine.calls if call[0] == "pull"] == ["stale", ""]


async def test_cancelled_prepare_keeps_its_pull(bench: Bench) -> None:
    """Prepare called again after a cancellation waits for the pull that is under way; a shutdown gives it up. [cli 119]"""
    bench.task.spec.container.image = "a"
    stream = ScriptedStream(ends=False)
    bench.engine.pulls = [stream]
    controller = bench.controller()
    for _ in range(2):
        prepare = await under_way(controller.prepare())
        prepare.cancel()
        await settle()
    assert bench.engine.count("pull") == 1
    assert not stream.closed
    await controller.shutdown()
    assert stream.closed


async def test_start(bench: Bench) -> None:
    """A created container is started with one request; nothing is waited for without a health check. [cli 120]"""
    bench.has("created")
    await bench.controller().start()
    assert bench.engine.calls == [("inspect", NAME), ("start", NAME)]


@pytest.mark.parametrize("status", ["running", "exited", "paused"])
async def test_started_before(bench: Bench, status: str) -> None:
    """A container that runs or ran counts as started. [cli 120] [cli 129]"""
    bench.has(status)
    with pytest.raises(AlreadyStarted):
        await bench.controller().start()
    assert bench.engine.count("start") == 0


@pytest.mark.parametrize("status", ["dead", "removing"])
async def test_start_of_a_dying_container(bench: Bench, status: str) -> None:
    """A half removed container cannot be started, and does not look as if it could."""
    bench.has(status)
    with pytest.raises(ExecutorError, match=f"it is {status}"):
        await bench.controller().start()


async def test_start_refused(bench: Bench) -> None:
    """A refused start is final and carries the engine's text. [cli 120]"""
    bench.has("created")
    bench.engine.failures["start"] = [EngineError(400, "exec: nosuch: not found")]
    with pytest.raises(ExecutorError) as caught:
        await bench.controller().start()
    assert str(caught.value) == "starting container failed: Error response from daemon: exec: nosuch: not found"
    assert not isinstance(caught.value, TemporaryError)


@pytest.mark.parametrize(
    ("action", "changes", "outcome"),
    [
        ("health_status: healthy", {"health": "healthy"}, None),
        ("health_status: unhealthy", {"health": "unhealthy"}, UNHEALTHY),
        ("die", {"status": "exited", "exit_code": 1}, r"task: non-zero exit \(1\)"),
        ("die", {"status": "exited", "exit_code": 0}, None),
    ],
)
async def test_start_waits_for_health(bench: Bench, action: str, changes: dict[str, object], outcome: str | None) -> None:
    """With a health check start ends with its first verdict, or the container's end. [cli 121]"""
    bench.has("created", health_checked=True)
    bench.task.spec.container.stop_grace_period.FromSeconds(3)
    start = await under_way(bench.controller().start())
    bench.engine.became(health="starting")
    await settle()
    assert not start.done()
    bench.engine.became(action, **changes)
    if outcome is None:
        await start
    else:
        with pytest.raises(ExecutorError, match=outcome):
            await start
    assert [call for call in bench.engine.calls if call[0] == "stop"] == ([("stop", NAME, 3)] if outcome == UNHEALTHY else [])


async def test_restarted_daemon_waits_for_health_too(bench: Bench) -> None:
    """A container started in an earlier life is not called running before it is healthy."""
    bench.has("running", health_checked=True, health="starting")
    start = await under_way(bench.controller().start())
    assert not start.done()
    bench.engine.became("health_status: healthy", health="healthy")
    with pytest.raises(AlreadyStarted):
        await start


@pytest.mark.parametrize("code", [0, 1])
async def test_wait(bench: Bench, code: int) -> None:
    """Wait ends with the container, on its event, with two inspects besides the one after subscribing. [cli 122]"""
    bench.has("running")
    wait = await under_way(bench.controller().wait())
    assert not wait.done()
    inspects = bench.engine.count("inspect")
    bench.engine.became("die", status="exited", exit_code=code)
    if code:
        with pytest.raises(ExitError) as caught:
            await wait
        assert caught.value.code == code
    else:
        await wait
    assert bench.engine.count("inspect") == inspects + 1
    assert bench.engine.count("events") == 1


async def test_wait_for_the_dead(bench: Bench) -> None:
    """A container that ended before is judged without waiting for an event; the engine's reason is in the error. [cli 122]"""
    bench.has("exited", exit_code=137, error="no space left")
    with pytest.raises(ExitError, match=r"task: non-zero exit \(137\): no space left"):
        await bench.controller().wait()
    bench.has("exited", exit_code=137, oom_killed=True)
    with pytest.raises(ExitError, match=r"task: non-zero exit \(137\): out of memory"):
        await bench.controller().wait()


async def test_unhealthy_while_running(bench: Bench) -> None:
    """A failing health check stops the container with its grace period and fails the task. [cli 123]"""
    bench.has("running", health_checked=True, health="healthy")
    wait = await under_way(bench.controller().wait())
    bench.engine.became("health_status: unhealthy", health="unhealthy")
    with pytest.raises(ExecutorError, match=UNHEALTHY):
        await wait
    assert ("stop", NAME, 10) in bench.engine.calls


async def test_unhealthy_and_unstoppable(bench: Bench) -> None:
    """When the unhealthy container cannot be stopped the error says so."""
    bench.has("running", health_checked=True, health="unhealthy")
    bench.engine.failures["stop"] = [EngineError(400, "no")]
    with pytest.raises(ExecutorError, match="unhealthy container shutdown failed: Error response from daemon: no"):
        await bench.controller().wait()


async def test_destroyed(bench: Bench) -> None:
    """A container that vanishes fails the task; events of others and garbage are ignored. [cli 123]"""
    bench.has("running")
    wait = await under_way(bench.controller().wait())
    inspects = bench.engine.count("inspect")
    bench.engine.emit("die", name="web.1.other")
    bench.engine.event_streams[-1].feed(b"not json\n\n{}\n")
    await settle()
    assert bench.engine.count("inspect") == inspects
    bench.engine.container = None
    bench.engine.emit("destroy")
    with pytest.raises(ExecutorError, match="dockerexec: container destroyed"):
        await wait


async def test_exit_missed_while_the_stream_was_down(bench: Bench) -> None:
    """After the event stream ended it is opened again after a pause, and an exit in between is noticed. [cli 124]"""
    bench.has("running")
    wait = await under_way(bench.controller().wait())
    bench.engine.event_streams[-1].feed(b"")
    await settle()
    bench.engine.became(status="exited", exit_code=3)
    await settle()
    assert not wait.done()
    assert bench.engine.count("events") == 1
    await bench.clock.advance(0.1)
    with pytest.raises(ExitError, match="3"):
        await wait
    assert bench.engine.count("events") == 2


async def test_engine_away(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """While the engine is away the task stays running, attempts become rarer, the log has two lines, and the exit is found. [cli 131]"""
    bench.has("running")
    wait = await under_way(bench.controller().wait())
    bench.engine.failures["events"] = [DOWN] * 1000
    bench.engine.failures["inspect"] = [DOWN] * 1000
    bench.engine.event_streams[-1].feed(b"")
    await bench.clock.advance(60)
    assert not wait.done()
    assert 20 <= bench.engine.count("events") <= 30
    bench.engine.failures.clear()
    bench.engine.became(status="exited", exit_code=4)
    await bench.clock.advance(3)
    with pytest.raises(ExitError, match="4"):
        await wait
    said = capsys.readouterr().out.splitlines()
    assert len([line for line in said if "event stream" in line]) == 2


async def test_one_stream_for_all(bench: Bench) -> None:
    """All waiting tasks of a node share one event stream."""
    bench.has("running")
    waits = [await under_way(bench.controller().wait()) for _ in range(3)]
    assert bench.engine.count("events") == 1
    bench.engine.became("die", status="exited")
    await asyncio.gather(*waits)


@pytest.mark.parametrize(("grace", "seconds"), [(None, 10), (10.0, 10), (0.5, 1), (0.0, 0)])
async def test_shutdown(bench: Bench, grace: float | None, seconds: int) -> None:
    """The grace period is whole seconds, rounded up: half a second is not a kill. [cli 125]"""
    if grace is not None:
        bench.task.spec.container.stop_grace_period.FromMilliseconds(int(grace * 1000))
    bench.has("running")
    await bench.controller().shutdown()
    assert bench.engine.calls == [("stop", NAME, seconds)]


async def test_stop_waits_for_a_start_under_way(bench: Bench) -> None:
    """A start that was cancelled runs on in the engine; the stop that follows must not overtake it."""
    bench.has("created")
    bench.engine.gates["start"] = asyncio.Event()
    controller = bench.controller()
    start = await under_way(controller.start())
    start.cancel()
    stop = await under_way(controller.shutdown())
    assert start.cancelled()
    assert bench.engine.count("stop") == 0
    bench.engine.gates["start"].set()
    await stop
    assert bench.engine.container is not None
    assert bench.engine.container.status == "exited"


async def test_remove(bench: Bench) -> None:
    """Remove stops, deletes, and only then takes the networks it made; a user's network of the same name stays. [cli 126] [cli 127]"""
    for name in ("mine", "users", "gone"):
        add_network(bench.task, name)
    bench.engine.networks["users"] = {}
    controller = bench.controller()
    await controller.prepare()
    del bench.engine.networks["gone"]
    bench.engine.calls.clear()
    bench.engine.failures["stop"] = [EngineError(500, "trouble")]
    await controller.remove()
    assert [call[:2] for call in bench.engine.calls] == [
        ("stop", NAME),
        ("remove", NAME),
        ("network_labels", "mine"),
        ("remove_network", "mine"),
        ("network_labels", "users"),
        ("network_labels", "gone"),
    ]
    assert bench.engine.networks == {"users": {}}


async def test_closed(bench: Bench) -> None:
    """After close everything fails, a second close too, and what waited ends. [cli 128]"""
    bench.has("running")
    controller = bench.controller()
    wait = await under_way(controller.wait())
    await controller.close()
    calls: list[Callable[[], Awaitable[object]]] = [
        controller.prepare,
        controller.start,
        controller.wait,
        controller.shutdown,
        controller.terminate,
        controller.remove,
        controller.close,
        lambda: controller.update(bench.task),
        lambda: anext(controller.logs(api.LogSubscriptionOptions())),
        lambda: wait,
    ]
    for call in calls:
        with pytest.raises(ExecutorError, match=r"^exec: controller closed$"):
            await call()


async def test_status_with_one_inspect(bench: Bench) -> None:
    """Container and port status read together cost one inspect; without a container there is neither."""
    bench.has("running", pid=7)
    controller = bench.controller()
    status = await controller.container_status()
    assert status == api.ContainerStatus(container_id="c" * 64, pid=7)
    assert await controller.port_status() is None
    assert bench.engine.count("inspect") == 1
    bench.engine.container = None
    assert await controller.container_status() is None
    assert await controller.port_status() is None


@pytest.mark.parametrize(("error", "patience"), [(EngineError(500, "port is already allocated"), 10), (DOWN, 60)])
async def test_passing_trouble(bench: Bench, error: ExecutorError, patience: int) -> None:
    """Trouble of the engine is temporary at first and final once it lasts; the text stays the same."""
    bench.has("created")
    controller = bench.controller()
    bench.engine.failures["start"] = [error] * 3
    with pytest.raises(TemporaryError, match=str(error.args[0]).rpartition(":")[2]):
        await controller.start()
    await bench.clock.advance(patience - 1)
    with pytest.raises(TemporaryError):
        await controller.start()
    await bench.clock.advance(2)
    with pytest.raises(ExecutorError) as caught:
        await controller.start()
    assert not isinstance(caught.value, TemporaryError)


async def test_shutdown_never_gives_up_on_an_absent_engine(bench: Bench) -> None:
    """A stop is tried for as long as the engine is away: giving up would leave the container running."""
    bench.has("running")
    controller = bench.controller()
    bench.engine.failures["stop"] = [DOWN] * 2
    for _ in range(2):
        with pytest.raises(TemporaryError):
            await controller.shutdown()
        await bench.clock.advance(1000)
    await controller.shutdown()


def frame(stream: int, text: bytes) -> bytes:
    """One log frame."""
    payload = b"2026-01-02T03:04:05.000000006Z " + text
    return bytes([stream, 0, 0, 0]) + len(payload).to_bytes(4, "big") + payload


async def test_logs(bench: Bench) -> None:
    """Log frames become messages with their context. [cli 133]"""
    bench.has("exited")
    bench.engine.log = ScriptedStream(frame(1, b"out\n"), frame(2, b"err\n"))
    messages = [message async for message in bench.controller().logs(api.LogSubscriptionOptions())]
    assert [(message.stream, message.data, message.timestamp.nanos) for message in messages] == [(1, b"out\n", 6), (2, b"err\n", 6)]
    assert messages[0].context == api.LogContext(service_id="service", node_id="node", task_id="task")
    assert bench.engine.log.closed


async def test_logs_of_what_never_ran(bench: Bench) -> None:
    """Without following, a container that was never started or never made has no logs, at once. [cli 133]"""
    for status in (None, "created"):
        bench.engine.container = Container(id="c", status=status) if status else None
        assert [message async for message in bench.controller().logs(api.LogSubscriptionOptions())] == []
    bench.task.desired_state = api.TaskState.SHUTDOWN
    assert [message async for message in bench.controller().logs(api.LogSubscriptionOptions(follow=True))] == []


async def test_followed_logs_wait_for_the_start(bench: Bench) -> None:
    """Following begins before the container does; a terminal has no framed log."""
    bench.has("created")
    bench.engine.log = ScriptedStream(frame(1, b"x\n"))
    controller = bench.controller()
    first = asyncio.ensure_future(anext(controller.logs(api.LogSubscriptionOptions(follow=True))))
    await settle()
    assert not first.done()
    await controller.start()
    assert (await first).data == b"x\n"
    bench.has("running", tty=True)
    with pytest.raises(ExecutorError, match="logs not supported on services with TTY"):
        await anext(controller.logs(api.LogSubscriptionOptions()))


async def test_close_while_logs_are_being_opened(bench: Bench) -> None:
    """A close that comes while the log is being opened ends it too."""
    bench.has("running")
    bench.engine.log = ScriptedStream(ends=False)
    bench.engine.gates["logs"] = asyncio.Event()
    controller = bench.controller()
    first = asyncio.ensure_future(anext(controller.logs(api.LogSubscriptionOptions(follow=True))))
    await settle()
    await controller.close()
    bench.engine.gates["logs"].set()
    with pytest.raises(ExecutorError, match="exec: controller closed"):
        await first


async def test_log_rate(bench: Bench) -> None:
    """A stream may burst 10 MiB, then it is held to 10 MiB a second: no message is lost, none waits for hours."""
    bench.has("running")
    bench.engine.log = ScriptedStream(*[frame(1, b"x" * (5 << 20)) for _ in range(6)])
    began = bench.clock.monotonic()
    seen: list[float] = []

    async def read() -> None:
        seen.extend([bench.clock.monotonic() - began async for _ in bench.controller().logs(api.LogSubscriptionOptions())])

    reading = await under_way(read())
    await bench.clock.advance(10)
    await reading
    assert seen == pytest.approx([0, 0, 0, 0.5, 1.0, 1.5])
