"""May this peer make this call, and as whom: the pure check of spec/ca-and-security, section 21.

Two differences to the reference, both on purpose: a forwarded caller that was removed from the swarm is refused (there only the forwarder's
name is looked up), and a method without an access option is refused instead of ending the process.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

from pyswarm.ca.credentials import Identity
from pyswarm.errors import PermissionDenied
from pyswarm.rpc.caller import MANAGER, WORKER, Caller
from pyswarm.rpc.peer import Peer
from pyswarm.rpc.roles import Access

FORWARDED = "forwarded_cert"
FORWARDED_CN = "forwarded_cert_cn"
FORWARDED_ORG = "forwarded_cert_org"
FORWARDED_OU = "forwarded_cert_ou"
REMOTE_ADDR = "remote_addr"
REDIRECT = "redirect"

Metadata = Mapping[str, Sequence[str]]
_ANY_MEMBER = (WORKER, MANAGER)


@dataclass(frozen=True, slots=True)
class Policy:
    """What the check compares with: the cluster's id and the node ids whose certificates are no longer accepted."""

    cluster_id: str
    blacklist: Container[str] = ()


def authorize(access: Access | None, peer: Peer, metadata: Metadata, policy: Policy) -> Caller:
    """The caller's identity, or PermissionDenied with a text that names the reason.

    For an insecure method nothing is refused; whoever is a member in good standing is named, everyone else stays anonymous.
    """
    if access is None:
        raise PermissionDenied("Permission denied: the method has no tls_authorization option")
    if access.insecure:
        return _identify(peer, metadata, policy)
    return _member(access.roles, peer, metadata, policy)


def is_forwarded(metadata: Metadata) -> bool:
    """Another manager passes somebody's call on."""
    return list(metadata.get(FORWARDED, ())) == ["true"]


def _identify(peer: Peer, metadata: Metadata, policy: Policy) -> Caller:
    try:
        return _member(_ANY_MEMBER, peer, metadata, policy)
    except PermissionDenied:
        pass
    if is_forwarded(metadata):
        try:
            forwarder = _direct((MANAGER,), peer, policy)
        except PermissionDenied:
            return Caller(remote_addr=peer.remote_addr)
        return Caller(remote_addr=_first(metadata, REMOTE_ADDR), forwarder=forwarder)
    return Caller(remote_addr=peer.remote_addr)


def _member(roles: Sequence[str], peer: Peer, metadata: Metadata, policy: Policy) -> Caller:
    if is_forwarded(metadata):
        return _forwarded(roles, peer, metadata, policy)
    try:
        return _direct(roles, peer, policy)
    except PermissionDenied as error:
        raise PermissionDenied(f"Permission denied: unauthorized peer role: {_nested(error)}") from error


def _forwarded(roles: Sequence[str], peer: Peer, metadata: Metadata, policy: Policy) -> Caller:
    try:
        forwarder = _direct((MANAGER,), peer, policy)
    except PermissionDenied as error:
        raise PermissionDenied(f"Permission denied: unauthorized forwarder role: {_nested(error)}") from error
    node_id, organization = _first(metadata, FORWARDED_CN), _first(metadata, FORWARDED_ORG)
    units = tuple(metadata.get(FORWARDED_OU, ()))
    if not node_id or not organization or not units:
        raise PermissionDenied("Permission denied: missing information in forwarded request")
    if not set(units) & set(roles):
        raise PermissionDenied(f"Permission denied: unauthorized forwarded role, expecting: [{' '.join(roles)}]")
    if organization != policy.cluster_id:
        raise PermissionDenied(f"Permission denied: organization mismatch, expecting: {policy.cluster_id}")
    if node_id in policy.blacklist:
        raise PermissionDenied(f"Permission denied: node {node_id} was removed from swarm")
    return Caller(node_id, organization, units, _first(metadata, REMOTE_ADDR), forwarder=forwarder)


def _direct(roles: Sequence[str], peer: Peer, policy: Policy) -> Caller:
    certificate = _certificate(peer)
    if not set(certificate.roles) & set(roles):
        raise PermissionDenied(f"Permission denied: remote certificate not part of OUs: [{' '.join(roles)}]")
    if certificate.node_id in policy.blacklist:
        raise PermissionDenied(f"Permission denied: node {certificate.node_id} was removed from swarm")
    if certificate.organization != policy.cluster_id:
        raise PermissionDenied(f"Permission denied: remote certificate not part of organization: {policy.cluster_id}")
    return Caller(certificate.node_id, certificate.organization, certificate.roles, peer.remote_addr)


def _certificate(peer: Peer) -> Identity:
    if peer.certificate is None:
        raise PermissionDenied("no client certificates in request")
    return peer.certificate


def _nested(error: PermissionDenied) -> str:
    return f"rpc error: code = PermissionDenied desc = {error.message}"


def _first(metadata: Metadata, key: str) -> str:
    return next(iter(metadata.get(key, ())), "")
