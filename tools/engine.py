"""A private Docker Engine for tests, the demo and benchmarks: own directories, socket and bridge, gone without a trace afterwards.

Needs root, Debian's `docker.io` (dockerd, containerd, runc) and `busybox-static`. No registry is asked: the images are one tree around
busybox, imported under the names the README uses. Also a command: `python tools/engine.py start|stop DIRECTORY`.
"""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import requests
from docker import APIClient
from docker.errors import DockerException

IMAGES = ("redis:3.0.5", "redis:3.0.6", "redis:3.0.7", "busybox:latest")
_NAMES = (
    "sh sleep echo cat httpd nc env ls true false kill ps wget dd head yes id pwd hostname mount grep touch test seq tail printf ip stat rm"
)
APPLETS = tuple(f"{_NAMES} mkdir usleep date".split())
COMMAND = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done"]
"""Sleeps until it is asked to stop, then ends with 0 at once: PID 1 would otherwise ignore the stop signal."""

START_TIMEOUT = 30.0
STOP_TIMEOUT = 30.0


class EngineStartError(Exception):
    """No private engine can run here; the text says why."""


@dataclass(frozen=True, slots=True)
class Engine:
    """A running engine: where it listens (`unix://...`), its process, its files and its bridge."""

    address: str
    pid: int
    directory: Path
    bridge: str


def find_problem() -> str:
    """Why no private engine can run here, empty when it can be tried."""
    if os.geteuid() != 0:
        return "a private Docker Engine needs root"
    missing = [name for name in ("dockerd", "containerd", "runc", "ip", "busybox") if not _find(name)]
    if missing:
        return f"not installed: {', '.join(missing)} (apt-get install docker.io busybox-static iproute2)"
    return ""


def start(directory: Path, *, images: Sequence[str] = IMAGES) -> Engine:
    """Start an engine with everything below `directory` (short: the socket path has at most 107 bytes) and give it the images.

    A second start on the same directory after a stop finds containers and images again. Raises EngineStartError.
    """
    if problem := find_problem():
        raise EngineStartError(problem)
    directory.mkdir(parents=True, exist_ok=True)
    bridge = _bridge(directory)
    address = f"unix://{directory / 'docker.sock'}"
    command = [
        _find("dockerd"),
        *("--data-root", str(directory / "data"), "--exec-root", str(directory / "exec"), "--pidfile", str(directory / "docker.pid")),
        *("-H", address, "--bridge", bridge, "--storage-driver", _storage_driver(directory)),
    ]
    with (directory / "dockerd.log").open("ab") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    engine = Engine(address, process.pid, directory, bridge)
    try:
        _await_answer(engine, process)
        import_images(address, images)
    except BaseException:
        stop(engine)
        raise
    finally:
        process.returncode = 0  # It is ended by its pid, perhaps from another process: no complaint about a child left running.
    return engine


def stop(engine: Engine) -> None:
    """End the engine, its containers and its bridge; the files stay (see `destroy`). Fine when it has ended already."""
    _end(engine.pid)
    _end_leftovers(engine.directory)
    for name in ("docker.pid", "docker.sock"):
        (engine.directory / name).unlink(missing_ok=True)
    subprocess.run(["ip", "link", "delete", engine.bridge], check=False, capture_output=True)
    _drop_gateway()


def destroy(engine: Engine) -> None:
    """Stop it and delete its files."""
    stop(engine)
    for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
        point = line.split()[1]
        if point.startswith(f"{engine.directory}/"):
            subprocess.run(["umount", "-l", point], check=False, capture_output=True)
    shutil.rmtree(engine.directory, ignore_errors=True)


@contextlib.contextmanager
def running(directory: Path) -> Iterator[Engine]:
    """An engine for the length of a block."""
    engine = start(directory)
    try:
        yield engine
    finally:
        destroy(engine)


def _find(name: str) -> str:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin") or ""


def _bridge(directory: Path) -> str:
    """A bridge of its own: an engine without one would remove the `docker0` of another engine on this machine."""
    stored = directory / "bridge"
    for _ in range(20):
        name = stored.read_text() if stored.exists() else f"psw{secrets.token_hex(4)}"
        subnet = int.from_bytes(name.encode(), "big") % 250
        address = f"10.213.{subnet}.1/24"
        taken = subprocess.run(["ip", "-o", "addr", "show", "to", address], check=False, capture_output=True, text=True).stdout
        if not taken or name in taken:
            break
        stored.unlink(missing_ok=True)
    stored.write_text(name)
    for arguments in (
        ["link", "add", "name", name, "type", "bridge"],
        ["addr", "replace", address, "dev", name],
        ["link", "set", name, "up"],
    ):
        done = subprocess.run(["ip", *arguments], check=False, capture_output=True, text=True)
        if done.returncode and "exists" not in done.stderr:
            raise EngineStartError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return name


