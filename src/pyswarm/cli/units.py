"""Numbers, times and sizes as people type and read them (spec/cli-and-executor, sections 3 and 5). Pure.

Parsing raises ValueError with the reason in the words of SwarmKit's command line, so that scripts that look for them go on working.
Durations are whole nanoseconds.
"""

from __future__ import annotations

import re

_INT64 = 1 << 63
_UNITS = {"ns": 1, "us": 1_000, "µs": 1_000, "μs": 1_000, "ms": 1_000_000, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_TRUE = {"1", "t", "T", "TRUE", "true", "True"}
_FALSE = {"0", "f", "F", "FALSE", "false", "False"}
_DIGITS = {2: re.compile("[01]+"), 8: re.compile("[0-7]+"), 10: re.compile("[0-9]+"), 16: re.compile("[0-9a-fA-F]+")}
_PREFIXES = {"0x": 16, "0o": 8, "0b": 2}
_DURATION_TERM = re.compile(r"([0-9]*)(?:(\.)([0-9]*))?([^0-9.]*)")
_CPUS = re.compile(r"[+-]?(?:[0-9]{1,30}/[0-9]{1,30}|(?:[0-9]{1,30}(?:\.[0-9]{0,30})?|\.[0-9]{1,30})(?:[eE][+-]?[0-9]{1,2})?)")
_FLOAT = re.compile(r"[+-]?(?:[0-9]{1,300}(?:\.[0-9]*)?|\.[0-9]+)")


def parse_bool(text: str) -> bool:
    """`1 t T TRUE true True` and their opposites."""
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise ValueError(f"strconv.ParseBool: parsing {quoted(text)}: invalid syntax")


def parse_uint(text: str, bits: int = 64, base: int = 0) -> int:
    """A whole number from 0 to 2^bits - 1; base 0 also takes 0x, 0o, 0b, a leading 0 for octal, and `_` between digits."""
    value = _digits(text, base)
    if value is None:
        raise ValueError(f"strconv.ParseUint: parsing {quoted(text)}: invalid syntax")
    if value >= 1 << bits:
        raise ValueError(f"strconv.ParseUint: parsing {quoted(text)}: value out of range")
    return value


def parse_int(text: str, bits: int = 64, base: int = 0) -> int:
    """A whole number that fits `bits` bits with sign."""
    sign = -1 if text.startswith("-") else 1
    value = _digits(text[1:] if text[:1] in {"+", "-"} else text, base)
    if value is None:
        raise ValueError(f"strconv.ParseInt: parsing {quoted(text)}: invalid syntax")
    if value > (1 << bits - 1) - (sign > 0):
        raise ValueError(f"strconv.ParseInt: parsing {quoted(text)}: value out of range")
    return sign * value


def _digits(text: str, base: int) -> int | None:
    if base == 0:
        base = _PREFIXES.get(text[:2].lower(), 0)
        if base:
            text = text[2:].removeprefix("_")
        else:
            base = 8 if text.startswith("0") and len(text) > 1 else 10
        if "__" in text or text.startswith("_") or text.endswith("_"):
            return None
        text = text.replace("_", "")
    return int(text, base) if _DIGITS[base].fullmatch(text) and len(text) <= 80 else None


def parse_duration(text: str) -> int:
    """`1h30m`, `.5s`, `-250ms`, `0`: a span in nanoseconds, at most about 292 years."""
    rest = text[1:] if text[:1] in {"+", "-"} else text
    invalid = ValueError(f"time: invalid duration {quoted(text)}")
    if rest == "0":
        return 0
    if not rest:
        raise invalid
    total = 0
    while rest:
        match = _DURATION_TERM.match(rest)
        whole, _, fraction, unit = match.groups() if match else ("", "", "", "")
        if not whole and not fraction:
            raise invalid
        if not unit:
            raise ValueError(f"time: missing unit in duration {quoted(text)}")
        if unit not in _UNITS:
            raise ValueError(f"time: unknown unit {quoted(unit)} in duration {quoted(text)}")
        if len(whole) > 20 or len(fraction or "") > 80:
            raise invalid
        scale = _UNITS[unit]
        total += int(whole or 0) * scale + int(fraction or 0) * scale // 10 ** len(fraction or "")
        rest = rest[match.end() :] if match else ""
    if total > _INT64 - (not text.startswith("-")):
        raise invalid
    return -total if text.startswith("-") else total


def format_duration(nanoseconds: int) -> str:
    """`2160h0m0s`, `1m30s`, `500ms`, `0s`."""
    if nanoseconds == 0:
        return "0s"
    sign, left = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    for unit, scale in (("ns", 1), ("µs", 1_000), ("ms", 1_000_000)):
        if left < scale * 1000:
            return f"{sign}{_decimal(left, scale)}{unit}"
    minutes, seconds = divmod(left, _UNITS["m"])
    hours, minutes = divmod(minutes, 60)
    text = _decimal(seconds, _UNITS["s"]) + "s"
    if hours or minutes:
        text = f"{minutes}m{text}"
    return sign + (f"{hours}h{text}" if hours else text)


def _decimal(value: int, scale: int) -> str:
    whole, rest = divmod(value, scale)
    fraction = str(rest).rjust(len(str(scale)) - 1, "0").rstrip("0") if rest else ""
    return f"{whole}.{fraction}" if fraction else str(whole)


def parse_memory(text: str) -> int:
    """`64m`, `1.5 GiB`, `1024`: bytes, every suffix a power of 1024."""
    split = max((text.rfind(character) for character in "0123456789. "), default=-1)
    if split < 0:
        raise ValueError(f"invalid size: '{text}'")
    number, suffix = text[: split + 1].removesuffix(" "), text[split + 1 :]
    if not _FLOAT.fullmatch(number):
        raise ValueError(f"strconv.ParseFloat: parsing {quoted(number)}: invalid syntax")
    size = float(number) * 1024 ** _memory_power(suffix)
    if size < 0 or size >= _INT64:
        raise ValueError(f"invalid size: '{text}'")
    return int(size)


def _memory_power(suffix: str) -> int:
    small = suffix.lower()
    if small in {"", "b"}:
        return 0
    if small[0] in "kmgtp" and small[1:] in {"", "b", "ib"}:
        return "kmgtp".index(small[0]) + 1
    raise ValueError(f"invalid suffix: '{small if len(suffix) <= 3 else suffix}'")


def format_memory(size: int) -> str:
    """`24 GiB`, `1.5 GiB`, `9 B`."""
    if size < 10:
        return f"{size} B"
    power = 0
    while size >= 1024 ** (power + 1) and power < 6:
        power += 1
    value = int(size / 1024**power * 10 + 0.5) / 10
    unit = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"][power]
    return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"


def parse_cpus(text: str) -> int:
    """`0.5`, `.1`, `2`, `1e-2`, `1/4`: billionths of a CPU, exactly."""
    if not _CPUS.fullmatch(text):
        raise ValueError(f"invalid cpu: {text}")
    from fractions import Fraction

    try:
        nano = Fraction(text) * 10**9
    except ZeroDivisionError:
        raise ValueError(f"invalid cpu: {text}") from None
    if nano.denominator != 1:
        raise ValueError(f"CPU value cannot have more than 9 decimal places: {text}")
    if abs(nano.numerator) >= _INT64:
        raise ValueError(f"invalid cpu: {text}")
    return nano.numerator


def format_cpus(nano: int) -> str:
    """Billionths of a CPU in the shortest form: `0.1`, `1.5`, `2`."""
    return repr(nano / 10**9).removesuffix(".0")


_MINUTE, _HOUR, _DAY = 60, 3600, 24 * 3600
_WEEK, _MONTH, _YEAR = 7 * _DAY, 30 * _DAY, 360 * _DAY
_AGES: tuple[tuple[float, str, int], ...] = (
    (1, "now", 1),
    (2, "1 second", 1),
    (_MINUTE, "{} seconds", 1),
    (2 * _MINUTE, "1 minute", 1),
    (_HOUR, "{} minutes", _MINUTE),
    (2 * _HOUR, "1 hour", 1),
    (_DAY, "{} hours", _HOUR),
    (2 * _DAY, "1 day", 1),
    (_WEEK, "{} days", _DAY),
    (2 * _WEEK, "1 week", 1),
    (_MONTH, "{} weeks", _WEEK),
    (2 * _MONTH, "1 month", 1),
    (_YEAR, "{} months", _MONTH),
    (540 * _DAY, "1 year", 1),
    (2 * _YEAR, "2 years", 1),
    (37 * _YEAR, "{} years", _YEAR),
    (float("inf"), "a long while", 1),
)


def relative_time(moment: float, now: float) -> str:
    """`3 minutes ago`, `now`, `5 seconds from now`; both in seconds since the epoch. Counts are truncated, months have 30 days."""
    age = abs(now - moment)
    text, unit = next((text, unit) for limit, text, unit in _AGES if age < limit)
    if text == "now":
        return text
    return text.format(int(age // unit)) + (" ago" if now >= moment else " from now")


def absolute_time(seconds: int, nanos: int) -> str:
    """RFC 3339 in UTC, up to nine fractional digits without trailing zeros."""
    import datetime

    try:
        day = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(seconds=seconds)
    except OverflowError:
        return f"{seconds} s since 1970"
    fraction = f".{nanos:09d}".rstrip("0") if nanos else ""
    return f"{day:%Y-%m-%dT%H:%M:%S}".rjust(19, "0") + fraction + "Z"


_ESCAPES = {"\a": r"\a", "\b": r"\b", "\f": r"\f", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\v": r"\v", "\\": r"\\", '"': r"\""}


def quoted(text: str) -> str:
    """The text in double quotes, with what cannot be printed escaped."""
    return '"' + "".join(_ESCAPES.get(character) or _printable(character) for character in text) + '"'


def _printable(character: str) -> str:
    number = ord(character)
    if character.isprintable():
        return character
    if number < 0x80:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
