"""The engine's log stream: frames, lines, options, and how fast they may flow (spec/cli-and-executor, section 21). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from pyswarm.agent.executor import ExecutorError
from pyswarm.api import v1 as api

RATE = 10 * 1024 * 1024
"""Bytes of log per second that one stream may send, also its burst."""

_HEADER = 8
_STREAMS = {1: api.LogStream.LOG_STREAM_STDOUT, 2: api.LogStream.LOG_STREAM_STDERR}
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")


@dataclass(frozen=True, slots=True)
class Line:
    """One message of a container: when, on which stream, and the bytes with their newline, if any."""

    timestamp: Timestamp
    stream: api.LogStream.ValueType
    data: bytes


def log_parameters(options: api.LogSubscriptionOptions) -> Mapping[str, str | int]:
    """The query of the log request. Raises ExecutorError for a tail counted from the beginning."""
    if options.tail > 0:
        raise ExecutorError("tail relative to start of logs not supported via docker API")
    wanted = set(options.streams) or set(_STREAMS.values())
    parameters: dict[str, str | int] = {"timestamps": 1, "tail": str(-options.tail - 1) if options.tail else "all"}
    if api.LogStream.LOG_STREAM_STDOUT in wanted:
        parameters["stdout"] = 1
    if api.LogStream.LOG_STREAM_STDERR in wanted:
        parameters["stderr"] = 1
    if options.follow:
        parameters["follow"] = 1
    if options.HasField("since"):
        parameters["since"] = f"{options.since.seconds}.{options.since.nanos:09d}"
    return parameters


class FrameReader:
    """Cuts the byte stream into lines, wherever the chunks happen to end."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, chunk: bytes) -> Iterator[Line]:
        """The lines that are complete with this chunk. Raises ExecutorError for malformed ones."""
        self._rest += chunk
        while len(self._rest) >= _HEADER:
            size = int.from_bytes(self._rest[4:_HEADER], "big")
            if len(self._rest) < _HEADER + size:
                return
            stream = self._rest[0]
            payload = bytes(self._rest[_HEADER : _HEADER + size])
            del self._rest[: _HEADER + size]
            yield _line(stream, payload)

    def finish(self) -> None:
        """The stream ended. Raises ExecutorError when it did in the middle of a frame."""
        if self._rest:
            what = "log header" if len(self._rest) < _HEADER else "buffer"
            raise ExecutorError(f"failed reading {what}: unexpected end of the log stream")


class Limiter:
    """How long to pause so that no more than `rate` bytes pass per second, after a burst of as many."""

    def __init__(self, now: float, rate: int = RATE) -> None:
        self._rate = rate
        self._allowance = float(rate)
        self._at = now

    def pause(self, size: int, now: float) -> float:
        """Seconds to wait after passing `size` bytes at `now` (monotonic)."""
        self._allowance = min(float(self._rate), self._allowance + (now - self._at) * self._rate) - size
        self._at = now
        return max(0.0, -self._allowance / self._rate)


def _line(stream: int, payload: bytes) -> Line:
    moment, blank, data = payload.partition(b" ")
    if not blank:
        raise ExecutorError(f"invalid timestamp in log message: {payload[:64]!r}")
    return Line(_timestamp(moment.decode("ascii", "replace")), _STREAMS.get(stream, api.LogStream.LOG_STREAM_UNKNOWN), data)


def _timestamp(text: str) -> Timestamp:
    """RFC 3339 with up to nine digits of fraction, all of which are kept."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise ExecutorError(f"failed to parse timestamp {text!r}")
    whole, fraction, zone = match.groups()
    try:
        moment = datetime.fromisoformat(whole + ("+00:00" if zone == "Z" else zone))
    except ValueError as error:
        raise ExecutorError(f"failed to parse timestamp {text!r}: {error}") from error
    return Timestamp(seconds=int(moment.astimezone(UTC).timestamp()), nanos=int((fraction or "0").ljust(9, "0")))
