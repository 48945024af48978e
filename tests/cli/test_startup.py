"""What starting costs: the sets of modules that are imported, which stay small on every machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROBE = """
import sys
from pyswarm.cli.ctl import main
try:
    main()
except SystemExit:
    pass
print("\\n".join(sys.modules), file=sys.stderr)
"""


def imported(*words: str) -> set[str]:
    """Modules that are loaded when the command is done."""
    run = subprocess.run([sys.executable, "-c", PROBE, *words], capture_output=True, text=True, check=True)
    return set(run.stderr.split())


def test_help_of_the_program_imports_no_messages() -> None:
    """--help loads neither gRPC nor protobuf nor a command's module."""
    modules = imported("--help")
    assert not modules & {"grpc", "google.protobuf", "asyncio", "ssl", "structlog", "cryptography", "pyswarm.cli.commands.service"}


@pytest.mark.parametrize("words", [("service", "create", "--help"), ("node", "ls", "--help"), ("service", "create", "--bogus")])
def test_help_of_a_command_imports_no_grpc(words: tuple[str, ...]) -> None:
    """A command's help and its usage errors load its family only, and nothing to connect with."""
    modules = imported(*words)
    assert not modules & {"grpc", "asyncio", "structlog", "cryptography", "docker", "pysyncobj"}
    families = {name for name in modules if name.startswith("pyswarm.cli.commands.")}
    assert f"pyswarm.cli.commands.{words[0]}" in families
    assert not families & {"pyswarm.cli.commands.network", "pyswarm.cli.commands.cluster"}


def test_a_command_imports_only_the_client_side(tmp_path: Path) -> None:
    """Even a command that connects loads nothing of the daemon."""
    modules = imported("-s", str(tmp_path / "none.sock"), "service", "ls")
    assert not modules & {"structlog", "cryptography", "docker", "pysyncobj"}
    rooms = {name.split(".")[1] for name in modules if name.startswith("pyswarm.")}
    assert rooms <= {"api", "cli", "clock", "errors", "rpc"}
    assert {name for name in modules if name.startswith("pyswarm.rpc")} <= {"pyswarm.rpc", "pyswarm.rpc.leaf"}
