"""Root CA, loading rules, node certificate profile, cross-signing."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from pyswarm.api import v1 as api
from pyswarm.ca import csr, validate
from pyswarm.ca.keystore import KeyStore
from pyswarm.ca.root import NoSignerError, RootCA
from pyswarm.ca.validate import CertificateError
from tests.ca import pki
from tests.ca.pki import DAY, MANAGER, NOW, WORKER


def load(authority: pki.Authority, **kwargs: bytes) -> RootCA:
    """A root object around a self-made authority that signs."""
    return RootCA.load(authority.pem, now=NOW, signing_cert=authority.pem, signing_key=authority.key_pem, **kwargs)


def with_sha1_oid(certificate: bytes) -> bytes:
    """The certificate claiming a SHA-1 signature: the algorithm is all that the check looks at."""
    ecdsa_sha256, rsa_sha256 = bytes.fromhex("06082a8648ce3d040302"), bytes.fromhex("06092a864886f70d01010b")
    dsa_sha256 = bytes.fromhex("0609608648016503040302")
    der = x509.load_pem_x509_certificate(certificate).public_bytes(serialization.Encoding.DER)
    for good, bad in ((ecdsa_sha256, "06082a8648ce3d040301"), (rsa_sha256, "06092a864886f70d010105"), (dsa_sha256, dsa_sha256.hex())):
        der = der.replace(good, bytes.fromhex(bad))
    return x509.load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM)


def test_new_root() -> None:
    """A new root is named, self-signed, long-lived and marked as an authority, without authority key identifier [ca 1]."""
    root = RootCA.create("X", now=NOW)
    (certificate,) = pki.parse(root.bundle)
    assert certificate.subject.rfc4514_string() == certificate.issuer.rfc4514_string() == "CN=X"
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp256r1"
    assert validate.not_after(certificate) - NOW > (7300 - 30) * DAY
    assert NOW - 330 <= validate.not_before(certificate) <= NOW - 270
    assert [extension.oid._name for extension in certificate.extensions] == ["keyUsage", "basicConstraints", "subjectKeyIdentifier"]
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert (usage.value.key_cert_sign, usage.value.crl_sign, usage.value.digital_signature) == (True, True, False)
    basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, True, None)
    assert root.signer is not None
    assert root.signer.key_pem.startswith(b"-----BEGIN EC PRIVATE KEY-----")
    assert root.bundle.endswith(b"-----END CERTIFICATE-----\n")
    assert root.digest == "sha256:" + hashlib.sha256(root.bundle).hexdigest()


def test_names_are_printable_strings() -> None:
    """Names are encoded as peers encode them, since they compare bytes."""
    root = RootCA.create(now=NOW)
    assert b"\x13\x08swarm-ca" in root.roots[0].subject.public_bytes()
    leaf = pki.parse(pki.issue(root).cert_pem)[0]
    assert b"\x13\x05node1" in leaf.subject.public_bytes()
    assert leaf.issuer.public_bytes() == root.roots[0].subject.public_bytes()


def test_saved_root(tmp_path: Path) -> None:
    """A saved root is not writable by others, comes without key file and is in normal form [ca 2]."""
    store = KeyStore(tmp_path / "certificates")
    root = RootCA.create(now=NOW)
    store.write_root(root.bundle)
    path = tmp_path / "certificates" / "swarm-root-ca.crt"
    assert path.stat().st_mode & 0o777 == 0o644
    assert [entry.name for entry in path.parent.iterdir()] == ["swarm-root-ca.crt"]
    assert store.read_root() == root.bundle
    assert store.read_root_key() is None


def test_root_without_key_cannot_sign() -> None:
    """A root from its certificate alone loads, but signs nothing [ca 4]."""
    root = RootCA.load(RootCA.create(now=NOW).bundle, now=NOW)
    with pytest.raises(NoSignerError, match="no valid signer found"):
        root.sign_csr(csr.generate()[0], "cn", WORKER, "org", 0, NOW)
    with pytest.raises(NoSignerError):
        root.cross_sign(root.bundle)


def test_root_with_key() -> None:
    """A root with its key signs; with another key or garbage it does not load [ca 5]."""
    good, other = RootCA.create(now=NOW), RootCA.create(now=NOW)
    assert good.signer is not None
    assert other.signer is not None
    again = RootCA.load(good.bundle, now=NOW, signing_cert=good.bundle, signing_key=good.signer.key_pem)
    assert pki.issue(again).node_id == "node1"
    with pytest.raises(CertificateError, match="certificate key mismatch"):
        RootCA.load(good.bundle, now=NOW, signing_cert=good.bundle, signing_key=other.signer.key_pem)
    with pytest.raises(CertificateError, match="malformed private key"):
        RootCA.load(good.bundle, now=NOW, signing_cert=good.bundle, signing_key=b"garbage")
    for cert, key in ((good.bundle, b""), (b"", good.signer.key_pem)):
        with pytest.raises(CertificateError, match="must provide both a signing key and a signing cert, or neither"):
            RootCA.load(good.bundle, now=NOW, signing_cert=cert, signing_key=key)


def test_worker_certificate() -> None:
    """A worker's certificate has exactly the subject and names given [ca 7]."""
    root = RootCA.create("rootCN", now=NOW)
    text = root.sign_csr(csr.generate()[0], "CN", WORKER, "ORG", 90 * DAY, NOW)
    (leaf,) = pki.parse(text)
    assert leaf.issuer.rfc4514_string() == "CN=rootCN"
    assert [(a.rfc4514_attribute_name, a.value) for a in leaf.subject] == [("O", "ORG"), ("OU", WORKER), ("CN", "CN")]
    assert pki.dns_names(leaf) == [WORKER, "CN"]


