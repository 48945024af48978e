"""Encrypted private keys in the one form that SwarmKit writes and reads (spec/ca-and-security, section 16).

`cryptography` can only write PBKDF2 with HMAC-SHA-256, which SwarmKit does not understand: it takes every PBES2 key for HMAC-SHA-1. So the
small DER structure is made and taken apart here. The derivation is weak for human passwords; unlock keys have 256 bits of entropy.
"""

from __future__ import annotations

import hashlib
import secrets

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from pyswarm.ca import pem
from pyswarm.errors import Unknown

_PBES2 = bytes.fromhex("06092a864886f70d01050d")
_PBKDF2 = bytes.fromhex("06092a864886f70d01050c")
_AES_256_CBC = bytes.fromhex("060960864801650304012a")
_HMAC_SHA1 = bytes.fromhex("06082a864886f70d0207")
_HMAC_SHA256 = bytes.fromhex("06082a864886f70d0209")
_SEQUENCE, _INTEGER, _OCTETS = 0x30, 0x02, 0x04
_ITERATIONS = 2048
_MAX_ITERATIONS = 10_000_000
_SALT_SIZE = 8
_BLOCK_SIZE = 16
_KEY_SIZE = 32


class KeyFormatError(Unknown):
    """An encrypted key that this module cannot open."""


class WrongPasswordError(KeyFormatError):
    """The password (the key-encryption key) is not the one the key was encrypted with."""

    def __init__(self, message: str = "pkcs8: incorrect password") -> None:
        super().__init__(message)


def _tlv(tag: int, body: bytes) -> bytes:
    size = len(body)
    if size < 0x80:
        return bytes((tag, size)) + body
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + body


def _take(data: bytes, tag: int) -> tuple[bytes, bytes]:
    """The body of the element at the start of `data`, which must have this tag, and what follows it."""
    if len(data) < 2 or data[0] != tag:
        raise KeyFormatError("pkcs8: only PKCS #5 v2.0 supported")
    size, start = data[1], 2
    if size & 0x80:
        start += size & 0x7F
        size = int.from_bytes(data[2:start], "big")
    if start + size > len(data):
        raise KeyFormatError("pkcs8: only PKCS #5 v2.0 supported")
    return data[start : start + size], data[start + size :]


def _aes(key: bytes, iv: bytes) -> Cipher[modes.CBC]:
    return Cipher(algorithms.AES256(key), modes.CBC(iv))


def _pad(data: bytes) -> bytes:
    missing = _BLOCK_SIZE - len(data) % _BLOCK_SIZE
    return data + bytes([missing]) * missing


def encrypt_der(plain: bytes, password: bytes) -> bytes:
    """PKCS#8 DER wrapped as EncryptedPrivateKeyInfo: PBES2, PBKDF2 with HMAC-SHA-1, AES-256-CBC."""
    salt, iv = secrets.token_bytes(_SALT_SIZE), secrets.token_bytes(_BLOCK_SIZE)
    encryptor = _aes(hashlib.pbkdf2_hmac("sha1", password, salt, _ITERATIONS, _KEY_SIZE), iv).encryptor()
    encrypted = encryptor.update(_pad(plain)) + encryptor.finalize()
    derivation = _tlv(_SEQUENCE, _PBKDF2 + _tlv(_SEQUENCE, _tlv(_OCTETS, salt) + _tlv(_INTEGER, _ITERATIONS.to_bytes(2, "big"))))
    scheme = _tlv(_SEQUENCE, _AES_256_CBC + _tlv(_OCTETS, iv))
    algorithm = _tlv(_SEQUENCE, _PBES2 + _tlv(_SEQUENCE, derivation + scheme))
    return _tlv(_SEQUENCE, algorithm + _tlv(_OCTETS, encrypted))


def _derive(parameters: bytes, password: bytes) -> bytes:
    salt, rest = _take(parameters, _OCTETS)
    count, rest = _take(rest, _INTEGER)
    if rest[:1] == bytes([_INTEGER]):
        _, rest = _take(rest, _INTEGER)
    function = _take(rest, _SEQUENCE)[0] if rest else _HMAC_SHA1
    if not function.startswith((_HMAC_SHA1, _HMAC_SHA256)):
        raise KeyFormatError("pkcs8: only PBKDF2 supported")
    iterations = int.from_bytes(count, "big")
    if not 0 < iterations <= _MAX_ITERATIONS:
        raise KeyFormatError("pkcs8: only PBKDF2 supported")
    return hashlib.pbkdf2_hmac("sha1" if function.startswith(_HMAC_SHA1) else "sha256", password, salt, iterations, _KEY_SIZE)


