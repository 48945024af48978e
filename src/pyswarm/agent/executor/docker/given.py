"""Secrets and configs in containers: files in this machine's memory, mounted read-only one by one, as the engine does it for its own.

Not by copying an archive into the created container: its files would come to lie in the container's layer, on the disk, and a tmpfs that
could take them instead exists only from the start on. The price: the engine must see this machine's files. One elsewhere, or a daemon in a
container of its own that does not share the directory, is told so when the container is made (`unseen`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from posixpath import join

from pyswarm.agent.executor import ExecutorError
from pyswarm.agent.executor.docker.http import EngineError
from pyswarm.agent.executor.files import Files, Owner, WantedFile
from pyswarm.agent.executor.memory import Memory, TaskFiles
from pyswarm.agent.executor.payloads import Payloads

Body = dict[str, object]

PLACES = {"secret": "/run/secrets", "config": "/"}
"""Where relative targets begin."""

ROOT = Owner(0, 0)
DEFAULT_MODE = 0o444
FOLDER = "files"


def file_mounts(wanted: Sequence[WantedFile], directory: Path) -> tuple[Body, ...]:
    """The mounts of files that lie in the task's `directory`. Pure."""
    return tuple(
        {"Type": "bind", "Source": str(directory / _path(number)), "Target": join(PLACES[file.kind], file.target), "ReadOnly": True}
        for number, file in enumerate(wanted)
    )


def task_files(task_id: str, wanted: Sequence[WantedFile], memory: Memory, payloads: Payloads) -> TaskFiles:
    """The files of a container, for root unless the task says otherwise."""

    def make() -> Files:
        return Files(tuple(payloads.file(file, _path(n), ROOT, DEFAULT_MODE) for n, file in enumerate(wanted)), ROOT)

    return TaskFiles(memory, task_id, make if wanted else None)


def unseen(error: EngineError, mounts: Sequence[Body], address: str) -> ExecutorError:
    """What to say instead when an engine does not find the files; any other error as it is."""
    if "bind source path does not exist" not in error.message or not any(str(mount["Source"]) in error.message for mount in mounts):
        return error
    return ExecutorError(
        f"the Docker Engine at {address} does not see this daemon's files, so it cannot give secrets and configs to containers: "
        f"{error.message}"
    )


def _path(number: int) -> str:
    """Targets may be equal or lie anywhere, numbers do not."""
    return f"{FOLDER}/{number}"
