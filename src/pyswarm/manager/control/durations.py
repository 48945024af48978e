"""Durations in requests: which ones are durations at all."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration

from pyswarm.errors import Unknown

_NANO = 1_000_000_000
_MAX_SECONDS = 315_576_000_000
_MAX_NANOSECONDS = 2**63


def nanoseconds(span: Duration) -> int:
    """The span in nanoseconds; an absent field reads as 0.

    Raises Unknown with a text that starts with `duration:` for what no duration is (spec/control-api, section 6.1).
    """
    seconds, nanos = span.seconds, span.nanos
    shown = f"duration: seconds:{seconds} nanos:{nanos}"
    if abs(seconds) > _MAX_SECONDS:
        raise Unknown(f"{shown}: seconds out of range")
    if abs(nanos) >= _NANO:
        raise Unknown(f"{shown}: nanos out of range")
    if seconds < 0 < nanos or nanos < 0 < seconds:
        raise Unknown(f"{shown}: seconds and nanos have different signs")
    total = seconds * _NANO + nanos
    if not -_MAX_NANOSECONDS <= total < _MAX_NANOSECONDS:
        raise Unknown(f"{shown}: more than about 290 years")
    return total
