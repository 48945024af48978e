"""Identifiers of stored objects."""

from __future__ import annotations

import secrets
import string

_DIGITS = string.digits + string.ascii_lowercase
LENGTH = 25


def new_id() -> str:
    """A fresh object id: 25 characters of base 36, about 129 bits from the system's secure source.

    17 random bytes with the top bit set always make 27 digits; dropping the first and the last leaves 25
    (spec/store-and-raft, section 2).
    """
    number = int.from_bytes(secrets.token_bytes(17), "big") | 1 << 135
    return base36(number)[1 : LENGTH + 1]


def base36(number: int) -> str:
    """A non-negative integer in base 36, lower case, without padding."""
    digits: list[str] = []
    while number:
        number, rest = divmod(number, 36)
        digits.append(_DIGITS[rest])
    return "".join(reversed(digits)) or "0"
