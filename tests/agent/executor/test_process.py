"""The process executor, with real processes."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from pyswarm.agent.executor import AlreadyPrepared, AlreadyStarted, ExecutorError, ExitError
from pyswarm.agent.executor.process import ProcessExecutor, shim
from pyswarm.agent.executor.process.controller import ProcessController
from pyswarm.api import v1 as api
from tests.support.engine import container_task

TRAPS_TERM = "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 100 & wait $!; done"
WAIT = 10.0

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
async def executor(tmp_path: Path) -> AsyncIterator[ProcessExecutor]:
    """An executor with its state in the test's directory; what a test leaves running is killed."""
    executor = ProcessExecutor(tmp_path, hostname="here")
    yield executor
    await executor.remove_strays(())
    await executor.close()


def shell(script: str, **fields: object) -> api.Task:
    """A task that runs a shell script."""
    task = container_task("/bin/sh", args=["-c", script])
    for name, value in fields.items():
        setattr(task.spec.container, name, value)
    return task


async def launch(executor: ProcessExecutor, task: api.Task) -> ProcessController:
    """A controller whose process runs."""
    controller = executor.controller(task)
    await controller.prepare()
    await controller.start()
    return controller


async def lines(controller: ProcessController, options: api.LogSubscriptionOptions | None = None) -> list[tuple[int, bytes]]:
    """All log messages as (stream, data)."""
    return [(message.stream, message.data) async for message in controller.logs(options or api.LogSubscriptionOptions())]


async def output(executor: ProcessExecutor, task: api.Task) -> str:
    """What a task prints that ends well."""
    controller = await launch(executor, task)
    await controller.wait()
    return b"".join(data for _, data in await lines(controller)).decode()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that real processes do."""
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def pid_of(controller: ProcessController) -> int:
    """The pid of a running task."""
    status = await controller.container_status()
    assert status is not None
    return status.pid


def runs(pid: int) -> bool:
    """Whether a process is alive."""
    fields = shim.stat_fields(pid)
    return bool(fields) and fields[0] not in "ZX"


async def test_full_life(executor: ProcessExecutor, tmp_path: Path) -> None:
    """A task is prepared, started, followed, waited for and removed with all its files."""
    task = shell("sleep 0.2; echo $X; echo err >&2")
    task.spec.container.env.append("X=hello-{{.Service.Name}}-{{.Node.Hostname}}")
    controller = executor.controller(task)
    assert await controller.container_status() is None
    await controller.prepare()
    followed = asyncio.create_task(lines(controller, api.LogSubscriptionOptions(follow=True)))
    await controller.start()
    assert runs(await pid_of(controller))
    await controller.wait()
    assert sorted(await followed) == [(1, b"hello-web-here\n"), (2, b"err\n")]
    assert await pid_of(controller) == 0
    await controller.shutdown()
    await controller.remove()
    assert list((tmp_path / "worker" / "tasks").iterdir()) == []
    await controller.remove()
    await controller.close()


@pytest.mark.parametrize(("script", "code"), [("exit 3", 3), ("kill -9 $$", 137), ("kill -TERM $$", 143)])
async def test_exit_codes(executor: ProcessExecutor, script: str, code: int) -> None:
    """The real exit code is reported, 128 + n for signal n."""
    controller = await launch(executor, shell(script))
    with pytest.raises(ExitError, match=rf"task: non-zero exit \({code}\)") as caught:
        await controller.wait()
    assert caught.value.code == code
    status = await controller.container_status()
    assert status is not None
    assert status.exit_code == code


async def test_surroundings(executor: ProcessExecutor, tmp_path: Path) -> None:
    """A process has its own session and directory, a minimal environment, and nothing of the daemon's."""
    os.environ["DAEMON_ONLY"] = "1"
    try:
        task = shell("pwd; env | sort; ps -o sess= -p $$; echo $$; ls -l /proc/self/fd | wc -l")
        task.spec.container.env.append("A=b=c")
        task.assigned_generic_resources.add().discrete_resource_spec.CopyFrom(api.DiscreteGenericResource(kind="gpu", value=2))
        said = (await output(executor, task)).splitlines()
    finally:
        del os.environ["DAEMON_ONLY"]
    assert said[0] == f"{tmp_path}/worker/tasks/{task.id}/work"
    names = {line.partition("=")[0] for line in said if "=" in line}
    assert names - {"_", "OLDPWD", "SHLVL"} == {"A", "DOCKER_RESOURCE_GPU", "HOME", "HOSTNAME", "PATH", "PWD"}
    assert "A=b=c" in said
    assert said[-3].strip() == said[-2]
    assert int(said[-1]) <= 5


