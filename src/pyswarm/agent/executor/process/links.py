"""Cluster volumes of processes: links in the task's directory, which its environment names."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from posixpath import isabs, normpath

from pyswarm.agent.executor import ExecutorError
from pyswarm.agent.executor.spec import container_spec
from pyswarm.agent.executor.templates import expanded_container
from pyswarm.agent.executor.volumes import Place, bound
from pyswarm.api import v1 as api
from pyswarm.ca.files import ensure_directory

FOLDER = "volumes"
VARIABLE = "PYSWARM_VOLUMES_DIR"
"""Set only for tasks that have volumes."""


def volume_links(task: api.Task, node: api.NodeDescription, place: Place) -> dict[str, Path]:
    """Link below the task's folder to the volume's directory. Pure. Raises ExecutorError for what a process cannot be given."""
    spec = container_spec(task)
    if not any(mount.type == api.Mount.CLUSTER for mount in spec.mounts):
        return {}
    if spec.user:
        raise ExecutorError("the process executor's volumes are for the daemon's own user: leave the user out, or use the docker executor")
    mounts = bound(task, expanded_container(task, node).mounts, place)
    return {_target(mount.target): Path(mount.source) for mount in mounts}


def _target(text: str) -> str:
    target = normpath(text) if text else "."
    if isabs(target) or target.split("/")[0] in {".", ".."}:
        raise ExecutorError(
            f"a cluster volume is to be mounted at {text!r}, but a process has no file system of its own: name a directory relative to "
            f"{VARIABLE}, or run this task with the docker executor"
        )
    return target


def make_links(directory: Path, links: Mapping[str, Path]) -> None:
    """Make them below the task's `directory`, new or again. Blocking. Raises OSError."""
    ensure_directory(directory, 0o711)
    for target, volume in links.items():
        link = directory / FOLDER / target
        link.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            link.unlink()
        link.symlink_to(volume)
