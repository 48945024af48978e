"""Encrypted records, encrypted keys, data-key headers."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given, settings
from hypothesis import strategies as st

from pyswarm.api import v1 as api
from pyswarm.ca import csr, dek, pem, pkcs8, records, secretbox
from tests.ca import pki

KEK, OTHER = b"k" * 32, b"o" * 32


def plain_der() -> bytes:
    """A fresh key as PKCS#8 DER."""
    return pem.scan(csr.generate()[1])[0].data


@given(st.binary(max_size=100))
def test_record_round_trip(data: bytes) -> None:
    """Records open with their key and no other, and plain ones only without key [ca 105] [ca 107; store 3, 5, 6 in part]."""
    sealed = records.encrypt(data, KEK)
    assert records.decrypt(sealed, KEK) == data
    assert records.decrypt(records.encrypt(data, b""), b"") == data
    assert records.encrypt(data, KEK) != sealed
    for record, key in ((sealed, OTHER), (sealed, b""), (records.encrypt(data, b""), KEK), (b"\xff", KEK)):
        with pytest.raises(records.CannotDecryptError):
            records.decrypt(record, key)


def test_unknown_algorithm() -> None:
    """A record of an algorithm from the future is refused [ca 108; store 6 in part]."""
    with pytest.raises(records.CannotDecryptError, match="algorithm 9"):
        records.decrypt(api.MaybeEncryptedRecord(algorithm=9, data=b"x").SerializeToString(), KEK)  # type: ignore[arg-type]


def test_fernet_key_halves() -> None:
    """The first half of the key signs, the second encrypts, and the record holds the token's text."""
    message = api.MaybeEncryptedRecord.FromString(records.encrypt(b"data", b"s" * 16 + b"e" * 16))
    assert message.algorithm == api.MaybeEncryptedRecord.Algorithm.FERNET_AES_128_CBC
    assert base64.urlsafe_b64decode(message.data)[0] == 0x80
    assert message.nonce == b""


def test_secretbox_known_answer() -> None:
    """XSalsa20-Poly1305 agrees with the vector published with NaCl."""
    key = bytes.fromhex("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389")
    nonce = bytes.fromhex("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37")
    plain = bytes.fromhex(
        "be075fc53c81f2d5cf141316ebeb0c7b5228c52a4c62cbd44b66849b64244ffce5ecbaaf33bd751a1ac728d45e6c61296cdc3c01233561f41db66cce314adb31"
        "0e3be8250c46f06dceea3a7fa1348057e2f6556ad6b1318a024a838f21af1fde048977eb48f59ffd4924ca1c60902e52f0a089bc76897040e082f93776384864"
        "5e0705"
    )
    box = secretbox.seal(key, nonce, plain)
    assert box[:16] == bytes.fromhex("f3ffc7703f9400e52a7dfb4b3d3305d9")
    assert box[16:24] == bytes.fromhex("8e993b9f48681273")
    assert secretbox.unseal(key, nonce, box) == plain


def test_secretbox_records() -> None:
    """A secretbox record opens with its key only, and a nonce of the wrong size is named [ca 106; store 4]."""
    nonce = bytes(range(24))
    algorithm = api.MaybeEncryptedRecord.Algorithm.SECRETBOX_SALSA20_POLY1305
    message = api.MaybeEncryptedRecord(algorithm=algorithm, data=secretbox.seal(KEK, nonce, b"dek"), nonce=nonce)
    assert records.decrypt(message.SerializeToString(), KEK) == b"dek"
    with pytest.raises(records.CannotDecryptError, match="wrong key"):
        records.decrypt(message.SerializeToString(), OTHER)
    message.nonce = nonce[:20]
    with pytest.raises(records.CannotDecryptError, match="24 bytes, not 20"):
        records.decrypt(message.SerializeToString(), KEK)


def test_encrypted_key_round_trip() -> None:
    """An encrypted key opens with its password, here and in OpenSSL [ca 101]."""
    plain = plain_der()
    encrypted = pkcs8.encrypt_der(plain, KEK)
    assert pkcs8.decrypt_der(encrypted, KEK) == plain
    loaded = serialization.load_der_private_key(encrypted, KEK)
    assert loaded.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()) == plain


def test_encrypted_key_structure() -> None:
    """PBES2 with PBKDF2 and no PRF field, so HMAC-SHA-1, 8 bytes of salt and 2048 rounds."""
    encrypted = pkcs8.encrypt_der(plain_der(), KEK)
    at = encrypted.index(bytes.fromhex("06092a864886f70d01050c")) + 11
    assert encrypted[at : at + 4] == bytes.fromhex("300e0408")
    assert encrypted[at + 12 : at + 16] == bytes.fromhex("02020800")


@settings(max_examples=20, deadline=None)
@given(st.binary(min_size=1, max_size=32))
def test_wrong_password(password: bytes) -> None:
    """A wrong password is told from a right one [ca 101]."""
    encrypted = pkcs8.encrypt_der(plain_der(), KEK)
    with pytest.raises(pkcs8.WrongPasswordError, match="pkcs8: incorrect password"):
        pkcs8.decrypt_der(encrypted, password)


