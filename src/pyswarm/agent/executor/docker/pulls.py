"""Fetching an image the node does not have."""

from __future__ import annotations

import contextlib
import json

import structlog

from pyswarm.agent.executor import ExecutorError
from pyswarm.agent.executor.docker.containers import split_image
from pyswarm.agent.executor.docker.engine import Engine
from pyswarm.agent.executor.docker.http import EngineError, Stream

_log = structlog.get_logger(__name__)


async def pull(engine: Engine, image: str, auth: str) -> None:
    """Pull `image`; `auth` is the registry login as the client gave it. Raises ExecutorError with the registry's reason.

    A refused login is tried once more without one, as public images need none. Cancelling it closes the connection, which makes the engine
    stop.
    """
    repository, tag = split_image(image)
    _log.info("pulling image", image=image)
    try:
        stream = await engine.pull(repository, tag, auth)
    except EngineError as error:
        if error.status != 401 or not auth:
            raise
        stream = await engine.pull(repository, tag, "")
    with contextlib.closing(stream):
        await _follow(stream, image)
    _log.info("image pulled", image=image)


async def _follow(stream: Stream, image: str) -> None:
    rest = b""
    while chunk := await stream.read():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            _check(line, image)
    _check(rest, image)


def _check(line: bytes, image: str) -> None:
    if not line.strip():
        return
    try:
        progress = json.loads(line)
    except ValueError:
        _log.debug("pull progress not understood", image=image, size=len(line))
        return
    if isinstance(progress, dict) and "error" in progress:
        raise ExecutorError(str(progress["error"]))
