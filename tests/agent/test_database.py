"""The task database on a real file."""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest

from pyswarm.agent.database import Database, DatabaseError, StoredTask
from pyswarm.api import v1 as api
from pyswarm.errors import SwarmError
from tests.agent.fakes import S, task


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the node keeps it."""
    return tmp_path / "worker" / "tasks.db"


def opened(path: Path) -> Database:
    """An open database."""
    made = Database(path)
    made.open()
    return made


def test_opening_is_repeatable_and_private(path: Path) -> None:
    """Opened again it holds the same; the file is readable by its owner only. [dispatcher 119]"""
    first = opened(path)
    first.save([task("t")])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    first.close()
    first.close()
    again = opened(path)
    assert again.load() == [StoredTask(task("t"), True)]
    again.close()


def test_tasks_and_statuses_are_independent(path: Path) -> None:
    """Twenty tasks come back equal; statuses and the assigned mark change separately. [dispatcher 119]"""
    database = opened(path)
    tasks = [task(f"t{n:02}") for n in range(20)]
    database.save(tasks)
    assert [entry.task for entry in database.load()] == tasks
    database.save_statuses({"t03": api.TaskStatus(state=S.RUNNING, err="e")})
    database.save(dropped=[t.id for t in tasks[::2]])
    loaded = database.load()
    assert [entry.assigned for entry in loaded] == [False, True] * 10
    assert loaded[3].task.status == api.TaskStatus(state=S.RUNNING, err="e")
    assert loaded[3].task.spec == tasks[3].spec
    database.close()


def test_local_status_is_kept(path: Path) -> None:
    """Storing a task again replaces the task and keeps its status, unless the task was forgotten first. [dispatcher 126]"""
    database = opened(path)
    database.save([task("t")])
    database.save_statuses({"t": api.TaskStatus(state=S.RUNNING)})
    database.save([task("t", S.SHUTDOWN)])
    (entry,) = database.load()
    assert (entry.task.desired_state, entry.task.status.state) == (S.SHUTDOWN, S.RUNNING)
    database.save([task("t", S.RUNNING)], forgotten=["t"])
    (entry,) = database.load()
    assert entry.task.status.state == S.ASSIGNED
    database.close()


def test_unknown_tasks_have_no_status(path: Path) -> None:
    """A status for a task that is not stored, or a removal of it, does nothing. [dispatcher 120, 130]"""
    database = opened(path)
    database.save_statuses({"t": api.TaskStatus(state=S.RUNNING)})
    database.save(dropped=["t"], forgotten=["u"])
    assert database.load() == []
    database.close()


def test_unclean_end_loses_nothing(path: Path, tmp_path: Path) -> None:
    """What was written is there although the file was never closed."""
    database = opened(path)
    database.save([task("t")])
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in path.parent.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    crashed = opened(copy / "tasks.db")
    assert [entry.task.id for entry in crashed.load()] == ["t"]
    crashed.close()
    database.close()


def test_damage_is_named(path: Path) -> None:
    """A file that is no database, or from a newer version, is refused with its path; nothing is overwritten."""
    path.parent.mkdir()
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(DatabaseError, match=str(path)):
        opened(path)
    assert path.read_bytes().startswith(b"not a database")
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(DatabaseError, match="newer pyswarm"):
        opened(path)


def test_unusable_path(tmp_path: Path) -> None:
    """A file where the directory should be gives an error for the operator that names the database and the remedy."""
    (tmp_path / "worker").write_bytes(b"")
    with pytest.raises(SwarmError, match=r"tasks\.db.* free the disk"):
        opened(tmp_path / "worker" / "tasks.db")


@pytest.mark.parametrize(("free", "said"), [(3, r"No space left on device \(disk I/O error\)"), (1000, "cannot be used: disk I/O error")])
def test_full_disk(path: Path, monkeypatch: pytest.MonkeyPatch, free: int, said: str) -> None:
    """SQLite's "disk I/O error" is said to be a full disk where the disk is full, in opening as in reading, and never to be damage."""
    database = opened(path)
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_SHMSIZE

    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(os, "statvfs", lambda _path: SimpleNamespace(f_bavail=free, f_frsize=4096))
    monkeypatch.setattr(sqlite3, "connect", refuse)
    with pytest.raises(DatabaseError, match=f"{path}.*{said}.*free the disk"):
        Database(path).open()
    with monkeypatch.context() as reading:
        reading.setattr(database, "_connection", SimpleNamespace(execute=refuse))
        with pytest.raises(DatabaseError, match=f"{path}.*{said}.*free the disk"):
            database.load()
    database.close()
