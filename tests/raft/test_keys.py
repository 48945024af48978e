"""The data key and its headers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pyswarm.api import v1 as api
from pyswarm.raft import keys
from pyswarm.raft.keys import BadHeaders, CannotDecrypt, DataKeys

KEK = b"unlock" * 5 + b"xx"


class Headers:
    """A key file in memory; implements HeaderStore."""

    def __init__(self, kek: bytes = b"") -> None:
        self.kek = kek
        self.content = {"kek-version": "3"}
        self.fail = False

    def headers(self) -> dict[str, str]:
        """See HeaderStore."""
        return dict(self.content)

    def update_headers(self, fn: Callable[[dict[str, str]], dict[str, str]]) -> None:
        """See HeaderStore."""
        if self.fail:
            raise OSError("disk full")
        self.content = fn(dict(self.content))


@pytest.mark.parametrize("kek", [b"", KEK])
def test_a_first_start_makes_a_key_and_keeps_it(kek: bytes) -> None:
    """Without a data key one is created and stored; later starts find the same one; other headers stay. [store 11 in part]"""
    store = Headers(kek)
    made = keys.load_or_create(store)
    assert len(made.current) == 32
    assert keys.load_or_create(store) == made
    assert store.content["kek-version"] == "3"


def test_without_an_unlock_key_records_are_in_clear_and_with_one_they_are_not() -> None:
    """Algorithm NONE without KEK, Fernet with one."""
    assert keys.seal(b"x", b"").algorithm == api.MaybeEncryptedRecord.NONE
    sealed = keys.seal(b"secret", KEK)
    assert sealed.algorithm == api.MaybeEncryptedRecord.FERNET_AES_128_CBC
    assert b"secret" not in sealed.SerializeToString()
    assert keys.unseal(sealed, KEK) == b"secret"


@pytest.mark.parametrize(
    ("record", "kek", "text"),
    [
        (keys.seal(b"x", KEK), b"", "record is encrypted"),
        (keys.seal(b"x", KEK), b"wrong", "cannot decrypt record encrypted using FERNET_AES_128_CBC"),
        (api.MaybeEncryptedRecord(algorithm=1), KEK, "no decryption key for record encrypted with SECRETBOX_SALSA20_POLY1305"),
        (api.MaybeEncryptedRecord(algorithm=9), KEK, "no decryption key for record encrypted with 9"),  # type: ignore[arg-type]
    ],
)
def test_what_does_not_open_says_why(record: api.MaybeEncryptedRecord, kek: bytes, text: str) -> None:
    """All failures are of one kind, with the fixed texts."""
    with pytest.raises(CannotDecrypt, match=text):
        keys.unseal(record, kek)


def test_short_and_long_keys_are_padded_and_cut() -> None:
    """Only 32 bytes count; shorter keys continue with zeros."""
    assert keys.unseal(keys.seal(b"x", b"short"), b"short" + bytes(27)) == b"x"
    assert keys.unseal(keys.seal(b"x", KEK + b"more"), KEK) == b"x"


def test_pending_key_comes_first_and_needs_a_current_one() -> None:
    """During a rotation new data goes under the pending key; a pending key alone is refused."""
    both = DataKeys(b"c" * 32, b"p" * 32, needs_rotation=True)
    headers = keys.encode({"other": "1"}, both, KEK)
    assert keys.decode(headers, KEK) == both
    assert (both.writing, both.reading) == (b"p" * 32, (b"c" * 32,))
    assert (DataKeys(b"c" * 32).writing, DataKeys(b"c" * 32).reading) == (b"c" * 32, ())
    del headers[keys.CURRENT]
    with pytest.raises(BadHeaders, match="there is a pending DEK, but no current DEK"):
        keys.decode(headers, KEK)


def test_locking_reencrypts_and_asks_for_a_new_key() -> None:
    """From no unlock key to one: same data key under it, and a rotation wanted; other changes only re-encrypt. [store 115]"""
    store = Headers()
    made = keys.load_or_create(store)
    locked = keys.reencrypt(store.content, b"", KEK)
    assert keys.decode(locked, KEK) == DataKeys(made.current, needs_rotation=True)
    with pytest.raises(CannotDecrypt):
        keys.decode(locked, b"")
    relocked = keys.reencrypt(keys.encode(locked, made, KEK), KEK, b"another")
    assert keys.decode(relocked, b"another") == made
    assert keys.decode(keys.reencrypt(relocked, b"another", b""), b"") == made
    assert keys.reencrypt({"kek-version": "1"}, b"", KEK) == {"kek-version": "1"}


def test_erasing_keeps_only_what_is_not_ours() -> None:
    """A demoted manager has no data keys left. [store 114]"""
    store = Headers()
    keys.load_or_create(store)
    keys.erase(store)
    assert store.content == {"kek-version": "3"}


def test_a_key_that_cannot_be_stored_is_not_used() -> None:
    """When the header cannot be written the start fails."""
    store = Headers()
    store.fail = True
    with pytest.raises(OSError, match="disk full"):
        keys.load_or_create(store)


def test_garbage_headers_count_as_a_wrong_key() -> None:
    """A header that is no record means that the key file was opened with the wrong key."""
    for value in ("%%%", "AAAA"):
        with pytest.raises(CannotDecrypt):
            keys.decode({keys.CURRENT: value}, KEK)
