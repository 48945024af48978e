"""A fake manager on a socket, and pyswarmctl to run against it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog
from click.testing import CliRunner, Result

from pyswarm.cli.ctl import ROOT
from pyswarm.cli.framework import Call

from .builders import NOW
from .fake import Manager, serve

Run = Callable[..., Result]


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    """A manager whose socket SWARM_SOCKET names."""
    made = Manager()
    path = tmp_path / "swarm.sock"
    monkeypatch.setenv("SWARM_SOCKET", str(path))
    with serve(made, path):
        yield made


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run pyswarmctl with these words (and bytes on standard input); the result has exit_code, stdout, stderr."""

    def call(*words: str, stdin: bytes = b"", now: float = NOW) -> Result:
        monkeypatch.setattr(Call, "now", lambda _: now)
        result = CliRunner().invoke(ROOT, list(words), prog_name="pyswarmctl", input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return call


@pytest.fixture
def dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A socket path with nothing behind it, in SWARM_SOCKET."""
    path = tmp_path / "nobody.sock"
    monkeypatch.setenv("SWARM_SOCKET", str(path))
    return path


@pytest.fixture(autouse=True)
def _logging_restored() -> Iterator[None]:
    """A program configures logging for its process; a test's process lives on."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)
    structlog.reset_defaults()
