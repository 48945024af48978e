"""Who is at the other end of a connection: what the TLS front learns and the authorization check reads."""

from __future__ import annotations

from dataclasses import dataclass

from pyswarm.ca.credentials import Identity


@dataclass(frozen=True, slots=True)
class Peer:
    """One connection to the remote port: where it comes from (`ip:port`) and, if it showed a certificate, whose it is."""

    remote_addr: str
    certificate: Identity | None = None
