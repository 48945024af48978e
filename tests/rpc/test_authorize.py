"""The table of roles and the check that reads it."""

from __future__ import annotations

import pytest

from pyswarm.api.private import auth_pb2
from pyswarm.ca.credentials import Identity
from pyswarm.errors import PermissionDenied
from pyswarm.rpc import roles
from pyswarm.rpc.authorize import Metadata, Policy, authorize
from pyswarm.rpc.caller import MANAGER, WORKER, Caller
from pyswarm.rpc.peer import Peer
from pyswarm.rpc.roles import Access

CLUSTER = "c"
POLICY = Policy(CLUSTER, frozenset({"gone"}))
ADDR = "10.0.0.9:5000"
ONLY_MANAGERS = Access((MANAGER,))
MEMBERS = Access((WORKER, MANAGER))
OPEN = Access(insecure=True)
NESTED = "rpc error: code = PermissionDenied desc = "


def peer(node_id: str = "", role: str = WORKER, organization: str = CLUSTER) -> Peer:
    """A connection, with a certificate if there is a name."""
    return Peer(ADDR, Identity(node_id, organization, (role,)) if node_id else None)


def forwarded(cn: str = "w1", org: str = CLUSTER, units: tuple[str, ...] = (WORKER,), marks: tuple[str, ...] = ("true",)) -> Metadata:
    """What a follower sends along."""
    return {
        "forwarded_cert": marks,
        "forwarded_cert_cn": (cn,),
        "forwarded_cert_org": (org,),
        "forwarded_cert_ou": units,
        "remote_addr": ("192.0.2.1:7",),
        "redirect": ("192.0.2.1:7",),
    }


def denied(access: Access | None, who: Peer, metadata: Metadata) -> str:
    """The refusal's text."""
    with pytest.raises(PermissionDenied) as failure:
        authorize(access, who, metadata, POLICY)
    return failure.value.message


EXPECTED = {
    "CA.GetRootCACertificate": OPEN,
    "CA.GetUnlockKey": ONLY_MANAGERS,
    "NodeCA.IssueNodeCertificate": OPEN,
    "NodeCA.NodeCertificateStatus": OPEN,
    **{
        f"Dispatcher.{name}": MEMBERS for name in ("Session", "Heartbeat", "UpdateTaskStatus", "UpdateVolumeStatus", "Tasks", "Assignments")
    },
    "ResourceAllocator.AttachNetwork": MEMBERS,
    "ResourceAllocator.DetachNetwork": MEMBERS,
    "LogBroker.ListenSubscriptions": MEMBERS,
    "LogBroker.PublishLogs": MEMBERS,
    "Logs.SubscribeLogs": ONLY_MANAGERS,
    "Health.Check": ONLY_MANAGERS,
    "Raft.ProcessRaftMessage": ONLY_MANAGERS,
    "Raft.StreamRaftMessage": ONLY_MANAGERS,
    "Raft.ResolveAddress": ONLY_MANAGERS,
    "RaftMembership.Join": ONLY_MANAGERS,
    "RaftMembership.Leave": ONLY_MANAGERS,
    "Watch.Watch": ONLY_MANAGERS,
    "Why.Explain": ONLY_MANAGERS,
}


def test_every_method_has_its_roles() -> None:
    """The options in the proto files are those of the specification, for every method; all of Control is for managers."""
    table = dict(roles.table())
    control = {name: access for name, access in table.items() if name.startswith("Control.")}
    assert len(control) == 43
    assert set(control.values()) == {ONLY_MANAGERS}
    rest = {name: access for name, access in table.items() if name not in control}
    assert {name: (access and (set(access.roles), access.insecure)) for name, access in rest.items()} == {
        name: (set(access.roles), access.insecure) for name, access in EXPECTED.items()
    }


def test_method_without_option_is_refused() -> None:
    """No option, or an empty one, means nobody may call."""
    method = next(iter(next(iter(roles.services())).methods))
    options = method.GetOptions()
    assert options.HasExtension(auth_pb2.tls_authorization)
    assert "no tls_authorization option" in denied(None, peer("m1", MANAGER), {})


@pytest.mark.parametrize("role", [WORKER, MANAGER])
def test_member_is_known(role: str) -> None:
    """A verified certificate of this cluster with an allowed role passes. [ca 156]"""
    assert authorize(MEMBERS, peer("n1", role), {}, POLICY) == Caller("n1", CLUSTER, (role,), ADDR)


