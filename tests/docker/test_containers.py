"""The Docker executor against a real engine."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from docker import APIClient
from tools.engine import Engine, start, stop

from pyswarm.agent.executor import AlreadyPrepared, AlreadyStarted, ExecutorError, ExitError
from pyswarm.agent.executor.docker import DockerExecutor
from pyswarm.agent.executor.docker.controller import DockerController
from pyswarm.api import tasks
from pyswarm.api import v1 as api
from tests.support.engine import NODE, container_task, private_engine

pytestmark = pytest.mark.docker

TRAPS_TERM = "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 100 & wait $!; done"


async def launch(executor: DockerExecutor, task: api.Task) -> DockerController:
    """A controller whose container runs."""
    controller = executor.controller(task)
    await controller.prepare()
    await controller.start()
    return controller


async def discard(controller: DockerController) -> None:
    """Remove and close, as the worker does with a task that is gone."""
    await controller.remove()
    await controller.close()


async def lines(controller: DockerController, options: api.LogSubscriptionOptions | None = None) -> list[tuple[int, bytes]]:
    """All log messages as (stream, data)."""
    return [(message.stream, message.data) async for message in controller.logs(options or api.LogSubscriptionOptions())]


@contextmanager
def docker(engine: Engine) -> Iterator[APIClient]:
    """A client of our own, to look behind the executor's back."""
    with closing(APIClient(engine.address, version="auto")) as client:
        yield client


def inspect(engine: Engine, task: api.Task) -> dict[str, object]:
    """What the engine says about the task's container."""
    with docker(engine) as client:
        return client.inspect_container(tasks.display_name(task))


async def test_full_life(engine: Engine, executor: DockerExecutor) -> None:
    """A task is prepared, started, logged on both streams while it runs, waited for, removed; a second close reports closed. [cli 134]"""
    task = container_task("sh", args=["-c", "sleep 0.5; echo $X; echo stderr >&2"])
    task.spec.container.env.append("X=hello-{{.Service.Name}}")
    controller = executor.controller(task)
    await controller.prepare()
    followed = asyncio.create_task(lines(controller, api.LogSubscriptionOptions(follow=True)))
    await controller.start()
    status = await controller.container_status()
    assert status is not None
    assert status.pid > 0
    assert len(status.container_id) == 64
    assert await controller.port_status() is None
    await controller.wait()
    assert sorted(await followed) == [(1, b"hello-web\n"), (2, b"stderr\n")]
    await controller.shutdown()
    await controller.remove()
    assert await controller.container_status() is None
    await controller.close()
    with pytest.raises(ExecutorError, match="exec: controller closed"):
        await controller.close()


async def test_labels(engine: Engine, executor: DockerExecutor) -> None:
    """A container carries the six labels by which swarm tools find it. [cli 113]"""
    task = container_task()
    controller = executor.controller(task)
    await controller.prepare()
    config = inspect(engine, task)["Config"]
    assert isinstance(config, dict)
    assert config["Labels"] == {
        "com.docker.swarm.task": "",
        "com.docker.swarm.task.id": task.id,
        "com.docker.swarm.task.name": f"web.1.{task.id}",
        "com.docker.swarm.node.id": NODE,
        "com.docker.swarm.service.id": "web-service",
        "com.docker.swarm.service.name": "web",
    }
    await discard(controller)


@pytest.mark.parametrize(("script", "code"), [("exit 3", 3), ("sh -c 'kill -9 $$'; exit $?", 137), ("sleep 0.1; exit 255", 255)])
async def test_exit_codes(executor: DockerExecutor, script: str, code: int) -> None:
    """A non-zero end is an ExitError with the container's code, also when it was killed. [cli 122]"""
    controller = await launch(executor, container_task("sh", args=["-c", script]))
    with pytest.raises(ExitError, match=rf"task: non-zero exit \({code}\)") as caught:
        await controller.wait()
    assert caught.value.code == code
    status = await controller.container_status()
    assert status is not None
    assert status.exit_code == code
    await discard(controller)


async def test_killed_from_outside(engine: Engine, executor: DockerExecutor) -> None:
    """A kill behind the agent's back ends the wait with 137. [cli 122]"""
    task = container_task("sleep", args=["1000"])
    controller = await launch(executor, task)
    waiting = asyncio.create_task(controller.wait())
    with docker(engine) as client:
        await asyncio.to_thread(client.kill, tasks.display_name(task))
    with pytest.raises(ExitError, match="137"):
        await waiting
    await discard(controller)


async def test_removed_from_outside(engine: Engine, executor: DockerExecutor) -> None:
    """A container removed behind the agent's back fails its task. [cli 123]"""
    task = container_task("sleep", args=["1000"])
    controller = await launch(executor, task)
    waiting = asyncio.create_task(controller.wait())
    with docker(engine) as client:
        await asyncio.to_thread(client.remove_container, tasks.display_name(task), force=True)
    with pytest.raises(ExecutorError, match=r"destroyed|non-zero exit \(137\)"):
        await waiting
    await discard(controller)


