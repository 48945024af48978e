"""The certificates directory: pairs, headers, KEK, crashes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from pyswarm.ca import dek, files, keystore, pem, pkcs8
from pyswarm.ca.credentials import Credentials
from pyswarm.ca.keystore import KEKConflictError, KeyFileError, KeyStore, LockedError, MissingFileError, Rekeyed
from pyswarm.ca.root import RootCA
from pyswarm.ca.unlock import KEK
from tests.ca import pki

ROOT = RootCA.create(now=pki.NOW)
ONE, TWO = pki.issue(ROOT), pki.issue(ROOT, "node2")
LOCK, OTHER = b"k" * 32, b"o" * 32


class Crash(Exception):
    """The machine stopped here."""


def key_block(directory: Path) -> pem.Block:
    """What is in the key file."""
    return pem.scan((directory / "swarm-node.key").read_bytes())[0]


def put(store: KeyStore, pair: Credentials, kek: KEK | None = None) -> None:
    """Write credentials."""
    store.write(pair.cert_pem, pair.key_pem, kek)


def test_missing_files(tmp_path: Path) -> None:
    """Reading what is not there names the file; writing makes the directory [ca 90]."""
    directory = tmp_path / "state" / "certificates"
    store = KeyStore(directory)
    with pytest.raises(MissingFileError, match=r"swarm-node\.key does not exist"):
        store.read()
    put(store, ONE)
    assert directory.stat().st_mode & 0o777 == 0o755
    assert (directory / "swarm-node.key").stat().st_mode & 0o777 == 0o600
    assert (directory / "swarm-node.crt").stat().st_mode & 0o777 == 0o644
    assert sorted(entry.name for entry in directory.iterdir()) == ["swarm-node.crt", "swarm-node.key"]
    assert KeyStore(directory).read() == keystore.Pair(ONE.cert_pem, ONE.key_pem)
    assert key_block(directory).headers == {"kek-version": "0"}
    assert key_block(directory).label == "PRIVATE KEY"


def test_foreign_headers(tmp_path: Path) -> None:
    """A plain key opens whatever KEK is given, with its version and foreign headers [ca 91]."""
    put(KeyStore(tmp_path), ONE)
    block = key_block(tmp_path)
    headers = {"hello": "world", "kek-version": "8"}
    (tmp_path / "swarm-node.key").write_bytes(pem.encode(pem.Block(block.label, block.data, headers)))
    for kek in (b"", LOCK):
        store = KeyStore(tmp_path, kek)
        store.read()
        assert (store.kek, store.kek_version, store.headers()) == (b"", 8, {"hello": "world"})


def test_kek_on_write(tmp_path: Path) -> None:
    """A write with a KEK locks the file for others, and later writes keep it [ca 92]."""
    store = KeyStore(tmp_path)
    put(store, ONE)
    put(store, ONE, KEK(LOCK, 3))
    assert key_block(tmp_path).label == "ENCRYPTED PRIVATE KEY"
    assert store.read().key_pem == ONE.key_pem
    for wrong in (b"", OTHER):
        with pytest.raises(LockedError, match=r"^node is locked, and needs a valid unlock key$"):
            KeyStore(tmp_path, wrong).read()
    again = KeyStore(tmp_path, LOCK)
    assert again.read().key_pem == ONE.key_pem
    assert again.kek_version == 3
    put(again, TWO)
    assert KeyStore(tmp_path, LOCK).read().key_pem == TWO.key_pem


def test_empty_kek_on_write(tmp_path: Path) -> None:
    """A write with an empty KEK leaves a plain key, as for a demoted manager [ca 66] [ca 93]."""
    store = KeyStore(tmp_path, LOCK)
    put(store, ONE, KEK(LOCK, 3))
    put(store, TWO, KEK())
    fresh = KeyStore(tmp_path)
    assert fresh.read().key_pem == TWO.key_pem
    assert fresh.kek_version == 0


def test_failed_write_changes_nothing_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the key cannot be written the KEK in force stays, and a later write works [ca 94]."""
    store = KeyStore(tmp_path)
    put(store, ONE)
    with monkeypatch.context() as patch:
        patch.setattr(files, "write_atomically", crash_at(1))
        with pytest.raises(Crash):
            put(store, TWO, KEK(LOCK, 3))
    assert (store.kek, store.kek_version) == (b"", 0)
    put(store, TWO)
    assert KeyStore(tmp_path).read().key_pem == TWO.key_pem


def crash_at(step: int) -> Callable[..., None]:
    """`write_atomically`, ending the world instead of the given call (from 0)."""
    original, count = files.write_atomically, 0

    def write(path: Path, data: bytes, mode: int = 0o600) -> None:
        nonlocal count
        if count == step:
            raise Crash
        count += 1
        original(path, data, mode)

    return write


