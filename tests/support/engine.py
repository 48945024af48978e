"""A private Docker Engine for tests, and the tasks they run in it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from tools.engine import Engine, EngineStartError, destroy, start

from pyswarm.api import ids
from pyswarm.api import v1 as api

REQUIRED = "PYSWARM_REQUIRE_DOCKER"
"""Set to 1 where a Docker test that cannot run is a failure, as in CI."""

NODE = "testnode"


@contextmanager
def private_engine() -> Iterator[Engine]:
    """An engine of our own; without one the test is skipped with the reason, or fails where `REQUIRED` says so."""
    directory = Path(tempfile.mkdtemp(prefix="psw-", dir="/tmp"))  # short: it holds a socket
    try:
        engine = start(directory)
    except EngineStartError as error:
        shutil.rmtree(directory, ignore_errors=True)
        if os.environ.get(REQUIRED) == "1":
            pytest.fail(f"{REQUIRED}=1, but {error}", pytrace=False)
        pytest.skip(str(error))
    try:
        yield engine
    finally:
        destroy(present(engine))


def present(engine: Engine) -> Engine:
    """The engine as it runs now: it may have been restarted in its directory, and has another process id since."""
    pid_file = engine.directory / "docker.pid"
    return replace(engine, pid=int(pid_file.read_text())) if pid_file.exists() else engine


def container_task(*command: str, args: Sequence[str] = (), image: str = "busybox:latest", node: str = NODE, name: str = "web") -> api.Task:
    """A task of service `name` in slot 1 that runs `command`; without one, whatever the image does."""
    task = api.Task(id=ids.new_id(), service_id=f"{name}-service", slot=1, node_id=node, desired_state=api.TaskState.RUNNING)
    task.service_annotations.name = name
    task.spec.container.image = image
    task.spec.container.command.extend(command)
    task.spec.container.args.extend(args)
    task.spec.container.stop_grace_period.FromSeconds(5)
    return task
