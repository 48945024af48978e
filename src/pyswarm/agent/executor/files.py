"""Which secrets and configs a task wants as files (spec/cli-and-executor, section 22, last paragraph). Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from pyswarm.agent.executor import ExecutorError
from pyswarm.api import v1 as api

Kind = Literal["secret", "config"]

PERMISSIONS = 0o777
"""Of a mode only these bits count: the others mean something else in an `os.FileMode`, and nothing good on a secret."""

LARGEST_ID = (1 << 32) - 2


class Owner(NamedTuple):
    """User and group, by number."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class WantedFile:
    """One reference of a task. Owner and mode are None where the task leaves them to the executor (empty, `0`)."""

    kind: Kind
    id: str
    name: str
    target: str
    uid: int | None
    gid: int | None
    mode: int | None

    def __str__(self) -> str:
        return f"{self.kind} {self.name or self.id}"


@dataclass(frozen=True, slots=True)
class File:
    """A file to be made at `path`, relative to the task's directory. Its content never shows when it is printed."""

    path: str
    data: bytes = field(repr=False)
    owner: Owner
    mode: int


@dataclass(frozen=True, slots=True)
class Files:
    """All files of a task, and whom the directories between the task's own and them belong to (nobody else may enter those)."""

    files: tuple[File, ...]
    owner: Owner


def wanted_files(spec: api.ContainerSpec) -> tuple[WantedFile, ...]:
    """The files, secrets first. Raises ExecutorError for a reference that cannot be a file here, with its name and the reason."""
    return tuple(_references(spec))


def _references(spec: api.ContainerSpec) -> Iterator[WantedFile]:
    for secret in spec.secrets:
        file = secret.file if secret.HasField("file") else None
        yield _wanted("secret", secret.secret_id, secret.secret_name, file)
    for config in spec.configs:
        file = config.file if config.HasField("file") else None
        yield _wanted("config", config.config_id, config.config_name, file)


def _wanted(kind: Kind, object_id: str, name: str, file: api.FileTarget | None) -> WantedFile:
    shown = f"{kind} {name or object_id}"
    if file is None:
        raise ExecutorError(f"{shown} has no file target: it can be given to a task as a file only")
    target = posixpath.normpath(file.name) if file.name else "."
    if target in {".", "/"} or ".." in target.split("/") or "\0" in target:
        raise ExecutorError(f"{shown} has the file target {file.name!r}, which names no file of the task")
    return WantedFile(
        kind,
        object_id,
        name,
        target,
        uid=_number(shown, "user", file.uid),
        gid=_number(shown, "group", file.gid),
        mode=file.mode & PERMISSIONS or None,
    )


def _number(shown: str, what: str, text: str) -> int | None:
    """An owner's number; the system that knows the names is the container's, which does not run yet."""
    if text in {"", "0"}:
        return None
    if not (text.isascii() and text.isdigit()) or int(text) > LARGEST_ID:
        raise ExecutorError(f"{shown} is to belong to {what} {text!r}: give the {what}'s number instead of a name")
    return int(text)
