"""Names, and quoting as clients know it (spec/control-api, sections 1, 5.1, 5.2)."""

from __future__ import annotations

import re

from pyswarm.errors import InvalidArgument

_DNS = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?")
_DNS_LENGTH = 63
_FILE = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9_.-]*[a-zA-Z0-9])?")
_FILE_LENGTH = 64
_ESCAPES = {"\a": r"\a", "\b": r"\b", "\f": r"\f", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\v": r"\v", "\\": r"\\", '"': r"\""}


def check_service_name(name: str) -> None:
    """A name that a service or network may have. Raises InvalidArgument."""
    if not name:
        raise InvalidArgument("meta: name must be provided")
    if not _DNS.fullmatch(name):
        raise InvalidArgument("name must be valid as a DNS name component")
    if len(name) > _DNS_LENGTH:
        raise InvalidArgument("name must be 63 characters or fewer")


def check_payload_name(name: str) -> None:
    """A name that a secret or config may have. Raises InvalidArgument."""
    if not name:
        raise InvalidArgument("name must be provided")
    if len(name.encode()) > _FILE_LENGTH or not _FILE.fullmatch(name):
        raise InvalidArgument(
            "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end character must be [a-zA-Z0-9]"
        )


def quote(text: str) -> str:
    """In double quotes, with escapes for quotes, backslashes and what cannot be printed."""
    return '"' + "".join(_quoted(char) for char in text) + '"'


def _quoted(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char.isprintable():
        return char
    code = ord(char)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
