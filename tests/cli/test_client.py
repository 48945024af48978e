"""The connection: no manager, failing calls, and what is said about them."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import grpc
import pytest

from pyswarm.cli import client

from .conftest import Run
from .fake import Manager, serve


def test_no_socket(dead: Path, run: Run) -> None:
    """No manager at the socket: one line with the path, the reason and what to do. [cli 1]"""
    result = run("node", "ls")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(
        f"Error: no manager answers at {dead}: No such file or directory. pyswarmd must run there as a manager;"
    )
    assert result.stderr.count("\n") == 1


def test_dead_socket(dead: Path, run: Run) -> None:
    """A plain file, or a socket nobody listens on, is refused. [cli 2]"""
    dead.write_text("")
    assert "Connection refused" in run("node", "ls").stderr


def test_silent_socket(dead: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket that never answers ends with the connect deadline."""
    monkeypatch.setattr(client, "CONNECT_SECONDS", 0.1)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(dead))
        listener.listen()
        assert f"no manager answers at {dead}: no answer within 0.1 s" in run("node", "ls").stderr


def test_socket_is_chosen_by_flag_before_variable(manager: Manager, run: Run, tmp_path: Path) -> None:
    """-s beats SWARM_SOCKET, wherever it stands, the innermost one first; an empty variable is none. [cli 3]"""
    other = Manager()
    with serve(other, tmp_path / "other.sock"):
        path = str(tmp_path / "other.sock")
        for words in (("-s", path, "node", "ls"), ("node", "ls", f"--socket={path}"), ("-s", "/x", "node", "-s", "/y", "ls", "-s", path)):
            assert run(*words).exit_code == 0
    assert len(other.calls) == 3
    assert not manager.calls


def test_empty_variable(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Help shows the socket that would be used. [cli 3]"""
    monkeypatch.setenv("SWARM_SOCKET", "")
    assert '(default "/var/run/swarmd.sock")' in run("node", "ls", "--help").stdout
    monkeypatch.setenv("SWARM_SOCKET", "/tmp/x.sock")
    assert '(default "/tmp/x.sock")' in run("--help").stdout


@pytest.mark.parametrize(
    ("status", "details", "line"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "name conflicts\nwith an object", "name conflicts with an object"),
        (grpc.StatusCode.UNAVAILABLE, "the swarm has no leader", "the swarm has no leader"),
        (grpc.StatusCode.UNIMPLEMENTED, "networks are not there yet", "networks are not there yet"),
        (grpc.StatusCode.UNAUTHENTICATED, "", "UNAUTHENTICATED"),
    ],
)
def test_server_errors(status: grpc.StatusCode, details: str, line: str, manager: Manager, run: Run) -> None:
    """What the server says is the one line printed. [cli 9]"""
    manager.failures["ListNodes"] = (status, details)
    result = run("node", "ls")
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", f"Error: {line}\n")


def test_unimplemented_without_words(manager: Manager, run: Run) -> None:
    """A method the server has never heard of is one clear line, too."""
    manager.failures["ListNodes"] = (grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
    assert run("node", "ls").stderr.endswith("swarm.sock does not offer this yet\n")


def test_call_deadline(manager: Manager, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that gets no answer ends, and says that it may still happen."""
    monkeypatch.setattr(client, "CALL_SECONDS", 0.5)
    release = manager.holding["ListNodes"] = threading.Event()
    try:
        result = run("node", "ls")
    finally:
        release.set()
    assert result.exit_code == 1
    assert "gave no answer within 0.5 s; what was asked may still happen: look first" in result.stderr


def test_lost_connection(manager: Manager) -> None:
    """A manager that goes away between two calls is reported with its socket."""
    import os

    from pyswarm.api import v1 as api
    from pyswarm.errors import Unavailable

    path = Path(os.environ["SWARM_SOCKET"]).with_name("short.sock")
    with serve(Manager(), path):
        context = client.connect(str(path))
        opened = context.__enter__()
        opened.ask(opened.control.ListNodes, api.ListNodesRequest())
    try:
        with pytest.raises(Unavailable, match=f"no manager answers at {path}"):
            opened.ask(opened.control.ListNodes, api.ListNodesRequest())
    finally:
        context.__exit__(None, None, None)
