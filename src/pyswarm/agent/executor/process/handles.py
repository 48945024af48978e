"""Processes that are not our children: told apart for good, watched without polling, signalled without races."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

from pyswarm.agent.executor.process import shim


@dataclass(frozen=True, slots=True)
class Identity:
    """One process: its number alone may be given to another one later; with start time and boot it never is."""

    pid: int
    start: int
    boot: str


class Handle:
    """A living process. Close it when done."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @staticmethod
    def open(identity: Identity) -> Handle | None:
        """A handle on that very process, None when it has ended.

        The start time is read after the handle is open: if it is the right one then, the handle cannot belong to a later process.
        """
        if identity.boot != shim.boot_id():
            return None
        try:
            descriptor = os.pidfd_open(identity.pid)
        except ProcessLookupError:
            return None
        fields = shim.stat_fields(identity.pid)
        if not fields or fields[0] in "ZX" or int(fields[19]) != identity.start:
            os.close(descriptor)
            return None
        return Handle(descriptor)

    async def ended(self) -> None:
        """Return when it has ended. One waiter per handle."""
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()
        loop.add_reader(self._descriptor, _settle, over)
        try:
            await over
        finally:
            loop.remove_reader(self._descriptor)

    def signal(self, number: signal.Signals | int) -> None:
        """Send a signal; fine when it has ended."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._descriptor, number)

    def close(self) -> None:
        """Let go of the process."""
        os.close(self._descriptor)


def kill_session(identity: Identity) -> None:
    """Kill what is left of the session that this process led, unless the number leads another one by now."""
    leader = shim.start_time(identity.pid)
    if identity.boot != shim.boot_id() or leader not in (0, identity.start):
        return
    for pid in shim.descendants(identity.pid, identity.pid):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def kill_forgotten(directory: Path, keep: Container[str]) -> list[str]:
    """Kill the supervisors of tasks below `directory`, and all they started, whose own directories were deleted while they ran.

    Returns the tasks' ids, without those in `keep`. Only processes count that see the same files as this one.
    """
    killed: list[str] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        with contextlib.suppress(OSError):
            task = _supervised(entry, directory)
            if task is not None and task.name not in keep and not task.exists():
                for pid in (*shim.descendants(int(entry.name), int(entry.name)), int(entry.name)):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                killed.append(task.name)
    return killed


def _supervised(entry: Path, directory: Path) -> Path | None:
    """The task directory below `directory` that a process supervises; None for any other process."""
    words = (entry / "cmdline").read_bytes().split(b"\0")[:-1]
    if len(words) < 2 or not words[-2].endswith(b"/process/shim.py"):
        return None
    task = Path(os.fsdecode(words[-1]))
    return task if task.parent == directory and os.path.samestat((entry / "root").stat(), Path("/").stat()) else None


def _settle(over: asyncio.Future[None]) -> None:
    if not over.done():
        over.set_result(None)
