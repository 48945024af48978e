"""What constants mean: strings with Go's escapes, characters, numbers."""

from __future__ import annotations

import re

from pyswarm.gotemplate.values import octets, text_of

_SINGLE = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "\\": 92}
_ESCAPE = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|([0-7]{3})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))", re.DOTALL)
_UNDERSCORES = re.compile(r"(?:0[xXbBoO]_?|\d)(?:[0-9A-Fa-f]|_(?=[0-9A-Fa-f]))*\Z")
_LARGEST = (1 << 63) - 1


class LiteralError(ValueError):
    """It has no meaning."""


def string(source: str) -> str:
    """The text between quotes or back quotes. Raises LiteralError."""
    if source[0] == "`":
        return source[1:-1].replace("\r", "")
    return text_of(b"".join(_parts(source[1:-1], '"')))


def character(source: str) -> int:
    """The code of the character between quotes. Raises LiteralError."""
    parts = list(_parts(source[1:-1], "'", single=True))
    if len(parts) != 1:
        raise LiteralError(f"malformed character constant: {source}")
    return int.from_bytes(parts[0], "big")


def number(source: str) -> int | float:
    """An integer, or a float if it is written like one. Raises LiteralError."""
    unsigned = source.lstrip("+-")
    sign = -1 if source.startswith("-") else 1
    hexadecimal = unsigned[:2] in {"0x", "0X"}
    try:
        if hexadecimal and re.search(r"[pP]", unsigned):
            return sign * float.fromhex(unsigned.replace("_", ""))
        if not hexadecimal and re.search(r"[.eE]", unsigned):
            return float(source)
        if "_" in unsigned and not _UNDERSCORES.match(unsigned):
            raise ValueError(source)
        old = re.fullmatch(r"0[0-7_]+", unsigned) is not None
        value = sign * int(unsigned, 8 if old else 0)
    except (ValueError, OverflowError):
        raise LiteralError(f'illegal number syntax: "{source}"') from None
    if not -_LARGEST - 1 <= value <= _LARGEST:
        raise LiteralError(f'integer overflow: "{source}"')
    return value


def _parts(text: str, quote: str, *, single: bool = False) -> list[bytes]:
    """The bytes of each character and escape, or, when `single`, its code."""
    parts: list[bytes] = []
    at = 0
    while at < len(text):
        if text[at] != "\\":
            parts.append(_code(ord(text[at])) if single else octets(text[at]))
            at += 1
            continue
        match = _ESCAPE.match(text, at)
        if match is None:
            raise LiteralError("invalid syntax")
        parts.append(_escape(match, quote, single=single))
        at = match.end()
    return parts


def _escape(match: re.Match[str], quote: str, *, single: bool) -> bytes:
    hexadecimal, octal, short, long, other = match.groups()
    if hexadecimal or octal:
        code = int(hexadecimal, 16) if hexadecimal else int(octal, 8)
        if code > 0xFF:
            raise LiteralError("invalid syntax")
        return bytes([code])
    if short or long:
        code = int(short or long, 16)
        if code > 0x10FFFF or 0xD800 <= code < 0xE000:
            raise LiteralError("invalid syntax")
        return _code(code) if single else chr(code).encode()
    code = ord(quote) if other == quote else _SINGLE.get(other, -1)
    if code < 0:
        raise LiteralError("invalid syntax")
    return bytes([code])


def _code(code: int) -> bytes:
    return code.to_bytes(4, "big")