async def test_stop_with_grace(executor: DockerExecutor) -> None:
    """Shutdown gives the process its stop signal and time to end by itself. [cli 125]"""
    controller = await launch(executor, container_task("sh", args=["-c", TRAPS_TERM]))
    await controller.shutdown()
    with pytest.raises(ExitError, match="7"):
        await controller.wait()
    assert await lines(controller) == [(1, b"up\n"), (1, b"bye\n")]
    await discard(controller)


async def test_stop_kills_after_grace(executor: DockerExecutor) -> None:
    """A process that ignores its stop signal is killed after the grace period, which is rounded up to whole seconds. [cli 125]"""
    task = container_task("sleep", args=["1000"])
    task.spec.container.stop_grace_period.FromMilliseconds(200)
    controller = await launch(executor, task)
    began = time.monotonic()
    await controller.shutdown()
    assert 0.9 < time.monotonic() - began < 4
    with pytest.raises(ExitError, match="137"):
        await controller.wait()
    await discard(controller)


async def test_terminate(executor: DockerExecutor) -> None:
    """Terminate kills at once, and is fine with a container that has ended or gone. [cli 126]"""
    controller = await launch(executor, container_task("sleep", args=["1000"]))
    await controller.terminate()
    with pytest.raises(ExitError, match="137"):
        await controller.wait()
    await controller.terminate()
    await controller.remove()
    await controller.terminate()
    await controller.remove()
    await controller.close()


async def test_adoption(engine: Engine, executor: DockerExecutor) -> None:
    """A new executor finds the container of an earlier life prepared and started, and waits on for its real exit code. [cli 129]"""
    task = container_task("sh", args=["-c", TRAPS_TERM])
    first = await launch(executor, task)
    await first.close()
    later = DockerExecutor(engine.address, lambda: NODE)
    second = later.controller(task)
    with pytest.raises(AlreadyPrepared):
        await second.prepare()
    with pytest.raises(AlreadyStarted):
        await second.start()
    waiting = asyncio.create_task(second.wait())
    await second.shutdown()
    with pytest.raises(ExitError, match="7"):
        await waiting
    with pytest.raises(AlreadyStarted):
        await second.start()
    await discard(second)
    await later.close()


async def test_missing_image(executor: DockerExecutor) -> None:
    """An image that exists nowhere rejects the task with its name and the reason of the failed pull. [cli 118]"""
    controller = executor.controller(container_task(image="127.0.0.1:1/doesnotexist:1"))
    with pytest.raises(ExecutorError) as caught:
        await controller.prepare()
    assert str(caught.value).startswith("Error response from daemon: No such image: 127.0.0.1:1/doesnotexist:1 (pulling it failed: ")
    assert type(caught.value) is ExecutorError
    await discard(controller)


async def test_missing_command(executor: DockerExecutor) -> None:
    """A command that the image does not have fails the start; the exit code is the engine's. [cli 120]"""
    controller = executor.controller(container_task("nosuchbinary"))
    await controller.prepare()
    with pytest.raises(ExecutorError, match=r"^starting container failed: Error response from daemon: .*nosuchbinary"):
        await controller.start()
    status = await controller.container_status()
    assert status is not None
    assert status.exit_code == 127
    await discard(controller)


async def test_tmpfs_and_limits(engine: Engine, executor: DockerExecutor) -> None:
    """A task with tmpfs mounts and limits runs. [cli 132]"""
    task = container_task("sh", args=["-c", "mount | grep scratch; stat -c %a /plain; hostname"])
    container = task.spec.container
    container.hostname = "{{.Service.Name}}-{{.Task.Slot}}"
    container.mounts.add(type=api.Mount.TMPFS, target="/plain").tmpfs_options.mode = 0o700
    options = container.mounts.add(type=api.Mount.TMPFS, target="/scratch").tmpfs_options
    options.size_bytes, options.options = 64 << 20, "exec"
    container.pidsLimit = 50
    task.spec.resources.limits.memory_bytes = 64 << 20
    task.spec.resources.limits.nano_cpus = 1_000_000
    controller = await launch(executor, task)
    await controller.wait()
    output = b"".join(data for _, data in await lines(controller))
    assert b"size=65536k" in output
    assert b"\n700\n" in output
    assert output.endswith(b"web-1\n")
    await discard(controller)


async def test_out_of_memory(executor: DockerExecutor) -> None:
    """A container that the kernel kills for its memory fails with 137, and the reason says so. [cli 122]"""
    task = container_task("sh", args=["-c", "x=a; while :; do x=$x$x; done"])
    task.spec.resources.limits.memory_bytes = 8 << 20
    task.spec.resources.swap_bytes.value = 0
    controller = await launch(executor, task)
    with pytest.raises(ExitError, match="non-zero exit"):
        await controller.wait()
    await discard(controller)


