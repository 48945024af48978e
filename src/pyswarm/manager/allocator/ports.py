"""Published ports: which a service gets (spec/scheduling-and-allocation, section 13)."""

from __future__ import annotations

from collections.abc import Sequence

from pyswarm.api import v1 as api
from pyswarm.manager.allocator.books import Books, Key
from pyswarm.manager.allocator.claims import INGRESS, Ports
from pyswarm.manager.allocator.refusal import Refusal
from pyswarm.manager.store import copy_of

DYNAMIC = (30000, 32767)
"""Where ports come from that are left to choose, both ends included."""
_HIGHEST = 65535


def uses_ingress(spec: api.ServiceSpec) -> bool:
    """Whether any port is published through the routing mesh."""
    return any(p.publish_mode == INGRESS for p in spec.endpoint.ports)


def wanted(spec: Sequence[api.PortConfig], runtime: Sequence[api.PortConfig]) -> list[api.PortConfig]:
    """The ports to have: those with a given number and host-mode ones first, then the ones left to choose, which keep what they have.

    With another number of ports than before all is drawn anew. The results are copies.
    """
    if len(spec) != len(runtime):
        return [copy_of(p) for p in spec]
    held = [p for p in runtime if p.publish_mode == INGRESS]
    given = [p for p in spec if p.publish_mode != INGRESS or p.published_port]
    for port in given:
        match = next((p for p in held if _key(p) == _key(port) and p.published_port == port.published_port), None)
        if match is not None:
            held.remove(match)
    ports = [copy_of(p) for p in given]
    for port in spec:
        if port.publish_mode == INGRESS and not port.published_port:
            match = next((p for p in held if _key(p) == _key(port)), None)
            if match is not None:
                held.remove(match)
            ports.append(copy_of(port if match is None else match))
    return ports


def _key(port: api.PortConfig) -> tuple[str, int, int]:
    return port.name, port.protocol, port.target_port


def choose(books: Books, key: Key, ports: Sequence[api.PortConfig]) -> list[api.PortConfig]:
    """The same ports, each ingress one with a number that nobody else has, noted as held by `key`. Raises Refusal."""
    result = []
    for port in ports:
        if port.publish_mode == INGRESS:
            port = copy_of(port)
            if port.published_port:
                _check(books, port)
            else:
                port.published_port = _next(books, port.protocol)
            books.add(key, (Ports(port.protocol), port.published_port))
        result.append(port)
    return result


def _check(books: Books, port: api.PortConfig) -> None:
    if port.published_port > _HIGHEST:
        raise Refusal(f"port {port.published_port} is out of range: use at most {_HIGHEST}")
    if books.is_taken(Ports(port.protocol), port.published_port):
        raise Refusal(f"port {port.published_port}/{_protocol(port.protocol)} is already published: choose another, or 0 for any free one")


def _next(books: Books, protocol: int) -> int:
    found = books.next(Ports(protocol), *DYNAMIC)
    if found is None:
        low, high = DYNAMIC
        raise Refusal(f"no {_protocol(protocol)} port from {low} to {high} is free: remove a service that publishes one, or name a port")
    return found


def _protocol(protocol: int) -> str:
    return api.PortConfig.Protocol.Name(protocol).lower() if protocol in api.PortConfig.Protocol.values() else str(protocol)  # type: ignore[arg-type]