async def test_directory(executor: ProcessExecutor, tmp_path: Path) -> None:
    """The spec's directory is used; a missing one fails the start with its name."""
    assert await output(executor, shell("pwd", dir="/usr")) == "/usr\n"
    controller = executor.controller(shell("pwd", dir="/nosuch"))
    await controller.prepare()
    with pytest.raises(ExecutorError, match="starting process failed: directory /nosuch: no such file or directory"):
        await controller.start()


@needs_root
async def test_user(executor: ProcessExecutor) -> None:
    """A process runs as its user and groups and can write into its directory; an unknown user is named."""
    task = shell("touch here && id -u && id -g && id -G", user="daemon:12345")
    task.spec.container.groups.append("54321")
    said = (await output(executor, task)).split()
    assert said[:2] == ["1", "12345"]
    assert "54321" in said
    assert (await output(executor, shell("id -u; id -g", user="4242"))).split() == ["4242", "0"]
    with pytest.raises(ExecutorError, match="user nosuchuser does not exist on this machine"):
        await executor.controller(shell("id", user="nosuchuser")).prepare()


async def test_missing_program(executor: ProcessExecutor) -> None:
    """A program that is not there fails the start with its name; the status has the shell's exit code for it."""
    controller = executor.controller(container_task("nosuchbinary"))
    await controller.prepare()
    with pytest.raises(ExecutorError, match="starting process failed: nosuchbinary: no such file or directory"):
        await controller.start()
    status = await controller.container_status()
    assert status is not None
    assert status.exit_code == 127
    with pytest.raises(AlreadyStarted):
        await controller.start()


async def test_stop_with_grace(executor: ProcessExecutor) -> None:
    """Shutdown sends the stop signal and leaves the process its time."""
    controller = await launch(executor, shell(TRAPS_TERM))
    await until(lambda: (executor._supervised(controller._task.id).path / "log").stat().st_size > 0)
    await controller.shutdown()
    with pytest.raises(ExitError, match="7"):
        await controller.wait()
    assert await lines(controller) == [(1, b"up\n"), (1, b"bye\n")]
    await controller.shutdown()


async def test_stop_signal(executor: ProcessExecutor) -> None:
    """The spec's stop signal is used."""
    controller = await launch(executor, shell("trap 'exit 5' USR1; echo up; while :; do sleep 0.05; done", stop_signal="usr1"))
    await until(lambda: (executor._supervised(controller._task.id).path / "log").stat().st_size > 0)
    await controller.shutdown()
    with pytest.raises(ExitError, match="5"):
        await controller.wait()


async def test_the_past_has_an_end(executor: ProcessExecutor) -> None:
    """Reading what a task has written ends although it goes on writing without pause; a tail of it is its last lines then."""
    controller = await launch(executor, shell("i=0; while :; do i=$((i+1)); echo $i; done"))
    await until(lambda: (executor._supervised(controller._task.id).path / "log").stat().st_size > 100_000)
    async with asyncio.timeout(WAIT):
        read = [int(data) for _, data in await lines(controller)]
        tail = [int(data) for _, data in await lines(controller, api.LogSubscriptionOptions(tail=-4))]
    assert read == list(range(1, len(read) + 1))
    assert tail == list(range(tail[0], tail[0] + 3))
    assert tail[0] > len(read) - 3
    await controller.terminate()