async def test_host_port(executor: DockerExecutor) -> None:
    """A host port is reported once, with its name, and a port in use fails the start in the end. [cli 130]"""
    task = container_task()
    task.endpoint.ports.add(name="http", target_port=80, published_port=0, publish_mode=api.PortConfig.HOST)
    controller = await launch(executor, task)
    await controller.container_status()
    status = await controller.port_status()
    assert status is not None
    [port] = status.ports
    assert (port.name, port.target_port, port.publish_mode) == ("http", 80, api.PortConfig.HOST)
    assert port.published_port > 0
    await discard(controller)


@pytest.mark.parametrize(
    ("check", "script", "outcome"),
    [
        ("true", TRAPS_TERM, None),
        ("exit 1", TRAPS_TERM, "dockerexec: unhealthy container"),
        ("sleep 1000", "sleep 0.4; exit 7", r"non-zero exit \(7\)"),
    ],
)
async def test_health_check(executor: DockerExecutor, check: str, script: str, outcome: str | None) -> None:
    """Start returns with the first healthy result; unhealthy stops the container, an early end is reported. [cli 121]"""
    task = container_task("sh", args=["-c", script])
    health = task.spec.container.healthcheck
    health.test.extend(["CMD-SHELL", check])
    health.interval.FromMilliseconds(100)
    health.retries = 3
    controller = executor.controller(task)
    await controller.prepare()
    if outcome is None:
        await controller.start()
        again = executor.controller(task)
        with pytest.raises(AlreadyStarted):
            await again.start()
    else:
        with pytest.raises(ExecutorError, match=outcome):
            await controller.start()
        status = await controller.container_status()
        assert status is not None
        assert status.exit_code == 7
    await discard(controller)


async def test_logs_of_the_past(executor: DockerExecutor) -> None:
    """Tail, streams and since select lines; a container that never ran has none and does not hang. [cli 133]"""
    controller = executor.controller(container_task("sh", args=["-c", "echo 1; echo 2; echo 3; echo e >&2"]))
    await controller.prepare()
    assert await lines(controller) == []
    await controller.start()
    await controller.wait()
    only_out = [api.LogStream.LOG_STREAM_STDOUT]
    assert await lines(controller, api.LogSubscriptionOptions(streams=only_out)) == [(1, b"1\n"), (1, b"2\n"), (1, b"3\n")]
    assert len(await lines(controller, api.LogSubscriptionOptions(tail=-3))) == 2
    assert await lines(controller, api.LogSubscriptionOptions(tail=-1)) == []
    future = api.LogSubscriptionOptions()
    future.since.FromSeconds(int(time.time()) + 100)
    assert await lines(controller, future) == []
    with pytest.raises(ExecutorError, match="tail relative to start"):
        await lines(controller, api.LogSubscriptionOptions(tail=5))
    await discard(controller)


async def test_leaving_a_followed_log(executor: DockerExecutor) -> None:
    """Whoever stops following, and a close, end the stream at once."""
    controller = await launch(executor, container_task("sh", args=["-c", TRAPS_TERM]))
    follower = controller.logs(api.LogSubscriptionOptions(follow=True))
    assert (await anext(follower)).data == b"up\n"
    pending = asyncio.ensure_future(anext(follower))
    await asyncio.sleep(0.05)
    pending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pending
    second = asyncio.create_task(lines(controller, api.LogSubscriptionOptions(follow=True)))
    await asyncio.sleep(0.1)
    await controller.remove()
    await second
    await controller.close()


async def test_close_ends_waits(executor: DockerExecutor) -> None:
    """Closing a controller ends its wait and its logs with `controller closed`, and leaves the container alone. [cli 128]"""
    task = container_task()
    controller = await launch(executor, task)
    waiting = [asyncio.create_task(controller.wait()), asyncio.create_task(lines(controller, api.LogSubscriptionOptions(follow=True)))]
    await asyncio.sleep(0.1)
    await controller.close()
    for result in await asyncio.gather(*waiting, return_exceptions=True):
        assert str(result) == "exec: controller closed"
    again = executor.controller(task)
    with pytest.raises(AlreadyStarted):
        await again.start()
    await discard(again)


async def test_strays(engine: Engine, executor: DockerExecutor) -> None:
    """Containers of this node whose tasks are forgotten go; kept ones, other nodes' and the user's own stay."""
    kept, forgotten, foreign = container_task(), container_task(), container_task(node="othernode")
    for task in (kept, forgotten, foreign):
        await launch(executor, task)
    await executor.remove_strays([kept.id])
    assert await executor.controller(kept).container_status() is not None
    assert await executor.controller(forgotten).container_status() is None
    assert await executor.controller(foreign).container_status() is not None
    await executor.controller(foreign).remove()


