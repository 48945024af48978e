"""The name of the place where a node lives."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pyswarm.agent.home import name_of


def test_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the same in every life, however the directory is named, and another one in another directory or on another machine."""
    machine = tmp_path / "machine-id"
    machine.write_text("one\n")
    (tmp_path / "node").mkdir()
    here = name_of(tmp_path / "node", machine)
    (tmp_path / "node").rmdir()
    monkeypatch.chdir(tmp_path)
    assert name_of(Path("node"), machine) == here
    others = {name_of(tmp_path / "other", machine), name_of(tmp_path / "node", tmp_path / "missing")}
    monkeypatch.setattr("socket.gethostname", lambda: "somewhere.else")
    others.add(name_of(tmp_path / "node", machine))
    assert len(others - {here}) == 3


def test_the_same_path_in_other_files(tmp_path: Path) -> None:
    """Daemons in containers see each a directory of their own under one path."""
    (tmp_path / "lib").mkdir()
    here = name_of(tmp_path / "lib" / "node")
    (tmp_path / "lib").rename(tmp_path / "kept")
    (tmp_path / "lib").mkdir()
    assert name_of(tmp_path / "lib" / "node") != here
    shutil.rmtree(tmp_path / "lib")
    (tmp_path / "kept").rename(tmp_path / "lib")
    assert name_of(tmp_path / "lib" / "node") == here
