"""Hosts of their own on one machine: a network namespace with an address, and a small disk, for each node of a cluster.

Needs root, `ip` and `nsenter`, and nothing of the machine's own network: the switch between the hosts is a namespace too. A packet is lost
by writing a hardware address that nobody has into the sender's neighbour table, so every direction between two hosts can be cut by itself,
in silence, without packet filters or kernel modules.

Everything is named after the process that made it. What processes left behind that were killed is swept away at the next `Hosts`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import re
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Self

from tools.cluster import Cluster

PREFIX = "psw-host"
NETWORK = "10.83.0"
PORT = 4242
DISK_BYTES = 48 << 20
_MADE = re.compile(rf"{PREFIX}-([0-9]+)-[0-9]+-\w+")
_NAMESPACES = pathlib.Path("/run/netns")
_BALLAST = "ballast"
_ROUTER = "switch"
_numbers = iter(range(1 << 30))


class HostsError(Exception):
    """This machine cannot be divided into hosts; the text says why."""


def _run(*command: str, given: str | None = None) -> str:
    """A command's output. Raises HostsError with its own words."""
    try:
        done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise HostsError(f"network namespaces need `{command[0]}`: apt-get install iproute2 util-linux") from error
    if done.returncode:
        raise HostsError(f"{shlex.join(command)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


class Hosts:
    """Use with `with`. `root` gets a directory for each host: its disk, a tmpfs of `disk` bytes.

    Entering raises HostsError where this is impossible, and leaves nothing behind.
    """

    def __init__(self, root: pathlib.Path, names: Sequence[str], disk: int = DISK_BYTES) -> None:
        self.root = root
        self.names = tuple(names)
        self._disk = disk
        self._mark = f"{PREFIX}-{os.getpid()}-{next(_numbers)}"
        self._lost: set[tuple[str, str]] = set()

    def __enter__(self) -> Self:
        sweep()
        if os.geteuid():
            raise HostsError("network namespaces need root")
        try:
            self._build()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def _build(self) -> None:
        for name in (_ROUTER, *self.names):
            _run("ip", "netns", "add", self._namespace(name))
        _run("ip", "-n", self._namespace(_ROUTER), "link", "add", "bridge", "up", "type", "bridge")
        for number, name in enumerate(self.names):
            self._attach(number, name)
            disk = self.root / name
            disk.mkdir(mode=0o700)
            _run("mount", "-t", "tmpfs", "-o", f"size={self._disk},mode=0700", self._namespace(name), str(disk))
        for name in self.names:
            self._tell_neighbours(name, self.others(name))

    def _attach(self, number: int, name: str) -> None:
        """A cable from the host to the switch."""
        host, switch = self._namespace(name), self._namespace(_ROUTER)
        port, hardware = f"port{number}", self._hardware(name)
        _run("ip", "-n", switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "address", hardware, "netns", host)
        _run("ip", "-n", switch, "link", "set", port, "master", "bridge", "up")
        for link in ("lo", "eth0"):
            _run("ip", "-n", host, "link", "set", link, "up")
        _run("ip", "-n", host, "address", "add", f"{self.address(name)}/24", "dev", "eth0")

    def _namespace(self, name: str) -> str:
        return f"{self._mark}-{name.replace('-', '')}"

    def _hardware(self, name: str) -> str:
        return f"02:00:00:00:00:{self.names.index(name) + 1:02x}"

    def address(self, name: str) -> str:
        """The host's IP address; only hosts reach it."""
        return f"{NETWORK}.{self.names.index(name) + 1}"

    def inside(self, name: str) -> list[str]:
        """What to put before a command so that it runs on the host, as a process with the same id."""
        return ["nsenter", f"--net={_NAMESPACES / self._namespace(name)}", "--"]

    def others(self, *names: str) -> tuple[str, ...]:
        """The hosts but these."""
        return tuple(other for other in self.names if other not in names)

    def cut(self, senders: Iterable[str], receivers: Iterable[str]) -> None:
        """From now on what senders send to receivers is lost."""
        receivers = tuple(receivers)
        for sender in senders:
            self._lost |= {(sender, receiver) for receiver in receivers if receiver != sender}
            self._tell_neighbours(sender, receivers)

    def isolate(self, *names: str, hears: bool = False, heard: bool = False) -> None:
        """Cut hosts off from the others, though not from each other; in one direction only if they still hear or are heard."""
        if not heard:
            self.cut(names, self.others(*names))
        if not hears:
            self.cut(self.others(*names), names)

    def heal(self) -> None:
        """Nothing is lost any more."""
        lost, self._lost = self._lost, set()
        for sender in {sender for sender, _ in lost}:
            self._tell_neighbours(sender, (receiver for s, receiver in lost if s == sender))

    def _tell_neighbours(self, sender: str, receivers: Iterable[str]) -> None:
        lines = []
        for receiver in receivers:
            hardware = self._hardware(receiver) if (sender, receiver) not in self._lost else "02:00:00:00:ff:ff"
            if receiver != sender:
                lines.append(f"neighbour replace {self.address(receiver)} lladdr {hardware} nud permanent dev eth0\n")
        _run("ip", "-n", self._namespace(sender), "-batch", "-", given="".join(lines))

    def fill(self, name: str) -> None:
        """No byte is free on the host's disk any more."""
        with (self.root / name / _BALLAST).open("ab", buffering=0) as ballast:
            for size in (1 << 20, 1 << 12):
                with contextlib.suppress(_DiskFull):
                    while True:
                        _write(ballast.fileno(), bytes(size))

    def free(self, name: str) -> None:
        """There is room again."""
        (self.root / name / _BALLAST).unlink()

    def remove(self) -> None:
        """End what still runs on the hosts, and take everything away."""
        _sweep(self._mark)


class _DiskFull(Exception):
    """No room for what was to be written."""


def _write(descriptor: int, data: bytes) -> None:
    try:
        os.write(descriptor, data)
    except OSError as error:
        raise _DiskFull if error.errno == errno.ENOSPC else error from None


def sweep() -> None:
    """Take away what processes that are gone have left."""
    left = {match[0].rpartition("-")[0]: int(match[1]) for match in map(_MADE.fullmatch, [*_namespaces(), *_mounts()]) if match}
    for mark, pid in left.items():
        if not pathlib.Path(f"/proc/{pid}").exists():
            _sweep(mark)


def _sweep(mark: str) -> None:
    """Processes first, by id; then disks, which they kept busy; then the network."""
    namespaces = [name for name in _namespaces() if name.startswith(f"{mark}-")]
    for name in namespaces:
        for pid in _run("ip", "netns", "pids", name).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
    for source, place in _mounts().items():
        if source.startswith(f"{mark}-"):
            _run("umount", "--lazy", str(place))
    for name in namespaces:
        _run("ip", "netns", "delete", name)


def _namespaces() -> list[str]:
    return [path.name for path in _NAMESPACES.iterdir()] if _NAMESPACES.is_dir() else []


def _mounts() -> dict[str, pathlib.Path]:
    """Where our disks are, by name."""
    lines = [line.split() for line in pathlib.Path("/proc/self/mounts").read_text().splitlines()]
    return {source: pathlib.Path(place) for source, place, *_ in lines if source.startswith(f"{PREFIX}-")}


class HostedCluster(Cluster):
    """A cluster whose nodes are on hosts of their own. The control sockets are reached by path, whatever the network does."""

    def __init__(self, hosts: Hosts, executor: Sequence[str], tell: Callable[[str], None] = lambda _text: None) -> None:
        super().__init__(hosts.root, executor, tell)
        self.hosts = hosts
        self.remote = self.new_address(hosts.names[0])

    def new_address(self, name: str) -> str:
        """The host's."""
        return f"{self.hosts.address(name)}:{PORT}"

    def place(self, name: str) -> Sequence[str]:
        """On its host."""
        return self.hosts.inside(name)

    def signal(self, name: str, number: signal.Signals) -> None:
        """SIGSTOP, SIGCONT and the like."""
        self._tell(f"$ kill -{number.name.removeprefix('SIG')} {self.daemons[name].pid}   # {name}")
        self.daemons[name].send_signal(number)

    def stop(self) -> None:
        """As ever, and those that are paused too."""
        for daemon in self.daemons.values():
            daemon.send_signal(signal.SIGCONT)
        super().stop()


@contextlib.contextmanager
def managers(root: pathlib.Path, count: int, tell: Callable[[str], None] = lambda _text: None) -> Iterator[HostedCluster]:
    """So many managers, node-1 and on, each on its host below `root`, all of them members. Raises HostsError."""
    names = [f"node-{number}" for number in range(1, count + 1)]
    with Hosts(root, names) as hosts:
        cluster = HostedCluster(hosts, ("--executor", "process"), tell)
        try:
            cluster.found()
            token = cluster.token("Manager")
            for name in names[1:]:
                cluster.join(name, token, control=True)
            cluster.await_ready(count)
            yield cluster
        finally:
            cluster.stop()
