"""A task's output as its shim kept it: the frames of `log.1`, then those of `log`."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pyswarm.agent.executor import ExecutorError
from pyswarm.agent.executor.process import shim
from pyswarm.api import v1 as api
from pyswarm.clock import Clock

FOLLOW_PAUSE = 0.2
"""Seconds between looks at a log that somebody follows."""

BLOCK = 256 * 1024
_NANO = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Line:
    """One line (or piece of a long one), `at` in nanoseconds since the epoch."""

    at: int
    stream: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Selection:
    """Which lines are wanted. `tail` None: all; 0: none of the past."""

    streams: frozenset[int]
    since: int
    tail: int | None
    follow: bool

    def has(self, line: Line) -> bool:
        """Whether a line is wanted, its place from the end aside."""
        return line.stream in self.streams and line.at >= self.since


def selection(options: api.LogSubscriptionOptions) -> Selection:
    """The subscription's options. Raises ExecutorError for a tail counted from the beginning."""
    if options.tail > 0:
        raise ExecutorError("tail relative to start of logs not supported")
    return Selection(
        streams=frozenset(int(stream) for stream in options.streams) or frozenset((shim.STDOUT, shim.STDERR)),
        since=options.since.seconds * _NANO + options.since.nanos if options.HasField("since") else 0,
        tail=-options.tail - 1 if options.tail else None,
        follow=options.follow,
    )


def split_frames(data: bytes) -> tuple[list[Line], bytes]:
    """The complete frames at the beginning of `data`, and the rest. Pure."""
    lines: list[Line] = []
    at = 0
    while len(data) - at >= shim.FRAME.size:
        moment, stream, size = shim.FRAME.unpack_from(data, at)
        end = at + shim.FRAME.size + size
        if end > len(data):
            break
        lines.append(Line(moment, stream, data[at + shim.FRAME.size : end]))
        at = end
    return lines, data[at:]


async def read_output(directory: Path, wanted: Selection, ended: Callable[[], bool], clock: Clock) -> AsyncGenerator[Line, None]:
    """The wanted lines, oldest first. Following ends when `ended` says that nothing more comes and all is read."""
    log = _Log(directory)
    try:
        past: deque[Line] = deque(maxlen=wanted.tail)
        # Up to what was there at the beginning: a task that writes faster than this is read would have no end.
        while log.has_past and (lines := await _read(log)):
            if wanted.tail is None:
                for line in filter(wanted.has, lines):
                    yield line
            else:
                past.extend(filter(wanted.has, lines))
        for line in past:
            yield line
        while wanted.follow:
            over = ended()
            while lines := await _read(log):
                for line in filter(wanted.has, lines):
                    yield line
            if over:
                return
            await clock.sleep(FOLLOW_PAUSE)
    finally:
        log.close()


async def _read(log: _Log) -> list[Line]:
    """A read is finished even when its caller is cancelled: the files must not be closed, and their numbers given away, under its feet."""
    reading = asyncio.ensure_future(asyncio.to_thread(log.read))
    try:
        return await asyncio.shield(reading)
    finally:
        await asyncio.wait([reading])


class _Log:
    """Reads on from file to file, also when the shim begins a new one meanwhile."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "log"
        self._files = list(self._open_both())
        self._rest = b""
        self._past = sum(os.fstat(file).st_size for file in self._files)

    @property
    def has_past(self) -> bool:
        """Whether something is left of what was there when this object was made."""
        return self._past > 0

    def read(self) -> list[Line]:
        """Some more lines, none at the present end. Blocking."""
        while True:
            if not self._files and not self._open_next(None):
                return []
            data = os.read(self._files[0], BLOCK)
            self._past -= len(data)
            if data:
                lines, self._rest = split_frames(self._rest + data)
                if lines:
                    return lines
            elif len(self._files) > 1 or self._open_next(self._files[0]):
                os.close(self._files.pop(0))
                self._rest = b""
            else:
                return []

    def close(self) -> None:
        """Let go of the files."""
        for file in self._files:
            os.close(file)
        self._files.clear()

    def _open_both(self) -> Iterator[int]:
        """The newer file is opened first: if it becomes the older one in between, it is found twice and counts once."""
        newer = _open(self._path)
        older = _open(self._path.with_name("log.1"))
        if older is not None and newer is not None and os.path.sameopenfile(older, newer):
            os.close(older)
            older = None
        yield from (file for file in (older, newer) if file is not None)

    def _open_next(self, current: int | None) -> bool:
        """Opens `log` if it is another file than `current` by now."""
        following = _open(self._path)
        if following is None:
            return False
        if current is not None and os.path.sameopenfile(following, current):
            os.close(following)
            return False
        self._files.append(following)
        return True


def _open(path: Path) -> int | None:
    try:
        return os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
