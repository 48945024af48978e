"""Keys and certificate signing requests of nodes (spec/ca-and-security, section 5)."""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from pyswarm.ca import pem
from pyswarm.ca.validate import CertificateError

_LABELS = ("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST")


class RequestError(CertificateError):
    """A signing request nobody can read, or that is not signed with the key it brings."""

    def __init__(self) -> None:
        super().__init__('failed to sign node certificate: {"code":9002,"message":"CSR Decode failed"}')


def generate() -> tuple[bytes, bytes]:
    """A fresh P-256 key and a request for it: (CSR PEM, plain PKCS#8 PEM). The request says nothing but the public key."""
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    plain = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return request.public_bytes(serialization.Encoding.PEM), plain


def public_key(csr_pem: bytes) -> CertificatePublicKeyTypes:
    """The only part of a request that a signer takes. Raises RequestError."""
    block = next(iter(pem.scan(csr_pem)), None)
    if block is None or block.label not in _LABELS:
        raise RequestError
    try:
        request = x509.load_der_x509_csr(block.data)
        if not request.is_signature_valid:
            raise RequestError
        return request.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise RequestError from error
