"""A task's directory, and the shim in it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pyswarm.agent.executor import AlreadyPrepared, AlreadyStarted, ExecutorError, TemporaryError
from pyswarm.agent.executor.process import shim
from pyswarm.agent.executor.process.handles import Handle, Identity, kill_session
from pyswarm.agent.executor.process.recipe import Recipe, credentials
from pyswarm.ca.files import ensure_directory, write_atomically
from pyswarm.clock import Clock

SHIM_START = 30.0
"""Seconds in which a shim must say how the start went."""

KILL_PATIENCE = 10.0
"""Seconds in which a killed process must be gone; it may hang in the kernel."""

POLL = 0.05
UNWATCHED = "its supervisor was killed or the machine restarted"
INHERITED = ("LD_LIBRARY_PATH", "LC_ALL")
"""What a shim needs of the daemon's environment: how this Python finds its libraries."""


@dataclass(frozen=True, slots=True)
class Running:
    """A started task: its process and the shim that watches it."""

    child: Identity
    shim: Identity


@dataclass(frozen=True, slots=True)
class Ended:
    """How it ended. `error` is why it could not be executed, if so."""

    code: int
    error: str


class Supervised:
    """One task's process, known only by its directory `path`. All of it may be done by a daemon that did not start the process."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path = path
        self._clock = clock

    def started(self) -> Running | None:
        """Who runs or ran here; None before the start."""
        content = self._read("state.json")
        if content is None:
            return None
        boot = str(content["boot"])
        return Running(child=_identity(content["child"], boot), shim=_identity(content["shim"], boot))

    def outcome(self) -> Ended | None:
        """How it ended, None while it runs or before."""
        content = self._read("exit.json")
        return None if content is None else Ended(int(str(content["code"])), str(content["error"]))

    def prepared(self) -> bool:
        """Whether `prepare` has been here."""
        return (self.path / "task.json").exists()

    async def prepare(self, recipe: Recipe) -> None:
        """Make the directory and write down what to run. Raises AlreadyPrepared, ExecutorError."""
        if self.prepared():
            raise AlreadyPrepared
        try:
            await asyncio.to_thread(self._write_task, recipe)
        except OSError as error:
            raise ExecutorError(f"preparing {self.path} failed: {error.strerror or error}") from error

    async def start(self) -> None:
        """Let a shim start it. Raises AlreadyStarted, ExecutorError."""
        if self.started() is not None or self.outcome() is not None:
            raise AlreadyStarted
        answer = await asyncio.to_thread(self._launch)
        if answer == "busy":
            raise AlreadyStarted
        if answer != "ok":
            raise ExecutorError(f"starting process failed: {answer.removeprefix('failed: ') or 'its supervisor died'}")

    async def ended(self) -> Ended:
        """Wait for the end. Raises ExecutorError when nobody could see how it ended, or when it was never started."""
        while True:
            outcome = self.outcome()
            if outcome is not None:
                return outcome
            running = self.started()
            if running is None:
                raise ExecutorError("the task's process was never started")
            if await _watch(running.shim):
                continue
            if await _watch(running.child) or self.outcome() is None:
                raise ExecutorError(f"the task's process ended while nobody watched it ({UNWATCHED}): exit code unknown")

    async def stop(self, number: signal.Signals | int, grace: float) -> None:
        """Signal it and kill it, with all it started, `grace` seconds later. Fine when it has ended or never started.

        Raises TemporaryError when it does not go away.
        """
        running = await self._running()
        if running is None:
            return
        with _handle(running.child) as child:
            if child is not None:
                child.signal(number)
                if not await self._over(running, grace):
                    child.signal(signal.SIGKILL)
        if not await self._over(running, KILL_PATIENCE):
            raise TemporaryError(f"process {running.child.pid} does not end although it was killed")
        if self.outcome() is None:
            await asyncio.to_thread(kill_session, running.child)

    async def delete(self) -> None:
        """Delete the directory of a task that has ended. Raises ExecutorError."""
        try:
            await asyncio.to_thread(shutil.rmtree, self.path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise ExecutorError(f"deleting {error.filename} failed: {error.strerror or error}") from error

    async def _running(self) -> Running | None:
        """Who has to be stopped, None when nobody. A start that an earlier daemon left behind is awaited or made impossible."""
        while self.outcome() is None:
            running = self.started()
            if running is not None or not self.path.exists():
                return running
            if await asyncio.to_thread(self._forbid_start):
                return None
            await self._clock.sleep(POLL)
        return None

    async def _over(self, running: Running, seconds: float) -> bool:
        """Whether shim and process end within so many seconds."""
        watching = asyncio.ensure_future(_both_end(running))
        timer = asyncio.ensure_future(self._clock.sleep(seconds))
        try:
            await asyncio.wait({watching, timer}, return_when=asyncio.FIRST_COMPLETED)
            if not watching.done():
                return False
            watching.result()
            return True
        finally:
            for work in (watching, timer):
                work.cancel()
            await asyncio.wait({watching, timer})

    def _write_task(self, recipe: Recipe) -> None:
        who = credentials(recipe.user, recipe.groups)
        ensure_directory(self.path, 0o711)
        work = self.path / "work"
        ensure_directory(work, 0o700)
        if who is not None:
            os.chown(work, who.uid, who.gid)
        home = {"HOME": who.home if who is not None else os.environ.get("HOME", "/")}
        content = {
            "argv": recipe.argv,
            "env": {**home, **recipe.env},
            "dir": recipe.directory or str(work),
            "uid": who.uid if who is not None else None,
            "gid": who.gid if who is not None else None,
            "groups": who.groups if who is not None else (),
        }
        write_atomically(self.path / "task.json", json.dumps(content).encode(), 0o600)

    def _launch(self) -> str:
        command = [sys.executable, "-I", "-S", shim.__file__, str(self.path)]
        env = {name: os.environ[name] for name in INHERITED if name in os.environ}
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                start_new_session=True,
                cwd="/",
                env=env,
                check=False,
                timeout=SHIM_START,
            )
        except subprocess.TimeoutExpired:
            return "its supervisor does not answer"
        except OSError as error:
            return f"{sys.executable}: {error.strerror}"
        said, complained = (text.decode("utf-8", "replace").strip() for text in (done.stdout, done.stderr))
        return said or complained.rpartition("\n")[2]

    def _forbid_start(self) -> bool:
        """Marks a task that never started as ended. False when a shim is at work and will say more in a moment."""
        with (self.path / "lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            if self.started() is None and self.outcome() is None:
                content = {"code": 0, "error": "stopped before it was started", "at": self._clock.now()}
                write_atomically(self.path / "exit.json", json.dumps(content).encode(), 0o600)
            return self.started() is None

    def _read(self, name: str) -> dict[str, object] | None:
        try:
            content: dict[str, object] = json.loads((self.path / name).read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise ExecutorError(f"{self.path / name} is damaged: {error}") from error
        return content


@contextlib.contextmanager
def _handle(identity: Identity) -> Iterator[Handle | None]:
    handle = Handle.open(identity)
    try:
        yield handle
    finally:
        if handle is not None:
            handle.close()


async def _watch(identity: Identity) -> bool:
    """Wait for the end of a process. False when it had ended before."""
    with _handle(identity) as handle:
        if handle is None:
            return False
        await handle.ended()
        return True


async def _both_end(running: Running) -> None:
    await _watch(running.shim)
    await _watch(running.child)


def _identity(value: object, boot: str) -> Identity:
    pid, start = value if isinstance(value, list) else (0, 0)
    return Identity(int(pid), int(start), boot)
