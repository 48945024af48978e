"""Secrets and configs as files: what a task wants, and where each executor puts it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyswarm.agent.dependencies import Dependencies
from pyswarm.agent.executor import ExecutorError, TemporaryError
from pyswarm.agent.executor.docker import given as docker_given
from pyswarm.agent.executor.docker.http import EngineError
from pyswarm.agent.executor.files import File, Owner, WantedFile, wanted_files
from pyswarm.agent.executor.payloads import Payloads
from pyswarm.agent.executor.process import given as process_given
from pyswarm.api import v1 as api
from tests.support.engine import container_task


def wants(*, secrets: dict[str, api.FileTarget] | None = None, configs: dict[str, api.FileTarget] | None = None) -> api.Task:
    """A task with these references; each id is the name with `-id`."""
    task = container_task("true")
    for name, file in (secrets or {}).items():
        task.spec.container.secrets.add(secret_id=f"{name}-id", secret_name=name, file=file)
    for name, file in (configs or {}).items():
        task.spec.container.configs.add(config_id=f"{name}-id", config_name=name, file=file)
    return task


def test_wanted() -> None:
    """Owners are numbers, with empty and 0 left open; of the mode only the permission bits count; targets are made plain."""
    task = wants(
        secrets={"a": api.FileTarget(name="x//y", uid="7", gid="0", mode=0o100440), "b": api.FileTarget(name="/etc/b")},
        configs={"c": api.FileTarget(name="./c", gid="8")},
    )
    assert wanted_files(task.spec.container) == (
        WantedFile("secret", "a-id", "a", "x/y", 7, None, 0o440),
        WantedFile("secret", "b-id", "b", "/etc/b", None, None, None),
        WantedFile("config", "c-id", "c", "c", None, 8, None),
    )


@pytest.mark.parametrize(
    ("file", "error"),
    [
        (api.FileTarget(name="x", uid="postgres"), "secret s is to belong to user 'postgres': give the user's number instead of a name"),
        (api.FileTarget(name="x", gid="-1"), "secret s is to belong to group '-1'"),
        (api.FileTarget(name="x", uid="4294967295"), "secret s is to belong to user '4294967295'"),
        (api.FileTarget(name="../x"), "secret s has the file target '../x', which names no file of the task"),
        (api.FileTarget(name="/"), "secret s has the file target '/'"),
        (api.FileTarget(), "secret s has the file target ''"),
        (None, "secret s has no file target"),
    ],
)
def test_refused_references(file: api.FileTarget | None, error: str) -> None:
    """What cannot be a file of the task is refused with a sentence that names it."""
    task = container_task("true")
    task.spec.container.secrets.add(secret_id="s-id", secret_name="s", file=file)
    with pytest.raises(ExecutorError) as caught:
        wanted_files(task.spec.container)
    assert str(caught.value).startswith(error)


def test_content() -> None:
    """A value made for the task alone comes first; a missing one is waited for. [dispatcher 145]"""
    task = wants(secrets={"a": api.FileTarget(name="a")}, configs={"c": api.FileTarget(name="c")})
    secret, config = wanted_files(task.spec.container)
    node = Dependencies()
    payloads = Payloads(task, None, node.of(task))
    with pytest.raises(TemporaryError, match="dependency not ready: secret a-id not found"):
        payloads.content(secret)
    node.secrets.add(api.Secret(id="a-id", spec=api.SecretSpec(data=b"all")))
    assert payloads.content(secret) == b"all"
    node.secrets.add(api.Secret(id=f"a-id.{task.id}", spec=api.SecretSpec(data=b"mine")))
    assert payloads.content(secret) == b"mine"
    node.configs.add(api.Config(id="c-id", spec=api.ConfigSpec(data=b"{{.}}")))
    assert payloads.content(config) == b"{{.}}"


def test_filled() -> None:
    """The executor's owner and mode stand where the task leaves them open, and the content does not show when a file is printed."""
    task = wants(secrets={"a": api.FileTarget(name="a", gid="9")})
    node = Dependencies()
    node.secrets.add(api.Secret(id="a-id", spec=api.SecretSpec(data=b"hush")))
    (wanted,) = wanted_files(task.spec.container)
    file = Payloads(task, None, node.of(task)).file(wanted, "files/0", Owner(5, 6), 0o400)
    assert file == File("files/0", b"hush", Owner(5, 9), 0o400)
    assert "hush" not in repr(file)


def test_container_mounts() -> None:
    """Each file is a read-only mount of its own: secrets below /run/secrets, configs below the root, absolute targets as they are."""
    task = wants(
        secrets={"a": api.FileTarget(name="sub/a"), "b": api.FileTarget(name="/etc/b")}, configs={"c": api.FileTarget(name="etc/c")}
    )
    mounts = docker_given.file_mounts(wanted_files(task.spec.container), Path("/mem/t"))
    assert mounts == tuple(
        {"Type": "bind", "Source": f"/mem/t/files/{number}", "Target": target, "ReadOnly": True}
        for number, target in enumerate(("/run/secrets/sub/a", "/etc/b", "/etc/c"))
    )


def test_engine_elsewhere() -> None:
    """An engine that does not see the files is named; its other errors stay as they are."""
    mounts = ({"Source": "/mem/t/files/0"},)
    missing = 'invalid mount config for type "bind": bind source path does not exist: '
    error = docker_given.unseen(EngineError(400, f"{missing}/mem/t/files/0"), mounts, "tcp://far:2375")
    assert str(error).startswith("the Docker Engine at tcp://far:2375 does not see this daemon's files")
    for other in (EngineError(400, f"{missing}/data"), EngineError(409, "Conflict")):
        assert docker_given.unseen(other, mounts, "tcp://far:2375") is other


def test_process_places() -> None:
    """A process is told the directories of what it has, and nothing else; absolute targets are refused."""
    wanted = wanted_files(wants(secrets={"a": api.FileTarget(name="a")}).spec.container)
    process_given.check_targets(wanted)
    assert process_given.environment(wanted, Path("/mem/t")) == {"PYSWARM_SECRETS_DIR": "/mem/t/secrets"}
    wanted = wanted_files(wants(configs={"c": api.FileTarget(name="/etc/c")}).spec.container)
    with pytest.raises(ExecutorError, match="config c is to be the file /etc/c, but a process has no file system of its own"):
        process_given.check_targets(wanted)
