"""A container's output as it comes."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from pyswarm.agent.executor.docker.frames import FrameReader, Limiter, Line
from pyswarm.agent.executor.docker.http import Stream
from pyswarm.clock import Clock


async def read_lines(stream: Stream, clock: Clock) -> AsyncGenerator[Line, None]:
    """The lines of a log stream until it ends or is closed, held to the rate limit. Raises ExecutorError for what is not a log stream."""
    reader = FrameReader()
    limiter = Limiter(clock.monotonic())
    while chunk := await stream.read():
        for line in reader.feed(chunk):
            yield line
            if pause := limiter.pause(len(line.data), clock.monotonic()):
                await clock.sleep(pause)
    if not stream.closed:
        reader.finish()
