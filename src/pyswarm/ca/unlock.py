"""Unlock keys: the key-encryption key of an autolocked cluster, as people see it and as the cluster object holds it.

Spec/ca-and-security, section 17. Pure but for `generate`.
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from pyswarm.api import v1 as api
from pyswarm.errors import InvalidArgument

MANAGER_SUBSYSTEM = "swarm-manager"
_PREFIX = "SWMKEY-1-"
_LENGTH = 32
_BASE64 = re.compile(r"[A-Za-z0-9+/]*")


@dataclass(frozen=True, slots=True)
class KEK:
    """A key-encryption key (empty: none) and the version of the cluster object that it was read from."""

    key: bytes = field(default=b"", repr=False)
    version: int = 0


def generate() -> bytes:
    """A new key, 32 bytes."""
    return secrets.token_bytes(_LENGTH)


def to_text(key: bytes) -> str:
    """The form that people copy: `SWMKEY-1-` and unpadded base64."""
    return _PREFIX + base64.b64encode(key).decode().rstrip("=")


def parse(text: str) -> bytes:
    """The key in its printed form. Raises InvalidArgument `invalid key string`."""
    body = text.removeprefix(_PREFIX)
    if not text.startswith(_PREFIX) or not _BASE64.fullmatch(body):
        raise InvalidArgument("invalid key string")
    try:
        return base64.b64decode(body + "=" * (-len(body) % 4), validate=True)
    except binascii.Error as error:
        raise InvalidArgument("invalid key string") from error


def stored_key(cluster: api.Cluster) -> bytes:
    """The manager key a cluster holds, whether autolock is on or not; empty when there is none."""
    return next((entry.key for entry in cluster.unlock_keys if entry.subsystem == MANAGER_SUBSYSTEM), b"")


def kek_of(cluster: api.Cluster) -> KEK:
    """What a manager's key file should be encrypted with according to the cluster."""
    return KEK(stored_key(cluster), cluster.meta.version.index)


def update_keys(cluster: api.Cluster, *, rotate: bool, new_key: Callable[[], bytes] = generate) -> None:
    """Make the keys of `cluster` (a copy that the caller owns) fit its spec: none when unlocked, a new one when locked first or rotated.

    Entries of other subsystems stay as they are.
    """
    others = [entry for entry in cluster.unlock_keys if entry.subsystem != MANAGER_SUBSYSTEM]
    if not cluster.spec.encryption_config.auto_lock_managers:
        kept = others
    elif stored_key(cluster) and not rotate:
        return
    else:
        kept = [*others, api.EncryptionKey(subsystem=MANAGER_SUBSYSTEM, key=new_key())]
    copies = [api.EncryptionKey.FromString(entry.SerializeToString()) for entry in kept]
    del cluster.unlock_keys[:]
    cluster.unlock_keys.extend(copies)