def test_manager_certificate() -> None:
    """A manager's certificate also carries the CA's name, and the profile of peers' certificates [ca 8]."""
    root = RootCA.create(now=NOW)
    (leaf,) = pki.parse(pki.issue(root, "CN").cert_pem)
    assert pki.dns_names(leaf) == [MANAGER, "CN", "swarm-ca"]
    kinds = ["keyUsage", "extendedKeyUsage", "basicConstraints", "subjectKeyIdentifier", "authorityKeyIdentifier", "subjectAltName"]
    assert [extension.oid._name for extension in leaf.extensions] == kinds
    assert list(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.CLIENT_AUTH,
    ]
    authority = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    own = root.roots[0].extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert authority.key_identifier == own.digest
    assert leaf.serial_number.bit_length() <= 159


def test_csr_says_only_its_key() -> None:
    """Whatever else a request asks for does not appear in the certificate [ca 9]."""
    key = pki.ec_key()
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(pki.name("badCN", "badO", ("badOU",)))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("docker.com")]), critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    (leaf,) = pki.parse(RootCA.create(now=NOW).sign_csr(request, "CN", WORKER, "ORG", 90 * DAY, NOW))
    assert leaf.public_key() == key.public_key()
    assert "bad" not in leaf.subject.rfc4514_string()
    assert pki.dns_names(leaf) == [WORKER, "CN"]


def test_both_request_labels() -> None:
    """Requests with the old PEM label are taken too."""
    request = csr.generate()[0].replace(b"CERTIFICATE REQUEST", b"NEW CERTIFICATE REQUEST")
    assert csr.public_key(request)


@pytest.mark.parametrize(
    "text", [b"", b"random garbage", b"-----BEGIN CERTIFICATE REQUEST-----\nYWJj\n-----END CERTIFICATE REQUEST-----\n"]
)
def test_bad_request(text: bytes) -> None:
    """An undecodable request is refused with the known text."""
    with pytest.raises(csr.RequestError, match="CSR Decode failed"):
        RootCA.create(now=NOW).sign_csr(text, "cn", WORKER, "org", 0, NOW)


def test_request_signed_with_another_key() -> None:
    """A request whose signature does not fit its key is refused."""
    text = csr.generate()[0]
    der = bytearray(x509.load_pem_x509_csr(text).public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    broken = x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM)
    with pytest.raises(csr.RequestError):
        csr.public_key(broken)


@pytest.mark.parametrize(("expiry", "expected"), [(3600.0, 3600.0), (59 * 60.0, 90 * DAY), (0.0, 90 * DAY), (2160 * 3600.0, 90 * DAY)])
def test_expiry(expiry: float, expected: float) -> None:
    """An hour is respected to the minute, less counts as ninety days [ca 10] [ca 11]."""
    now = NOW + 17.3
    leaf = pki.parse(pki.issue(RootCA.create(now=now), now=now, expiry=expiry).cert_pem)[0]
    assert abs(validate.not_after(leaf) - now - expected) <= 60
    assert abs(now - 3600 - validate.not_before(leaf)) <= 30
    assert validate.not_before(leaf) % 60 == 0


