"""pyswarmctl for tests that give hundreds of commands: forked from a process that has imported it, so that Python starts only once.

What runs is the program's own entry point in a process of its own, with its environment, output and exit status. As a program this module
is the process that forks: it gets a request at a time on the socket that is its standard input, and ends with it.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[2]
REQUEST_BYTES = 1 << 20


class Commands:
    """Runs commands, also from several threads at once. `close` it. Costs nothing until the first command."""

    def __init__(self) -> None:
        self._beginning = threading.Lock()
        self._requests: socket.socket | None = None
        self._process: subprocess.Popen[bytes]

    def _begun(self) -> socket.socket:
        with self._beginning:
            if self._requests is None:
                self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                with theirs:
                    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), *sys.path]))}
                    self._process = subprocess.Popen([sys.executable, "-m", __name__], stdin=theirs.fileno(), env=environment)
            return self._requests

    def run(self, words: Sequence[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """`pyswarmctl` with these words and this environment, to its end."""
        requests, request = self._begun(), json.dumps([list(words), dict(environment), str(Path.cwd())]).encode()
        pipes = [os.pipe() for _ in range(3)]
        try:
            socket.send_fds(requests, [request], [write for _, write in pipes])
        finally:
            for _, write in pipes:
                os.close(write)
        # The status comes last and is short, and what a command complains of fits into a pipe: so they can be read in turn.
        with contextlib.ExitStack() as stack:
            out, err, status = [stack.enter_context(os.fdopen(read)).read() for read, _ in pipes]
        return subprocess.CompletedProcess(["pyswarmctl", *words], int(status) if status else -signal.SIGKILL, out, err)

    def close(self) -> None:
        """End the process that forks."""
        if self._requests is not None:
            self._requests.close()
            self._process.wait(10)


def serve() -> None:
    """Fork a command for each request until there are no more."""
    import grpc  # noqa: F401

    import pyswarm.api.swarmkit.control_pb2_grpc  # noqa: F401
    from pyswarm.cli import commands, ctl

    for module in pkgutil.walk_packages(commands.__path__, f"{commands.__name__}."):
        importlib.import_module(module.name)
    gc.freeze()
    with socket.socket(fileno=0) as requests:
        while True:
            request, descriptors, _, _ = socket.recv_fds(requests, REQUEST_BYTES, 3)
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG) != (0, 0):
                    pass
            if not request:
                return
            if not os.fork():
                _become(ctl.main, json.loads(request), *descriptors)
            for descriptor in descriptors:
                os.close(descriptor)


def _become(main: Callable[[], None], request: tuple[list[str], dict[str, str], str], out: int, err: int, told: int) -> NoReturn:
    """This process is the command from now on."""
    words, environment, directory = request
    status = 1
    try:
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(directory)
        for number, descriptor in enumerate((os.open(os.devnull, os.O_RDONLY), out, err)):
            os.dup2(descriptor, number)
        sys.argv = ["pyswarmctl", *words]
        try:
            main()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:  # noqa: BLE001 - as the interpreter does
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(told, str(status).encode())
    finally:
        os._exit(status)


if __name__ == "__main__":
    serve()
