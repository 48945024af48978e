"""Chain validation."""

from __future__ import annotations

import pytest

from pyswarm.ca import validate
from pyswarm.ca.validate import CertificateError, UnknownAuthorityError, validate_chain
from tests.ca import pki
from tests.ca.pki import DAY, NOW

YEAR = 365 * DAY
ROOT = pki.make("root", start=NOW - 2 * YEAR)
MIDDLE = pki.make("middle", ROOT)
LEAF = pki.make("leaf", MIDDLE, ca=False)
EXPIRED_LEAF = pki.make("leaf", MIDDLE, ca=False, end=NOW - 60, start=NOW - DAY)
EXPIRED_MIDDLE = pki.make("middle", ROOT, key=MIDDLE.key, end=NOW - 30, start=NOW - DAY)
FUTURE_LEAF = pki.make("leaf", MIDDLE, ca=False, start=NOW + 60)
FUTURE_MIDDLE = pki.make("middle", ROOT, key=MIDDLE.key, start=NOW + 60)
OTHER = pki.make("other")


@pytest.mark.parametrize(("bundle", "roots", "problem"), [
    (b"", ROOT, "no certificates to validate"),
    (b"garbage", ROOT, "Failed to decode certificate"),
    (LEAF.pem + MIDDLE.pem + LEAF.pem, ROOT, r"certificates do not form a chain: \(2 - middle\) is not signed by \(3 - leaf\)"),
    (LEAF.pem + MIDDLE.pem, OTHER, "signed by unknown authority"),
    (LEAF.pem, ROOT, "signed by unknown authority"),
    (EXPIRED_LEAF.pem + MIDDLE.pem, ROOT, r"certificate \(1 - leaf\) not valid after .* UTC, and it is currently"),
    (LEAF.pem + EXPIRED_MIDDLE.pem, ROOT, r"certificate \(2 - middle\) not valid after"),
    (FUTURE_LEAF.pem + MIDDLE.pem, ROOT, r"certificate \(1 - leaf\) not valid before"),
    (LEAF.pem + FUTURE_MIDDLE.pem, ROOT, r"certificate \(2 - middle\) not valid before"),
])  # fmt: skip
def test_refused(bundle: bytes, roots: pki.Authority, problem: str) -> None:
    """A chain with any flaw is refused with its reason [ca 19]."""
    with pytest.raises(CertificateError, match=problem):
        validate_chain([roots.certificate], bundle, NOW)


def test_refused_although_expiry_is_forgiven() -> None:
    """Forgiving the end of validity forgives nothing else [ca 20]."""
    early = pki.make("leaf", MIDDLE, ca=False, start=NOW - YEAR, end=NOW - 2 * DAY)
    short_root = pki.make("short", start=NOW - DAY, end=NOW - DAY + 60)
    outlived_middle = pki.make("middle", short_root, end=NOW - 100)
    outlived = pki.make("leaf", outlived_middle, ca=False, end=NOW - 200)
    cases = [
        (FUTURE_LEAF.pem + MIDDLE.pem, ROOT, "not valid before"),
        (LEAF.pem + FUTURE_MIDDLE.pem, ROOT, "not valid before"),
        (EXPIRED_LEAF.pem + MIDDLE.pem, OTHER, "unknown authority"),
        (early.pem + MIDDLE.pem, ROOT, "there is no time span for which all of the certificates, including a root, are valid"),
        (outlived.pem + outlived_middle.pem, short_root, "there is no time span"),
    ]
    for bundle, root, problem in cases:
        with pytest.raises(CertificateError, match=problem):
            validate_chain([root.certificate], bundle, NOW, allow_expired=True)


def test_accepted() -> None:
    """Complete chains pass, with or without the root, and expired ones where that is forgiven [ca 21]."""
    for bundle in (LEAF.pem + MIDDLE.pem + ROOT.pem, LEAF.pem + MIDDLE.pem, MIDDLE.pem):
        assert validate_chain([ROOT.certificate], bundle, NOW).path[-1] == ROOT.certificate
    for leaf, middle in ((EXPIRED_LEAF, MIDDLE), (LEAF, EXPIRED_MIDDLE), (EXPIRED_LEAF, EXPIRED_MIDDLE)):
        chain = validate_chain([ROOT.certificate], leaf.pem + middle.pem, NOW, allow_expired=True)
        assert chain.certificates == (leaf.certificate, middle.certificate)


def test_intermediate_that_is_also_a_root() -> None:
    """A leaf under a cross-signed root validates against old, new and both; the new root makes the shortest path [ca 18]."""
    twin = pki.make("middle", key=MIDDLE.key)
    bundle = LEAF.pem + MIDDLE.pem
    assert len(validate_chain([ROOT.certificate], bundle, NOW).path) == 3
    assert len(validate_chain([twin.certificate], bundle, NOW).path) == 2
    assert validate_chain([ROOT.certificate, twin.certificate], bundle, NOW).path[1] == twin.certificate
    assert len(validate_chain([twin.certificate], LEAF.pem, NOW).path) == 2


def test_leaves_do_not_sign() -> None:
    """A certificate without the authority flag cannot stand in a path."""
    forged = pki.make("forged", LEAF, ca=False)
    with pytest.raises(CertificateError):
        validate_chain([ROOT.certificate], forged.pem + LEAF.pem + MIDDLE.pem, NOW)
    with pytest.raises(UnknownAuthorityError):
        validate.find_path(forged.certificate, [LEAF.certificate, MIDDLE.certificate], [ROOT.certificate], NOW)


def test_same_name_other_key() -> None:
    """A root of the right name but with another key vouches for nothing."""
    impostor = pki.make("root")
    with pytest.raises(UnknownAuthorityError):
        validate_chain([impostor.certificate], LEAF.pem + MIDDLE.pem, NOW)