def test_refused_keys() -> None:
    """What is not the one supported form is refused with its text [ca 101]."""
    plain = plain_der()
    encrypted = pkcs8.encrypt_der(plain, KEK)
    for old, new, problem in (
        (bytes.fromhex("2a864886f70d01050d"), bytes.fromhex("2a864886f70d01050a"), "pkcs8: only PBES2 supported"),
        (bytes.fromhex("2a864886f70d01050c"), bytes.fromhex("2a864886f70d01050b"), "pkcs8: only PBKDF2 supported"),
        (bytes.fromhex("60864801650304012a"), bytes.fromhex("608648016503040116"), "pkcs8: only AES-256-CBC supported"),
    ):
        with pytest.raises(pkcs8.KeyFormatError, match=problem):
            pkcs8.decrypt_der(encrypted.replace(old, new), KEK)
    with pytest.raises(pkcs8.KeyFormatError, match=r"only PKCS #5 v2\.0 supported"):
        pkcs8.decrypt_der(plain, KEK)
    with pytest.raises(pkcs8.KeyFormatError, match=r"only PKCS #5 v2\.0 supported"):
        pkcs8.decrypt_der(b"", KEK)


def test_bad_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key with the right password but damaged padding is reported as such [ca 101]."""
    monkeypatch.setattr(pkcs8, "_pad", lambda data: data + b"\x63" * (16 - len(data) % 16))
    with pytest.raises(pkcs8.KeyFormatError, match="pkcs8: invalid padding size"):
        pkcs8.decrypt_der(pkcs8.encrypt_der(plain_der(), KEK), KEK)


def test_legacy_keys() -> None:
    """RFC 1423 keys open, here and in OpenSSL."""
    key = pki.ec_key()
    plain = key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
    block = pkcs8.encrypt_legacy(plain, KEK)
    assert pkcs8.decrypt_legacy(block, KEK) == plain
    upper = {**block.headers, "DEK-Info": block.headers["DEK-Info"].upper()}
    loaded = serialization.load_pem_private_key(pem.encode(pem.Block(block.label, block.data, upper)), KEK)
    assert loaded.public_key() == key.public_key()
    with pytest.raises(pkcs8.WrongPasswordError):
        pkcs8.decrypt_legacy(block, OTHER)


def test_data_key_headers() -> None:
    """Data keys survive the headers under the right KEK only, and a pending key needs a current one [ca 111; store 10]."""
    cases = [(dek.DataKeys(b"c"), 1), (dek.DataKeys(b"c", b"p"), 2), (dek.DataKeys(b"c", needs_rotation=True), 2)]
    for keys, count in cases:
        for kek in (b"", KEK):
            headers = dek.write({}, keys, kek)
            assert len(headers) == count
            assert dek.read(headers, kek) == keys
            with pytest.raises(records.CannotDecryptError):
                dek.read(headers, OTHER)
    assert dek.read({}, KEK) is None
    pending = dek.write({}, dek.DataKeys(b"c", b"p"), KEK)
    del pending[dek.CURRENT]
    with pytest.raises(dek.HeaderError, match="there is a pending DEK, but no current DEK"):
        dek.read(pending, KEK)


def test_data_keys_are_fernet_records() -> None:
    """Under a KEK every data key is a record of the kind that all of SwarmKit's modes can read. [store 16]"""
    headers = dek.write({}, dek.DataKeys(b"c", b"p"), KEK)
    for name in (dek.CURRENT, dek.PENDING):
        record = api.MaybeEncryptedRecord.FromString(base64.b64decode(headers[name]))
        assert record.algorithm == api.MaybeEncryptedRecord.FERNET_AES_128_CBC


def test_foreign_headers_stay() -> None:
    """Writing data keys leaves other headers alone, and removing them removes only them [ca 115; store 13]."""
    headers = dek.write({"hello": "world"}, dek.DataKeys(b"c", b"p", needs_rotation=True), KEK)
    assert headers["hello"] == "world"
    assert dek.write(headers, None, KEK) == {"hello": "world"}


@pytest.mark.parametrize(("old", "new", "rotate"), [(b"", KEK, True), (KEK, b"", False), (KEK, OTHER, False), (b"", b"", False)])
def test_rekey(old: bytes, new: bytes, rotate: bool) -> None:
    """Only from unlocked to locked do data keys need rotation; they themselves never change [ca 112; store 9]."""
    keys = dek.DataKeys(b"c", b"p")
    assert dek.read(dek.rekey(dek.write({}, keys, old), old, new), new) == dek.DataKeys(b"c", b"p", needs_rotation=rotate)


def test_asking_for_data_keys() -> None:
    """A wanted rotation begins when the keys are asked for; finishing it keeps a further wish [ca 114] [ca 115; store 12, 13]."""
    assert dek.DataKeys(b"c").asked(b"f") == dek.DataKeys(b"c")
    assert dek.DataKeys(b"c", needs_rotation=True).asked(b"f") == dek.DataKeys(b"c", b"f")
    assert dek.DataKeys(b"c", b"p", needs_rotation=True).asked(b"f") == dek.DataKeys(b"c", b"p", needs_rotation=True)
    assert dek.DataKeys(b"c", b"p", needs_rotation=True).finished() == dek.DataKeys(b"p", needs_rotation=True)
    assert "secret" not in repr(dek.DataKeys(b"secret"))
