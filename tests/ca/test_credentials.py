"""The node's credentials and their changes."""

from __future__ import annotations

import pytest

from pyswarm.ca import credentials, csr, validate
from pyswarm.ca.credentials import Credentials, SecurityConfig
from pyswarm.ca.root import RootCA
from pyswarm.ca.validate import CertificateError
from tests.ca import pki
from tests.ca.pki import NOW, WORKER
from tests.support.clock import VirtualClock


def config(root: RootCA) -> SecurityConfig:
    """Credentials by `root`, now."""
    return SecurityConfig(pki.issue(root), VirtualClock(NOW))


def test_identity_follows_the_certificate() -> None:
    """Role, node, cluster and validity are those of the certificate, and change with it [ca 26]."""
    root = RootCA.create(now=NOW)
    security = config(root)
    assert (security.current.node_id, security.current.organization, security.current.role) == ("node1", "cluster1", "swarm-manager")
    assert security.current.is_manager
    fresh = pki.issue(root, "node9", WORKER, "cluster9", NOW + 3600)
    security = SecurityConfig(security.current, VirtualClock(NOW + 3600))
    security.replace_certificate(fresh.cert_pem, fresh.key_pem)
    assert security.current == fresh
    assert (security.current.role, security.current.not_before) == (WORKER, fresh.not_before)


@pytest.mark.parametrize(("org", "units", "cn", "problem"), [
    ("o", (), "n", "no OU found in certificate subject"),
    ("", (), "", "no OU found in certificate subject"),
    ("", ("swarm-worker",), "n", "no organization found in certificate subject"),
    ("o", ("swarm-worker",), "", "no valid subject names found for TLS configuration"),
])  # fmt: skip
def test_incomplete_subject(org: str, units: tuple[str, ...], cn: str, problem: str) -> None:
    """A certificate that does not name role, cluster and node is refused, in that order [ca 27]."""
    root = pki.make("root")
    leaf = pki.make(pki.name(cn, org, units), root, ca=False)
    with pytest.raises(CertificateError, match=problem):
        credentials.build(root.pem, leaf.pem, leaf.key_pem, NOW)


def test_several_units() -> None:
    """A certificate with several units counts as manager if one says so."""
    root = pki.make("root")
    leaf = pki.make(pki.name("n", "o", ("x", "swarm-manager")), root, ca=False)
    assert credentials.build(root.pem, leaf.pem, leaf.key_pem, NOW).is_manager


def test_refused_certificate() -> None:
    """A certificate of another root, another key or another time is refused and nothing changes."""
    root = RootCA.create(now=NOW)
    security = config(root)
    before = security.current
    good, foreign = pki.issue(root), pki.issue(RootCA.create(now=NOW))
    early = pki.issue(root, now=NOW + 7200)
    for cert, key in ((foreign.cert_pem, foreign.key_pem), (good.cert_pem, csr.generate()[1]), (early.cert_pem, early.key_pem)):
        with pytest.raises(CertificateError):
            security.replace_certificate(cert, key)
    assert security.current is before


def test_root_replacement() -> None:
    """A root that does not validate the own certificate is refused; one that does is taken [ca 32]."""
    root, other = RootCA.create(now=NOW), RootCA.create(now=NOW)
    security = config(root)
    before = security.current
    with pytest.raises(CertificateError, match="new root CA does not match existing TLS credentials"):
        security.replace_root(other.bundle)
    with pytest.raises(CertificateError, match="Failed to decode"):
        security.replace_root(root.bundle + b"x")
    assert security.current is before
    security.replace_root(root.bundle + other.bundle)
    assert security.current.root_pem == root.bundle + other.bundle


def test_root_replacement_after_a_rotation() -> None:
    """A chain with the cross-signed root lets the node trust the new root alone [ca 32]."""
    old, new = RootCA.create(now=NOW), RootCA.create(now=NOW)
    assert new.signer is not None
    cross = old.cross_sign(new.bundle)
    rotating = RootCA.load(old.bundle, now=NOW, signing_cert=cross, signing_key=new.signer.key_pem, intermediates=cross)
    security = config(rotating)
    security.replace_root(new.bundle)
    assert security.current.root_pem == new.bundle
    assert security.current.issuer_public_key == validate.public_key_der(new.roots[0])


def test_subscribers() -> None:
    """Everyone subscribed hears of every change, with root and issuer, and changes go on without subscribers [ca 34]."""
    root, other = RootCA.create(now=NOW), RootCA.create(now=NOW)
    security = config(root)
    heard: list[Credentials] = []
    undo = [security.subscribe(heard.append), security.subscribe(heard.append)]
    fresh = pki.issue(root)
    security.replace_certificate(fresh.cert_pem, fresh.key_pem)
    security.replace_root(root.bundle + other.bundle)
    assert [c.root_pem for c in heard] == [root.bundle] * 2 + [root.bundle + other.bundle] * 2
    assert {c.issuer_subject for c in heard} == {root.roots[0].subject.public_bytes()}
    for step in (*undo, *undo):
        step()
    security.replace_root(root.bundle)
    assert len(heard) == 4


def test_independent_changes() -> None:
    """Certificate and root change independently; both stay applied [ca 35]."""
    root = RootCA.create(now=NOW)
    security = config(root)
    bundle = root.bundle
    for _ in range(5):
        bundle += RootCA.create(now=NOW).bundle
        fresh = pki.issue(root)
        security.replace_root(bundle)
        security.replace_certificate(fresh.cert_pem, fresh.key_pem)
        assert (security.current.cert_pem, security.current.root_pem) == (fresh.cert_pem, bundle)
