"""The name of the place where a node lives."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyswarm.agent.home import name_of


def test_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the same in every life, however the directory is named, and another one in another directory or on another machine."""
    machine = tmp_path / "machine-id"
    machine.write_text("one\n")
    here = name_of(tmp_path / "node", machine)
    monkeypatch.chdir(tmp_path)
    assert name_of(Path("node"), machine) == here
    others = {name_of(tmp_path / "other", machine), name_of(tmp_path / "node", tmp_path / "missing")}
    monkeypatch.setattr("socket.gethostname", lambda: "somewhere.else")
    others.add(name_of(tmp_path / "node", machine))
    assert len(others - {here}) == 3
