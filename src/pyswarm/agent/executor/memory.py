"""Secrets and configs of tasks as files that lie in memory only, as the Docker Engine keeps those of its own swarm mode.

Layout: `<tmpfs>/pyswarm-<uid of the daemon>/<owner>/<task id>/...`. Each task's directory appears whole or not at all, and goes with the
task. A restart of the daemon finds it again, so a task that has been prepared needs nothing from a manager any more; a restart of the
machine empties it, and with it goes every process or container that could have used it.

The path is known to anyone, and `/dev/shm` is open to all: a directory there that is not the daemon's own is refused, never used.
Nothing is synced: there is no disk beneath.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import stat
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import structlog

from pyswarm.agent.executor import ExecutorError
from pyswarm.agent.executor.files import File, Files, Owner

log = structlog.get_logger(__name__)

CANDIDATES = (Path("/dev/shm"), Path("/run"))  # noqa: S108 - guarded by `_make_own`
"""Where a machine has a tmpfs, the best place first."""

IN_MEMORY = frozenset({"tmpfs", "ramfs"})
PASSABLE = 0o711
"""Others may pass through to what is theirs below, and see nothing on the way."""

NOBODY = "-"
"""In place of an owner that has no name yet: it must not see what the others have."""

ATTEMPTS = 5
_UNFINISHED = ".new"


class Memory:
    """The directories of all tasks of one executor. `owner` tells it from other executors on the machine, and is asked when needed.

    Its methods block, if only for a moment; all raise ExecutorError.
    """

    def __init__(self, owner: Callable[[], str], candidates: Sequence[Path] = CANDIDATES) -> None:
        self._owner = owner
        self._candidates = tuple(candidates)

    def directory(self, task_id: str) -> Path:
        """Where a task's files lie, or will."""
        tmpfs = self._tmpfs()
        if tmpfs is None:
            looked = " nor ".join(str(path) for path in self._candidates)
            raise ExecutorError(f"secrets and configs are kept in memory only, and neither {looked} is a tmpfs this daemon may write to")
        return self._below(tmpfs) / task_id

    def write(self, task_id: str, files: Files) -> None:
        """Make a task's directory with these files."""
        final = self.directory(task_id)
        unfinished = final.with_name(task_id + _UNFINISHED)
        try:
            _begin(unfinished)
            for file in files.files:
                _write(unfinished, file, files.owner)
            unfinished.chmod(PASSABLE)
            unfinished.rename(final)
        except OSError as error:
            _delete(unfinished)
            raise ExecutorError(f"secrets and configs cannot be placed in {final}: {error.strerror or error}") from error

    def delete(self, task_id: str) -> None:
        """Delete a task's files; fine when there are none."""
        tmpfs = self._tmpfs()
        if tmpfs is None:
            return
        for name in (task_id, task_id + _UNFINISHED):
            _delete(self._below(tmpfs) / name)
        _tidy(self._below(tmpfs))

    def keep_only(self, task_ids: Iterable[str]) -> None:
        """Delete the files of all other tasks."""
        tmpfs = self._tmpfs()
        if tmpfs is None or not self._below(tmpfs).is_dir():
            return
        kept = set(task_ids)
        for path in self._below(tmpfs).iterdir():
            if path.name.removesuffix(_UNFINISHED) not in kept:
                _delete(path)
        _tidy(self._below(tmpfs))

    def _tmpfs(self) -> Path | None:
        return next((path for path in self._candidates if os.access(path, os.W_OK | os.X_OK) and _in_memory(path)), None)

    def _below(self, tmpfs: Path) -> Path:
        return tmpfs / f"pyswarm-{os.geteuid()}" / (self._owner() or NOBODY)


class TaskFiles:
    """The files of one task: `deliver` before it is made and before it is started, `discard` once it has ended.

    `make` is called in a thread, when files are missing, for what they are; without it the task has none. What a cancelled `deliver` has
    begun goes on for a moment; a `discard` that follows waits for it, so nothing stays behind.
    """

    def __init__(self, memory: Memory, task_id: str, make: Callable[[], Files] | None) -> None:
        self._memory = memory
        self._task_id = task_id
        self._make = make
        self._lock = threading.Lock()

    async def deliver(self) -> None:
        """Make sure that they are there. Raises TemporaryError while something is not on this node yet, ExecutorError."""
        if self._make is not None:
            await asyncio.to_thread(self._deliver, self._make)

    async def discard(self) -> None:
        """Delete them; fine when they are gone. Raises ExecutorError."""
        if self._make is not None:
            await asyncio.to_thread(self._discard)

    async def discard_early(self) -> None:
        """The same as soon as nobody needs them; what goes wrong is logged, as it is no fault of the task and is tried again at removal."""
        try:
            await self.discard()
        except ExecutorError as error:
            log.warning("secrets and configs not deleted", task=self._task_id, error=str(error))

    def _deliver(self, make: Callable[[], Files]) -> None:
        with self._lock:
            if not self._memory.directory(self._task_id).is_dir():
                self._memory.write(self._task_id, make())

    def _discard(self) -> None:
        with self._lock:
            self._memory.delete(self._task_id)


def _in_memory(path: Path) -> bool:
    """Whether a path lies on a file system without a disk. Later lines hide earlier ones at the same place."""
    best, kind = -1, ""
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        _, point, file_system, *_ = line.split()
        if path.is_relative_to(point) and len(point) >= best:
            best, kind = len(point), file_system
    return kind in IN_MEMORY


def _begin(unfinished: Path) -> None:
    """Make an empty directory for a task, and what it lies in, which a removal may take away at the same moment."""
    _delete(unfinished)
    for attempt in range(ATTEMPTS):
        try:
            for path in (unfinished.parent.parent, unfinished.parent):
                _make_own(path)
            _make_private(unfinished)
        except FileNotFoundError:
            if attempt == ATTEMPTS - 1:
                raise
        else:
            return


def _tidy(path: Path) -> None:
    """Take away what has become empty."""
    with contextlib.suppress(OSError):
        path.rmdir()
        path.parent.rmdir()


def _make_own(path: Path) -> None:
    """Make a directory, or accept one that is ours alone."""
    try:
        _make_private(path)
    except FileExistsError:
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
            raise ExecutorError(f"secrets and configs cannot be placed in {path}: somebody else made it; remove it") from None
    path.chmod(PASSABLE)


def _make_private(path: Path) -> None:
    path.mkdir(mode=0o700)
    path.chmod(0o700)  # The umask may have taken something away.


def _write(directory: Path, file: File, owner: Owner) -> None:
    path = directory / file.path
    for parent in reversed(path.relative_to(directory).parents[:-1]):
        if not (directory / parent).exists():
            _make_private(directory / parent)
            _give(directory / parent, owner)
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(file.data)
    _give(path, file.owner)
    path.chmod(file.mode)


def _give(path: Path, owner: Owner) -> None:
    """Hand a file over. A daemon that is not root cannot give anything to root, and need not: root reads it all the same."""
    if owner == (0, 0) and os.geteuid() != 0:
        return
    if owner != (os.geteuid(), os.getegid()):
        os.chown(path, owner.uid, owner.gid)


def _delete(path: Path) -> None:
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise ExecutorError(f"deleting {error.filename} failed: {error.strerror or error}") from error
