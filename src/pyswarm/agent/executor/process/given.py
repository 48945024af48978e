"""Secrets and configs of processes: files in memory that the task's user alone can reach, in the directories its environment names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from posixpath import isabs

from pyswarm.agent.executor import ExecutorError
from pyswarm.agent.executor.files import Files, Owner, WantedFile
from pyswarm.agent.executor.memory import Memory, TaskFiles
from pyswarm.agent.executor.payloads import Payloads
from pyswarm.agent.executor.process.recipe import Recipe, credentials

FOLDERS = {"secret": "secrets", "config": "configs"}
VARIABLES = {"secret": "PYSWARM_SECRETS_DIR", "config": "PYSWARM_CONFIGS_DIR"}
"""Set only for what the task has."""

DEFAULT_MODE = 0o600


def check_targets(wanted: Sequence[WantedFile]) -> None:
    """Pure. Raises ExecutorError for a target that would lie outside the task's directories."""
    for file in wanted:
        if isabs(file.target):
            raise ExecutorError(
                f"{file} is to be the file {file.target}, but a process has no file system of its own: name a file relative to "
                f"{VARIABLES[file.kind]}, or run this task with the docker executor"
            )


def environment(wanted: Sequence[WantedFile], directory: Path) -> dict[str, str]:
    """Where a task finds its files that lie in `directory`. Pure."""
    return {VARIABLES[file.kind]: str(directory / FOLDERS[file.kind]) for file in wanted}


def task_files(task_id: str, wanted: Sequence[WantedFile], memory: Memory, payloads: Payloads, recipe: Recipe) -> TaskFiles:
    """The files of a process, for its user unless the task says otherwise."""

    def make() -> Files:
        who = credentials(recipe.user, recipe.groups)
        owner = Owner(who.uid, who.gid) if who is not None else Owner(os.geteuid(), os.getegid())
        made = tuple(payloads.file(file, f"{FOLDERS[file.kind]}/{file.target}", owner, DEFAULT_MODE) for file in wanted)
        return Files(made, owner)

    return TaskFiles(memory, task_id, make if wanted else None)
