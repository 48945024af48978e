"""Mistakes of users: one clear line, status 1 (2 for usage), nothing changed."""

from __future__ import annotations

import pathlib
import subprocess
from collections.abc import Callable

import pytest
from tools.cluster import BIN, Cluster, free_port

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]
SERVICE = ("service", "create", "--name", "there", "--image", "x", "--replicas", "0")


def daemon(*flags: str) -> subprocess.CompletedProcess[str]:
    """A pyswarmd that is expected to refuse."""
    return subprocess.run([str(BIN / "pyswarmd"), *flags], capture_output=True, text=True, check=False, timeout=60)


def one_line(done: subprocess.CompletedProcess[str], status: int, *words: str) -> None:
    """The refusal has the status, says `Error:` once, names what is wrong, and shows no traceback."""
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert done.returncode == status, done.stderr
    assert len(errors) == 1, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in errors[0], errors[0]


@pytest.mark.parametrize(
    ("command", "status", "words"),
    [
        (("service", "inspect", "nobody"), 1, ["service", "nobody"]),
        (("node", "drain", "nobody"), 1, ["node", "nobody"]),
        (("service", "create", "--name", "there", "--image", "x"), 1, ["there"]),
        (("service", "create", "--name", "THERE", "--image", "x"), 1, ["THERE"]),
        (("service", "create", "--name", "a"), 2, ["--image"]),
        (("service", "create", "--name", "a", "--image", "x", "--replicas", "many"), 2, ["many", "--replicas"]),
        (("service", "create", "--name", "a", "--image", "x", "--restart-delay", "5"), 2, ["5"]),
        (("service", "create", "--name", "a", "--image", "UPPER:x"), 1, ["UPPER:x"]),
        (("service", "create", "--name", "a", "--image", "x", "--constraint", "node.name==b"), 1, ["node.name"]),
        (("service", "update", "there"), 1, ["no changes"]),
        (("service", "frobnicate"), 2, ["frobnicate"]),
        (("node", "demote", "node-1"), 1, ["last manager"]),
    ],
)
def test_wrong_commands(small: Cluster, command: tuple[str, ...], status: int, words: list[str]) -> None:
    """A command that cannot work says why in one line and changes nothing."""
    small.run(*SERVICE)
    before = small.ask("service", "ls"), small.ask("node", "ls")
    one_line(small.run(*command), status, *words)
    assert (small.ask("service", "ls"), small.ask("node", "ls")) == before


def test_ambiguous_prefix(small: Cluster) -> None:
    """A prefix of several ids is refused with their number."""
    ids: list[str] = []
    for number in range(40):
        ids.append(small.ask("service", "create", "--name", f"many-{number}", "--image", "x", "--replicas", "0").strip())
        shared = [i for i in ids if i[0] == ids[-1][0]]
        if len(shared) > 1:
            break
    one_line(small.run("service", "inspect", ids[-1][0]), 1, "ambiguous")
    assert ids[0] in small.ask("service", "inspect", ids[0])


def test_no_socket(tmp_path: pathlib.Path) -> None:
    """Without a manager at the socket the line names the socket."""
    done = subprocess.run(
        [str(BIN / "pyswarmctl"), "-s", str(tmp_path / "none.sock"), "node", "ls"], capture_output=True, text=True, check=False
    )
    one_line(done, 1, "none.sock")


def test_wrong_and_foreign_tokens(small: Cluster, new_cluster: Callable[[int], Cluster], tmp_path: pathlib.Path) -> None:
    """A malformed token, a token with another secret, another cluster's token, and a rotated one are each refused in one line."""
    good = small.token()
    foreign = new_cluster(0).token()
    wrong_secret = good[:-5] + ("aaaaa" if good[-5:] != "aaaaa" else "bbbbb")
    small.ask("cluster", "update", "default", "--rotate-join-token", "worker")
    nodes = small.ask("node", "ls")
    for number, token in enumerate(["nonsense", wrong_secret, foreign, good]):
        one_line(
            daemon("-d", str(tmp_path / str(number)), "--executor", "process", "--join-addr", small.remote, "--join-token", token),
            1,
            "token",
        )
    assert small.ask("node", "ls") == nodes


def test_port_and_directory_in_use(small: Cluster, tmp_path: pathlib.Path) -> None:
    """A taken port and a directory that another daemon uses are named."""
    control = ("--listen-control-api", str(tmp_path / "c.sock"), "--executor", "process")
    one_line(daemon("-d", str(tmp_path / "new"), "--listen-remote-api", small.remote, *control), 1, small.remote)
    one_line(daemon("-d", str(small.root / "node-1"), *control), 1, str(small.root / "node-1"))


def test_unreachable_engine(tmp_path: pathlib.Path) -> None:
    """Without an engine the line names its address and the alternative."""
    engine = f"unix://{tmp_path}/docker.sock"
    one_line(daemon("-d", str(tmp_path / "n"), "--engine-addr", engine), 1, engine, "--executor process")


def test_damaged_and_foreign_log(new_cluster: Callable[[int], Cluster], tmp_path: pathlib.Path) -> None:
    """A flipped byte in the log, and the log of another cluster, end the start with a line that names the file."""
    cluster = new_cluster(0)
    other = new_cluster(0)
    for made in (cluster, other):
        for number in range(3):
            made.ask("service", "create", "--name", f"s{number}", "--image", "x", "--replicas", "0")
        made.kill("node-1")
    state = cluster.root / "node-1"
    segment = max((p for p in (state / "raft").rglob("*") if p.is_file() and p.stat().st_size > 2000), key=lambda p: p.stat().st_size)
    sound = segment.read_bytes()
    segment.write_bytes(sound[:1000] + bytes([sound[1000] ^ 1]) + sound[1001:])
    one_line(daemon("-d", str(state), "--listen-remote-api", f"127.0.0.1:{free_port()}"), 1, segment.name)
    assert segment.read_bytes()[1000] == sound[1000] ^ 1
    segment.write_bytes(sound)
    (state / "raft").rename(tmp_path / "raft")
    (other.root / "node-1" / "raft").rename(state / "raft")
    one_line(daemon("-d", str(state)), 1, "raft")
