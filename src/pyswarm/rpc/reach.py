"""Under which address another machine reaches this one.

A manager that listens everywhere and was told no address of its own knows only `0.0.0.0:<port>`. That is of no use to a worker elsewhere,
and a Docker Engine forgets every manager that is not in the list it is given. So it is told the address its own connection arrives at.
"""

from __future__ import annotations

import ipaddress
import socket

from pyswarm.errors import InvalidArgument
from pyswarm.rpc.server import split_address


def is_wildcard(address: str) -> bool:
    """Whether `host:port` names every address of a machine and so none in particular."""
    host = _host(address)
    return host is not None and host.is_unspecified


def seen_from(address: str, peer: str) -> str:
    """`address`, a wildcard, as the machine at `peer` (`ip:port`) can use it: the address from which this one would answer.

    Asks the kernel's routes and sends nothing. Unchanged when `peer` is no IP address or cannot be reached.
    """
    host = _host(peer)
    if host is None:
        return address
    family = socket.AF_INET6 if host.version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((str(host), 9))
        except OSError:
            return address
        own = str(probe.getsockname()[0])
    port = split_address(address)[1]
    return f"[{own}]:{port}" if family == socket.AF_INET6 else f"{own}:{port}"


def _host(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        host, _ = split_address(address)
        found = ipaddress.ip_address(host or "::")
    except (InvalidArgument, ValueError):
        return None
    return getattr(found, "ipv4_mapped", None) or found
