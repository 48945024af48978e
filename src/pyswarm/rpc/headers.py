"""The metadata of a call that is passed on to the leader: who called whom, and that it must not be passed on again (spec/ca-and-security,
section 22). The reading side is `authorize`.

The caller's own word about these keys is never passed on: whoever is in front of a manager could else give himself another's name.
"""

from __future__ import annotations

from collections.abc import Iterable

from pyswarm.rpc.authorize import FORWARDED, FORWARDED_CN, FORWARDED_ORG, FORWARDED_OU, REDIRECT, REMOTE_ADDR
from pyswarm.rpc.peer import Peer

Header = tuple[str, str | bytes]

_OURS = frozenset({FORWARDED, FORWARDED_CN, FORWARDED_ORG, FORWARDED_OU, REMOTE_ADDR, REDIRECT})
_TRANSPORT = frozenset({"connection", "content-length", "content-type", "host", "te", "user-agent"})


def as_this_manager(received: Iterable[Header], own_addr: str) -> tuple[Header, ...]:
    """For a call from the control socket: it counts as the forwarding manager's own. `own_addr` is that manager's address."""
    return (*_copied(received), (REDIRECT, own_addr))


def for_peer(received: Iterable[Header], peer: Peer) -> tuple[Header, ...]:
    """For a call from the remote port. Without a certificate the names are blank, which keeps the call from counting as the manager's."""
    who = peer.certificate
    return (
        *_copied(received),
        (FORWARDED, "true"),
        (FORWARDED_CN, _plain(who.node_id) if who else ""),
        (FORWARDED_ORG, _plain(who.organization) if who else ""),
        *((FORWARDED_OU, _plain(role)) for role in (who.roles if who else ())),
        (REMOTE_ADDR, peer.remote_addr),
        (REDIRECT, peer.remote_addr),
    )


def _copied(received: Iterable[Header]) -> list[Header]:
    return [(key, value) for key, value in received if key not in _OURS and key not in _TRANSPORT and not key.startswith(("grpc-", ":"))]


def _plain(name: str) -> str:
    """Metadata holds printable ASCII only. No node of ours is named otherwise, so another name becomes one that nobody has."""
    return name if name.isascii() and name.isprintable() else ""
