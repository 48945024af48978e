"""The node's certificate, key and root on disk, written so that a crash between any two steps loses nothing.

Spec/ca-and-security, section 16. The key file's headers (KEK version, data keys of the log) change only together with the key's own
encryption, in one atomic write. All methods block on the disk; one lock makes them safe to call from threads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from pyswarm.ca import dek, files, pem, pkcs8, records
from pyswarm.ca.unlock import KEK
from pyswarm.errors import FailedPrecondition, NotFound, Unknown

ROOT_FILE = "swarm-root-ca.crt"
ROOT_KEY_FILE = "swarm-root-ca.key"
CERT_FILE = "swarm-node.crt"
KEY_FILE = "swarm-node.key"
_NEW_CERT_FILE = ".swarm-node.crt"
_LEGACY_KEY_FILE = ".swarm-node.key"
_KEK_VERSION = "kek-version"
_RFC_1423 = ("Proc-Type", "DEK-Info")
_PUBLIC, _SECRET, _DIRECTORY = 0o644, 0o600, 0o755


class LockedError(FailedPrecondition):
    """The key file is encrypted and the unlock key at hand does not open it."""

    def __init__(self, path: Path) -> None:
        super().__init__("node is locked, and needs a valid unlock key")
        self.path = path


class MissingFileError(NotFound):
    """The node has no certificate or no key (yet)."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} does not exist")
        self.path = path


