"""pyswarmd as its operator meets it: flags, one line per mistake, exit statuses, signals."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
import structlog

from pyswarm import __version__
from pyswarm.ca import tokens
from pyswarm.cli import daemon
from pyswarm.cli import logging as daemon_logging
from pyswarm.node_state import Settings


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory with a name short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="ps-") as name:
        yield Path(name)


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str]:
    """Exit status and the one error line of a start that fails in this process."""
    status = daemon.run([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    assert captured.out == ""
    errors = [line for line in captured.err.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1
    assert "Traceback" not in captured.err
    assert captured.err.splitlines()[-1] == errors[0]
    return status, errors[0]


class Daemon:
    """A real process."""

    def __init__(self, log: Path, *arguments: str | Path) -> None:
        self.log = log
        with log.open("w") as stderr:
            command = [sys.executable, "-m", "pyswarm.cli.daemon", *map(str, arguments)]
            self.process = subprocess.Popen(command, stderr=stderr, stdout=stderr)

    def until(self, text: str, seconds: float = 20.0) -> str:
        """Wait for a text in the log."""
        end = time.monotonic() + seconds
        while text not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.02)
        return self.log.read_text()

    def stop(self, number: signal.Signals) -> int:
        """Send a signal and return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(20)


@contextlib.contextmanager
def started(log: Path, *arguments: str | Path) -> Iterator[Daemon]:
    """A process that does not outlive the test."""
    made = Daemon(log, *arguments)
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.process.kill()
        made.process.wait()


def founding(directory: Path) -> list[str | Path]:
    """Flags of a first manager that needs no engine and no fixed port."""
    return [
        *("-d", directory / "state", "--executor", "process", "--listen-remote-api", "127.0.0.1:0"),
        *("--listen-control-api", directory / "swarm.sock", "--hostname", "one"),
    ]


def test_help_has_an_example_and_is_quick() -> None:
    """Help shows how to start, every flag, and does not load what a node needs."""
    code = "import sys; from pyswarm.cli import daemon; daemon.run(['--help']); print('grpc' in sys.modules, 'cryptography' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.splitlines()[-1] == "False False"
    assert "pyswarmd -d /tmp/node-1 --listen-control-api /tmp/node-1/swarm.sock --hostname node-1" in shown
    for flag in ("--state-dir", "--executor", "--join-token", "--force-new-cluster", "--unlock-key", "--election-tick", "--log-level"):
        assert flag in shown
    assert "go on running" in shown


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """-v prints one line and ends with 0."""
    assert daemon.run(["-v"]) == 0
    assert capsys.readouterr().out == f"pyswarmd pyswarm {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--bogus"], "--bogus"),
        (["extra"], "extra"),
        (["--log-level", "bogus"], "--log-level: 'bogus' is none of panic"),
        (["--election-tick", "x"], "--election-tick"),
        (["--heartbeat-tick", "0"], "--heartbeat-tick"),
        (["--unlock-key", "bad"], "--unlock-key: invalid key string"),
        (["--csi-plugin", "nfs=/run/nfs.sock"], "--csi-plugin: plugin nfs: '/run/nfs.sock' is no address of a Unix socket"),
        (["--generic-node-resources", "gpu"], "incorrect term gpu, missing '=' or malformed expression"),
        (["--listen-remote-api", "4242"], "missing or invalid listen address 4242"),
        (["--join-addr", "host"], "missing or invalid address host"),
        (["--join-addr", ":4242"], ":4242 names no host"),
        (["--join-token", "x"], "--join-addr"),
        (["--leave", "--join-addr", "127.0.0.1:1"], "--leave: a node that leaves neither joins nor founds a cluster"),
        (["--executor", "pods"], "'pods'"),
        (["--external-ca", "protocol=cfssl,url=https://x"], "--external-ca: not implemented yet"),
        (["--listen-metrics", "9323"], "--listen-metrics: missing or invalid address 9323"),
        (["--listen-debug", "127.0.0.1:1"], "--listen-debug: not implemented yet"),
    ],
)
def test_wrong_flags(capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], text: str) -> None:
    """A wrong command line is one line, status 2, and touches nothing. [cli 90]"""
    status, error = run(capsys, "-d", tmp_path / "state", *arguments)
    assert status == 2
    assert text in error
    assert error.endswith("(see pyswarmd --help)")
    assert not (tmp_path / "state").exists()


