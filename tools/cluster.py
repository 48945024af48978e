"""Real nodes on loopback for the demo, the tests and the benchmarks: daemons as child processes, and the commands given to them."""

from __future__ import annotations

import contextlib
import os
import pathlib
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

BIN = pathlib.Path(sys.executable).parent
PATIENCE = 60.0


class StoryError(Exception):
    """Something did not happen, or a command failed."""


class CommandError(StoryError):
    """A command failed."""


def until(what: str, check: Callable[[], object], patience: float = PATIENCE) -> None:
    """Poll until `check` gives something true. A command that fails meanwhile, because leaders change for example, is given again."""
    deadline = time.monotonic() + patience
    while True:
        try:
            if check():
                return
            last = ""
        except CommandError as error:
            last = f"; the last answer was: {error}"
        if time.monotonic() > deadline:
            raise StoryError(f"waited {patience:.0f} s in vain until {what}{last}")
        time.sleep(0.2)


def free_port() -> int:
    """A TCP port nobody listens on, and none of those that connections are given: a daemon that starts again must find it free."""
    while True:
        port = secrets.choice(range(12_000, 32_000))
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def pyswarmctl(words: Sequence[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the program to its end."""
    return subprocess.run([str(BIN / "pyswarmctl"), *words], env=environment, capture_output=True, text=True, check=False)


class Cluster:
    """Daemons in one directory, and the commands given to them. `node-1` is the first manager, and the one that is asked.

    `executor` are flags for every node; `tell` gets each command line before it runs, and the output of `show`.
    """

    program: Callable[[Sequence[str], Mapping[str, str]], subprocess.CompletedProcess[str]] = staticmethod(pyswarmctl)
    """How commands are run."""

    def __init__(self, root: pathlib.Path, executor: Sequence[str], tell: Callable[[str], None] = lambda _text: None) -> None:
        self.root = root
        self.executor = executor
        self.socket = self.socket_of("node-1")
        self.remote = f"127.0.0.1:{free_port()}"
        self.remotes = {"node-1": self.remote}
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        self.node_ids: set[str] = set()
        self._tell = tell

    def found(self) -> None:
        """Start the manager and wait until it answers."""
        flags = ("--listen-control-api", str(self.socket), "--listen-remote-api", self.remote, "--hostname", "node-1", *self.executor)
        self.start("node-1", *flags)
        self.await_manager()

    def await_manager(self) -> None:
        """Wait until the control socket serves, and there is a cluster."""
        until("the manager answers", lambda: self.check_alive() or self.run("cluster", "ls", "-q").stdout)

    def token(self, role: str = "Worker") -> str:
        """A join token, from what `cluster inspect` prints."""
        lines = self.ask("cluster", "inspect", "default").splitlines()
        return next(line.split()[-1] for line in lines if line.strip().startswith(role))

    def join(self, name: str, token: str, *, control: bool = False) -> None:
        """Start a node that joins. `control` names its control socket, for one that is a manager or may become one."""
        remote = self.remotes[name] = self.new_address(name)
        flags = ("--hostname", name, "--join-addr", self.remote, "--join-token", token, "--listen-remote-api", remote)
        socket_flags = ("--listen-control-api", str(self.socket_of(name))) if control else ()
        self.start(name, *flags, *socket_flags, *self.executor)

    def new_address(self, name: str) -> str:  # noqa: ARG002 - where it depends on the node
        """Where a node that joins will listen."""
        return f"127.0.0.1:{free_port()}"

    def place(self, name: str) -> Sequence[str]:  # noqa: ARG002 - where it depends on the node
        """What to put before a daemon's command, so that it runs where the node is."""
        return ()

    def socket_of(self, name: str) -> pathlib.Path:
        """A node's control socket; assign it to `socket` to talk to that manager."""
        return self.root / name / "swarm.sock"

    def await_ready(self, count: int) -> None:
        """Wait until so many nodes are READY."""
        until(f"{count} nodes are READY", lambda: self.check_alive() or [r[3] for r in self.nodes().values()] == ["READY"] * count)
        self.node_ids = {row[0] for row in self.nodes().values()}

    def start(self, name: str, *flags: str) -> None:
        """Start a node."""
        command = ["pyswarmd", "-d", str(self.root / name), *flags]
        self._tell(f"$ {shlex.join(command)} &")
        log = (self.root / f"{name}.log").open("ab")
        with log:
            words = [*self.place(name), str(BIN / command[0]), *command[1:]]
            self.daemons[name] = subprocess.Popen(words, stderr=log, stdout=log, stdin=subprocess.DEVNULL)

    def kill(self, name: str) -> None:
        """The power cut: kill -9."""
        daemon = self.daemons.pop(name)
        self._tell(f"$ kill -9 {daemon.pid}   # {name}")
        daemon.kill()
        daemon.wait()

    def terminate(self, name: str) -> float:
        """A stop in good order: SIGTERM. Returns how long it took, in seconds."""
        daemon = self.daemons.pop(name)
        self._tell(f"$ kill {daemon.pid}   # {name}")
        begun = time.monotonic()
        daemon.terminate()
        daemon.wait(30)
        return time.monotonic() - begun

    def ask(self, *words: str) -> str:
        """A command's output, without showing it. Raises CommandError."""
        done = self.run(*words)
        if done.returncode:
            raise CommandError(f"pyswarmctl {shlex.join(words)}: {done.stderr.strip()}")
        return done.stdout

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command, whatever comes of it."""
        return self.program(words, os.environ | {"SWARM_SOCKET": str(self.socket)})

    def show(self, *words: str) -> str:
        """A command and its output, as on a terminal."""
        self._tell(f"$ pyswarmctl {shlex.join(words)}")
        output = self.ask(*words)
        self._tell(output.rstrip("\n"))
        return output

    def rows(self, *words: str) -> list[list[str]]:
        """The cells of a listing, without its two heading lines; columns are two blanks apart."""
        lines = self.ask(*words).splitlines()
        starts = [i for i, c in enumerate(lines[1]) if c == "-" and (i == 0 or lines[1][i - 1] == " ")]
        ends = [*starts[1:], None]
        return [[line[a:b].strip() for a, b in zip(starts, ends, strict=True)] for line in lines[2:]]

    def nodes(self) -> dict[str, list[str]]:
        """Rows of `node ls` by name."""
        return {row[1]: row for row in self.rows("node", "ls")}

    def replicas(self, service: str = "redis") -> str:
        """`running/wanted` of a service."""
        return next((row[3] for row in self.rows("service", "ls") if row[1] == service), "")

    def places(self) -> dict[str, str]:
        """Node by task, for the tasks that run."""
        return {row[0]: row[4] for row in self.rows("task", "ls") if row[3].startswith("RUNNING")}

    def updated(self, service: str = "redis") -> bool:
        """The last update ran to its end."""
        return "COMPLETED" in self.ask("service", "inspect", service).split("Template")[0]

    def check_alive(self) -> None:
        """No daemon ended by itself."""
        for name, daemon in self.daemons.items():
            if daemon.poll() is not None:
                tail = (self.root / f"{name}.log").read_text(errors="replace").strip().splitlines()[-1:]
                raise StoryError(f"{name} ended with status {daemon.returncode}: {' '.join(tail)}")

    def stop(self) -> None:
        """End the daemons, by PID, and whatever tasks they left."""
        for daemon in self.daemons.values():
            daemon.send_signal(signal.SIGTERM)
        for daemon in self.daemons.values():
            try:
                daemon.wait(15)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        for pid in stray_processes(self.root):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def stray_processes(root: pathlib.Path) -> Iterator[int]:
    """Processes that still work below the demo's directory: tasks of a story that was cut short."""
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                line = (entry / "cmdline").read_bytes().decode(errors="replace")
                # With the slash: cluster-1 is no part of cluster-10.
                if f"{root}/" in line or str((entry / "cwd").readlink()).startswith(f"{root}/"):
                    yield int(entry.name)
