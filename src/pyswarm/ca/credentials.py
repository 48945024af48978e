"""Who this node is at present: certificate, key and trusted root in memory, and the news when one of them changes.

Established connections keep what they began with; whoever makes new ones subscribes and uses the newest (spec/ca-and-security, section 7).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from pyswarm.ca import validate
from pyswarm.ca.validate import CertificateError
from pyswarm.clock import Clock
from pyswarm.rpc.caller import MANAGER


@dataclass(frozen=True, slots=True)
class Credentials:
    """One consistent set of what a TLS endpoint of this node needs, and the identity that follows from it."""

    cert_pem: bytes
    """Leaf, then intermediates."""
    key_pem: bytes = field(repr=False)
    """Plain PKCS#8; lives in memory only."""
    root_pem: bytes
    """The trusted bundle, byte for byte as the token's digest covers it."""
    node_id: str
    organization: str
    role: str
    """`swarm-manager` or `swarm-worker`."""
    issuer_subject: bytes
    """DER, as NodeTLSInfo wants it."""
    issuer_public_key: bytes
    """DER, as NodeTLSInfo wants it."""
    not_before: float
    not_after: float

    @property
    def is_manager(self) -> bool:
        """The certificate says manager."""
        return self.role == MANAGER


@dataclass(frozen=True, slots=True)
class Identity:
    """What a node certificate's subject says."""

    node_id: str
    organization: str
    roles: tuple[str, ...]


def identity_of(certificate: x509.Certificate) -> Identity:
    """Role, cluster and node named by a certificate. Raises CertificateError when one is missing, in that order."""
    subject = certificate.subject
    units = tuple(str(unit.value) for unit in subject.get_attributes_for_oid(x509.NameOID.ORGANIZATIONAL_UNIT_NAME))
    organization = validate.first_value(subject, x509.NameOID.ORGANIZATION_NAME)
    name = validate.common_name(certificate)
    if not any(units):
        raise CertificateError("no OU found in certificate subject")
    if not organization:
        raise CertificateError("no organization found in certificate subject")
    if not name:
        raise CertificateError("no valid subject names found for TLS configuration")
    return Identity(name, organization, units)


def build(root_pem: bytes, cert_pem: bytes, key_pem: bytes, now: float, *, allow_expired: bool = False) -> Credentials:
    """Credentials from their parts, every rule of section 6 checked at `now` (seconds since the epoch). Raises CertificateError."""
    chain = validate.validate_chain(validate.parse_certificates(root_pem), cert_pem, now, allow_expired=allow_expired)
    key = validate.parse_private_key(key_pem)
    validate.check_key_matches(chain.leaf, key)
    identity = identity_of(chain.leaf)
    return Credentials(
        cert_pem=cert_pem,
        key_pem=key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        root_pem=root_pem,
        node_id=identity.node_id,
        organization=identity.organization,
        role=MANAGER if MANAGER in identity.roles else identity.roles[0],
        issuer_subject=chain.issuer.subject.public_bytes(),
        issuer_public_key=validate.public_key_der(chain.issuer),
        not_before=validate.not_before(chain.leaf),
        not_after=validate.not_after(chain.leaf),
    )


class SecurityConfig:
    """The node's credentials over time. Event loop only.

    Subscribers are called in the order of their subscription, synchronously, after every change that took effect; they must not raise.
    Certificate and root change independently of each other, so a renewal and a new root that happen together both end up applied.
    """

    def __init__(self, initial: Credentials, clock: Clock) -> None:
        self._current = initial
        self._clock = clock
        self._callbacks: dict[int, Callable[[Credentials], None]] = {}
        self._next = 0

    @property
    def current(self) -> Credentials:
        """The newest credentials."""
        return self._current

    def subscribe(self, callback: Callable[[Credentials], None]) -> Callable[[], None]:
        """Call back with the new credentials after each change. Returns undo, which may be called more than once."""
        number = self._next
        self._next += 1
        self._callbacks[number] = callback

        def undo() -> None:
            self._callbacks.pop(number, None)

        return undo

    def replace_certificate(self, cert_pem: bytes, key_pem: bytes) -> None:
        """Use a new certificate (leaf and intermediates) and its plain key for new connections.

        Raises CertificateError, and changes nothing, when it does not chain to the trusted root, is not valid now, lacks an identity, or
        the key is another's.
        """
        self._publish(build(self._current.root_pem, cert_pem, key_pem, self._clock.now()))

    def replace_root(self, root_pem: bytes) -> None:
        """Trust `root_pem` instead of the present bundle. Refused with CertificateError unless the own chain validates against it."""
        now = self._clock.now()
        validate.validate_roots(root_pem, now)
        try:
            changed = build(root_pem, self._current.cert_pem, self._current.key_pem, now)
        except CertificateError as error:
            raise CertificateError(f"new root CA does not match existing TLS credentials: {error}") from error
        self._publish(changed)

    def replace_all(self, fresh: Credentials) -> None:
        """Take over credentials that `build` has checked, root included, whatever was trusted before."""
        self._publish(fresh)

    def _publish(self, credentials: Credentials) -> None:
        self._current = credentials
        for callback in list(self._callbacks.values()):
            callback(credentials)