def test_unreachable_engine(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Without an engine the start fails at once and names the alternative. [cli 43]"""
    status, error = run(capsys, "-d", tmp_path / "state", "--engine-addr", f"unix://{tmp_path}/no.sock")
    assert status == 1
    assert f"unix://{tmp_path}/no.sock" in error
    assert "--executor process" in error
    assert not (tmp_path / "state").exists()


def test_bad_engine_address(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """An engine address that is none is named. [cli 90]"""
    status, error = run(capsys, "-d", tmp_path / "state", "--engine-addr", "bogus")
    assert status == 1
    assert "bogus" in error


def test_unusable_state_directory(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A state directory that cannot be made is named. [cli 90]"""
    status, error = run(capsys, "-d", "/proc/nope", "--executor", "process")
    assert status == 1
    assert error.startswith("Error: cannot use state directory /proc/nope: ")


def test_malformed_token(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A malformed token fails before anybody is asked. [cli 93]"""
    status, error = run(capsys, "-d", tmp_path / "s", "--executor", "process", "--join-addr", "127.0.0.1:1", "--join-token", "garbage")
    assert status == 1
    assert "invalid join token" in error


def test_port_in_use(capsys: pytest.CaptureFixture[str], directory: Path) -> None:
    """A taken port is named with the flag that helps; nothing of the cluster is left, and another port works. [cli 94]"""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        status, error = run(capsys, *founding(directory), "--listen-remote-api", address)
    assert status == 1
    assert error.startswith(f"Error: manager stopped: failed to listen on remote API address {address}: Address already in use")
    assert "--listen-remote-api" in error
    assert {path.name for path in (directory / "state").iterdir()} <= {"daemon.lock", "run", "worker"}
    assert not (directory / "swarm.sock").exists()


def test_unexpected_error_is_logged(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A bug is one line for the operator and a traceback in the log for us."""

    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("inside")

    monkeypatch.setattr(daemon, "_executor", broken)
    assert daemon.run(["-d", str(tmp_path / "s")]) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("Error: unexpected ZeroDivisionError: inside")


def test_plugin_that_is_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A storage plugin that nobody serves ends the start, naming flag, socket and remedy."""
    status, error = run(capsys, "-d", tmp_path / "s", "--executor", "process", "--csi-plugin", f"nfs=unix://{tmp_path}/nfs.sock")
    assert status == 1
    assert error.startswith(
        f"Error: --csi-plugin nfs: plugin nfs does not answer: there is no socket {tmp_path}/nfs.sock; start the plugin"
    )


def test_merge_prefers_what_is_given() -> None:
    """A flag given replaces what was kept; what was kept replaces the default."""
    kept = Settings(hostname="kept", election_tick=20)
    nothing: dict[str, object] = {field.name: None for field in fields(Settings)}
    assert daemon.merge(None, nothing) == Settings()
    assert daemon.merge(kept, nothing) == kept
    assert daemon.merge(kept, {**nothing, "hostname": "given", "log_level": "info"}) == Settings(hostname="given", election_tick=20)


def test_log_lines() -> None:
    """Events are lines of key=value with quoted texts, tracebacks follow, libraries' records look the same, gRPC stays silent."""
    out = io.StringIO()
    daemon_logging.configure("WARN", out)
    logger = structlog.get_logger("x")
    logger.info("not shown")
    logger.warning("something happened", node="abc", addr="1.2.3.4:5", count=3, flag=True, **{"odd key": "a b"})
    logging.getLogger("asyncio").error("from a library")
    logging.getLogger("grpc._cython.cygrpc").error("noise")
    try:
        raise ValueError("inside")
    except ValueError:
        logger.exception("failed")
    lines = out.getvalue().splitlines()
    assert re.fullmatch(
        r'time=\S+Z level=warning msg="something happened" addr=1.2.3.4:5 count=3 flag=true node=abc odd_key="a b"', lines[0]
    )
    assert 'level=error msg="from a library" module=asyncio' in lines[1]
    assert "level=error msg=failed" in lines[2]
    assert lines[3].startswith("Traceback")
    assert "noise" not in out.getvalue()


@pytest.mark.cluster
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_stop_in_good_order(directory: Path, number: signal.Signals) -> None:
    """SIGTERM and SIGINT end the daemon with 0, promptly, and take the socket along; the next start needs -d only. [cli 96 in part]"""
    with started(directory / "log", *founding(directory)) as first:
        first.until("node is ready")
        begin = time.monotonic()
        assert first.stop(number) == 0
        assert time.monotonic() - begin < 6
        assert not (directory / "swarm.sock").exists()
    with started(directory / "log", "-d", directory / "state") as second:
        log = second.until("node is ready")
        assert "use the ones on disk" in log
        assert (directory / "swarm.sock").exists()
        assert second.stop(number) == 0


@pytest.mark.cluster
def test_second_daemon(capsys: pytest.CaptureFixture[str], directory: Path) -> None:
    """A second daemon on the same directory, or on the same control socket, is refused by name and harms nothing."""
    with started(directory / "log", *founding(directory)) as first:
        first.until("node is ready")
        status, error = run(capsys, *founding(directory))
        assert status == 1
        assert f"state directory {directory / 'state'} is in use by another pyswarmd (process {first.process.pid})" in error
        status, error = run(capsys, *founding(directory), "-d", directory / "other")
        assert status == 1
        assert f"control API socket {directory / 'swarm.sock'}: another process answers there" in error
        assert first.stop(signal.SIGTERM) == 0


@pytest.mark.cluster
def test_killed_manager_starts_again(directory: Path) -> None:
    """After kill -9 the stale socket and lock are no obstacle. [cli 97]"""
    with started(directory / "log", *founding(directory)) as first:
        first.until("node is ready")
        first.process.kill()
        first.process.wait()
    assert (directory / "swarm.sock").exists()
    with started(directory / "log", "-d", directory / "state") as second:
        second.until("node is ready")
        assert second.stop(signal.SIGTERM) == 0


@pytest.mark.cluster
def test_failing_join(capsys: pytest.CaptureFixture[str], directory: Path) -> None:
    """A token that the cluster does not know is refused with a line that says where to get one. [cli 93]"""
    with started(directory / "log", *founding(directory)) as first:
        log = first.until("node is ready")
        found = re.search(r'msg="listening for connections" addr=(\S+)', log)
        assert found is not None
        bundle = (directory / "state" / "certificates" / "swarm-root-ca.crt").read_bytes()
        base = ["-d", directory / "worker", "--executor", "process", "--join-addr", found[1], "--join-token"]
        status, error = run(capsys, *base, tokens.generate(bundle))
        assert status == 1
        assert f"cannot join the cluster at {found[1]}: A valid join token is necessary to join this cluster; " in error
        assert "pyswarmctl cluster inspect default" in error
        assert first.stop(signal.SIGTERM) == 0
