"""Values of templates: their truth, how they print and compare, and what Go calls their types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeAlias

UTF8 = "utf-8"
LOSSLESS = "surrogateescape"
"""How bytes that are not UTF-8 lie in a `str`."""


MAX_OUTPUT = 1 << 20
"""Bytes that expansions which belong together, or one function, may produce."""
MAX_STEPS = 50_000
"""Words that they may read, nodes they may visit, loops count each time, and kilobytes that functions may be given: all in all."""


class TemplateError(ValueError):
    """The template is wrong or asks for something that is not there. The text has Go's form, with line and column."""


class CallError(ValueError):
    """A function refuses its arguments; what called it adds the place."""


@dataclass(slots=True)
class Budget:
    """What is left for expansions that belong together."""

    steps: int = MAX_STEPS
    output: int = MAX_OUTPUT


@dataclass(frozen=True, slots=True)
class Struct:
    """A value with a fixed set of fields; asking for another is an error that names `kind`."""

    kind: str
    fields: Mapping[str, Value]


Value: TypeAlias = str | int | float | bool | Mapping[str, str] | Struct | None


def octets(text: str) -> bytes:
    """The bytes of a text."""
    return text.encode(UTF8, LOSSLESS)


def text_of(data: bytes) -> str:
    """Bytes as text, the reverse of `octets`."""
    return data.decode(UTF8, LOSSLESS)


def truth(value: Value) -> bool:
    """Whether a condition holds: nothing, zero and empty are false, a struct is always true."""
    return True if isinstance(value, Struct) else bool(value)


def kind_of(value: Value) -> str:
    """The name of its Go type."""
    match value:
        case None:
            return "<nil>"
        case bool():
            return "bool"
        case int():
            return "int"
        case float():
            return "float64"
        case str():
            return "string"
        case Struct():
            return value.kind
    return "map[string]string"


def printed(value: Value) -> str:
    """As `%v`."""
    match value:
        case None:
            return "<nil>"
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return shortest(value)
        case str():
            return value
        case Struct():
            return "{" + " ".join(printed(field) for field in value.fields.values()) + "}"
    return "map[" + " ".join(f"{key}:{value[key]}" for key in in_order(value)) + "]"


def in_order(mapping: Mapping[str, str]) -> list[str]:
    """Keys in the order of their bytes."""
    return sorted(mapping, key=octets)


def shortest(number: float) -> str:
    """The shortest digits that mean this number; with an exponent below 1e-4 and from a million on."""
    if number != number or number in {float("inf"), float("-inf")}:
        return "NaN" if number != number else ("+Inf" if number > 0 else "-Inf")
    sign, digits, exponent = Decimal(repr(number)).normalize().as_tuple()
    point = len(digits) + int(exponent)
    shown = "".join(map(str, digits))
    if number == 0:
        plain = "0"
    elif -4 < point <= 6:
        whole, part = (shown[:point].ljust(point, "0"), shown[point:]) if point > 0 else ("0", "0" * -point + shown)
        plain = whole + (f".{part}" if part else "")
    else:
        plain = shown[0] + (f".{shown[1:]}" if len(shown) > 1 else "") + f"e{point - 1:+03d}"
    return ("-" if sign else "") + plain


def quoted(text: str, *, ascii_only: bool = False) -> str:
    """As `%q`, or `%+q`: what cannot be printed is escaped."""
    return '"' + "".join(_escaped(character, '"', ascii_only=ascii_only) for character in text) + '"'


def quoted_rune(code: int) -> str:
    """As `%q` of a character."""
    character = chr(code) if 0 <= code < 0x110000 and not 0xD800 <= code < 0xE000 else "\ufffd"
    return "'" + _escaped(character, "'") + "'"


_SHORT = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v", "\\": "\\\\"}


def _escaped(character: str, quote: str, *, ascii_only: bool = False) -> str:
    if character == quote:
        return "\\" + quote
    if character in _SHORT:
        return _SHORT[character]
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if character.isprintable() and not (ascii_only and code > 0x7F):
        return character
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def equal(one: Value, others: list[Value]) -> bool:
    """Whether the first equals any of the others. Raises CallError for what cannot be compared."""
    if not others:
        raise CallError("missing argument for comparison")
    for other in others:
        kinds = _basic(one), _basic(other)
        if kinds[0] != kinds[1]:
            if one is not None and other is not None:
                raise CallError(f"incompatible types for comparison: {kind_of(one)} and {kind_of(other)}")
        elif isinstance(one, Mapping | Struct):
            if isinstance(one, Mapping) or isinstance(other, Mapping) or "map[" in one.kind:
                raise CallError(f"non-comparable type {printed(other)}: {kind_of(other)}")
            if one == other:
                return True
        elif one == other:
            return True
    return False


def less(one: Value, other: Value) -> bool:
    """Whether the first comes first. Raises CallError for types without an order."""
    kinds = _basic(one), _basic(other)
    if "" in kinds:
        raise CallError("invalid type for comparison")
    if kinds[0] != kinds[1]:
        raise CallError(f"incompatible types for comparison: {kind_of(one)} and {kind_of(other)}")
    if isinstance(one, str) and isinstance(other, str):
        return octets(one) < octets(other)
    if isinstance(one, bool) or not isinstance(one, int | float) or not isinstance(other, int | float):
        raise CallError("invalid type for comparison")
    return one < other


def _basic(value: Value) -> str:
    """The kind as far as comparisons look at it; empty for what has no order."""
    return "" if value is None or isinstance(value, Mapping | Struct) else kind_of(value)
