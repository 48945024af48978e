"""Join tokens and unlock keys."""

from __future__ import annotations

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyswarm.api import ids
from pyswarm.api import v1 as api
from pyswarm.ca import tokens, unlock
from pyswarm.errors import InvalidArgument

DIGEST, SECRET = "0" * 49 + "a", "b" * 25


def test_shape() -> None:
    """A token has 85 characters in four parts; one that demands FIPS says so [ca 36]."""
    token = tokens.generate(b"bundle")
    assert len(token) == 85
    assert re.fullmatch(r"SWMTKN-1-[0-9a-z]{50}-[0-9a-z]{25}", token)
    assert re.fullmatch(r"SWMTKN-2-1-[0-9a-z]{50}-[0-9a-z]{25}", tokens.generate(b"bundle", fips=True))
    assert tokens.parse(tokens.generate(b"bundle", fips=True)).fips


@given(st.binary())
def test_digest_is_of_the_exact_bytes(bundle: bytes) -> None:
    """The digest part decodes to the SHA-256 of the bundle's bytes [ca 37]."""
    parsed = tokens.parse(tokens.generate(bundle))
    assert parsed.digest == hashlib.sha256(bundle).hexdigest()
    assert tokens.digest_matches(bundle, parsed.digest)
    assert not tokens.digest_matches(bundle + b"\n", parsed.digest)


def test_leading_zeros_stay() -> None:
    """A digest that begins with a zero byte keeps its 64 digits [ca 37]."""
    bundle = next(b"%d" % n for n in range(100_000) if hashlib.sha256(b"%d" % n).digest()[0] == 0)
    assert tokens.parse(tokens.generate(bundle)).digest.startswith("00")
    assert len(tokens.parse(tokens.generate(bundle)).digest) == 64


def test_small_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small secret is filled up to 25 characters [ca 37]."""
    monkeypatch.setattr(tokens.secrets, "token_bytes", lambda size: bytes(size - 1) + b"\x07")
    assert tokens.generate(b"x").endswith("-" + "0" * 24 + "7")


@pytest.mark.parametrize("token", [
    "", "arbitrary text", f"SWMTKN-1-{DIGEST}-{SECRET[1:]}", f"SWMTKN-2-{DIGEST}-{SECRET}", f"SWMTKN-0-{DIGEST}-{SECRET}",
    f"SWMTKN-1-1-{DIGEST}-{SECRET}", f"SWMTKN-2-2-{DIGEST}-{SECRET}", f"SWMKEY-1-{DIGEST}-{SECRET}", f"SWMTKN-1-{'z' * 50}-{SECRET}",
    f"SWMTKN-1-{DIGEST[:-1]}_-{SECRET}", f"SWMTKN-1-{DIGEST}",
])  # fmt: skip
def test_invalid(token: str) -> None:
    """Anything that is not exactly a token is refused [ca 38]."""
    with pytest.raises(InvalidArgument, match="invalid join token"):
        tokens.parse(token)


def test_version_two_without_fips() -> None:
    """Version 2 need not demand FIPS [ca 39]."""
    parsed = tokens.parse(f"SWMTKN-2-0-{DIGEST}-{SECRET}")
    assert (parsed.version, parsed.fips, parsed.secret) == (2, False, SECRET)
    assert SECRET not in repr(parsed)


def test_role_for() -> None:
    """The whole token decides the role, and an empty one never matches."""
    valid = api.JoinTokens(worker=tokens.generate(b"x"), manager=tokens.generate(b"x"))
    assert tokens.role_for(valid.worker, valid) == api.NodeRole.WORKER
    assert tokens.role_for(valid.manager, valid) == api.NodeRole.MANAGER
    assert tokens.role_for(tokens.generate(b"x"), valid) is None
    assert tokens.role_for("", api.JoinTokens()) is None


def test_unlock_key_text() -> None:
    """Unlock keys survive printing; anything else is refused [ca 110; store 8]."""
    key = unlock.generate()
    text = unlock.to_text(key)
    assert re.fullmatch(r"SWMKEY-1-[A-Za-z0-9+/]{43}", text)
    assert unlock.parse(text) == key
    assert unlock.to_text(b"") == "SWMKEY-1-"
    for bad in ("", key.hex(), text.replace("SWMKEY", "SWMTKN"), text + "=", text[:-1] + "_", text + "A" * 2, "SWMKEY-1-A"):
        with pytest.raises(InvalidArgument, match="invalid key string"):
            unlock.parse(bad)


def cluster(*, locked: bool, key: bytes = b"") -> api.Cluster:
    """A cluster with a foreign key and perhaps a manager key."""
    made = api.Cluster(id="c", unlock_keys=[api.EncryptionKey(subsystem="foreign", key=b"other")])
    made.spec.encryption_config.auto_lock_managers = locked
    if key:
        made.unlock_keys.add(subsystem="swarm-manager", key=key)
    return made


@pytest.mark.parametrize(("locked", "before", "rotate", "after"), [
    (False, b"old", True, b""), (False, b"old", False, b""), (False, b"", True, b""),
    (True, b"", False, b"new"), (True, b"old", False, b"old"), (True, b"old", True, b"new"),
])  # fmt: skip
def test_unlock_keys_follow_the_spec(locked: bool, before: bytes, rotate: bool, after: bytes) -> None:
    """The manager key appears, stays, rotates and goes as the spec says; foreign keys stay [ca 117] [ca 120]."""
    changed = cluster(locked=locked, key=before)
    unlock.update_keys(changed, rotate=rotate, new_key=lambda: b"new")
    assert unlock.stored_key(changed) == after
    assert [entry.key for entry in changed.unlock_keys if entry.subsystem == "foreign"] == [b"other"]
    assert unlock.kek_of(changed).key == after


def test_base36() -> None:
    """Base 36 counts digits before letters."""
    assert ids.base36(35) == "z"
