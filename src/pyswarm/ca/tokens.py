"""Join tokens: a digest that lets the joiner check the cluster, and a secret that lets the cluster check the joiner.

Spec/ca-and-security, section 8. The cluster compares whole tokens; only the joiner takes them apart.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field

from pyswarm.api import ids
from pyswarm.api import v1 as api
from pyswarm.errors import InvalidArgument

_DIGEST_LENGTH = 50
_SECRET_LENGTH = 25
_SECRET_BYTES = 16
_BASE36 = re.compile(r"[0-9a-zA-Z]+")


@dataclass(frozen=True, slots=True)
class JoinToken:
    """A token taken apart. `digest` is 64 hex digits over the root bundle."""

    version: int
    fips: bool
    digest: str
    secret: str = field(repr=False)


def generate(bundle: bytes, *, fips: bool = False) -> str:
    """A new token for the cluster whose trusted root bundle is exactly these bytes. `fips` makes joiners without FIPS mode refuse."""
    digest = ids.base36(int.from_bytes(hashlib.sha256(bundle).digest(), "big")).rjust(_DIGEST_LENGTH, "0")
    secret = ids.base36(int.from_bytes(secrets.token_bytes(_SECRET_BYTES), "big")).rjust(_SECRET_LENGTH, "0")
    return f"SWMTKN-2-1-{digest}-{secret}" if fips else f"SWMTKN-1-{digest}-{secret}"


def parse(token: str) -> JoinToken:
    """Take a token apart. Raises InvalidArgument `invalid join token`."""
    match token.split("-"):
        case ["SWMTKN", "1", digest, secret]:
            version, fips = 1, False
        case ["SWMTKN", "2", "0" | "1" as flag, digest, secret]:
            version, fips = 2, flag == "1"
        case _:
            raise InvalidArgument("invalid join token")
    if len(digest) != _DIGEST_LENGTH or len(secret) != _SECRET_LENGTH or not _BASE36.fullmatch(digest):
        raise InvalidArgument("invalid join token")
    number = int(digest, 36)
    if number >> 256:
        raise InvalidArgument("invalid join token")
    return JoinToken(version, fips, f"{number:064x}", secret)


def digest_matches(bundle: bytes, digest: str) -> bool:
    """Whether a root bundle is the one a token speaks of."""
    return hmac.compare_digest(hashlib.sha256(bundle).hexdigest(), digest)


def role_for(token: str, valid: api.JoinTokens) -> api.NodeRole.ValueType | None:
    """The role a token opens, None when it opens nothing. Takes equally long whatever the token."""
    given = token.encode()
    manager = hmac.compare_digest(given, valid.manager.encode()) and bool(valid.manager)
    worker = hmac.compare_digest(given, valid.worker.encode()) and bool(valid.worker)
    if manager:
        return api.NodeRole.MANAGER
    return api.NodeRole.WORKER if worker else None