class KeyFileError(Unknown):
    """A file is there but cannot be used; the message names it and says what helps."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}; restore the file from a backup, or remove it and let the node join again")
        self.path = path


class KEKConflictError(Unknown):
    """Two different keys claim the same version of the cluster."""

    def __init__(self) -> None:
        super().__init__("candidate KEK has the same version as the current KEK, but a different KEK value")


@dataclass(frozen=True, slots=True)
class Pair:
    """A node certificate (leaf and intermediates) and its plain key, both PEM."""

    cert_pem: bytes
    key_pem: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Rekeyed:
    """What an offered KEK changed: nothing, the encryption, or (`locked`) from unencrypted to encrypted."""

    updated: bool = False
    locked: bool = False


@dataclass(frozen=True, slots=True)
class _KeyFile:
    """The key file opened: plain DER with its label, the KEK that is in force, and the headers that are not part of the encryption."""

    label: str
    der: bytes = field(repr=False)
    kek: KEK = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)

    def plain_pem(self) -> bytes:
        return pem.encode(pem.Block(self.label, self.der))

    def to_pem(self) -> bytes:
        if not self.kek.key:
            block = pem.Block(self.label, self.der)
        elif self.label == pem.EC_PRIVATE_KEY:
            block = pkcs8.encrypt_legacy(self.der, self.kek.key)
        else:
            block = pem.Block(pem.ENCRYPTED_PRIVATE_KEY, pkcs8.encrypt_der(self.der, self.kek.key))
        return pem.encode(pem.Block(block.label, block.data, {**self.headers, **block.headers, _KEK_VERSION: str(self.kek.version)}))


class KeyStore:
    """The `certificates` directory of one node.

    `kek` is the unlock key to open an existing key file with, or, in an empty directory, to encrypt the first key with. Once a file was
    read or written, what the file says is what counts.
    """

    def __init__(self, directory: Path, kek: bytes = b"") -> None:
        self._directory = directory
        self._kek = KEK(kek)
        self._headers: dict[str, str] = {}
        self._lock = threading.RLock()

    @property
    def directory(self) -> Path:
        """Where the files are."""
        return self._directory

    @property
    def kek(self) -> bytes:
        """The key-encryption key in force, empty for none."""
        return self._kek.key

    @property
    def kek_version(self) -> int:
        """The cluster version that the KEK belongs to."""
        return self._kek.version

    def headers(self) -> dict[str, str]:
        """The key file's headers as last read or written, without those that describe its encryption. Data keys are as encrypted there."""
        return dict(self._headers)

    def read(self) -> Pair:
        """The pair on disk, repaired if a crash interrupted a write. Takes over the file's KEK version and headers.

        Raises MissingFileError, LockedError, KeyFileError.
        """
        with self._lock:
            self._migrate()
            opened = self._open()
            cert = self._matching_certificate(opened)
            self._adopt(opened)
            return Pair(cert, opened.plain_pem())

    def write(self, cert_pem: bytes, key_pem: bytes, kek: KEK | None = None) -> None:
        """Replace certificate and key, encrypted with `kek` (None: the one in force; an empty one: not at all). Headers are kept.

        `key_pem` is plain. The order of the three steps lets `read` find a complete pair after a crash at any point; nothing in memory
        changes unless the key was written.
        """
        with self._lock:
            update = self._kek if kek is None else kek
            block = _single_key(key_pem)
            changed = _KeyFile(block.label, block.data, update, dek.rekey(self._headers, self._kek.key, update.key))
            files.ensure_directory(self._directory, _DIRECTORY)
            temporary = self._directory / _NEW_CERT_FILE
            files.write_atomically(temporary, pem.normalize(cert_pem), _PUBLIC)
            self._save(changed)
            temporary.replace(self._directory / CERT_FILE)
            files.sync_directory(self._directory)

    def update_headers(self, change: Callable[[dict[str, str]], dict[str, str]]) -> None:
        """Replace the headers by what `change` makes of them, in one step with everything else in the file.

        `change` runs at once, under the lock, and may look at `kek`; when it raises, the file stays as it is. Raises as `read` does.
        """
        with self._lock:
            opened = self._open()
            self._adopt(opened)
            headers = change(dict(opened.headers))
            self._save(_KeyFile(opened.label, opened.der, opened.kek, headers))

    def data_keys(self) -> dek.DataKeys | None:
        """The log's data keys as last read or written."""
        with self._lock:
            return dek.read(self._headers, self._kek.key)

    def update_data_keys(self, change: Callable[[dek.DataKeys | None], dek.DataKeys | None]) -> dek.DataKeys | None:
        """Replace the log's data keys by what `change` makes of them (None removes them); writes nothing when they stay the same."""
        with self._lock:
            opened = self._open()
            keys = dek.read(opened.headers, opened.kek.key)
            wanted = change(keys)
            if wanted != keys:
                self.update_headers(lambda headers: dek.write(headers, wanted, self._kek.key))
            return wanted

    def rotate_kek(self, candidate: KEK) -> Rekeyed:
        """Encrypt key and headers with `candidate` if it is newer than, and different from, the KEK in force.

        From none to some, the log's data keys are marked as needing rotation, and `locked` tells the caller to renew the certificate, whose
        key was readable until now. Raises KEKConflictError for a different key with the version in force.
        """
        with self._lock:
            current = self._kek
            if candidate.key == current.key:
                return Rekeyed()
            if candidate.version == current.version:
                raise KEKConflictError
            if candidate.version < current.version:
                return Rekeyed()
            opened = self._open()
            self._save(_KeyFile(opened.label, opened.der, candidate, dek.rekey(opened.headers, current.key, candidate.key)))
            return Rekeyed(updated=True, locked=not current.key)

    def read_root(self) -> bytes | None:
        """The trusted bundle's exact bytes, None when there is no such file."""
        return _content(self._directory / ROOT_FILE)

    def read_root_key(self) -> bytes | None:
        """A root key that an old installation left here; pyswarm never writes one."""
        return _content(self._directory / ROOT_KEY_FILE)

    def write_root(self, bundle: bytes) -> None:
        """Save the trusted bundle, byte for byte."""
        with self._lock:
            files.ensure_directory(self._directory, _DIRECTORY)
            files.write_atomically(self._directory / ROOT_FILE, bundle, _PUBLIC)

    def erase(self) -> None:
        """Forget root, certificate and key: the start of a life under another cluster."""
        with self._lock:
            for name in (KEY_FILE, CERT_FILE, _NEW_CERT_FILE, ROOT_FILE):
                (self._directory / name).unlink(missing_ok=True)
            if self._directory.is_dir():
                files.sync_directory(self._directory)
            self._headers = {}

    def _save(self, content: _KeyFile) -> None:
        files.write_atomically(self._directory / KEY_FILE, content.to_pem(), _SECRET)
        self._adopt(content)

    def _adopt(self, content: _KeyFile) -> None:
        self._kek = content.kek
        self._headers = dict(content.headers)

    def _open(self) -> _KeyFile:
        """Read and decrypt the key file without taking over what it says. Raises MissingFileError, LockedError, KeyFileError."""
        path = self._directory / KEY_FILE
        text = _content(path)
        if text is None:
            raise MissingFileError(path)
        block = next(iter(pem.scan(text)), None)
        if block is None:
            raise KeyFileError(path, "there is no key in it")
        try:
            version = int(block.headers.get(_KEK_VERSION, "0"))
        except ValueError as error:
            raise KeyFileError(path, f"its {_KEK_VERSION} header is no number") from error
        headers = {name: value for name, value in block.headers.items() if name not in (*_RFC_1423, _KEK_VERSION)}
        label, der = self._decrypt(path, block)
        kek = self._kek.key if block.label == pem.ENCRYPTED_PRIVATE_KEY or _RFC_1423[0] in block.headers else b""
        try:
            dek.read(headers, kek)
        except records.CannotDecryptError as error:
            raise LockedError(path) from error
        except dek.HeaderError as error:
            raise KeyFileError(path, error.message) from error
        return _KeyFile(label, der, KEK(kek, version), headers)

    def _decrypt(self, path: Path, block: pem.Block) -> tuple[str, bytes]:
        """Label and DER of the plain key in a block."""
        try:
            if block.label == pem.ENCRYPTED_PRIVATE_KEY:
                return pem.PRIVATE_KEY, pkcs8.decrypt_der(block.data, self._kek.key)
            if _RFC_1423[0] in block.headers:
                return pem.EC_PRIVATE_KEY, pkcs8.decrypt_legacy(block, self._kek.key)
        except pkcs8.WrongPasswordError as error:
            raise LockedError(path) from error
        except pkcs8.KeyFormatError as error:
            raise KeyFileError(path, error.message) from error
        if not pkcs8.is_key_der(block.data):
            raise KeyFileError(path, "the key in it is damaged")
        return block.label, block.data

    def _matching_certificate(self, opened: _KeyFile) -> bytes:
        """The certificate file's content if it fits the key, else that of the temporary one, which is then moved into place."""
        path, temporary = self._directory / CERT_FILE, self._directory / _NEW_CERT_FILE
        cert = _content(path)
        if cert is not None and _fits(cert, opened.der):
            return cert
        waiting = _content(temporary)
        if waiting is not None and _fits(waiting, opened.der):
            temporary.replace(path)
            files.sync_directory(self._directory)
            return waiting
        if waiting is not None:
            files.remove_durably(temporary)
        if cert is None:
            raise MissingFileError(path)
        raise KeyFileError(path, f"it holds no certificate for the key in {KEY_FILE}")

    def _migrate(self) -> None:
        """Finish what an old version began: its new key waits under a temporary name, beside a certificate already in place."""
        legacy = self._directory / _LEGACY_KEY_FILE
        text = _content(legacy)
        if text is None:
            return
        cert = _content(self._directory / CERT_FILE)
        block = next(iter(pem.scan(text)), None)
        try:
            fits = block is not None and cert is not None and _fits(cert, self._decrypt(legacy, block)[1])
        except KeyFileError:
            fits = False
        if fits:
            legacy.replace(self._directory / KEY_FILE)
            files.sync_directory(self._directory)
        else:
            files.remove_durably(legacy)


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _single_key(key_pem: bytes) -> pem.Block:
    block = next(iter(pem.scan(key_pem)), None)
    if block is None or not pkcs8.is_key_der(block.data):
        raise Unknown("the key to write is not a plain PEM key")
    return block


def _fits(cert_pem: bytes, key_der: bytes) -> bool:
    """Whether the first certificate's public key is the other half of the key."""
    block = next(iter(pem.scan(cert_pem)), None)
    if block is None:
        return False
    try:
        certificate = x509.load_der_x509_certificate(block.data)
        return certificate.public_key() == serialization.load_der_private_key(key_der, None).public_key()
    except (ValueError, TypeError):
        return False
