"""The data key of this manager's log, and where it lives: as headers beside the node's TLS key.

The data key (DEK) is made once per manager and never leaves it. The unlock key (KEK), when the cluster has one, encrypts the headers
together with the TLS key, in one file written in one step; so both always fit each other (spec/store-and-raft, section 18). Header
records can be read by SwarmKit in its FIPS mode and the other way round.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from cryptography.fernet import Fernet, InvalidToken
from google.protobuf.message import DecodeError

from pyswarm.api import v1 as api
from pyswarm.raft.errors import RaftFailure

KEY_SIZE = 32
CURRENT = "raft-dek"
PENDING = "raft-dek-pending"
NEEDS_ROTATION = "raft-dek-needs-rotation"
_OURS = (CURRENT, PENDING, NEEDS_ROTATION)


class CannotDecrypt(RaftFailure):
    """A record does not open with the key at hand: the unlock key is wrong or missing."""


class BadHeaders(RaftFailure):
    """The headers contradict each other."""


class HeaderStore(Protocol):
    """The node's key file as far as the log's keys are concerned. Implemented by `pyswarm.ca`."""

    @property
    def kek(self) -> bytes:
        """The unlock key that encrypts file and headers now; empty for none."""
        ...

    def headers(self) -> dict[str, str]:
        """The headers as they are in the file."""
        ...

    def update_headers(self, fn: Callable[[dict[str, str]], dict[str, str]]) -> None:
        """Replace the headers by `fn(headers)` in one durable step, during which `kek` stays the same. Raises OSError."""
        ...


@dataclass(frozen=True, slots=True)
class DataKeys:
    """The keys in the headers. While `pending` is set, new data is written with it and `current` still opens older data."""

    current: bytes = b""
    pending: bytes = b""
    needs_rotation: bool = False

    @property
    def writing(self) -> bytes:
        """What new files are encrypted with."""
        return self.pending or self.current

    @property
    def reading(self) -> tuple[bytes, ...]:
        """What else is to be tried on existing files."""
        return (self.current,) if self.pending and self.current else ()


def load_or_create(store: HeaderStore) -> DataKeys:
    """The keys to start with; makes and stores a current one when there is none. Blocking. Raises CannotDecrypt, BadHeaders, OSError."""
    keys = decode(store.headers(), store.kek)
    if keys.current:
        return keys
    keys = DataKeys(current=os.urandom(KEY_SIZE))
    save(store, keys)
    return keys


def save(store: HeaderStore, keys: DataKeys) -> None:
    """Write the keys, keeping the other headers. Blocking."""
    store.update_headers(lambda headers: encode(headers, keys, store.kek))


def erase(store: HeaderStore) -> None:
    """Forget the keys, and with them everything they encrypted: a manager was demoted. Blocking."""
    store.update_headers(lambda headers: {k: v for k, v in headers.items() if k not in _OURS})


def decode(headers: Mapping[str, str], kek: bytes) -> DataKeys:
    """The keys in the headers. Raises CannotDecrypt, BadHeaders."""
    current = _read(headers, CURRENT, kek)
    pending = _read(headers, PENDING, kek)
    if pending and not current:
        raise BadHeaders("there is a pending DEK, but no current DEK")
    return DataKeys(current, pending, headers.get(NEEDS_ROTATION) == "true")


def encode(headers: Mapping[str, str], keys: DataKeys, kek: bytes) -> dict[str, str]:
    """The headers with the given keys in place of those they had."""
    result = {k: v for k, v in headers.items() if k not in _OURS}
    for name, key in ((CURRENT, keys.current), (PENDING, keys.pending)):
        if key:
            result[name] = base64.b64encode(seal(key, kek).SerializeToString()).decode()
    if keys.needs_rotation:
        result[NEEDS_ROTATION] = "true"
    return result


def reencrypt(headers: Mapping[str, str], old_kek: bytes, new_kek: bytes) -> dict[str, str]:
    """The headers under another unlock key. Going from none to one also asks for a new data key, because the old one was readable."""
    keys = decode(headers, old_kek)
    if new_kek and not old_kek and keys.current:
        keys = DataKeys(keys.current, keys.pending, needs_rotation=True)
    return encode(headers, keys, new_kek)


def seal(plain: bytes, kek: bytes) -> api.MaybeEncryptedRecord:
    """A record that holds `plain`, in clear when there is no key."""
    if not kek:
        return api.MaybeEncryptedRecord(algorithm=api.MaybeEncryptedRecord.NONE, data=plain)
    return api.MaybeEncryptedRecord(algorithm=api.MaybeEncryptedRecord.FERNET_AES_128_CBC, data=_fernet(kek).encrypt(plain))


def unseal(record: api.MaybeEncryptedRecord, kek: bytes) -> bytes:
    """What a record holds. Raises CannotDecrypt."""
    if record.algorithm == api.MaybeEncryptedRecord.NONE:
        return record.data
    if not kek:
        raise CannotDecrypt("record is encrypted")
    known = api.MaybeEncryptedRecord.Algorithm.values()
    name = api.MaybeEncryptedRecord.Algorithm.Name(record.algorithm) if record.algorithm in known else str(record.algorithm)
    if record.algorithm != api.MaybeEncryptedRecord.FERNET_AES_128_CBC:
        raise CannotDecrypt(f"no decryption key for record encrypted with {name}")
    try:
        return _fernet(kek).decrypt(record.data)
    except InvalidToken:
        raise CannotDecrypt(f"cannot decrypt record encrypted using {name}") from None


def _fernet(key: bytes) -> Fernet:
    """Bytes 0-15 sign, 16-31 encrypt; shorter keys are padded with zeros, longer ones cut."""
    return Fernet(base64.urlsafe_b64encode(key[:KEY_SIZE].ljust(KEY_SIZE, b"\0")))


def _read(headers: Mapping[str, str], name: str, kek: bytes) -> bytes:
    value = headers.get(name, "")
    if not value:
        return b""
    try:
        record = api.MaybeEncryptedRecord.FromString(base64.b64decode(value, validate=True))
    except (binascii.Error, DecodeError) as exc:
        raise CannotDecrypt(f"key header {name} is not a readable record") from exc
    return unseal(record, kek)
