"""Small secrets at rest: a MaybeEncryptedRecord says how its data is protected (spec/ca-and-security, section 16).

Written as Fernet, which every SwarmKit reads, or plain where there is no key. Secretbox records, SwarmKit's own default, are read.
"""

from __future__ import annotations

import base64

from cryptography.fernet import Fernet, InvalidToken
from google.protobuf.message import DecodeError

from pyswarm.api import v1 as api
from pyswarm.ca import secretbox
from pyswarm.errors import Unknown

KEY_SIZE = 32
_Algorithm = api.MaybeEncryptedRecord.Algorithm


class CannotDecryptError(Unknown):
    """The key does not open the record, or the record is damaged."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"cannot decrypt record: {reason}")


def _sized(key: bytes) -> bytes:
    return key[:KEY_SIZE].ljust(KEY_SIZE, b"\0")


def _fernet(key: bytes) -> Fernet:
    return Fernet(base64.urlsafe_b64encode(_sized(key)))


def encrypt(data: bytes, key: bytes) -> bytes:
    """`data` as a serialised record, Fernet under `key` (32 bytes; others are cut or filled with zeros), plain when `key` is empty."""
    if not key:
        return api.MaybeEncryptedRecord(algorithm=_Algorithm.NONE, data=data).SerializeToString()
    return api.MaybeEncryptedRecord(algorithm=_Algorithm.FERNET_AES_128_CBC, data=_fernet(key).encrypt(data)).SerializeToString()


def decrypt(record: bytes, key: bytes) -> bytes:
    """The data of a serialised record. Raises CannotDecryptError, also when only one of record and caller is without a key."""
    try:
        message = api.MaybeEncryptedRecord.FromString(record)
    except DecodeError as error:
        raise CannotDecryptError("it is not a record") from error
    if (message.algorithm == _Algorithm.NONE) != (not key):
        raise CannotDecryptError("it is not encrypted, though a key was given" if key else "it is encrypted, and no key was given")
    try:
        if message.algorithm == _Algorithm.NONE:
            return message.data
        if message.algorithm == _Algorithm.FERNET_AES_128_CBC:
            return _fernet(key).decrypt(message.data)
        if message.algorithm == _Algorithm.SECRETBOX_SALSA20_POLY1305:
            return secretbox.unseal(_sized(key), message.nonce, message.data)
    except (InvalidToken, secretbox.BoxError) as error:
        raise CannotDecryptError(str(error) or "wrong key") from error
    raise CannotDecryptError(f"unknown algorithm {message.algorithm}")