@pytest.mark.parametrize(
    ("access", "who", "inner"),
    [
        (MEMBERS, peer(), "no client certificates in request"),
        (ONLY_MANAGERS, peer("w1"), "Permission denied: remote certificate not part of OUs: [swarm-manager]"),
        (MEMBERS, peer("w1", "other"), "Permission denied: remote certificate not part of OUs: [swarm-worker swarm-manager]"),
        (MEMBERS, peer("gone"), "Permission denied: node gone was removed from swarm"),
        (ONLY_MANAGERS, peer("gone", MANAGER), "Permission denied: node gone was removed from swarm"),
        (MEMBERS, peer("w1", organization="x"), "Permission denied: remote certificate not part of organization: c"),
        (MEMBERS, peer("gone", organization="x"), "Permission denied: node gone was removed from swarm"),
    ],
)
def test_direct_refusals(access: Access, who: Peer, inner: str) -> None:
    """Refusals carry the nested text, checked in the order role, blacklist, organization.

    [ca 157-160; control 158 in part; dispatcher 12-14]
    """
    assert denied(access, who, {}) == f"Permission denied: unauthorized peer role: {NESTED}{inner}"


def test_forwarded_caller() -> None:
    """A manager's word about a caller counts, with the caller's address and the forwarder's identity. [ca 163]"""
    caller = authorize(MEMBERS, peer("m1", MANAGER), forwarded(), POLICY)
    assert (caller.node_id, caller.roles, caller.remote_addr) == ("w1", (WORKER,), "192.0.2.1:7")
    assert caller.forwarder == Caller("m1", CLUSTER, (MANAGER,), ADDR)


@pytest.mark.parametrize(
    ("who", "inner"),
    [
        (peer(), "no client certificates in request"),
        (peer("w1"), "Permission denied: remote certificate not part of OUs: [swarm-manager]"),
        (peer("gone", MANAGER), "Permission denied: node gone was removed from swarm"),
    ],
)
def test_forged_forwarding(who: Peer, inner: str) -> None:
    """Only a manager in good standing may forward. [ca 161]"""
    assert denied(MEMBERS, who, forwarded()) == f"Permission denied: unauthorized forwarder role: {NESTED}{inner}"


@pytest.mark.parametrize(
    ("metadata", "text"),
    [
        (forwarded(cn=""), "missing information in forwarded request"),
        (forwarded(org=""), "missing information in forwarded request"),
        (forwarded(units=()), "missing information in forwarded request"),
        (forwarded(), "unauthorized forwarded role, expecting: [swarm-manager]"),
        (forwarded(org="x", units=(MANAGER,)), "organization mismatch, expecting: c"),
        (forwarded(cn="gone", units=(MANAGER,)), "node gone was removed from swarm"),
    ],
)
def test_forwarded_refusals(metadata: Metadata, text: str) -> None:
    """What a manager forwards is checked like a certificate, the blacklist included. [ca 161] [ca 162] [ca 167]"""
    assert denied(ONLY_MANAGERS, peer("m1", MANAGER), metadata) == f"Permission denied: {text}"


@pytest.mark.parametrize("marks", [("true", "true"), ("yes",), ()])
def test_unclear_mark_means_direct(marks: tuple[str, ...]) -> None:
    """Forwarding is marked by exactly one `true`; anything else is a call of the peer itself. [ca 164]"""
    caller = authorize(MEMBERS, peer("m1", MANAGER), forwarded(marks=marks), POLICY)
    assert (caller.node_id, caller.forwarder) == ("m1", None)


@pytest.mark.parametrize(
    ("who", "metadata", "expected"),
    [
        (peer(), {}, Caller(remote_addr=ADDR)),
        (peer("w1"), {}, Caller("w1", CLUSTER, (WORKER,), ADDR)),
        (peer("gone"), {}, Caller(remote_addr=ADDR)),
        (peer("w1", organization="x"), {}, Caller(remote_addr=ADDR)),
        (peer(), forwarded(), Caller(remote_addr=ADDR)),
        (peer("w1"), forwarded(), Caller(remote_addr=ADDR)),
        (
            peer("m1", MANAGER),
            forwarded(cn="", org="", units=()),
            Caller(remote_addr="192.0.2.1:7", forwarder=Caller("m1", CLUSTER, (MANAGER,), ADDR)),
        ),
    ],
)
def test_insecure_methods_name_members_only(who: Peer, metadata: Metadata, expected: Caller) -> None:
    """An open method refuses nobody; identity is given only to members in good standing, addresses only by managers. [ca 162]"""
    assert authorize(OPEN, who, metadata, POLICY) == expected
