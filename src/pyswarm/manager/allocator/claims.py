"""What a stored object holds of that which nobody else may have. Pure: read off the object alone, so any leader comes to the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from pyswarm.api import v1 as api
from pyswarm.manager.allocator.subnets import Subnet, located, parse_address
from pyswarm.manager.store import Stored

S = api.TaskState
VNI_OPTION = "com.docker.network.driver.overlay.vxlanid_list"
INGRESS = api.PortConfig.PublishMode.INGRESS


@dataclass(frozen=True, slots=True)
class Ports:
    """The published ports of one protocol."""

    protocol: int


@dataclass(frozen=True, slots=True)
class Vnis:
    """The VXLAN ids."""


@dataclass(frozen=True, slots=True)
class Block:
    """A whole subnet, of which addresses in `part` are given out."""

    subnet: Subnet
    part: Subnet


Number: TypeAlias = tuple[Ports | Vnis | Subnet, int]
Claim: TypeAlias = Number | Block


@dataclass(frozen=True, slots=True)
class Holding:
    """The claims of one object. `asked` are the numbers that were asked for, not chosen."""

    claims: tuple[Claim, ...] = ()
    asked: frozenset[Number] = frozenset()


NOTHING = Holding()


def holding(obj: Stored) -> Holding:
    """What the object holds. Malformed addresses hold nothing: they were not given out here."""
    if isinstance(obj, api.Task):
        return _of_task(obj) if obj.networks and obj.status.state <= S.RUNNING else NOTHING
    if isinstance(obj, api.Node):
        return Holding(tuple(addresses(obj.attachments))) if obj.attachments else NOTHING
    if isinstance(obj, api.Service):
        return _of_service(obj) if obj.HasField("endpoint") else NOTHING
    return _of_network(obj) if isinstance(obj, api.Network) else NOTHING


def addresses(attachments: object) -> Iterator[Number]:
    """The addresses of network attachments."""
    for attachment in attachments:  # type: ignore[attr-defined]
        for text in attachment.addresses:
            yield from _located(text)


def _of_task(task: api.Task) -> Holding:
    claims = tuple(addresses(task.networks))
    asked = {text.partition("/")[0] for config in task.spec.networks for text in config.addresses}
    if not asked:
        return Holding(claims)
    return Holding(claims, frozenset(claim for claim in claims if claim[0].address(claim[1]) in asked))  # type: ignore[union-attr]


def _of_service(service: api.Service) -> Holding:
    ports: list[Number] = [(Ports(p.protocol), p.published_port) for p in service.endpoint.ports if _is_claimed(p)]
    asked = frozenset((Ports(p.protocol), p.published_port) for p in service.endpoint.spec.ports if _is_claimed(p))
    vips = [claim for vip in service.endpoint.virtual_ips for claim in _located(vip.addr)]
    return Holding((*ports, *vips), asked)


def _is_claimed(port: api.PortConfig) -> bool:
    return port.publish_mode == INGRESS and port.published_port != 0


def _of_network(network: api.Network) -> Holding:
    claims: list[Claim] = [(Vnis(), number) for number in vnis(network.driver_state)]
    asked = frozenset((Vnis(), number) for number in vnis(network.spec.driver_config))
    if is_swarm_wide(network):
        for config in network.ipam.configs:
            claims += _of_config(config)
    return Holding(tuple(claims), asked)


def _of_config(config: api.IPAMConfig) -> Iterator[Claim]:
    try:
        subnet = Subnet.parse(config.subnet)
        yield Block(subnet, Subnet.parse(config.range) if config.range else subnet)
        held = {parse_address(text) for text in (config.gateway, *config.reserved) if text}
    except ValueError:
        return
    yield from ((subnet, number) for number in sorted(held) if subnet.within(number))


def _located(text: str) -> Iterator[Number]:
    try:
        yield located(text)
    except ValueError:
        return


def vnis(driver: api.Driver) -> list[int]:
    """The VXLAN ids in a driver's options. What is no number is left out; who makes a network has checked it."""
    return [int(part) for part in driver.options.get(VNI_OPTION, "").split(",") if part.isascii() and part.isdigit()]


def driver_of(network: api.Network) -> str:
    """The driver's name, as allocated or as asked for."""
    return network.driver_state.name or network.spec.driver_config.name or "overlay"


def is_swarm_wide(network: api.Network) -> bool:
    """Whether its addresses are given out here; those of all other drivers are each node's own matter."""
    return driver_of(network) == "overlay"


def is_allocated(network: api.Network) -> bool:
    """Whether it has all that its tasks need."""
    return network.HasField("driver_state") and network.HasField("ipam")
