"""XSalsa20-Poly1305, for opening records that SwarmKit wrote; pyswarm itself writes Fernet records.

Plain Python and slow, which is fine for keys of 32 bytes and for nothing bigger.
"""

from __future__ import annotations

import struct

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.poly1305 import Poly1305

KEY_SIZE = 32
NONCE_SIZE = 24
TAG_SIZE = 16
_MASK = 0xFFFFFFFF
_SIGMA = struct.unpack("<4I", b"expand 32-byte k")
# The quarter rounds of one double round: columns, then rows.
_QUARTERS = (
    (0, 4, 8, 12),
    (5, 9, 13, 1),
    (10, 14, 2, 6),
    (15, 3, 7, 11),
    (0, 1, 2, 3),
    (5, 6, 7, 4),
    (10, 11, 8, 9),
    (15, 12, 13, 14),
)


class BoxError(ValueError):
    """The key is wrong or the box was changed."""


def _rounds(words: list[int]) -> list[int]:
    state = list(words)
    for _ in range(10):
        for a, b, c, d in _QUARTERS:
            for target, left, right, turn in ((b, a, d, 7), (c, b, a, 9), (d, c, b, 13), (a, d, c, 18)):
                total = (state[left] + state[right]) & _MASK
                state[target] ^= ((total << turn) | (total >> (32 - turn))) & _MASK
    return state


def _input(key: bytes, block: bytes) -> list[int]:
    half, rest, middle = struct.unpack("<4I", key[:16]), struct.unpack("<4I", key[16:]), struct.unpack("<4I", block)
    return [_SIGMA[0], *half, _SIGMA[1], *middle, _SIGMA[2], *rest, _SIGMA[3]]


def _stream(key: bytes, nonce: bytes, length: int) -> bytes:
    mixed = _rounds(_input(key, nonce[:16]))
    subkey = struct.pack("<8I", *(mixed[place] for place in (0, 5, 10, 15, 6, 7, 8, 9)))
    out = bytearray()
    counter = 0
    while len(out) < length:
        words = _input(subkey, nonce[16:] + struct.pack("<Q", counter))
        out += struct.pack("<16I", *((a + b) & _MASK for a, b in zip(words, _rounds(words), strict=True)))
        counter += 1
    return bytes(out[:length])


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))


def seal(key: bytes, nonce: bytes, plain: bytes) -> bytes:
    """The authentication tag and the encrypted text, as SwarmKit would write them. A nonce must never be used twice."""
    stream = _stream(key, nonce, KEY_SIZE + len(plain))
    text = _xor(plain, stream[KEY_SIZE:])
    return Poly1305.generate_tag(stream[:KEY_SIZE], text) + text


def unseal(key: bytes, nonce: bytes, box: bytes) -> bytes:
    """The plain text. Raises BoxError."""
    if len(nonce) != NONCE_SIZE:
        raise BoxError(f"a secretbox nonce has {NONCE_SIZE} bytes, not {len(nonce)}")
    if len(box) < TAG_SIZE:
        raise BoxError("the box is too short")
    tag, text = box[:TAG_SIZE], box[TAG_SIZE:]
    stream = _stream(key, nonce, KEY_SIZE + len(text))
    try:
        Poly1305.verify_tag(stream[:KEY_SIZE], text, tag)
    except InvalidSignature as error:
        raise BoxError("wrong key, or the box was changed") from error
    return _xor(text, stream[KEY_SIZE:])
