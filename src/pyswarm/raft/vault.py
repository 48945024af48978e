"""Whose files these are, and the keys that open them.

Every file starts with a header in clear that names cluster, node and raft id, sealed under a key derived for this one file from the
manager's data key and a random salt. So a foreign directory, a wrong key and a damaged header are told apart, and random nonces never
come near the number of messages one AES-GCM key may encrypt.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from google.protobuf.message import DecodeError

from pyswarm.api.private import raft_pb2
from pyswarm.raft.errors import CorruptJournal, ForeignDirectory, StorageError, WrongKey

FORMAT = 1
NONCE_SIZE = 12
TAG_SIZE = 16
OVERHEAD = NONCE_SIZE + TAG_SIZE
SALT_SIZE = 32


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a log belongs to. `raft_id` is 1 … 2^63, chosen once per membership; `node_id` is the certificate's CN."""

    cluster_id: str
    node_id: str
    raft_id: int


class Cipher:
    """Seals and opens the records of one file."""

    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(key)

    def seal(self, plain: bytes, context: bytes) -> bytes:
        """Nonce and ciphertext; `context` must be repeated exactly to open it."""
        nonce = os.urandom(NONCE_SIZE)
        return nonce + self._aead.encrypt(nonce, plain, context)

    def open(self, sealed: bytes, context: bytes) -> bytes:
        """The plain content. Raises InvalidTag when anything differs."""
        return self._aead.decrypt(sealed[:NONCE_SIZE], sealed[NONCE_SIZE:], context)


class Vault:
    """Makes headers for new files and checks those of existing ones.

    `keys[0]` encrypts what is new; all of them are tried on what is old. `raft_id` is 0 until it is known: the first header read fixes it.
    """

    def __init__(self, cluster_id: str, node_id: str, keys: Sequence[bytes], raft_id: int = 0) -> None:
        if not keys or any(len(k) < 16 for k in keys):
            raise ValueError("a raft data key needs at least 16 bytes")
        self._cluster_id = cluster_id
        self._node_id = node_id
        self._keys = tuple(keys)
        self._raft_id = raft_id
        self._outdated = False

    @property
    def identity(self) -> Identity:
        """What the files belong to."""
        return Identity(self._cluster_id, self._node_id, self._raft_id)

    def adopt(self, raft_id: int) -> None:
        """Say the raft id of a new membership, before its first file is written."""
        self._raft_id = raft_id

    def rekey(self, key: bytes) -> None:
        """Encrypt new files with `key`; those that were in use before still open older ones."""
        if not self.encrypts_with(key):
            self._keys = (key, *self._keys)
            self._outdated = True

    def encrypts_with(self, key: bytes) -> bool:
        """Whether new files are under this key."""
        return self._keys[0] == key

    @property
    def outdated(self) -> bool:
        """Whether there was a file, when last looked at, that only an older key opened."""
        return self._outdated

    def forget_older_keys(self) -> None:
        """Nothing is left that would need them."""
        self._keys = self._keys[:1]
        self._outdated = False

    def new_file(self) -> tuple[bytes, Cipher]:
        """A sealed header for a new file, and the file's cipher."""
        if not self._raft_id:
            raise RuntimeError("the raft id must be known before a file is written")
        salt = os.urandom(SALT_SIZE)
        header = raft_pb2.FileHeader(
            format=FORMAT, cluster_id=self._cluster_id, node_id=self._node_id, raft_id=self._raft_id, salt=salt
        ).SerializeToString()
        cipher = Cipher(_derive(self._keys[0], salt))
        return raft_pb2.SealedHeader(header=header, seal=cipher.seal(b"", header)).SerializeToString(), cipher

    def open_file(self, sealed: bytes, file: str) -> Cipher:
        """The cipher of an existing file. Raises ForeignDirectory, WrongKey, CorruptJournal."""
        try:
            outer = raft_pb2.SealedHeader.FromString(sealed)
            header = raft_pb2.FileHeader.FromString(outer.header)
        except DecodeError:
            raise CorruptJournal(file, 0, "its header is not readable") from None
        self._check_owner(header, file)
        keys = self._keys
        for key in keys:
            cipher = Cipher(_derive(key, header.salt))
            try:
                cipher.open(outer.seal, outer.header)
            except (InvalidTag, ValueError):
                continue
            self._raft_id = header.raft_id
            self._outdated = self._outdated or key != keys[0]
            return cipher
        raise WrongKey(file)

    def _check_owner(self, header: raft_pb2.FileHeader, file: str) -> None:
        if header.format != FORMAT:
            raise StorageError(
                f"raft file {file} has format {header.format}, this pyswarm reads format {FORMAT}: use the version that wrote it"
            )
        if header.cluster_id != self._cluster_id:
            raise ForeignDirectory(
                f"raft file {file} belongs to cluster {header.cluster_id}, this node to cluster {self._cluster_id}: "
                "use the state directory of this cluster, or an empty one"
            )
        if header.node_id != self._node_id:
            raise ForeignDirectory(
                f"raft file {file} belongs to node {header.node_id}, this is node {self._node_id}: "
                "every manager needs a state directory of its own"
            )
        if self._raft_id and header.raft_id != self._raft_id:
            raise ForeignDirectory(
                f"raft file {file} belongs to raft member {header.raft_id:x}, the others here to {self._raft_id:x}: "
                "files of two memberships are mixed"
            )


def _derive(key: bytes, salt: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=salt, info=b"pyswarm raft file").derive(key)
