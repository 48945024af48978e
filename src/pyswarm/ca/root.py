"""The root of trust and, where its key is at hand, the signing of node certificates (spec/ca-and-security, sections 3 to 6).

Pure but for key generation: the present moment is an argument, in seconds since the epoch.
"""

from __future__ import annotations

import datetime
import hashlib
import math
import secrets
import string
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import ExtendedKeyUsageOID

from pyswarm.api import defaults
from pyswarm.api import v1 as api
from pyswarm.ca import csr, validate
from pyswarm.ca.validate import CertificateError, PrivateKey
from pyswarm.rpc.caller import MANAGER

CA_NAME = "swarm-ca"
ROOT_VALIDITY = 630_720_000.0
_ROOT_BACKDATE = 300.0
NODE_BACKDATE = 3600.0
MIN_EXPIRY = 3600.0
_Sha2 = hashes.SHA256 | hashes.SHA384 | hashes.SHA512
_PRINTABLE = frozenset(string.ascii_letters + string.digits + " '()+,-./:=?")


class NoSignerError(CertificateError):
    """This root object has no key: the signature has to come from elsewhere, perhaps later."""

    def __init__(self) -> None:
        super().__init__("no valid signer found")


@dataclass(frozen=True, slots=True)
class LocalSigner:
    """The signing certificate with its key."""

    cert_pem: bytes
    key_pem: bytes = field(repr=False)
    certificate: x509.Certificate = field(repr=False)
    key: PrivateKey = field(repr=False)