def test_intermediate_signer() -> None:
    """With an intermediate, issued chains carry it, and it is the issuer peers see [ca 12]."""
    top = pki.make("top")
    middle = pki.make("middle", top)
    root = RootCA.load(top.pem, now=NOW, signing_cert=middle.pem, signing_key=middle.key_pem, intermediates=middle.pem)
    fresh = pki.issue(root)
    assert pki.parse(fresh.cert_pem)[1] == middle.certificate
    assert fresh.issuer_subject == middle.certificate.subject.public_bytes()
    assert fresh.issuer_public_key == validate.public_key_der(middle.certificate)


def test_two_roots() -> None:
    """A bundle of two roots trusts both and signs with the given one [ca 13]."""
    first, second = pki.make("first"), pki.make("second")
    root = RootCA.load(first.pem + second.pem, now=NOW, signing_cert=first.pem, signing_key=first.key_pem)
    assert pki.issue(root).issuer_subject == first.certificate.subject.public_bytes()
    assert len(root.roots) == 2


@pytest.mark.parametrize("key", [lambda: pki.ec_key(), lambda: pki.ec_key(ec.SECP384R1()), lambda: rsa.generate_private_key(65537, 2048)])
def test_accepted_pairs(key: object) -> None:
    """Roots with ECDSA and RSA keys work and keep their exact bytes [ca 14]."""
    authority = pki.make("root", key=key())  # type: ignore[operator]
    root = load(authority)
    assert root.bundle == authority.pem
    assert pki.issue(root).role == MANAGER


def test_refused_roots() -> None:
    """Roots that cannot be trusted are refused with the reason [ca 6] [ca 15]."""
    cases = [
        (b"malformed", "Failed to decode certificate"),
        (b"", "no valid root CA certificates found"),
        (b" \n ", "no valid root CA certificates found"),
        (pki.make("r", start=NOW + DAY).pem, "error while validating Root CA Certificate.*not yet valid"),
        (pki.make("r", end=NOW - 60).pem, "error while validating Root CA Certificate.*expired"),
        (with_sha1_oid(pki.make("r").pem), "unsupported signature algorithm"),
        (with_sha1_oid(pki.make("r", key=rsa.generate_private_key(65537, 2048)).pem), "unsupported signature algorithm"),
        (pki.make("r", key=dsa.generate_private_key(1024)).pem, "unsupported signature algorithm"),  # noqa: S505 - refused
        (pki.make("child", pki.make("r")).pem, "error while validating Root CA Certificate"),
        (pki.make("r").pem + b"trailing", "Failed to decode certificate"),
    ]
    for bundle, problem in cases:
        with pytest.raises(CertificateError, match=problem):
            RootCA.load(bundle, now=NOW)


def test_refused_signers() -> None:
    """Signers that cannot be used are refused with the reason [ca 15]."""
    root, other = pki.make("root"), pki.make("other")
    weak = pki.make("weak", key=rsa.generate_private_key(65537, 1024))  # noqa: S505 - refused
    odd = pki.make("odd", key=pki.ec_key(ec.SECP224R1()))
    early, late = pki.make("early", root, start=NOW + DAY), pki.make("late", root, end=NOW - 60)
    cases = [
        (root.pem, b"malformed", root.key_pem, "invalid signing CA cert: Failed to decode certificate"),
        (root.pem, b"\n", root.key_pem, "no valid signing CA certificates found"),
        (root.pem, early.pem, early.key_pem, "error while validating signing CA certificate against roots and intermediates"),
        (root.pem, late.pem, late.key_pem, "error while validating signing CA certificate against roots and intermediates"),
        (root.pem, with_sha1_oid(root.pem), root.key_pem, "unsupported signature algorithm"),
        (root.pem, root.pem, b"malformed", "malformed private key"),
        (weak.pem, weak.pem, weak.key_pem, "unsupported RSA key parameters"),
        (odd.pem, odd.pem, odd.key_pem, "unsupported ECDSA key parameters"),
        (root.pem, root.pem, other.key_pem, "certificate key mismatch"),
        (root.pem, other.pem, other.key_pem, "signed by unknown authority"),
    ]
    for bundle, cert, key, problem in cases:
        with pytest.raises(CertificateError, match=problem):
            RootCA.load(bundle, now=NOW, signing_cert=cert, signing_key=key)