def decrypt_der(encrypted: bytes, password: bytes) -> bytes:
    """The PKCS#8 DER inside an EncryptedPrivateKeyInfo. Raises WrongPasswordError, KeyFormatError."""
    outer, _ = _take(encrypted, _SEQUENCE)
    algorithm, rest = _take(outer, _SEQUENCE)
    data, _ = _take(rest, _OCTETS)
    if not algorithm.startswith(_PBES2):
        raise KeyFormatError("pkcs8: only PBES2 supported")
    parameters, _ = _take(algorithm[len(_PBES2) :], _SEQUENCE)
    derivation, rest = _take(parameters, _SEQUENCE)
    scheme, _ = _take(rest, _SEQUENCE)
    if not derivation.startswith(_PBKDF2):
        raise KeyFormatError("pkcs8: only PBKDF2 supported")
    if not scheme.startswith(_AES_256_CBC):
        raise KeyFormatError("pkcs8: only AES-256-CBC supported")
    iv, _ = _take(scheme[len(_AES_256_CBC) :], _OCTETS)
    derivation_parameters, _ = _take(derivation[len(_PBKDF2) :], _SEQUENCE)
    if len(iv) != _BLOCK_SIZE or not data or len(data) % _BLOCK_SIZE:
        raise KeyFormatError("pkcs8: invalid padding size")
    decryptor = _aes(_derive(derivation_parameters, password), iv).decryptor()
    return _checked(decryptor.update(data) + decryptor.finalize())


def _checked(padded: bytes) -> bytes:
    """Take the padding off. A wrong password shows as a text that is no key; a key with odd padding is damaged."""
    try:
        length = len(padded) - len(_take(padded, _SEQUENCE)[1])
    except KeyFormatError as error:
        raise WrongPasswordError from error
    plain, padding = padded[:length], padded[length:]
    if not is_key_der(plain):
        raise WrongPasswordError
    if not 1 <= len(padding) <= _BLOCK_SIZE or padding != bytes([len(padding)]) * len(padding):
        raise KeyFormatError("pkcs8: invalid padding size")
    return plain


def is_key_der(data: bytes) -> bool:
    """Whether these bytes are a readable, unencrypted private key."""
    try:
        serialization.load_der_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return True


def _legacy_cipher(password: bytes, iv: bytes) -> Cipher[modes.CBC]:
    """RFC 1423: the key is a chain of MD5 over password and the first half of the IV."""
    key = b""
    last = b""
    while len(key) < _KEY_SIZE:
        last = hashlib.md5(last + password + iv[:8], usedforsecurity=False).digest()
        key += last
    return _aes(key[:_KEY_SIZE], iv)


def encrypt_legacy(plain: bytes, password: bytes) -> pem.Block:
    """A SEC1 key as an RFC 1423 block, the form that an old key file keeps."""
    iv = secrets.token_bytes(_BLOCK_SIZE)
    encryptor = _legacy_cipher(password, iv).encryptor()
    headers = {"Proc-Type": "4,ENCRYPTED", "DEK-Info": f"AES-256-CBC,{iv.hex()}"}
    return pem.Block(pem.EC_PRIVATE_KEY, encryptor.update(_pad(plain)) + encryptor.finalize(), headers)


def decrypt_legacy(block: pem.Block, password: bytes) -> bytes:
    """The SEC1 DER of an RFC 1423 block. Raises WrongPasswordError, KeyFormatError."""
    name, _, hexadecimal = block.headers.get("DEK-Info", "").partition(",")
    try:
        iv = bytes.fromhex(hexadecimal)
    except ValueError as error:
        raise KeyFormatError("the key's DEK-Info header is damaged") from error
    if name != "AES-256-CBC" or len(iv) != _BLOCK_SIZE or not block.data or len(block.data) % _BLOCK_SIZE:
        raise KeyFormatError("only AES-256-CBC is supported for keys with a DEK-Info header")
    decryptor = _legacy_cipher(password, iv).decryptor()
    padded = decryptor.update(block.data) + decryptor.finalize()
    plain = padded[: -padded[-1]]
    if not 1 <= padded[-1] <= _BLOCK_SIZE or not is_key_der(plain):
        raise WrongPasswordError
    return plain