@dataclass(frozen=True, slots=True)
class RootCA:
    """What is trusted, and, with a signer, the power to issue. Make it with `load`, `create` or `from_store`."""

    bundle: bytes
    """The trusted certificates, exact bytes: the join token's digest covers them."""
    roots: tuple[x509.Certificate, ...] = field(repr=False)
    intermediates: bytes = b""
    """Appended to every issued certificate."""
    signer: LocalSigner | None = None

    @classmethod
    def load(cls, bundle: bytes, *, now: float, signing_cert: bytes = b"", signing_key: bytes = b"", intermediates: bytes = b"") -> RootCA:
        """Check everything section 6 asks of a root object, in its order. Raises CertificateError."""
        roots = validate.validate_roots(bundle, now)
        between: tuple[x509.Certificate, ...] = ()
        if intermediates:
            try:
                between = validate.validate_chain(roots, intermediates, now).certificates
            except CertificateError as error:
                raise CertificateError(f"invalid intermediate chain: {error}") from error
        signer = None
        if signing_cert or signing_key:
            signer = _load_signer(signing_cert, signing_key, roots, between, now)
            if between and not _same_authority(between[0], signer.certificate):
                raise CertificateError(
                    "invalid intermediate chain - the first intermediate must have the same subject and public key as the signing cert"
                )
        return cls(bundle, roots, intermediates, signer)

    @classmethod
    def create(cls, cn: str = CA_NAME, *, now: float) -> RootCA:
        """A new self-signed root with a fresh P-256 key, able to sign."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([_attribute(x509.NameOID.COMMON_NAME, cn)])
        start = _to_minute(now) - _ROOT_BACKDATE
        certificate = (
            _builder(name, name, start, start + ROOT_VALIDITY)
            .public_key(key.public_key())
            .add_extension(_usage(authority=True), critical=True)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        text = certificate.public_bytes(serialization.Encoding.PEM)
        secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
        return cls(text, (certificate,), signer=LocalSigner(text, secret, certificate, key))

    @classmethod
    def from_store(cls, root: api.RootCA, *, now: float) -> RootCA:
        """The root object that a cluster's stored root describes, during a rotation too. Raises CertificateError."""
        if not root.HasField("root_rotation"):
            cert = root.ca_cert if root.ca_key else b""
            return cls.load(root.ca_cert, now=now, signing_cert=cert, signing_key=root.ca_key)
        rotation = root.root_rotation
        cert = rotation.cross_signed_ca_cert if rotation.ca_key else b""
        return cls.load(root.ca_cert, now=now, signing_cert=cert, signing_key=rotation.ca_key, intermediates=rotation.cross_signed_ca_cert)

    @property
    def digest(self) -> str:
        """`sha256:<hex>` of the bundle, as stored in `ca_cert_hash`."""
        return "sha256:" + hashlib.sha256(self.bundle).hexdigest()

    def sign_csr(self, csr_pem: bytes, cn: str, ou: str, org: str, expiry: float, now: float) -> bytes:
        """A node certificate for the request's public key, with the intermediates, as PEM.

        Subject, names and usages come from `cn` (node id), `ou` (role) and `org` (cluster id) alone. `expiry` is in seconds; less than an
        hour counts as the default of 90 days. Raises NoSignerError, RequestError.
        """
        if self.signer is None:
            raise NoSignerError
        public = csr.public_key(csr_pem)
        subject = x509.Name(
            [
                _attribute(x509.NameOID.ORGANIZATION_NAME, org),
                _attribute(x509.NameOID.ORGANIZATIONAL_UNIT_NAME, ou),
                _attribute(x509.NameOID.COMMON_NAME, cn),
            ]
        )
        names = [ou, cn, CA_NAME] if ou == MANAGER else [ou, cn]
        start = _to_minute(now) - NODE_BACKDATE
        length = (expiry if expiry >= MIN_EXPIRY else defaults.NODE_CERT_EXPIRY) + NODE_BACKDATE
        authority = self.signer.certificate
        builder = (
            _builder(subject, authority.subject, start, start + length)
            .public_key(public)
            .add_extension(_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        )
        builder = _with_authority_key(builder, authority)
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        leaf = builder.sign(self.signer.key, _hash_for(self.signer.key))
        return leaf.public_bytes(serialization.Encoding.PEM) + self.intermediates

    def cross_sign(self, other_pem: bytes) -> bytes:
        """Another root's certificate issued anew by this one (PEM): same subject, key, validity, serial and extensions.

        It carries an Authority Key Identifier: generated roots share one name, and without it OpenSSL takes the result for self-signed and
        refuses every chain through it. Raises NoSignerError, CertificateError.
        """
        if self.signer is None:
            raise NoSignerError
        try:
            (other,) = validate.parse_certificates(other_pem)
        except (CertificateError, ValueError) as error:
            raise CertificateError("could not parse new CA certificate") from error
        if not _is_authority(other):
            raise CertificateError("certificate not a CA")
        authority = self.signer.certificate
        builder = (
            x509.CertificateBuilder()
            .subject_name(other.subject)
            .issuer_name(authority.subject)
            .public_key(other.public_key())
            .serial_number(other.serial_number)
            .not_valid_before(other.not_valid_before_utc)
            .not_valid_after(other.not_valid_after_utc)
        )
        for extension in other.extensions:
            if not isinstance(extension.value, x509.AuthorityKeyIdentifier):
                builder = builder.add_extension(extension.value, critical=extension.critical)
        builder = _with_authority_key(builder, authority)
        signed = builder.sign(self.signer.key, _hash_of(authority))
        return signed.public_bytes(serialization.Encoding.PEM)


def _load_signer(
    cert: bytes, secret: bytes, roots: tuple[x509.Certificate, ...], between: tuple[x509.Certificate, ...], now: float
) -> LocalSigner:
    if not cert or not secret:
        raise CertificateError("must provide both a signing key and a signing cert, or neither")
    try:
        parsed = validate.parse_certificates(cert)
    except CertificateError as error:
        raise CertificateError(f"invalid signing CA cert: {error}") from error
    if not parsed:
        raise CertificateError("no valid signing CA certificates found")
    signing = parsed[0]
    validate.check_signature_algorithm(signing)
    try:
        validate.find_path(signing, between, roots, now)
    except CertificateError as error:
        raise CertificateError(f"error while validating signing CA certificate against roots and intermediates: {error}") from error
    key = validate.parse_private_key(secret)
    validate.check_key_matches(signing, key)
    return LocalSigner(cert, secret, signing, key)


def _same_authority(one: x509.Certificate, other: x509.Certificate) -> bool:
    return one.subject == other.subject and one.public_key() == other.public_key()


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _to_minute(moment: float) -> float:
    return math.floor(moment / 60 + 0.5) * 60.0


def _builder(subject: x509.Name, issuer: x509.Name, start: float, end: float) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .serial_number(_serial())
        .not_valid_before(_moment(start))
        .not_valid_after(_moment(end))
    )


def _moment(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


def _serial() -> int:
    """20 random bytes with the top bit clear; zero is not a serial number."""
    return secrets.randbits(159) or 1


def _attribute(oid: x509.ObjectIdentifier, value: str) -> x509.NameAttribute[str]:
    """A name attribute in the string type that peers use; they compare names as bytes."""
    kind = _ASN1Type.PrintableString if _PRINTABLE.issuperset(value) else _ASN1Type.UTF8String
    return x509.NameAttribute(oid, value, kind)


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=not authority,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _with_authority_key(builder: x509.CertificateBuilder, authority: x509.Certificate) -> x509.CertificateBuilder:
    try:
        own = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return builder
    return builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own), critical=False)


def _hash_of(certificate: x509.Certificate) -> _Sha2:
    """The hash in a certificate's own signature, one of those that `validate.check_signature_algorithm` lets through."""
    used = certificate.signature_hash_algorithm
    return _sha2(used.digest_size * 8 if used else 256)


def _hash_for(key: PrivateKey) -> _Sha2:
    """The hash that fits a key's strength."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return _sha2(key.curve.key_size)
    return _sha2(512 if key.key_size >= 4096 else 384 if key.key_size >= 3072 else 256)


def _sha2(bits: int) -> _Sha2:
    if bits <= 256:
        return hashes.SHA256()
    return hashes.SHA384() if bits <= 384 else hashes.SHA512()
