"""Hosts of their own for managers: what is cut is lost, what is full is full, and nothing stays behind."""

from __future__ import annotations

import errno
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from tools.hosts import PREFIX, Hosts, HostsError, sweep

from tests.cluster.conftest import no_hosts

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(60)]
LISTEN = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ears:
    ears.bind(("0.0.0.0", 9))
    print("ready", flush=True)
    while True:
        print(ears.recv(100).decode(), flush=True)
"""
SAY = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mouth:
    mouth.sendto(sys.argv[2].encode(), (sys.argv[1], 9))
"""
DIE = """
import os, pathlib, signal, subprocess, sys
from tools.hosts import Hosts
with Hosts(pathlib.Path(sys.argv[1]), ["a"]) as hosts:
    left = subprocess.Popen([*hosts.inside("a"), "sh", "-c", "echo in; exec sleep 1000"], stdout=subprocess.PIPE)
    left.stdout.readline()
    print(left.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def three(tmp_path: pathlib.Path) -> Iterator[Hosts]:
    """Three hosts with small disks."""
    try:
        with Hosts(tmp_path, ["a", "b", "c"], disk=1 << 20) as hosts:
            yield hosts
    except HostsError as error:
        no_hosts(error)


def heard(hosts: Hosts, hearer: str, *arriving: str) -> bool:
    """Whether a host hears exactly these others when all say their names to it. Waits for those that should be heard."""
    command = [*hosts.inside(hearer), sys.executable, "-I", "-S", "-c", LISTEN]
    words: set[str] = set()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as listener:
        assert listener.stdout is not None
        assert listener.stdout.readline() == "ready\n"
        for speaker in (*hosts.others(hearer), hearer):
            say = [*hosts.inside(speaker), sys.executable, "-I", "-S", "-c", SAY, hosts.address(hearer), speaker]
            subprocess.run(say, check=True)
        while not words >= {hearer, *arriving}:
            words.add(listener.stdout.readline().strip())
        listener.kill()
    return words == {hearer, *arriving}


def test_cuts(three: Hosts) -> None:
    """Each direction between two hosts is cut by itself, in silence, and healed."""
    assert heard(three, "a", "b", "c")
    three.cut(["b"], ["a"])
    assert heard(three, "a", "c")
    assert heard(three, "b", "a", "c")
    three.heal()
    three.isolate("a", heard=True)
    assert heard(three, "a")
    assert heard(three, "b", "a", "c")
    three.isolate("a")
    assert heard(three, "b", "c")
    three.heal()
    three.isolate("a", "b", hears=True)
    assert heard(three, "b", "a", "c")
    assert heard(three, "c")
    three.heal()
    assert heard(three, "a", "b", "c")


def test_full_disks(three: Hosts) -> None:
    """A full disk takes no byte until it is freed; the others have room."""
    full, other = (three.root / name / "file" for name in ("a", "b"))
    full.write_bytes(b"")
    three.fill("a")
    with pytest.raises(OSError, match="No space left") as failure:
        full.write_bytes(b"x")
    assert failure.value.errno == errno.ENOSPC
    other.write_bytes(b"x")
    three.free("a")
    full.write_bytes(b"x")


def await_end(pid: int) -> None:
    """A killed process needs a moment to die, and is then reaped by whoever takes in orphans."""
    status, until = pathlib.Path(f"/proc/{pid}/stat"), time.monotonic() + 10
    while True:
        try:
            if status.read_text().rpartition(")")[2].split()[0] in "ZX":
                return
        except (FileNotFoundError, ProcessLookupError):
            return
        assert time.monotonic() < until, f"process {pid} still runs"
        time.sleep(0.02)


def test_leftovers_of_the_dead(three: Hosts, tmp_path: pathlib.Path) -> None:
    """What a killed process left is swept away, with what still runs there; what a living one has is not."""
    (tmp_path / "left").mkdir()
    with subprocess.Popen([sys.executable, "-c", DIE, str(tmp_path / "left")], stdout=subprocess.PIPE) as dying:
        assert dying.stdout is not None
        running = int(dying.stdout.readline())
        assert dying.wait(20) == -signal.SIGKILL
    os.kill(running, 0)
    assert f"{PREFIX}-{dying.pid}-" in pathlib.Path("/proc/mounts").read_text()
    sweep()
    assert f"{PREFIX}-{dying.pid}-" not in pathlib.Path("/proc/mounts").read_text()
    assert [path.name for path in pathlib.Path("/run/netns").iterdir() if path.name.startswith(f"{PREFIX}-{dying.pid}-")] == []
    assert three.root.joinpath("a").is_mount()
    await_end(running)
