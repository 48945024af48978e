"""TLS of the remote port: contexts made from credentials, and identities read from verified certificates (spec/ca-and-security, section 7).

Contexts are never changed once made: trust anchors can be added to a live one but not taken away, so after a root rotation the old root
would stay trusted. A new certificate or root means a new context for the connections that follow.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from pyswarm.ca.credentials import Credentials, Identity

ALPN = "h2"
TLS12_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


def server_context(credentials: Credentials) -> ssl.SSLContext:
    """A server context that shows the node certificate and verifies a client's if it gives one. Raises ssl.SSLError on unusable material.

    No session tickets: a resumed session would skip the verification of the client's certificate against the present roots.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(TLS12_CIPHERS)
    context.set_alpn_protocols([ALPN])
    context.verify_mode = ssl.CERT_OPTIONAL
    roots = x509.load_pem_x509_certificates(credentials.root_pem)
    context.load_verify_locations(cadata=b"".join(root.public_bytes(Encoding.DER) for root in roots))
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    load_key_pair(context, credentials.cert_pem, credentials.key_pem)
    return context


def load_key_pair(context: ssl.SSLContext, cert_pem: bytes, key_pem: bytes) -> None:
    """Give `context` a certificate chain and its key without the key ever reaching a disk.

    `ssl` reads files only, so the pair goes through an anonymous memory file: autolock promises that no plaintext key is stored.
    """
    descriptor = os.memfd_create("pyswarm-credentials", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key_pem + b"\n" + cert_pem)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")


def identity_of(der: bytes) -> Identity:
    """CN, first O and all OUs of a verified certificate in DER form; what is missing stays empty, for the authorization check to refuse.

    Raises ValueError when it does not parse.
    """
    subject = x509.load_der_x509_certificate(der).subject
    return Identity(
        node_id=next(_values(subject, NameOID.COMMON_NAME), ""),
        organization=next(_values(subject, NameOID.ORGANIZATION_NAME), ""),
        roles=tuple(_values(subject, NameOID.ORGANIZATIONAL_UNIT_NAME)),
    )


def _values(name: x509.Name, oid: x509.ObjectIdentifier) -> Iterator[str]:
    return (str(attribute.value) for attribute in name.get_attributes_for_oid(oid))
