"""What travels with a call that is passed on."""

from __future__ import annotations

from pyswarm.ca.credentials import Identity
from pyswarm.rpc import headers
from pyswarm.rpc.caller import MANAGER, WORKER
from pyswarm.rpc.headers import Header
from pyswarm.rpc.peer import Peer

RECEIVED: tuple[Header, ...] = (
    ("user-agent", "grpc-go/1.66"),
    ("grpc-accept-encoding", "gzip"),
    ("content-type", "application/grpc"),
    ("x-own", "kept"),
    ("x-own", "twice"),
    ("x-raw-bin", b"\x00\xff"),
    ("forwarded_cert", "true"),
    ("forwarded_cert_cn", "somebody"),
    ("forwarded_cert_org", "else"),
    ("forwarded_cert_ou", "swarm-manager"),
    ("remote_addr", "192.0.2.9:9"),
)
KEPT = (("x-own", "kept"), ("x-own", "twice"), ("x-raw-bin", b"\x00\xff"))


def test_identity_of_the_peer() -> None:
    """Certificate and address of the caller replace what it claimed; one value per unit; transport headers stay behind. [dispatcher 168]"""
    peer = Peer("10.0.0.1:5", Identity("node-1", "cluster-1", (WORKER, MANAGER)))
    assert headers.for_peer(RECEIVED, peer) == (
        *KEPT,
        ("forwarded_cert", "true"),
        ("forwarded_cert_cn", "node-1"),
        ("forwarded_cert_org", "cluster-1"),
        ("forwarded_cert_ou", WORKER),
        ("forwarded_cert_ou", MANAGER),
        ("remote_addr", "10.0.0.1:5"),
        ("redirect", "10.0.0.1:5"),
    )


def test_no_certificate_is_said() -> None:
    """Without a certificate the names are blank and there is no unit, but the mark is set. [dispatcher 169] [ca 162]"""
    assert headers.for_peer((), Peer("10.0.0.1:5")) == (
        ("forwarded_cert", "true"),
        ("forwarded_cert_cn", ""),
        ("forwarded_cert_org", ""),
        ("remote_addr", "10.0.0.1:5"),
        ("redirect", "10.0.0.1:5"),
    )


def test_own_call_has_no_identity() -> None:
    """From the control socket nothing is said about a caller, whatever the caller says. [dispatcher 171] [ca 166]"""
    assert headers.as_this_manager(RECEIVED, "10.0.0.2:4242") == (*KEPT, ("redirect", "10.0.0.2:4242"))


def test_odd_names_are_nobody() -> None:
    """A name that metadata cannot carry becomes a blank one, which is refused."""
    sent = headers.for_peer((), Peer("10.0.0.1:5", Identity("nöde", "cluster\n1", ("rôle",))))
    assert sent[1:4] == (("forwarded_cert_cn", ""), ("forwarded_cert_org", ""), ("forwarded_cert_ou", ""))
