"""The private engine of the tests: what happens where none can run."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest
from tools.engine import EngineStartError

from tests.support import engine


@pytest.mark.parametrize(("required", "outcome"), [("", pytest.skip.Exception), ("1", pytest.fail.Exception)])
def test_no_engine_possible(required: str, outcome: type[BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no engine can run its tests are skipped with the reason, and fail where they must run; nothing is left behind."""
    directories: list[Path] = []

    def refuse(directory: Path) -> NoReturn:
        directories.append(directory)
        raise EngineStartError("not installed: dockerd")

    monkeypatch.setattr(engine, "start", refuse)
    monkeypatch.setenv(engine.REQUIRED, required)
    with pytest.raises(outcome, match="not installed: dockerd"), engine.private_engine():
        pass
    assert not directories[0].exists()
