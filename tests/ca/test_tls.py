"""What TLS libraries say about our certificates: OpenSSL, through handshakes in memory."""

from __future__ import annotations

import ssl
import time
from pathlib import Path

import pytest

from pyswarm.ca import csr
from pyswarm.ca.credentials import Credentials
from pyswarm.ca.root import RootCA
from tests.ca import pki
from tests.ca.pki import MANAGER, WORKER


def handshake(server: Credentials, trust: bytes, expected: str, directory: Path) -> None:
    """Let a client that trusts `trust` and expects a name talk to `server`. Raises ssl.SSLError when it refuses."""
    pair = directory / "pair.pem"
    pair.write_bytes(server.key_pem + server.cert_pem)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(pair)
    asking = ssl.create_default_context(cadata=trust.decode())
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = asking.wrap_bio(to_client, to_server, server_hostname=expected)
    listener = serving.wrap_bio(to_server, to_client, server_side=True)
    pending = [client, listener]
    for _ in range(10):
        for side in list(pending):
            try:
                side.do_handshake()
                pending.remove(side)
            except ssl.SSLWantReadError:
                continue
        if not pending:
            return
    raise AssertionError("the handshake does not end")


@pytest.mark.parametrize(("role", "expected", "accepted"), [
    (MANAGER, "swarm-manager", True),
    (WORKER, "swarm-manager", False),
    (MANAGER, "swarm-ca", True),
    (WORKER, "swarm-ca", False),
    (WORKER, "node1", True),
])  # fmt: skip
def test_names(role: str, expected: str, accepted: bool, tmp_path: Path) -> None:
    """Only a manager passes as manager and as CA [ca 29] [ca 30]."""
    root = RootCA.create(now=time.time())
    server = pki.issue(root, role=role, now=time.time())
    if accepted:
        handshake(server, root.bundle, expected, tmp_path)
    else:
        with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
            handshake(server, root.bundle, expected, tmp_path)


def test_cross_signed_root_of_the_same_name(tmp_path: Path) -> None:
    """OpenSSL follows a cross-signed root although both roots have one name, whichever of them is trusted [ca 24]."""
    now = time.time()
    old, new = RootCA.create(now=now), RootCA.create(now=now)
    assert new.signer is not None
    cross = old.cross_sign(new.bundle)
    rotating = RootCA.load(old.bundle, now=now, signing_cert=cross, signing_key=new.signer.key_pem, intermediates=cross)
    server = pki.issue(rotating, now=now)
    for trust in (old.bundle, new.bundle, old.bundle + new.bundle):
        handshake(server, trust, "swarm-manager", tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, RootCA.create(now=now).bundle, "swarm-manager", tmp_path)


def test_requests_are_fresh() -> None:
    """Every request has a key of its own."""
    assert csr.generate()[1] != csr.generate()[1]
