"""Certificates of every shape, for tests: good ones from the code under test, bad ones made by hand."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa

from pyswarm.ca import credentials, csr
from pyswarm.ca.credentials import Credentials
from pyswarm.ca.root import RootCA

NOW = 1_700_000_000.0
DAY = 86_400.0
MANAGER, WORKER = "swarm-manager", "swarm-worker"
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | dsa.DSAPrivateKey


@dataclass(frozen=True)
class Authority:
    """A certificate that may sign, with its key; also used for leaves."""

    certificate: x509.Certificate
    key: Key

    @property
    def pem(self) -> bytes:
        """The certificate as PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The key as PEM."""
        return self.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def ec_key(curve: ec.EllipticCurve | None = None) -> ec.EllipticCurvePrivateKey:
    """A fresh key, P-256 unless said otherwise."""
    return ec.generate_private_key(curve or ec.SECP256R1())


def name(cn: str, org: str = "", units: tuple[str, ...] = ()) -> x509.Name:
    """A subject with the parts that are not empty."""
    parts = [x509.NameAttribute(x509.NameOID.COMMON_NAME, cn)] if cn else []
    parts += [x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, org)] if org else []
    parts += [x509.NameAttribute(x509.NameOID.ORGANIZATIONAL_UNIT_NAME, unit) for unit in units]
    return x509.Name(parts)


def make(
    subject: str | x509.Name,
    issuer: Authority | None = None,
    *,
    key: Key | None = None,
    start: float = NOW - DAY,
    end: float = NOW + 10 * 365 * DAY,
    ca: bool = True,
) -> Authority:
    """A certificate by `issuer`, or self-signed."""
    own = key or ec_key()
    subject_name = name(subject) if isinstance(subject, str) else subject
    signer = issuer.key if issuer else own
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject_name)
        .issuer_name(issuer.certificate.subject if issuer else subject_name)
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime.fromtimestamp(start, datetime.UTC))
        .not_valid_after(datetime.datetime.fromtimestamp(end, datetime.UTC))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(own.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )
    return Authority(certificate, own)


def parse(text: bytes) -> list[x509.Certificate]:
    """The certificates of a PEM bundle."""
    return x509.load_pem_x509_certificates(text)


def issue(
    root: RootCA, node_id: str = "node1", role: str = MANAGER, org: str = "cluster1", now: float = NOW, expiry: float = 90 * DAY
) -> Credentials:
    """Credentials that `root` signed."""
    csr_pem, key_pem = csr.generate()
    return credentials.build(root.bundle, root.sign_csr(csr_pem, node_id, role, org, expiry, now), key_pem, now)


def dns_names(certificate: x509.Certificate) -> list[str]:
    """The DNS names of a certificate, in order."""
    return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)