async def test_kill_after_grace(executor: ProcessExecutor) -> None:
    """What ignores its stop signal is killed after the grace period, with all its children, whatever session they are in."""
    task = shell("trap '' TERM; sleep 1000 & setsid sleep 1001 & echo $! ; while :; do sleep 1; done")
    task.spec.container.stop_grace_period.FromMilliseconds(200)
    controller = await launch(executor, task)
    follower = controller.logs(api.LogSubscriptionOptions(follow=True))
    child = int((await anext(follower)).data)
    await follower.aclose()
    began = time.monotonic()
    await controller.shutdown()
    assert 0.2 <= time.monotonic() - began < 5
    assert not runs(child)
    with pytest.raises(ExitError, match="137"):
        await controller.wait()


async def test_leftovers_of_an_ended_process(executor: ProcessExecutor) -> None:
    """When the process ends, what it left in the background ends too, as in a container."""
    controller = await launch(executor, shell("(setsid sleep 1000 & echo $!)"))
    await controller.wait()
    [(_, pid)] = await lines(controller)
    assert not runs(int(pid))


async def test_terminate(executor: ProcessExecutor) -> None:
    """Terminate kills at once, and is fine with what has ended."""
    controller = await launch(executor, shell(TRAPS_TERM))
    await controller.terminate()
    with pytest.raises(ExitError, match="137"):
        await controller.wait()
    await controller.terminate()


async def test_stop_before_start(executor: ProcessExecutor) -> None:
    """A prepared task that is stopped can not be started any more, not even by a start that comes late."""
    controller = executor.controller(shell("echo never"))
    await controller.prepare()
    await controller.shutdown()
    with pytest.raises(AlreadyStarted):
        await controller.start()
    await controller.wait()
    assert await controller.container_status() is None
    assert await lines(controller) == []


async def test_cancelled_start_then_stop(executor: ProcessExecutor) -> None:
    """A start that is cancelled half way runs on, and the stop that follows finds its process."""
    task = shell(TRAPS_TERM)
    controller = executor.controller(task)
    await controller.prepare()
    start = asyncio.create_task(controller.start())
    await asyncio.sleep(0)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    await controller.shutdown()
    with pytest.raises(ExitError):
        await controller.wait()


