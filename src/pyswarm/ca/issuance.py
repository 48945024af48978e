"""What happens to a node's certificate record: requested, signed, refused (spec/ca-and-security, sections 9 and 10). Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from pyswarm.api import defaults, times
from pyswarm.api import v1 as api
from pyswarm.ca.root import MIN_EXPIRY, NoSignerError, RootCA
from pyswarm.ca.validate import CertificateError
from pyswarm.manager.store import copy_of
from pyswarm.rpc.caller import MANAGER, WORKER

State = api.IssuanceStatus.State
FINAL = frozenset({State.ISSUED, State.FAILED, State.ROTATE})
_OU = {api.NodeRole.MANAGER: MANAGER, api.NodeRole.WORKER: WORKER}


@dataclass(frozen=True, slots=True)
class Order:
    """One certificate to make. It is worth something only while the node's record still holds this request."""

    node_id: str
    csr: bytes
    role: api.NodeRole.ValueType


@dataclass(frozen=True, slots=True)
class Signed:
    """The certificate, with intermediates, PEM."""

    certificate: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """It can never be signed."""

    error: str


@dataclass(frozen=True, slots=True)
class Later:
    """It cannot be signed at present."""

    reason: str


Outcome: TypeAlias = Signed | Refused | Later


def request_record(node_id: str, csr: bytes, role: api.NodeRole.ValueType, state: api.IssuanceStatus.State.ValueType) -> api.Certificate:
    """The record of a new request; nothing of an earlier one survives in it."""
    return api.Certificate(csr=csr, cn=node_id, role=role, status=api.IssuanceStatus(state=state))


def order_for(node: api.Node) -> Order | None:
    """What there is to sign for a node: first requests of accepted members, and renewals whatever the membership."""
    record = node.certificate
    state = record.status.state
    accepted = node.spec.membership == api.NodeSpec.Membership.ACCEPTED
    if state == State.RENEW or (state == State.PENDING and accepted):
        return Order(node.id, record.csr, record.role)
    return None


def expiry_of(cluster: api.Cluster) -> float:
    """Validity of new node certificates in seconds: as configured, or the default when absent or under an hour."""
    config = cluster.spec.ca_config
    configured = times.seconds_of(config.node_cert_expiry) if config.HasField("node_cert_expiry") else 0.0
    return configured if configured >= MIN_EXPIRY else defaults.NODE_CERT_EXPIRY


def sign(order: Order, root: RootCA, organization: str, expiry: float, now: float) -> Outcome:
    """Make the certificate with the root's own key. A missing key is no fault of the request: later, perhaps."""
    unit = _OU.get(order.role)
    if unit is None:
        return Refused(f"failed to sign node certificate: unknown role {order.role}")
    try:
        return Signed(root.sign_csr(order.csr, order.node_id, unit, organization, expiry, now))
    except NoSignerError as error:
        return Later(error.message)
    except CertificateError as error:
        return Refused(error.message)


def settled(node: api.Node, order: Order, outcome: Signed | Refused) -> api.Node | None:
    """The node with the outcome in its record; None when the record is about another request by now.

    Without that check a certificate for an old key could stand beside a newer request, and its owner would take it.
    """
    if order_for(node) != order:
        return None
    changed = copy_of(node)
    if isinstance(outcome, Signed):
        changed.certificate.certificate = outcome.certificate
        changed.certificate.status.CopyFrom(api.IssuanceStatus(state=State.ISSUED))
    else:
        changed.certificate.status.CopyFrom(api.IssuanceStatus(state=State.FAILED, err=outcome.error))
    return changed