def _storage_driver(directory: Path) -> str:
    """overlay2 where the file system can carry it, which is not so inside another engine's container."""
    kind = subprocess.run(["stat", "-f", "-c", "%T", str(directory)], check=False, capture_output=True, text=True).stdout.strip()
    return "vfs" if kind in {"overlayfs", "overlay"} else "overlay2"


def _await_answer(engine: Engine, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise EngineStartError(f"dockerd ended with status {process.returncode}: {_last_words(engine.directory)}")
        if _listens(engine.directory / "docker.sock") and _answers(engine.address):
            return
        time.sleep(0.05)
    raise EngineStartError(f"dockerd did not answer within {START_TIMEOUT:.0f} s: {_last_words(engine.directory)}")


def _listens(path: Path) -> bool:
    """Asked first because the `docker` package leaves a socket open when nobody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(str(path)) == 0


def _answers(address: str) -> bool:
    with contextlib.closing(APIClient(address, version="1.24", timeout=5)) as client:
        try:
            return client.ping()
        except (DockerException, requests.RequestException):
            return False


def _last_words(directory: Path) -> str:
    lines = (directory / "dockerd.log").read_text(errors="replace").splitlines()
    return lines[-1] if lines else "it said nothing"


def import_images(address: str, images: Sequence[str]) -> None:
    """Give an engine the images it lacks, all from one tree around busybox that sleeps until it is told to stop."""
    with contextlib.closing(APIClient(address, version="auto")) as client:
        present = {tag for image in client.images() for tag in image.get("RepoTags") or ()}
        missing = [image for image in images if image not in present]
        if not missing:
            return
        command = ", ".join(f'"{word}"' for word in COMMAND)
        repository, _, tag = missing[0].partition(":")
        client.import_image_from_data(_tree(), repository=repository, tag=tag, changes=[f"CMD [{command}]"])
        for image in missing[1:]:
            repository, _, tag = image.partition(":")
            client.tag(missing[0], repository, tag)


def _tree() -> bytes:
    """An image's files as a tar archive: busybox, a link for each applet, and the directories programs expect."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for directory in ("bin", "etc", "tmp", "proc", "sys", "dev", "var", "root", "www"):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if directory == "tmp" else 0o755
            archive.addfile(entry)
        archive.add(Path(_find("busybox")).resolve(), "bin/busybox")
        for applet in APPLETS:
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(entry)
        for name, text in (("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"), ("www/index.html", "pyswarm\n")):
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()


def _end(pid: int) -> None:
    """SIGTERM, which makes dockerd stop its containers and containerd, and SIGKILL if that takes too long."""
    deadline = time.monotonic() + STOP_TIMEOUT
    signalled = signal.SIGTERM
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signalled)
        while _alive(pid):
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
                deadline += STOP_TIMEOUT
            time.sleep(0.05)


def _end_leftovers(directory: Path) -> None:
    """Kills what a killed engine left behind: containerd and shims, which name its directory, and the containers below them."""
    needle = f"{directory}/exec/".encode()
    children: dict[int, list[int]] = {}
    doomed: list[int] = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit():
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
                if needle in (entry / "cmdline").read_bytes():
                    doomed.append(int(entry.name))
    for pid in doomed:
        doomed += [child for child in children.get(pid, ()) if child not in doomed]
    for pid in doomed:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _drop_gateway() -> None:
    """The bridge that engines in swarm mode share stays behind with the last one; whoever is connected to it keeps it."""
    ports = Path("/sys/class/net/docker_gwbridge/brif")
    if ports.is_dir() and not any(ports.iterdir()) and not _engines():
        subprocess.run(["ip", "link", "delete", "docker_gwbridge"], check=False, capture_output=True)


def _engines() -> list[str]:
    """The process ids of all engines on this machine."""
    return [path.parent.name for path in Path("/proc").glob("[0-9]*/comm") if _read(path) == "dockerd\n"]


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _alive(pid: int) -> bool:
    with contextlib.suppress(ChildProcessError):
        if os.waitpid(pid, os.WNOHANG)[0] == pid:
            return False
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in {"Z", "X"}


def main(arguments: Sequence[str]) -> int:
    """`start DIRECTORY` prints the address and the pid; `stop DIRECTORY` ends the engine there and deletes it."""
    if len(arguments) != 2 or arguments[0] not in {"start", "stop"}:
        print("usage: engine.py start|stop DIRECTORY", file=sys.stderr)
        return 2
    directory = Path(arguments[1]).absolute()
    if arguments[0] == "start":
        try:
            engine = start(directory)
        except EngineStartError as error:
            print(f"engine.py: {error}", file=sys.stderr)
            return 1
        print(engine.address, engine.pid)
        return 0
    pid = int((directory / "docker.pid").read_text())
    destroy(Engine(f"unix://{directory / 'docker.sock'}", pid, directory, (directory / "bridge").read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