async def test_two_starts(executor: ProcessExecutor) -> None:
    """Of two starts at once, as after a daemon died between asking and noting, one process comes."""
    task = shell("echo once; sleep 0.3")
    first, second = executor.controller(task), executor.controller(task)
    await first.prepare()
    results = await asyncio.gather(first.start(), second.start(), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["AlreadyStarted", "NoneType"]
    await second.wait()
    assert await lines(first) == [(1, b"once\n")]


DAEMON = """
import asyncio, sys
from pathlib import Path
from pyswarm.agent.executor.process import ProcessExecutor
from pyswarm.api import v1 as api

async def main():
    task = api.Task.FromString(bytes.fromhex(sys.argv[2]))
    controller = ProcessExecutor(Path(sys.argv[1])).controller(task)
    await controller.prepare()
    await controller.start()
    print("started", flush=True)
    await controller.wait()

asyncio.run(main())
"""


async def test_adoption_after_the_daemon_was_killed(executor: ProcessExecutor, tmp_path: Path) -> None:
    """A daemon killed with SIGKILL takes no task with it; the next one adopts it with its output and its real exit code."""
    task = shell(f"echo before; while ! test -e {tmp_path}/go; do sleep 0.05; done; echo after; exit 42")
    command = [sys.executable, "-c", DAEMON, str(tmp_path), task.SerializeToString().hex()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as daemon:  # noqa: ASYNC220 - returns at once
        assert daemon.stdout is not None
        assert await asyncio.to_thread(daemon.stdout.readline) == b"started\n"
        os.killpg(daemon.pid, signal.SIGKILL)
    controller = executor.controller(task)
    with pytest.raises(AlreadyPrepared):
        await controller.prepare()
    with pytest.raises(AlreadyStarted):
        await controller.start()
    waiting = asyncio.create_task(controller.wait())
    await asyncio.sleep(0.1)
    assert not waiting.done()
    (tmp_path / "go").touch()
    with pytest.raises(ExitError, match="42"):
        await waiting
    assert await lines(controller) == [(1, b"before\n"), (1, b"after\n")]


async def test_exit_while_no_daemon_looked(executor: ProcessExecutor, tmp_path: Path) -> None:
    """An end that no daemon saw is on disk for the next one."""
    task = shell("exit 9")
    await launch(executor, task)
    await until((tmp_path / "worker" / "tasks" / task.id / "exit.json").exists)
    with pytest.raises(ExitError, match="9"):
        await executor.controller(task).wait()


async def test_killed_supervisor(executor: ProcessExecutor, tmp_path: Path) -> None:
    """Without its supervisor a process is still watched and stopped; only its exit code is lost, and that is said."""
    task = shell("sleep 1000")
    controller = await launch(executor, task)
    state = json.loads((tmp_path / "worker" / "tasks" / task.id / "state.json").read_text())
    os.kill(state["shim"][0], signal.SIGKILL)
    waiting = asyncio.create_task(controller.wait())
    await asyncio.sleep(0.1)
    assert not waiting.done()
    await controller.shutdown()
    with pytest.raises(ExecutorError, match="exit code unknown"):
        await waiting
    assert not runs(state["child"][0])


async def test_reused_pid(executor: ProcessExecutor, tmp_path: Path) -> None:
    """A process that got the number of an ended one is never mistaken for it, nor signalled."""
    task = shell("sleep 1000")
    controller = await launch(executor, task)
    await controller.terminate()
    directory = tmp_path / "worker" / "tasks" / task.id
    (directory / "exit.json").unlink()
    state = json.loads((directory / "state.json").read_text())
    with subprocess.Popen(["sleep", "1000"]) as stranger:  # noqa: ASYNC220 - returns at once
        for who in ("shim", "child"):
            state[who][0] = stranger.pid
        (directory / "state.json").write_text(json.dumps(state))
        with pytest.raises(ExecutorError, match="exit code unknown"):
            await controller.wait()
        await controller.terminate()
        assert stranger.poll() is None
        stranger.kill()


async def test_strays(executor: ProcessExecutor, tmp_path: Path) -> None:
    """Processes of forgotten tasks are killed and their files deleted; kept ones run on."""
    kept, forgotten = shell("sleep 1000"), shell("sleep 1000")
    pids = [await pid_of(await launch(executor, task)) for task in (kept, forgotten)]
    await executor.remove_strays([kept.id])
    assert [runs(pid) for pid in pids] == [True, False]
    assert [entry.name for entry in (tmp_path / "worker" / "tasks").iterdir()] == [kept.id]


async def test_strays_of_an_earlier_life(executor: ProcessExecutor, tmp_path: Path) -> None:
    """Processes whose directories were deleted while they ran, as with the node's state, are killed; those of other nodes run on."""
    lost, kept = shell("sleep 1000 & sleep 1000"), shell("sleep 1000")
    neighbour = ProcessExecutor(tmp_path / "other")
    pids = [await pid_of(await launch(who, task)) for who, task in ((executor, lost), (executor, kept), (neighbour, lost))]
    for state in (tmp_path, tmp_path / "other"):
        shutil.rmtree(state / "worker" / "tasks" / lost.id)
    await executor.remove_strays([kept.id])
    await gone(pids[0])
    assert [runs(pid) for pid in pids] == [False, True, True]
    await neighbour.remove_strays(())
    await gone(pids[2])


async def gone(pid: int) -> None:
    """Wait until a process has ended."""
    deadline = time.monotonic() + WAIT
    while runs(pid):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def test_closed(executor: ProcessExecutor) -> None:
    """Close ends waits and followed logs and leaves the process alone; everything after it fails."""
    task = shell("echo up; sleep 1000")
    controller = await launch(executor, task)
    waiting = asyncio.create_task(controller.wait())
    following = asyncio.create_task(lines(controller, api.LogSubscriptionOptions(follow=True)))
    await asyncio.sleep(0.05)
    await controller.close()
    for call in (waiting, following, controller.prepare(), controller.shutdown(), controller.close()):
        with pytest.raises(ExecutorError, match="exec: controller closed"):
            await call
    assert runs(await pid_of(executor.controller(task)))


async def test_log_selection(executor: ProcessExecutor) -> None:
    """Tail, streams and since select lines; a last line without an end counts."""
    controller = await launch(executor, shell("echo 1; echo 2; sleep 0.1; echo e >&2; sleep 0.1; printf 3"))
    await controller.wait()
    only_out = [api.LogStream.LOG_STREAM_STDOUT]
    assert await lines(controller, api.LogSubscriptionOptions(streams=only_out)) == [(1, b"1\n"), (1, b"2\n"), (1, b"3")]
    assert await lines(controller, api.LogSubscriptionOptions(tail=-3)) == [(2, b"e\n"), (1, b"3")]
    assert await lines(controller, api.LogSubscriptionOptions(tail=-1)) == []
    messages = [message async for message in controller.logs(api.LogSubscriptionOptions())]
    since = api.LogSubscriptionOptions(since=messages[2].timestamp)
    assert await lines(controller, since) == [(2, b"e\n"), (1, b"3")]
    with pytest.raises(ExecutorError, match="tail relative to start"):
        await lines(controller, api.LogSubscriptionOptions(tail=5))


async def test_chatty_task(executor: ProcessExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that prints without end fills two files and no more; the newest lines are kept, whole, and can be followed."""
    task = shell("i=0; while [ $i -lt 20 ]; do head -c 1000000 /dev/zero | tr '\\0' x; echo; i=$((i+1)); done; echo last")
    controller = await launch(executor, task)
    followed = asyncio.create_task(lines(controller, api.LogSubscriptionOptions(follow=True)))
    await controller.wait()
    files = [path.stat().st_size for path in (tmp_path / "worker" / "tasks" / task.id).glob("log*")]
    assert len(files) == 2
    assert sum(files) <= 2 * shim.LOG_LIMIT
    kept = await lines(controller)
    assert kept[-1] == (1, b"last\n")
    assert sum(len(data) for _, data in kept) > shim.LOG_LIMIT
    assert (await followed)[-1] == (1, b"last\n")


def refusal(change: Callable[[api.Task], object]) -> str:
    """Why a changed task cannot run."""
    task = shell("true")
    change(task)
    with pytest.raises(ExecutorError) as caught:
        ProcessExecutor(Path("/nowhere")).controller(task)
    return str(caught.value)


def test_host_network() -> None:
    """A process is on its machine's own network, so a task may ask for that."""
    task = shell("true")
    task.networks.add().network.driver_state.name = "host"
    ProcessExecutor(Path("/nowhere")).controller(task)


def test_refusals() -> None:
    """What cannot run as a process is refused with a sentence that says why, before anything is made."""
    assert "the task has no command" in refusal(lambda task: task.spec.container.ClearField("command"))
    assert refusal(lambda task: task.spec.container.mounts.add()) == (
        "the process executor has no mounts: run this task with the docker executor"
    )
    assert "has no networks" in refusal(lambda task: task.networks.add())
    assert refusal(lambda task: task.spec.generic.SetInParent()) == "exec: unsupported runtime"
    assert "stop signal 'SIGFOO' is no signal" in refusal(lambda task: setattr(task.spec.container, "stop_signal", "SIGFOO"))


async def test_description(executor: ProcessExecutor) -> None:
    """The machine describes itself."""
    await executor.check()
    node = await executor.describe()
    assert (node.hostname, node.platform.os, node.platform.architecture) == ("here", "linux", os.uname().machine)
    assert node.resources.nano_cpus >= 10**9
    assert node.resources.memory_bytes > 1 << 28
    assert node.engine.engine_version == "process"
    assert [(plugin.type, plugin.name) for plugin in node.engine.plugins] == [("Network", "host")]
