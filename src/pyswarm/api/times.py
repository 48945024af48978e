"""Between protobuf's times and seconds.

Inside pyswarm a moment is a float of seconds since the Unix epoch and a span a float of seconds; messages carry Timestamp and Duration.
"""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

_NANO = 1_000_000_000


def timestamp(seconds: float) -> Timestamp:
    """A moment as a message, to the microsecond (a float holds no more)."""
    micros = round(seconds * 1_000_000)
    whole, rest = divmod(micros, 1_000_000)
    return Timestamp(seconds=whole, nanos=rest * 1000)


def seconds_of(moment: Timestamp | Duration) -> float:
    """A Timestamp or a Duration as seconds."""
    return moment.seconds + moment.nanos / _NANO


def duration(seconds: float) -> Duration:
    """A span as a message. Seconds and nanoseconds have the same sign, as the type demands."""
    nanos = round(seconds * _NANO)
    sign = -1 if nanos < 0 else 1
    whole, rest = divmod(abs(nanos), _NANO)
    return Duration(seconds=sign * whole, nanos=sign * rest)
