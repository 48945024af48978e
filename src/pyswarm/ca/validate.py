"""Is this certificate what it claims to be? Parsing, key rules, and chains of trust (spec/ca-and-security, section 6).

Pure: the present moment is an argument, in seconds since the epoch. Stricter than ordinary path building, because what is judged here
comes from disk or out of an RPC and was not seen by any TLS library.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from pyswarm.ca import pem
from pyswarm.errors import Unknown

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

_ACCEPTED_SIGNATURES = frozenset(
    {
        x509.SignatureAlgorithmOID.RSA_WITH_SHA256,
        x509.SignatureAlgorithmOID.RSA_WITH_SHA384,
        x509.SignatureAlgorithmOID.RSA_WITH_SHA512,
        x509.SignatureAlgorithmOID.ECDSA_WITH_SHA256,
        x509.SignatureAlgorithmOID.ECDSA_WITH_SHA384,
        x509.SignatureAlgorithmOID.ECDSA_WITH_SHA512,
    }
)
_MIN_RSA_BITS = 2048
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)


class CertificateError(Unknown):
    """A certificate, key or chain that cannot be used; the message says which and why."""


class UnknownAuthorityError(CertificateError):
    """No path leads to a trusted root."""

    def __init__(self) -> None:
        super().__init__("x509: certificate signed by unknown authority")


class ValidityError(CertificateError):
    """A certificate is used outside its validity period."""


@dataclass(frozen=True, slots=True)
class Chain:
    """A validated bundle: everything it contained, and the shortest path found from its first certificate to a trusted root."""

    certificates: tuple[x509.Certificate, ...]
    path: tuple[x509.Certificate, ...]

    @property
    def leaf(self) -> x509.Certificate:
        """The certificate that is the node's own."""
        return self.certificates[0]

    @property
    def issuer(self) -> x509.Certificate:
        """Who signed the leaf, as peers compare it (the leaf itself when it is a root)."""
        return self.path[min(1, len(self.path) - 1)]


def parse_certificates(bundle: bytes) -> tuple[x509.Certificate, ...]:
    """All certificates of a PEM bundle; empty for blank text. Raises CertificateError on anything else inside."""
    blocks = pem.scan(bundle)
    if pem.trailing(bundle) or any(block.label != pem.CERTIFICATE for block in blocks):
        raise CertificateError("Failed to decode certificate")
    try:
        return tuple(x509.load_der_x509_certificate(block.data) for block in blocks)
    except ValueError as error:
        raise CertificateError(f"Failed to decode certificate: {error}") from error


