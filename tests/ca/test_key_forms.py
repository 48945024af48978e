"""Keys in the forms that other programs write, and files that are not there."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from pyswarm.api import v1 as api
from pyswarm.ca import credentials, records
from pyswarm.ca.keystore import KeyStore
from pyswarm.ca.root import RootCA
from tests.ca import pki
from tests.ca.test_tls import handshake

FORMATS = (serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL)
KEYS = ("ec", "rsa")


@pytest.mark.parametrize("form", FORMATS, ids=("PKCS8", "traditional"))
@pytest.mark.parametrize("kind", KEYS)
def test_key_files_of_other_programs(tmp_path: Path, form: serialization.PrivateFormat, kind: str) -> None:
    """A key file in PKCS #8, PKCS #1 or SEC 1 form is read, and its pair serves TLS. [ca 77]"""
    now = time.time()
    root = RootCA.create(now=now)
    key = ec.generate_private_key(ec.SECP256R1()) if kind == "ec" else rsa.generate_private_key(65537, 2048)
    text = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    chain = root.sign_csr(request.public_bytes(serialization.Encoding.PEM), "node1", pki.MANAGER, "org", 3600.0, now)
    KeyStore(tmp_path).write(chain, text)
    (tmp_path / "swarm-node.key").write_bytes(text)
    pair = KeyStore(tmp_path).read()
    handshake(credentials.build(root.bundle, pair.cert_pem, pair.key_pem, now), root.bundle, "swarm-manager", tmp_path)


def test_no_root(tmp_path: Path) -> None:
    """A root that is not on disk is None: whether that is an error is for the start to say. [ca 3]"""
    assert KeyStore(tmp_path / "missing").read_root() is None


def test_records_under_another_label() -> None:
    """A record relabelled with another algorithm does not open; a Fernet record's nonce means nothing. [ca 106, 107; store 4, 5]"""
    key = b"k" * 32
    message = api.MaybeEncryptedRecord.FromString(records.encrypt(b"data", key))
    again = api.MaybeEncryptedRecord.FromString(records.encrypt(b"data", key))
    assert message.data != again.data
    message.nonce = b"x" * 5
    assert records.decrypt(message.SerializeToString(), key) == b"data"
    for algorithm in (api.MaybeEncryptedRecord.NONE, api.MaybeEncryptedRecord.SECRETBOX_SALSA20_POLY1305):
        message.algorithm = algorithm
        with pytest.raises(records.CannotDecryptError):
            records.decrypt(message.SerializeToString(), key)
    with pytest.raises(records.CannotDecryptError):
        records.decrypt(again.SerializeToString(), b"")