@pytest.mark.parametrize("kek", [b"", LOCK])
@pytest.mark.parametrize(("step", "survivor"), [(0, ONE), (1, ONE), (2, TWO), (3, TWO)])
def test_crash_between_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kek: bytes, step: int, survivor: Credentials) -> None:
    """A crash before or between the steps of a write leaves the old pair or the new one, never a mixture."""
    store = KeyStore(tmp_path, kek)
    put(store, ONE)
    store.update_data_keys(lambda _: dek.DataKeys(b"data key"))
    replace = Path.replace

    def no_rename(self: Path, to: Path) -> Path:
        if self.name == ".swarm-node.crt":
            raise Crash
        return replace(self, to)

    with monkeypatch.context() as patch:
        if step == 2:
            patch.setattr(Path, "replace", no_rename)
        elif step < 2:
            patch.setattr(files, "write_atomically", crash_at(step))
        if step < 3:
            with pytest.raises(Crash):
                put(store, TWO)
        else:
            put(store, TWO)
    for _ in range(2):
        again = KeyStore(tmp_path, kek)
        assert again.read() == keystore.Pair(survivor.cert_pem, survivor.key_pem)
        assert again.data_keys() == dek.DataKeys(b"data key")
    if step > 1:
        assert not (tmp_path / ".swarm-node.crt").exists()


def test_header_update(tmp_path: Path) -> None:
    """Headers change alone, plain and encrypted; when the change fails the file stays byte for byte [ca 95]."""
    for kek in (b"", LOCK):
        store = KeyStore(tmp_path / str(len(kek)), kek)
        put(store, ONE)
        store.update_headers(lambda headers: {**headers, "one": "1"})
        store.update_headers(lambda headers: {**headers, "two": str(len(headers))})
        before = (store.directory / "swarm-node.key").read_bytes()

        def refuse(_headers: dict[str, str]) -> dict[str, str]:
            raise Crash

        with pytest.raises(Crash):
            store.update_headers(refuse)
        assert (store.directory / "swarm-node.key").read_bytes() == before
        again = KeyStore(store.directory, kek)
        assert again.read().key_pem == ONE.key_pem
        assert again.headers() == {"one": "1", "two": "1"}


def test_kek_rotation(tmp_path: Path) -> None:
    """A newer KEK re-encrypts key and data keys in one write; older or equal ones do nothing [ca 96] [ca 116; store 14]."""
    store = KeyStore(tmp_path)
    put(store, ONE)
    store.update_data_keys(lambda _: dek.DataKeys(b"data"))
    assert store.rotate_kek(KEK(LOCK, 5)) == Rekeyed(updated=True, locked=True)
    assert store.data_keys() == dek.DataKeys(b"data", needs_rotation=True)
    with pytest.raises(LockedError):
        KeyStore(tmp_path).read()
    before = (tmp_path / "swarm-node.key").read_bytes()
    assert store.rotate_kek(KEK(LOCK, 9)) == Rekeyed()
    assert store.rotate_kek(KEK(OTHER, 4)) == Rekeyed()
    with pytest.raises(KEKConflictError, match="same version as the current KEK, but a different KEK value"):
        store.rotate_kek(KEK(OTHER, 5))
    assert (tmp_path / "swarm-node.key").read_bytes() == before
    assert store.rotate_kek(KEK(OTHER, 6)) == Rekeyed(updated=True)
    assert store.rotate_kek(KEK(b"", 7)) == Rekeyed(updated=True)
    plain = KeyStore(tmp_path)
    assert plain.read().key_pem == ONE.key_pem
    assert plain.data_keys() == dek.DataKeys(b"data", needs_rotation=True)
    assert plain.kek_version == 7