def test_intermediates() -> None:
    """Intermediates have to form a valid chain to the root and begin with the signer [ca 16] [ca 17]."""
    root, other = pki.make("root"), pki.make("other")
    middle, foreign = pki.make("middle", root), pki.make("middle", other)
    second = pki.make("second", root)
    sign = {"signing_cert": middle.pem, "signing_key": middle.key_pem, "now": NOW}
    for good in (middle.pem, middle.pem + root.pem):
        assert RootCA.load(root.pem, intermediates=good, **sign).intermediates == good  # type: ignore[arg-type]
    cases = [
        (b"malformed", "Failed to decode certificate"),
        (pki.make("middle", root, end=NOW - 60).pem, "not valid after"),
        (pki.make("middle", root, start=NOW + 60).pem, "not valid before"),
        (middle.pem + second.pem, "do not form a chain"),
        (foreign.pem, "signed by unknown authority"),
        (second.pem, "the first intermediate must have the same subject and public key as the signing cert"),
    ]
    for bad, problem in cases:
        with pytest.raises(CertificateError, match=f"invalid intermediate chain.*{problem}"):
            RootCA.load(root.pem, intermediates=bad, **sign)  # type: ignore[arg-type]


@pytest.mark.parametrize("old_rsa", [False, True])
@pytest.mark.parametrize("new_rsa", [False, True])
def test_cross_signing(old_rsa: bool, new_rsa: bool) -> None:
    """A cross-signed root carries the new root's leaves under the old one, for every pair of key kinds [ca 18] [ca 22]."""

    def root(cn: str, is_rsa: bool) -> pki.Authority:
        return pki.make(cn, key=rsa.generate_private_key(65537, 2048) if is_rsa else None)

    old, new = root("old", old_rsa), root("new", new_rsa)
    cross = load(old).cross_sign(new.pem)
    leaf = pki.issue(load(new)).cert_pem
    with pytest.raises(validate.UnknownAuthorityError):
        validate.validate_chain([old.certificate], leaf, NOW)
    assert len(validate.validate_chain([old.certificate], leaf + cross, NOW).path) == 3
    assert len(validate.validate_chain([new.certificate], leaf + cross, NOW).path) == 2
    assert len(validate.validate_chain([new.certificate], leaf, NOW).path) == 2
    assert validate.validate_chain([old.certificate, new.certificate], leaf + cross, NOW).issuer == new.certificate
    (crossed,) = pki.parse(cross)
    assert crossed.subject == new.certificate.subject
    assert crossed.public_key() == new.certificate.public_key()
    assert crossed.serial_number == new.certificate.serial_number
    assert crossed.not_valid_after_utc == new.certificate.not_valid_after_utc
    assert crossed.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_cross_signing_needs_an_authority() -> None:
    """Neither a leaf nor a key can be cross-signed [ca 23]."""
    root = RootCA.create(now=NOW)
    assert root.signer is not None
    with pytest.raises(CertificateError, match="certificate not a CA"):
        root.cross_sign(pki.issue(root).cert_pem)
    with pytest.raises(CertificateError, match="could not parse new CA certificate"):
        root.cross_sign(root.signer.key_pem)


def test_from_store_during_a_rotation() -> None:
    """During a rotation the new key signs, the old root is trusted, and the cross-signed root is appended."""
    old, new = RootCA.create(now=NOW), RootCA.create(now=NOW)
    assert old.signer is not None
    assert new.signer is not None
    stored = api.RootCA(ca_cert=old.bundle, ca_key=old.signer.key_pem)
    assert RootCA.from_store(stored, now=NOW).signer is not None
    cross = old.cross_sign(new.bundle)
    stored.root_rotation.CopyFrom(api.RootRotation(ca_cert=new.bundle, ca_key=new.signer.key_pem, cross_signed_ca_cert=cross))
    rotating = RootCA.from_store(stored, now=NOW)
    assert rotating.bundle == old.bundle
    fresh = pki.issue(rotating)
    assert fresh.cert_pem.endswith(cross)
    assert fresh.issuer_public_key == validate.public_key_der(new.roots[0])
    assert RootCA.from_store(api.RootCA(ca_cert=old.bundle), now=NOW).signer is None
