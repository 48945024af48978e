"""The stored root: at first, and changes asked for."""

from __future__ import annotations

import pytest

from pyswarm.api import v1 as api
from pyswarm.ca import tokens, update
from pyswarm.ca.root import RootCA
from pyswarm.errors import InvalidArgument, Unimplemented
from pyswarm.manager.store import copy_of
from tests.ca import pki

ROOT = RootCA.create(now=pki.NOW)
STORED = update.initial_root(ROOT)


def test_initial_root() -> None:
    """A new cluster stores root, key, digest and two different tokens that fit the root."""
    assert ROOT.signer is not None
    assert (STORED.ca_cert, STORED.ca_key, STORED.ca_cert_hash) == (ROOT.bundle, ROOT.signer.key_pem, ROOT.digest)
    assert STORED.join_tokens.worker != STORED.join_tokens.manager
    for token in (STORED.join_tokens.worker, STORED.join_tokens.manager):
        assert tokens.digest_matches(ROOT.bundle, tokens.parse(token).digest)
    with pytest.raises(InvalidArgument):
        update.initial_root(RootCA.load(ROOT.bundle, now=pki.NOW))


def test_no_change() -> None:
    """Without certificate and forced rotation the stored root stays equal, tokens included [ca 122]."""
    assert update.apply_config(STORED, api.CAConfig()) == STORED


def test_key_without_certificate() -> None:
    """A key without its certificate is refused [ca 123]."""
    with pytest.raises(InvalidArgument, match="if a signing CA key is provided, the signing CA cert must also be provided"):
        update.apply_config(STORED, api.CAConfig(signing_ca_key=b"key"))


def test_same_certificate_and_key() -> None:
    """Naming the present root, however it is written, only takes over the rotation counter [ca 128]."""
    before = copy_of(STORED)
    config = api.CAConfig(signing_ca_cert=b"\n" + STORED.ca_cert + b"\n", signing_ca_key=STORED.ca_key, force_rotate=5)
    changed = update.apply_config(STORED, config)
    assert changed.last_forced_rotation == 5
    changed.last_forced_rotation = 0
    assert changed == before == STORED


@pytest.mark.parametrize("config", [
    api.CAConfig(force_rotate=1),
    api.CAConfig(external_cas=[api.ExternalCA(url="https://x")]),
    api.CAConfig(signing_ca_cert=pki.make("other").pem, signing_ca_key=b"x"),
    api.CAConfig(signing_ca_cert=ROOT.bundle),
])  # fmt: skip
def test_not_there_yet(config: api.CAConfig) -> None:
    """Rotation and external CAs are refused clearly instead of half done."""
    with pytest.raises(Unimplemented, match="not supported yet"):
        update.apply_config(STORED, config)
