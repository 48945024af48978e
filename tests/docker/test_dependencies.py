"""Secrets and configs of containers in a real engine."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from docker import APIClient
from tools.engine import Engine

from pyswarm.agent.dependencies import Dependencies, UsesDependencies
from pyswarm.agent.executor import AlreadyPrepared, AlreadyStarted, TemporaryError
from pyswarm.agent.executor.docker import DockerExecutor
from pyswarm.agent.executor.docker.controller import DockerController
from pyswarm.api import tasks
from pyswarm.api import v1 as api
from tests.support.engine import NODE, container_task
from tests.support.tmpfs import everything_below, files_below, private_tmpfs

pytestmark = pytest.mark.docker

SECRET = b"hush-77ab"
PRINTS_LAST = "trap 'cat /run/secrets/pw; exit 0' TERM; while :; do sleep 100 & wait $!; done"
SLEEPS = "trap 'exit 0' TERM; while :; do sleep 100 & wait $!; done"


@pytest.fixture
def tmpfs() -> Iterator[Path]:
    """A tmpfs."""
    with private_tmpfs() as directory:
        yield directory


@pytest.fixture
def node() -> Dependencies:
    """What the node has: a secret and a config."""
    node = Dependencies()
    node.secrets.add(api.Secret(id="s", spec=api.SecretSpec(data=SECRET)))
    node.configs.add(api.Config(id="c", spec=api.ConfigSpec(data=b"config\n")))
    return node


@pytest.fixture
async def executor(engine: Engine, tmpfs: Path, node: Dependencies) -> AsyncIterator[DockerExecutor]:
    """An executor that gives tasks what the node has."""
    executor = DockerExecutor(engine.address, lambda: NODE, memory=[tmpfs])
    executor.use_dependencies(node)
    yield executor
    await executor.remove_strays(())
    await executor.close()


def task_with(script: str, *, of: str = "s", **file: object) -> api.Task:
    """A task that runs a shell script and names a secret."""
    task = container_task("sh", args=["-c", script])
    target = api.FileTarget(**{"name": "pw", **file})
    task.spec.container.secrets.add(secret_id=of, secret_name="pass", file=target)
    return task


async def launch(executor: DockerExecutor, task: api.Task) -> DockerController:
    """A controller whose container runs."""
    controller = executor.controller(task)
    await controller.prepare()
    await controller.start()
    return controller


async def output(controller: DockerController) -> bytes:
    """What a task prints that ends well."""
    await controller.wait()
    return b"".join([message.data async for message in controller.logs(api.LogSubscriptionOptions())])


async def test_files(executor: DockerExecutor, tmpfs: Path) -> None:
    """Each file is where it should be, with owner and mode as asked, read-only; and gone from the machine once the container has ended."""
    assert isinstance(executor, UsesDependencies)
    task = task_with(
        "ls -ln /run/secrets/pw /etc/deep/key /sub/conf; cat /run/secrets/pw; cat /sub/conf; echo x 2>&1 >/run/secrets/pw; exit 0",
    )
    container = task.spec.container
    container.secrets.add(secret_id="s", secret_name="pass", file=api.FileTarget(name="/etc/deep/key", uid="7", gid="8", mode=0o400))
    container.configs.add(config_id="c", config_name="conf", file=api.FileTarget(name="sub/conf", gid="9", mode=0o640))
    container.read_only = True
    controller = await launch(executor, task)
    printed = await output(controller)
    listed = [line.split() for line in printed.splitlines()[:3]]
    assert {(line[-1], line[0], line[2], line[3]) for line in listed} == {
        (b"/run/secrets/pw", b"-r--r--r--", b"0", b"0"),
        (b"/etc/deep/key", b"-r--------", b"7", b"8"),
        (b"/sub/conf", b"-rw-r-----", b"0", b"9"),
    }
    assert SECRET + b"config\n" in printed
    assert b"Read-only file system" in printed
    assert files_below(tmpfs) == []
    await controller.remove()
    assert everything_below(tmpfs) == []


async def test_nothing_leaks(executor: DockerExecutor, engine: Engine) -> None:
    """What the engine knows of a container, and what it keeps of it on the disk, does not hold the secret."""
    task = task_with(SLEEPS)
    controller = await launch(executor, task)
    with closing(APIClient(engine.address, version="auto")) as client:
        name = tasks.display_name(task)
        assert SECRET.decode() not in json.dumps(client.inspect_container(name))
        (kept,) = (engine.directory / "data" / "containers").glob(f"{client.inspect_container(name)['Id']}*")
        assert all(SECRET not in path.read_bytes() for path in kept.rglob("*") if path.is_file())
        changes = {change["Path"]: change for change in client.diff(name) or []}
        archive = b"".join(client.export(name))
    assert "/run/secrets/pw" in changes
    assert SECRET not in archive
    await controller.remove()


async def test_two_tasks(executor: DockerExecutor, tmpfs: Path) -> None:
    """Two tasks share a secret, each with a file of its own: the end of one takes nothing from the other."""
    first, second = task_with(SLEEPS), task_with(PRINTS_LAST)
    second.slot = 2
    one, two = await launch(executor, first), await launch(executor, second)
    assert len(files_below(tmpfs)) == 2
    await one.remove()
    assert len(files_below(tmpfs)) == 1
    await two.shutdown()
    assert await output(two) == SECRET
    assert files_below(tmpfs) == []


async def test_late_secret(executor: DockerExecutor, node: Dependencies) -> None:
    """A task waits for its secret, and runs once it has arrived."""
    controller = executor.controller(task_with("cat /run/secrets/pw", of="late"))
    with pytest.raises(TemporaryError, match="dependency not ready: secret late not found"):
        await controller.prepare()
    node.secrets.add(api.Secret(id="late", spec=api.SecretSpec(data=b"late")))
    await controller.prepare()
    await controller.start()
    assert await output(controller) == b"late"


async def test_update(executor: DockerExecutor, node: Dependencies, tmpfs: Path) -> None:
    """After an update to another secret the new task has the new one at the same place, while the old one kept its own to the end."""
    old = await launch(executor, task_with(PRINTS_LAST))
    node.secrets.remove(["s"])
    node.secrets.add(api.Secret(id="s2", spec=api.SecretSpec(data=b"newer")))
    new = await launch(executor, task_with(PRINTS_LAST, of="s2"))
    for controller, content in ((old, SECRET), (new, b"newer")):
        await controller.shutdown()
        assert await output(controller) == content
        await controller.remove()
    assert everything_below(tmpfs) == []


async def test_adoption(executor: DockerExecutor, engine: Engine, tmpfs: Path) -> None:
    """A daemon that knows no secrets yet adopts what runs and starts what is prepared, and removes the files with the containers."""
    running, waiting = task_with(SLEEPS), task_with("cat /run/secrets/pw")
    waiting.slot = 2
    await (await launch(executor, running)).close()
    prepared = executor.controller(waiting)
    await prepared.prepare()
    await prepared.close()
    later = DockerExecutor(engine.address, lambda: NODE, memory=[tmpfs])
    try:
        await later.remove_strays([running.id, waiting.id])
        adopted = later.controller(waiting)
        with pytest.raises(AlreadyPrepared):
            await adopted.prepare()
        await adopted.start()
        assert await output(adopted) == SECRET
        controller = later.controller(running)
        with pytest.raises(AlreadyStarted):
            await controller.start()
        assert len(files_below(tmpfs)) == 1
        await later.remove_strays(())
        assert everything_below(tmpfs) == []
    finally:
        await later.close()