def parse_private_key(text: bytes) -> PrivateKey:
    """An unencrypted PKCS#1, SEC1 or PKCS#8 key. Raises CertificateError `malformed private key`."""
    try:
        key = serialization.load_pem_private_key(text, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CertificateError("malformed private key") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise CertificateError("unknown or unsupported certificate public key algorithm")
    return key


def check_signature_algorithm(certificate: x509.Certificate) -> None:
    """Only RSA and ECDSA with SHA-2. Raises CertificateError."""
    oid = certificate.signature_algorithm_oid
    if oid not in _ACCEPTED_SIGNATURES:
        raise CertificateError(f"unsupported signature algorithm: {oid._name}")


def check_key_matches(certificate: x509.Certificate, key: PrivateKey) -> None:
    """The certificate's key is strong enough and is the public half of `key`. Raises CertificateError."""
    public = _public_key(certificate)
    if isinstance(public, rsa.RSAPublicKey):
        if public.key_size < _MIN_RSA_BITS or public.public_numbers().e == 1:
            raise CertificateError("unsupported RSA key parameters")
    elif isinstance(public, ec.EllipticCurvePublicKey):
        if not isinstance(public.curve, _CURVES):
            raise CertificateError("unsupported ECDSA key parameters")
    else:
        raise CertificateError("unknown or unsupported certificate public key algorithm")
    if public != key.public_key():
        raise CertificateError("certificate key mismatch")


def _public_key(certificate: x509.Certificate) -> PublicKeyTypes | None:
    try:
        return certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return None


def public_key_der(certificate: x509.Certificate) -> bytes:
    """SubjectPublicKeyInfo as DER."""
    return certificate.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def common_name(certificate: x509.Certificate) -> str:
    """The first CN of the subject, or nothing."""
    return first_value(certificate.subject, x509.NameOID.COMMON_NAME)


def first_value(name: x509.Name, oid: x509.ObjectIdentifier) -> str:
    """The first value of an attribute of a name, or nothing."""
    values = name.get_attributes_for_oid(oid)
    return str(values[0].value) if values else ""


def not_before(certificate: x509.Certificate) -> float:
    """Start of the validity, seconds since the epoch."""
    return certificate.not_valid_before_utc.timestamp()


def not_after(certificate: x509.Certificate) -> float:
    """End of the validity, seconds since the epoch."""
    return certificate.not_valid_after_utc.timestamp()


def is_self_signed(certificate: x509.Certificate) -> bool:
    """Signed with its own key."""
    return certificate.issuer == certificate.subject and _signed(certificate, certificate)


def _signed(child: x509.Certificate, parent: x509.Certificate) -> bool:
    try:
        child.verify_directly_issued_by(parent)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _may_sign(parent: x509.Certificate, below: int) -> bool:
    """Whether the extensions of `parent` let it sign certificates, with `below` other authorities between it and the leaf."""
    basic = usage = None
    try:
        extensions = parent.extensions
    except ValueError:
        return False
    for extension in extensions:
        if isinstance(extension.value, x509.BasicConstraints):
            basic = extension.value
        elif isinstance(extension.value, x509.KeyUsage):
            usage = extension.value
    if basic is None or not basic.ca or (usage is not None and not usage.key_cert_sign):
        return False
    return basic.path_length is None or below <= basic.path_length


def _valid_at(certificate: x509.Certificate, moment: float) -> bool:
    return not_before(certificate) <= moment <= not_after(certificate)


def find_path(
    leaf: x509.Certificate,
    intermediates: Sequence[x509.Certificate],
    roots: Sequence[x509.Certificate],
    moment: float,
) -> tuple[x509.Certificate, ...]:
    """The path from `leaf` to one of `roots` on which everything is valid at `moment`; roots are tried before intermediates.

    Raises ValidityError when a path fails only because of time, else UnknownAuthorityError.
    """
    if not _valid_at(leaf, moment):
        raise ValidityError("x509: certificate has expired or is not yet valid")
    if leaf in roots:
        return (leaf,)
    late = False

    def extend(path: tuple[x509.Certificate, ...]) -> tuple[x509.Certificate, ...] | None:
        nonlocal late
        for trusted, candidates in ((True, roots), (False, intermediates)):
            for parent in candidates:
                if (
                    parent in path
                    or parent.subject != path[-1].issuer
                    or not _may_sign(parent, len(path) - 1)
                    or not _signed(path[-1], parent)
                ):
                    continue
                if not _valid_at(parent, moment):
                    late = True
                    continue
                found = (*path, parent) if trusted else extend((*path, parent))
                if found:
                    return found
        return None

    path = extend((leaf,))
    if path:
        return path
    if late:
        raise ValidityError("x509: certificate has expired or is not yet valid")
    raise UnknownAuthorityError


def _rfc1123(moment: float) -> str:
    return datetime.datetime.fromtimestamp(moment, datetime.UTC).strftime("%a, %d %b %Y %H:%M:%S UTC")


def _check_bundle(certificates: Sequence[x509.Certificate], now: float, *, allow_expired: bool) -> None:
    for position, certificate in enumerate(certificates):
        label = f"{position + 1} - {common_name(certificate)}"
        if now < not_before(certificate):
            raise ValidityError(
                f"certificate ({label}) not valid before {_rfc1123(not_before(certificate))}, and it is currently {_rfc1123(now)}"
            )
        if now > not_after(certificate) and not allow_expired:
            raise ValidityError(
                f"certificate ({label}) not valid after {_rfc1123(not_after(certificate))}, and it is currently {_rfc1123(now)}"
            )
        if position:
            previous = certificates[position - 1]
            if not _may_sign(certificate, 0) or not _signed(previous, certificate):
                raise CertificateError(
                    f"certificates do not form a chain: ({position} - {common_name(previous)}) is not signed by ({label})"
                )


def _path_in_the_past(certificates: Sequence[x509.Certificate], roots: Sequence[x509.Certificate]) -> tuple[x509.Certificate, ...]:
    """A path at the end of some certificate's validity, going to ever earlier ends. Raises CertificateError."""
    moment = float("inf")
    for certificate in certificates:
        if not_after(certificate) >= moment:
            continue
        moment = not_after(certificate)
        try:
            return find_path(certificates[0], certificates[1:], roots, moment)
        except ValidityError:
            continue
    raise CertificateError("there is no time span for which all of the certificates, including a root, are valid")


def validate_roots(bundle: bytes, now: float) -> tuple[x509.Certificate, ...]:
    """The certificates of a trusted bundle: each self-signed, with a signature we accept, and valid now. Raises CertificateError.

    The reference also takes anchors that somebody else signed; OpenSSL does not chain to those, so they are refused here, in time.
    """
    try:
        roots = parse_certificates(bundle)
    except CertificateError as error:
        raise CertificateError(f"invalid root certificates: {error}") from error
    if not roots:
        raise CertificateError("no valid root CA certificates found")
    for root in roots:
        check_signature_algorithm(root)
        if not is_self_signed(root):
            raise CertificateError(f"error while validating Root CA Certificate: {common_name(root)} is not signed with its own key")
        if not _valid_at(root, now):
            raise CertificateError(
                f"error while validating Root CA Certificate: certificate has expired or is not yet valid: "
                f"it runs from {_rfc1123(not_before(root))} to {_rfc1123(not_after(root))} and it is currently {_rfc1123(now)}"
            )
    return roots


def validate_chain(roots: Iterable[x509.Certificate], bundle: bytes, now: float, *, allow_expired: bool = False) -> Chain:
    """Check that `bundle` is leaf plus intermediates, each signed by the next, all valid now, leading to one of `roots`.

    `allow_expired` forgives ended (not future) validity as long as there was a moment when the whole path was valid; it is for a cluster
    revived by force. Raises CertificateError or its kinds.
    """
    certificates = parse_certificates(bundle)
    if not certificates:
        raise CertificateError("no certificates to validate")
    _check_bundle(certificates, now, allow_expired=allow_expired)
    anchors = tuple(roots)
    path = _path_in_the_past(certificates, anchors) if allow_expired else find_path(certificates[0], certificates[1:], anchors, now)
    return Chain(certificates, path)
