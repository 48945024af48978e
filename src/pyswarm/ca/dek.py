"""The data-encryption keys of a manager's log, kept as headers of its key file (spec/ca-and-security, sections 16 and 17).

The keys never leave the node. They are encrypted with the cluster's unlock key (the KEK) when there is one, which also makes them the real
proof that a KEK is right: the key file's own encryption is not authenticated. Pure but for `new_key`.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pyswarm.ca import records
from pyswarm.errors import Unknown

CURRENT = "raft-dek"
PENDING = "raft-dek-pending"
NEEDS_ROTATION = "raft-dek-needs-rotation"
NAMES = (CURRENT, PENDING, NEEDS_ROTATION)


class HeaderError(Unknown):
    """The headers contradict themselves or are damaged."""


@dataclass(frozen=True, slots=True)
class DataKeys:
    """The keys in use: `current` encrypts; while a rotation runs `pending` is the next one; `needs_rotation` asks for (another) one."""

    current: bytes = field(repr=False)
    pending: bytes = field(default=b"", repr=False)
    needs_rotation: bool = False

    def asked(self, fresh: bytes) -> DataKeys:
        """The state once the keys were asked for: a rotation that is wanted and not under way begins, with `fresh` as pending key."""
        if not self.needs_rotation or self.pending:
            return self
        return replace(self, pending=fresh, needs_rotation=False)

    def finished(self) -> DataKeys:
        """The state after everything was rewritten with the pending key. A wish for one more rotation stays."""
        return replace(self, current=self.pending, pending=b"") if self.pending else self


def new_key() -> bytes:
    """A fresh data key, 32 bytes."""
    return secrets.token_bytes(records.KEY_SIZE)


def _decode(value: str, kek: bytes) -> bytes:
    try:
        record = base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise HeaderError(f"a data key header is damaged: {error}") from error
    return records.decrypt(record, kek)


def read(headers: Mapping[str, str], kek: bytes) -> DataKeys | None:
    """The keys in the headers, None when there are none. Raises records.CannotDecryptError for a wrong KEK, HeaderError for nonsense."""
    pending = _decode(headers[PENDING], kek) if PENDING in headers else b""
    if CURRENT not in headers:
        if PENDING in headers:
            raise HeaderError("there is a pending DEK, but no current DEK")
        return None
    return DataKeys(_decode(headers[CURRENT], kek), pending, NEEDS_ROTATION in headers)


def write(headers: Mapping[str, str], keys: DataKeys | None, kek: bytes) -> dict[str, str]:
    """`headers` with the data keys replaced by `keys`, encrypted with `kek`; None removes them."""
    result = {name: value for name, value in headers.items() if name not in NAMES}
    if keys is None:
        return result
    result[CURRENT] = base64.b64encode(records.encrypt(keys.current, kek)).decode()
    if keys.pending:
        result[PENDING] = base64.b64encode(records.encrypt(keys.pending, kek)).decode()
    if keys.needs_rotation:
        result[NEEDS_ROTATION] = "true"
    return result


def rekey(headers: Mapping[str, str], old: bytes, new: bytes) -> dict[str, str]:
    """The headers under another KEK. From none to some, the current key was readable on disk until now: a rotation is asked for."""
    if old == new:
        return dict(headers)
    keys = read(headers, old)
    if keys is not None and new and not old:
        keys = replace(keys, needs_rotation=True)
    return write(headers, keys, new)
