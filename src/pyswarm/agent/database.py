"""The tasks of this node on disk, so that a restarted daemon knows what runs before any manager told it.

One SQLite file. Every method blocks for about one disk sync and is meant to be called from a thread; calls must not overlap. What is
written survives a power cut once the method has returned. Only tasks are kept: secrets and configs never touch the disk.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import DecodeError

from pyswarm.api import v1 as api
from pyswarm.errors import Internal

VERSION = 1
LITTLE_ROOM = 1 << 20
"""Bytes. A disk with less is what is the matter when SQLite speaks of input and output."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS tasks (
    id TEXT PRIMARY KEY,
    data BLOB NOT NULL,
    status BLOB NOT NULL,
    assigned INTEGER NOT NULL
) WITHOUT ROWID
"""


class DatabaseError(Internal):
    """The file cannot be used: one line for the operator, which names it and says what to do."""


@dataclass(frozen=True, slots=True)
class StoredTask:
    """A task with its last local status. One that is not `assigned` any more only waits for its removal to be completed."""

    task: api.Task
    assigned: bool


class Database:
    """`open`, use, `close`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None

    def open(self) -> None:
        """Open or create the file, readable by this user only. Raises DatabaseError."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._prepare(self._connection)
        except (OSError, sqlite3.Error) as error:
            self.close()
            raise self._unusable(error) from error

    def close(self) -> None:
        """Close the file; fine when it is not open."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def load(self) -> list[StoredTask]:
        """All tasks, by id, each with its status. Raises DatabaseError."""
        try:
            rows = self._open().execute("SELECT data, status, assigned FROM tasks ORDER BY id").fetchall()
            return [StoredTask(_task(data, status), bool(assigned)) for data, status, assigned in rows]
        except sqlite3.OperationalError as error:
            raise self._unusable(error) from error
        except (sqlite3.Error, DecodeError) as error:
            raise DatabaseError(f"task database {self._path} is damaged: {error}; remove the file") from error

    def save(self, tasks: Iterable[api.Task] = (), *, dropped: Iterable[str] = (), forgotten: Iterable[str] = ()) -> None:
        """Delete the `forgotten`, store `tasks` as assigned, mark the `dropped` as no longer assigned: in this order, or not at all.

        A stored task keeps its status: the local one counts, not the one that comes with an assignment.
        """
        with _Transaction(self._open()) as connection:
            connection.executemany("DELETE FROM tasks WHERE id = ?", [(i,) for i in forgotten])
            connection.executemany(
                "INSERT INTO tasks (id, data, status, assigned) VALUES (?, ?, ?, 1) "
                "ON CONFLICT (id) DO UPDATE SET data = excluded.data, assigned = 1",
                [(task.id, _bare(task), task.status.SerializeToString()) for task in tasks],
            )
            connection.executemany("UPDATE tasks SET assigned = 0 WHERE id = ?", [(i,) for i in dropped])

    def save_statuses(self, statuses: Mapping[str, api.TaskStatus]) -> None:
        """Store statuses by task id; those of unknown tasks are left out."""
        with _Transaction(self._open()) as connection:
            connection.executemany(
                "UPDATE tasks SET status = ? WHERE id = ?", [(status.SerializeToString(), i) for i, status in statuses.items()]
            )

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            raise DatabaseError(f"task database {self._path} is not open")
        return self._connection

    def _unusable(self, error: Exception) -> DatabaseError:
        """What to tell the operator of an error that is not in the file's contents."""
        return DatabaseError(
            f"task database {self._path} cannot be used: {self._reason(error)}. Repair or free the disk, restart; if the disk is fine, "
            "remove the file: the manager tells this node its tasks again"
        )

    def _reason(self, error: Exception) -> str:
        """SQLite says "disk I/O error" where its index or journal, which are files beside the database, find no room."""
        if isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_IOERR:
            disk = os.statvfs(self._path.parent)
            if disk.f_bavail * disk.f_frsize < LITTLE_ROOM:
                return f"{os.strerror(errno.ENOSPC)} ({error})"
        return str(error)

    def _prepare(self, connection: sqlite3.Connection) -> None:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise DatabaseError(f"task database {self._path} was written by a newer pyswarm (version {version}); upgrade this node")
        with _Transaction(connection):
            connection.execute(_SCHEMA)
            connection.execute(f"PRAGMA user_version = {VERSION}")


class _Transaction:
    """BEGIN, then COMMIT or ROLLBACK."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> sqlite3.Connection:
        self._connection.execute("BEGIN IMMEDIATE")
        return self._connection

    def __exit__(self, kind: object, *_exc: object) -> None:
        if self._connection.in_transaction:
            self._connection.execute("COMMIT" if kind is None else "ROLLBACK")


def _bare(task: api.Task) -> bytes:
    """The task without its status, which has a column of its own."""
    bare = api.Task()
    bare.CopyFrom(task)
    bare.ClearField("status")
    return bare.SerializeToString()


def _task(data: bytes, status: bytes) -> api.Task:
    task = api.Task.FromString(data)
    task.status.MergeFromString(status)
    return task
