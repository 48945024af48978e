"""Atomic, durable files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pyswarm.ca import files


def test_content_and_mode(tmp_path: Path) -> None:
    """A written file holds the data with the asked-for mode and nothing else is left behind. [dispatcher 200]"""
    path = tmp_path / "key"
    files.write_atomically(path, b"one")
    files.write_atomically(path, b"two", 0o644)
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o644
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


def test_failed_write_keeps_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk refuses, the old file stays and the temporary one goes."""
    path = tmp_path / "key"
    files.write_atomically(path, b"old")

    def refuse(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="No space"):
        files.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


def test_synced_before_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The data is synced before the rename, the directory after it."""
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (steps.append("sync"), fsync(fd))[1])
    monkeypatch.setattr(Path, "replace", lambda self, to: (steps.append("rename"), replace(self, to))[1])
    files.write_atomically(tmp_path / "x", b"")
    assert steps == ["sync", "rename", "sync"]


def test_directory_mode(tmp_path: Path) -> None:
    """A created directory gets the mode; an existing one keeps its own."""
    made = tmp_path / "a" / "b"
    files.ensure_directory(made, 0o700)
    files.ensure_directory(made, 0o755)
    assert made.stat().st_mode & 0o777 == 0o700
