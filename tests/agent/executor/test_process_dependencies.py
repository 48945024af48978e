"""Secrets and configs of real processes."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from pyswarm.agent.dependencies import Dependencies, UsesDependencies
from pyswarm.agent.executor import AlreadyPrepared, AlreadyStarted, ExecutorError, ExitError, TemporaryError
from pyswarm.agent.executor.process import ProcessExecutor
from pyswarm.agent.executor.process.controller import ProcessController
from pyswarm.api import v1 as api
from tests.support.engine import container_task
from tests.support.tmpfs import everything_below, files_below, private_tmpfs

SECRET = b"hush-5f1c"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
def tmpfs() -> Iterator[Path]:
    """A tmpfs."""
    with private_tmpfs() as directory:
        yield directory


@pytest.fixture
async def executor(tmp_path: Path, tmpfs: Path) -> AsyncIterator[ProcessExecutor]:
    """An executor on a node that has a secret and a config."""
    executor = ProcessExecutor(tmp_path, hostname="here", memory=[tmpfs])
    node = Dependencies()
    node.secrets.add(api.Secret(id="s", spec=api.SecretSpec(data=SECRET)))
    node.configs.add(api.Config(id="c", spec=api.ConfigSpec(data=b"config\n")))
    executor.use_dependencies(node)
    yield executor
    await executor.remove_strays(())
    await executor.close()


def shell(script: str, *, target: str = "pw", mode: int = 0, user: str = "") -> api.Task:
    """A task that runs a shell script and names the secret and the config."""
    task = container_task("/bin/sh", args=["-c", script])
    task.spec.container.user = user
    task.spec.container.secrets.add(secret_id="s", secret_name="pass", file=api.FileTarget(name=target, mode=mode))
    task.spec.container.configs.add(config_id="c", config_name="conf", file=api.FileTarget(name="sub/conf", mode=0o444))
    return task


async def launch(executor: ProcessExecutor, task: api.Task) -> ProcessController:
    """A controller whose process runs."""
    controller = executor.controller(task)
    await controller.prepare()
    await controller.start()
    return controller


async def output(controller: ProcessController) -> str:
    """What a task prints that ends well."""
    await controller.wait()
    return b"".join([message.data async for message in controller.logs(api.LogSubscriptionOptions())]).decode()


PRINT = 'cd "$PYSWARM_SECRETS_DIR"; ls -ln pw; cat pw; echo; cd "$PYSWARM_CONFIGS_DIR"; ls -ln sub/conf; cat sub/conf'


async def test_files(executor: ProcessExecutor, tmp_path: Path, tmpfs: Path) -> None:
    """A process finds its files where its environment says, with the mode asked for; they are gone with its end, and never on the disk."""
    assert isinstance(executor, UsesDependencies)
    task = shell(f"{PRINT}; sleep 0.2", target="pw")
    controller = await launch(executor, task)
    assert len(files_below(tmpfs)) == 2
    for path in files_below(tmp_path):
        assert SECRET not in (tmp_path / path).read_bytes() or path.endswith("/log")
    listed, secret, listed_config, config = (await output(controller)).splitlines()
    assert listed.startswith("-rw------- ")
    assert listed_config.startswith("-r--r--r-- ")
    assert (secret, config) == (SECRET.decode(), "config")
    assert files_below(tmpfs) == []
    await controller.remove()
    assert everything_below(tmpfs) == []


async def test_templates(executor: ProcessExecutor, tmp_path: Path, tmpfs: Path) -> None:
    """A config that is a template includes a secret, what is in it is the task's own, and like all configs it is never on the disk.

    [control 149]
    """
    node = Dependencies()
    node.secrets.add(api.Secret(id="s", spec=api.SecretSpec(data=SECRET)))
    data = b'password={{secret "pw"}}\nslot={{.Task.Slot}}\nhost={{.Node.Hostname}}\n'
    node.configs.add(api.Config(id="c", spec=api.ConfigSpec(data=data, templating=api.Driver(name="golang"))))
    executor.use_dependencies(node)
    await executor.describe()
    controller = await launch(executor, shell('cat "$PYSWARM_CONFIGS_DIR/sub/conf"; sleep 0.2'))
    for path in files_below(tmp_path):
        assert SECRET not in (tmp_path / path).read_bytes() or path.endswith("/log")
    assert await output(controller) == f"password={SECRET.decode()}\nslot=1\nhost=here\n"
    await controller.remove()
    assert everything_below(tmpfs) == []


@needs_root
async def test_other_user(executor: ProcessExecutor, tmpfs: Path) -> None:
    """The files belong to the task's user, who reaches them; another user does not."""
    task = shell('cd "$PYSWARM_SECRETS_DIR"; ls -ln pw; cat pw; echo; sleep 0.3', mode=0o400, user="65534:65534")
    controller = await launch(executor, task)
    (path,) = (tmpfs / entry for entry in files_below(tmpfs) if entry.endswith("/secrets/pw"))
    spy = container_task("/bin/cat", args=[str(path)])
    spy.spec.container.user = "12345:12345"
    with pytest.raises(ExitError):
        await (await launch(executor, spy)).wait()
    listed, secret = (await output(controller)).splitlines()
    assert listed.split()[:4] == ["-r--------", "1", "65534", "65534"]
    assert secret == SECRET.decode()


async def test_missing(executor: ProcessExecutor, tmp_path: Path) -> None:
    """A secret that has not arrived is waited for; once it is there, the task is prepared."""
    node = Dependencies()
    executor.use_dependencies(node)
    controller = executor.controller(shell('cat "$PYSWARM_SECRETS_DIR/pw"'))
    with pytest.raises(TemporaryError, match="dependency not ready: secret s not found"):
        await controller.prepare()
    node.secrets.add(api.Secret(id="s", spec=api.SecretSpec(data=b"late")))
    node.configs.add(api.Config(id="c", spec=api.ConfigSpec(data=b"x")))
    await controller.prepare()
    await controller.start()
    assert await output(controller) == "late"


async def test_adoption(executor: ProcessExecutor, tmp_path: Path, tmpfs: Path) -> None:
    """A daemon that knows no secrets yet carries on with tasks that are prepared or run, and removes their files with them."""
    running = shell('read line <"$PYSWARM_SECRETS_DIR/pw"; exec sleep 30')
    waiting = shell('cat "$PYSWARM_SECRETS_DIR/pw"')
    await (await launch(executor, running)).close()
    prepared = executor.controller(waiting)
    await prepared.prepare()
    await prepared.close()
    later = ProcessExecutor(tmp_path, memory=[tmpfs])
    await later.remove_strays([running.id, waiting.id])
    controller = later.controller(running)
    with pytest.raises(AlreadyPrepared):
        await controller.prepare()
    with pytest.raises(AlreadyStarted):
        await controller.start()
    await controller.shutdown()
    adopted = later.controller(waiting)
    with pytest.raises(AlreadyPrepared):
        await adopted.prepare()
    await adopted.start()
    assert await output(adopted) == SECRET.decode()
    assert files_below(tmpfs) == []


async def test_strays(executor: ProcessExecutor, tmpfs: Path) -> None:
    """What an earlier life left of a forgotten task is swept away, files included."""
    await launch(executor, shell("sleep 30"))
    await executor.remove_strays(())
    assert everything_below(tmpfs) == []


def test_refusals(executor: ProcessExecutor) -> None:
    """An absolute target is refused before anything is made."""
    with pytest.raises(ExecutorError, match="secret pass is to be the file /etc/pw, but a process has no file system of its own"):
        executor.controller(shell("true", target="/etc/pw"))
