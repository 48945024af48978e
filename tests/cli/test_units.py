"""Numbers, times and sizes as people type and read them."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyswarm.cli import units

NANO = 10**9
DAY = 24 * 3600


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0", 0),
        ("0s", 0),
        ("1h30m", 5400 * NANO),
        (".5s", NANO // 2),
        ("1.5h", 5400 * NANO),
        ("-1s", -NANO),
        ("+2m", 120 * NANO),
        ("1us", 1000),
        ("1µs", 1000),
        ("3ms", 3_000_000),
        ("1.s", NANO),
        ("720h", 720 * 3600 * NANO),
        ("9223372036854775807ns", 2**63 - 1),
        ("-9223372036854775808ns", -(2**63)),
    ],
)
def test_duration(text: str, nanoseconds: int) -> None:
    """Durations are decimal numbers with units, added up."""
    assert units.parse_duration(text) == nanoseconds


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("10", 'time: missing unit in duration "10"'),
        ("1s5", 'time: missing unit in duration "1s5"'),
        ("x", 'time: invalid duration "x"'),
        ("", 'time: invalid duration ""'),
        ("-", 'time: invalid duration "-"'),
        (".s", 'time: invalid duration ".s"'),
        ("1d", 'time: unknown unit "d" in duration "1d"'),
        ("9223372036854775808ns", 'time: invalid duration "9223372036854775808ns"'),
        ("99999999999999999999999h", 'time: invalid duration "99999999999999999999999h"'),
    ],
)
def test_bad_duration(text: str, reason: str) -> None:
    """What is no duration is refused with the reason. [cli 32] [cli 56]"""
    with pytest.raises(ValueError) as caught:
        units.parse_duration(text)
    assert str(caught.value) == reason


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (7776000 * NANO, "2160h0m0s"),
        (5 * NANO, "5s"),
        (90 * NANO, "1m30s"),
        (0, "0s"),
        (NANO // 2, "500ms"),
        (1500, "1.5µs"),
        (1, "1ns"),
        (-90 * NANO, "-1m30s"),
        (1_500_000_000, "1.5s"),
        (3600 * NANO, "1h0m0s"),
    ],
)
def test_show_duration(nanoseconds: int, text: str) -> None:
    """Durations print with hours, minutes and seconds, or one smaller unit. [cli 18]"""
    assert units.format_duration(nanoseconds) == text


@settings(max_examples=100, deadline=None)
@given(st.integers(-(2**63), 2**63 - 1))
def test_duration_round_trip(nanoseconds: int) -> None:
    """Every duration reads back as what was printed."""
    assert units.parse_duration(units.format_duration(nanoseconds)) == nanoseconds


@pytest.mark.parametrize(
    ("age", "text"),
    [
        (0.9, "now"),
        (1.5, "1 second ago"),
        (59, "59 seconds ago"),
        (61, "1 minute ago"),
        (119 * 60, "1 hour ago"),
        (23 * 3600, "23 hours ago"),
        (47 * 3600, "1 day ago"),
        (13 * DAY, "1 week ago"),
        (20 * DAY, "2 weeks ago"),
        (45 * DAY, "1 month ago"),
        (100 * DAY, "3 months ago"),
        (400 * DAY, "1 year ago"),
        (600 * DAY, "2 years ago"),
        (1000 * DAY, "2 years ago"),
        (1100 * DAY, "3 years ago"),
        (38 * 360 * DAY, "a long while ago"),
        (-5.5, "5 seconds from now"),
        (-0.5, "now"),
    ],
)
def test_relative_time(age: float, text: str) -> None:
    """Ages are truncated to the largest fitting unit. [cli 16]"""
    assert units.relative_time(1e9, 1e9 + age) == text


@pytest.mark.parametrize(
    ("nanos", "fraction"),
    [(0, ""), (123456789, ".123456789"), (500_000_000, ".5"), (1, ".000000001")],
)
def test_absolute_time(nanos: int, fraction: str) -> None:
    """Moments print in UTC without trailing zeros."""
    seconds = int(datetime.datetime(2024, 1, 2, 3, 4, 5, tzinfo=datetime.UTC).timestamp())
    assert units.absolute_time(seconds, nanos) == f"2024-01-02T03:04:05{fraction}Z"


def test_absolute_time_out_of_range() -> None:
    """A moment beyond the calendar does not crash."""
    assert units.absolute_time(10**15, 0) == "1000000000000000 s since 1970"
    assert units.absolute_time(-62135596800, 0) == "0001-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("64m", 67108864),
        ("32mb", 33554432),
        ("16MiB", 16777216),
        ("1.5g", 1610612736),
        ("1024", 1024),
        ("1 k", 1024),
        ("10b", 10),
        ("0", 0),
        ("1P", 1 << 50),
    ],
)
def test_memory(text: str, size: int) -> None:
    """Every suffix is a power of 1024. [cli 48]"""
    assert units.parse_memory(text) == size


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("abc", "invalid size: 'abc'"),
        ("-1m", "invalid size: '-1m'"),
        ("", "invalid size: ''"),
        ("99999999999p", "invalid size: '99999999999p'"),
        ("5x", "invalid suffix: 'x'"),
        ("5KBS", "invalid suffix: 'kbs'"),
        ("5Bytes", "invalid suffix: 'Bytes'"),
        (".", 'strconv.ParseFloat: parsing ".": invalid syntax'),
        ("1.2.3m", 'strconv.ParseFloat: parsing "1.2.3": invalid syntax'),
    ],
)
def test_bad_memory(text: str, reason: str) -> None:
    """What is no size is refused with the reason. [cli 48]"""
    with pytest.raises(ValueError) as caught:
        units.parse_memory(text)
    assert str(caught.value) == reason


@pytest.mark.parametrize(
    ("size", "text"),
    [(25276514304, "24 GiB"), (67108864, "64 MiB"), (1610612736, "1.5 GiB"), (9, "9 B"), (0, "0 B"), (1024, "1.0 KiB"), (999, "999 B")],
)
def test_show_memory(size: int, text: str) -> None:
    """Sizes below ten of a unit have one decimal. [cli 17]"""
    assert units.format_memory(size) == text


@pytest.mark.parametrize(
    ("text", "nano"),
    [("0.5", 500_000_000), (".1", 100_000_000), ("2", 2 * NANO), ("1/4", 250_000_000), ("1e-2", 10_000_000), ("0.0001", 100_000)],
)
def test_cpus(text: str, nano: int) -> None:
    """CPU counts are exact. [cli 49]"""
    assert units.parse_cpus(text) == nano


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("abc", "invalid cpu: abc"),
        ("", "invalid cpu: "),
        ("1/0", "invalid cpu: 1/0"),
        ("1e999999999", "invalid cpu: 1e999999999"),
        ("1e50", "invalid cpu: 1e50"),
        ("0.0000000001", "CPU value cannot have more than 9 decimal places: 0.0000000001"),
        ("1/3", "CPU value cannot have more than 9 decimal places: 1/3"),
    ],
)
def test_bad_cpus(text: str, reason: str) -> None:
    """What is no count of CPUs is refused, at once. [cli 49]"""
    with pytest.raises(ValueError) as caught:
        units.parse_cpus(text)
    assert str(caught.value) == reason


@pytest.mark.parametrize(("nano", "text"), [(10**8, "0.1"), (15 * 10**8, "1.5"), (2 * NANO, "2")])
def test_show_cpus(nano: int, text: str) -> None:
    """CPU counts print in the shortest form."""
    assert units.format_cpus(nano) == text


@pytest.mark.parametrize(
    ("text", "value"), [("6", 6), ("0x10", 16), ("0b11", 3), ("017", 15), ("1_000", 1000), (str(2**64 - 1), 2**64 - 1)]
)
def test_uint(text: str, value: int) -> None:
    """Whole numbers may carry a base."""
    assert units.parse_uint(text) == value


@pytest.mark.parametrize("text", ["-1", "abc", "", " 1", "1.5", "08", "_1", "1__0", "0x", "٣"])
def test_bad_uint(text: str) -> None:
    """Anything else is no whole number."""
    with pytest.raises(ValueError, match=r"strconv\.ParseUint: parsing .*: invalid syntax"):
        units.parse_uint(text)


def test_number_ranges() -> None:
    """Numbers that do not fit are told apart from those that are none."""
    with pytest.raises(ValueError, match="value out of range"):
        units.parse_uint("18446744073709551616")
    with pytest.raises(ValueError, match=r'strconv\.ParseInt: parsing "9223372036854775808": value out of range'):
        units.parse_int("9223372036854775808")
    assert units.parse_int("-9223372036854775808") == -(2**63)


@pytest.mark.parametrize(
    ("text", "shown"),
    [("sleep 1", '"sleep 1"'), ('a"b', r'"a\"b"'), ("a\tb\n", r'"a\tb\n"'), ("\x1b", r'"\x1b"'), ("é", '"é"'), ("\u200b", r'"\u200b"')],
)
def test_quoted(text: str, shown: str) -> None:
    """Quotes, control characters and what cannot be seen are escaped."""
    assert units.quoted(text) == shown
