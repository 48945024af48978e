"""PEM text with headers, which neither OpenSSL nor `cryptography` writes, and the normal form of certificate bundles.

Pure: bytes in, bytes out.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----[ \t]*\r?\n(.*?)-----END \1-----[ \t]*\r?\n?", re.DOTALL)
_HEADER = re.compile(r"\s*([^:]+?)\s*:\s*(.*?)\s*")
_COLUMNS = 64
_FIRST_HEADER = "Proc-Type"

CERTIFICATE = "CERTIFICATE"
PRIVATE_KEY = "PRIVATE KEY"
ENCRYPTED_PRIVATE_KEY = "ENCRYPTED PRIVATE KEY"
EC_PRIVATE_KEY = "EC PRIVATE KEY"


@dataclass(frozen=True, slots=True)
class Block:
    """One PEM block: its label, its headers and the binary it holds (possibly a secret, so hidden)."""

    label: str
    data: bytes = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


def _parse(label: bytes, body: bytes) -> Block | None:
    headers: dict[str, str] = {}
    lines = body.decode("ascii", "replace").splitlines()
    while lines and (match := _HEADER.fullmatch(lines[0])):
        headers[match[1]] = match[2]
        del lines[0]
    try:
        data = base64.b64decode("".join("".join(lines).split()), validate=True)
    except binascii.Error:
        return None
    return Block(label.decode(), data, headers)


def scan(text: bytes) -> list[Block]:
    """All well-formed blocks in order; whatever stands around them, or is no base64, is passed over."""
    found = (_parse(match[1], match[2]) for match in _BLOCK.finditer(text))
    return [block for block in found if block is not None]


def trailing(text: bytes) -> bytes:
    """What follows the last block, without white space at the ends; all of `text` when it has no block."""
    end = 0
    for match in _BLOCK.finditer(text):
        end = match.end()
    return text[end:].strip()


def encode(block: Block) -> bytes:
    """A block as text: `Proc-Type` first, the other headers sorted, a blank line after headers, 64 columns, one newline at the end."""
    lines = [f"-----BEGIN {block.label}-----"]
    names = sorted(block.headers, key=lambda name: (name != _FIRST_HEADER, name))
    lines += [f"{name}: {block.headers[name]}" for name in names]
    if names:
        lines.append("")
    body = base64.b64encode(block.data).decode()
    lines += [body[start : start + _COLUMNS] for start in range(0, len(body), _COLUMNS)]
    lines += [f"-----END {block.label}-----", ""]
    return "\n".join(lines).encode()


def normalize(text: bytes) -> bytes:
    """Every block re-encoded without headers, everything else dropped: the form in which bundles are compared and written."""
    return b"".join(encode(Block(block.label, block.data)) for block in scan(text))