def test_kek_rotation_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rotation that cannot be written leaves file and memory as they were [ca 96]."""
    store = KeyStore(tmp_path)
    put(store, ONE)
    with monkeypatch.context() as patch:
        patch.setattr(files, "write_atomically", crash_at(0))
        with pytest.raises(Crash):
            store.rotate_kek(KEK(LOCK, 5))
    assert store.kek == b""
    assert KeyStore(tmp_path).read().key_pem == ONE.key_pem
    assert store.rotate_kek(KEK(LOCK, 5)).locked


def test_blocked_certificate(tmp_path: Path) -> None:
    """With a directory in its place the certificate waits under its temporary name and is found later [ca 97]."""
    store = KeyStore(tmp_path)
    (tmp_path / "swarm-node.crt").mkdir()
    with pytest.raises(OSError, match="directory"):
        put(store, ONE)
    assert (tmp_path / ".swarm-node.crt").exists()
    (tmp_path / "swarm-node.crt").rmdir()
    assert KeyStore(tmp_path).read().cert_pem == ONE.cert_pem
    assert (tmp_path / "swarm-node.crt").read_bytes() == ONE.cert_pem


def test_mismatched_certificate(tmp_path: Path) -> None:
    """A certificate of another key is replaced by a fitting temporary one, or reported while a misfit is deleted [ca 97]."""
    put(KeyStore(tmp_path), ONE)
    (tmp_path / "swarm-node.crt").write_bytes(TWO.cert_pem)
    (tmp_path / ".swarm-node.crt").write_bytes(ONE.cert_pem)
    assert KeyStore(tmp_path).read().cert_pem == ONE.cert_pem
    (tmp_path / "swarm-node.crt").write_bytes(TWO.cert_pem)
    (tmp_path / ".swarm-node.crt").write_bytes(TWO.cert_pem)
    with pytest.raises(KeyFileError, match=r"swarm-node\.crt: it holds no certificate for the key in swarm-node\.key; restore"):
        KeyStore(tmp_path).read()
    assert not (tmp_path / ".swarm-node.crt").exists()


def test_legacy_temporary_key(tmp_path: Path) -> None:
    """A waiting key of an old version takes its place if it fits the certificate, else it goes [ca 98]."""
    put(KeyStore(tmp_path), TWO)
    (tmp_path / "swarm-node.crt").write_bytes(ONE.cert_pem)
    (tmp_path / ".swarm-node.key").write_bytes(ONE.key_pem)
    assert KeyStore(tmp_path).read().key_pem == ONE.key_pem
    (tmp_path / ".swarm-node.key").write_bytes(TWO.key_pem)
    assert KeyStore(tmp_path).read().key_pem == ONE.key_pem
    assert not (tmp_path / ".swarm-node.key").exists()


@pytest.mark.parametrize("content", [b"", b"garbage", b"-----BEGIN PRIVATE KEY-----\nYWJj\n-----END PRIVATE KEY-----\n"])
def test_damaged_key(tmp_path: Path, content: bytes) -> None:
    """A damaged key is reported with its file and what to do [ca 77]."""
    put(KeyStore(tmp_path), ONE)
    (tmp_path / "swarm-node.key").write_bytes(content)
    with pytest.raises(KeyFileError, match=r"swarm-node\.key: .*restore the file from a backup, or remove it"):
        KeyStore(tmp_path).read()


def test_accidental_decryption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that opens by chance under a wrong KEK is still refused, because its data keys do not [ca 103; store 15]."""
    store = KeyStore(tmp_path, LOCK)
    put(store, ONE)
    store.update_data_keys(lambda _: dek.DataKeys(b"data"))
    plain = pem.scan(ONE.key_pem)[0].data
    monkeypatch.setattr(pkcs8, "decrypt_der", lambda _data, _password: plain)
    with pytest.raises(LockedError):
        KeyStore(tmp_path, OTHER).read()


def test_legacy_key_files(tmp_path: Path) -> None:
    """EC PRIVATE KEY files are read, and stay in that form when they are encrypted and when headers change."""
    key = serialization.load_pem_private_key(ONE.key_pem, None)
    legacy = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
    put(KeyStore(tmp_path), ONE)
    (tmp_path / "swarm-node.key").write_bytes(legacy)
    store = KeyStore(tmp_path)
    assert store.read().key_pem == legacy
    assert store.rotate_kek(KEK(LOCK, 2)).locked
    assert key_block(tmp_path).label == "EC PRIVATE KEY"
    assert key_block(tmp_path).headers["Proc-Type"] == "4,ENCRYPTED"
    store.update_headers(lambda headers: {**headers, "x": "y"})
    again = KeyStore(tmp_path, LOCK)
    assert again.read().key_pem == legacy
    assert again.headers() == {"x": "y"}
    with pytest.raises(LockedError):
        KeyStore(tmp_path, OTHER).read()


def test_first_data_key(tmp_path: Path) -> None:
    """The first start makes a data key, the second finds it and writes nothing [ca 113; store 11]."""
    put(KeyStore(tmp_path), ONE)
    store = KeyStore(tmp_path)
    store.read()
    made = store.update_data_keys(lambda known: known or dek.DataKeys(dek.new_key()))
    before = (tmp_path / "swarm-node.key").read_bytes()
    again = KeyStore(tmp_path)
    again.read()
    assert again.update_data_keys(lambda known: known or dek.DataKeys(dek.new_key())) == made
    assert (tmp_path / "swarm-node.key").read_bytes() == before
    again.update_data_keys(lambda _: None)
    assert key_block(tmp_path).headers == {"kek-version": "0"}


def test_secrets_are_hidden() -> None:
    """Neither pairs nor KEKs show secrets when printed."""
    assert "PRIVATE" not in repr(keystore.Pair(ONE.cert_pem, ONE.key_pem))
    assert "kkk" not in repr(KEK(LOCK, 1))
    assert "PRIVATE" not in repr(ONE)
    assert "PRIVATE" not in repr(ROOT)