async def test_strays_of_an_earlier_life(engine: Engine) -> None:
    """A node that lost its state directory, and has another id since, removes what it ran before; its neighbours' containers stay."""
    before, after, neighbour = (
        DockerExecutor(engine.address, lambda: "old-id", home=lambda: "here"),
        DockerExecutor(engine.address, lambda: NODE, home=lambda: "here"),
        DockerExecutor(engine.address, lambda: "other-id", home=lambda: "there"),
    )
    lives = [(before, container_task(node="old-id")), (after, container_task()), (neighbour, container_task(node="other-id"))]
    for executor, task in lives:
        await launch(executor, task)
    await after.remove_strays([lives[1][1].id])
    assert [await executor.controller(task).container_status() is not None for executor, task in lives] == [False, True, True]
    for executor, _ in lives:
        await executor.remove_strays(())
        await executor.close()


async def test_networks(engine: Engine, executor: DockerExecutor) -> None:
    """Task networks are created, joined and removed after the last container; the container goes first. [cli 127]"""
    first, second = container_task(), container_task()
    for number, task in enumerate((first, second)):
        for name, subnet in (("red", "10.214.1"), ("blue", "10.214.2")):
            attachment = task.networks.add(addresses=[f"{subnet}.{number + 2}/24"])
            attachment.network.id = f"{name}-id"
            attachment.network.spec.annotations.name = name
            attachment.network.driver_state.name = "bridge"
            attachment.network.ipam.driver.name = "default"
            attachment.network.ipam.configs.add(subnet=f"{subnet}.0/24", gateway=f"{subnet}.1")
    controllers = [await launch(executor, first), await launch(executor, second)]
    settings = inspect(engine, second)["NetworkSettings"]
    assert isinstance(settings, dict)
    assert {name: network["IPAddress"] for name, network in settings["Networks"].items()} == {"red": "10.214.1.3", "blue": "10.214.2.3"}
    await discard(controllers[0])
    with docker(engine) as client:
        assert {"red", "blue"} <= {network["Name"] for network in client.networks()}
        await discard(controllers[1])
        assert not {"red", "blue"} & {network["Name"] for network in client.networks()}


async def test_description(executor: DockerExecutor) -> None:
    """The engine describes the node; networks across machines are not among what it offers. [cli 102]"""
    node = await executor.describe()
    assert (node.platform.os, node.platform.architecture) == ("linux", "x86_64")
    assert node.hostname
    assert node.resources.nano_cpus > 0
    assert node.resources.memory_bytes > 1 << 28
    assert node.engine.engine_version
    networks = {plugin.name for plugin in node.engine.plugins if plugin.type == "Network"}
    assert "bridge" in networks
    assert "overlay" not in networks


async def test_no_engine(tmp_path: Path) -> None:
    """Without an engine the check is one line with the address, the reason and the alternative."""
    address = f"unix://{tmp_path}/none.sock"
    executor = DockerExecutor(address, lambda: NODE)
    with pytest.raises(ExecutorError) as caught:
        await executor.check()
    text = str(caught.value)
    assert f"no Docker Engine answers at {address} (No such file or directory)" in text
    assert "--executor process" in text
    assert "\n" not in text
    await executor.close()


async def test_engine_hangs_for_a_while(engine: Engine, executor: DockerExecutor) -> None:
    """An engine that freezes for a moment disturbs nobody: the end of a task in between is noticed. [cli 131]"""
    task = container_task("sleep", args=["0.3"])
    controller = await launch(executor, task)
    waiting = asyncio.create_task(controller.wait())
    os.kill(engine.pid, signal.SIGSTOP)
    await asyncio.sleep(0.5)
    os.kill(engine.pid, signal.SIGCONT)
    await waiting
    await discard(controller)


async def test_engine_restart() -> None:
    """After a restart of the engine a waiting task learns how its container ended, and new tasks are noticed again. [cli 124]"""
    with private_engine() as engine:
        executor = DockerExecutor(engine.address, lambda: NODE)
        controller = await launch(executor, container_task("sh", args=["-c", TRAPS_TERM]))
        waiting = asyncio.create_task(controller.wait())
        await asyncio.sleep(0.2)
        await asyncio.to_thread(stop, engine)
        engine = await asyncio.to_thread(start, engine.directory)
        with pytest.raises(ExitError, match="7"):
            await asyncio.wait_for(waiting, 10)
        later = await launch(executor, container_task("sleep", args=["0.2"]))
        await asyncio.wait_for(later.wait(), 10)
        await discard(controller)
        await discard(later)
        await executor.close()
        await asyncio.to_thread(stop, engine)
