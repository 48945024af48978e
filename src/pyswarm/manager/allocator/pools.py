"""Networks: driver, subnets, gateways and VXLAN ids (spec/scheduling-and-allocation, sections 14.3 and 14.4)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pyswarm.api import v1 as api
from pyswarm.manager.allocator.books import Books, Key
from pyswarm.manager.allocator.claims import VNI_OPTION, Block, Vnis, driver_of, is_allocated, is_swarm_wide
from pyswarm.manager.allocator.refusal import Refusal
from pyswarm.manager.allocator.subnets import Subnet, parse_address
from pyswarm.manager.store import Kind, View, copy_of

CHOSEN_VNIS = (4096, 16_777_215)
"""Where VXLAN ids come from that are left to choose, both ends included; smaller ones may be asked for."""
DEFAULT_POOL = "10.0.0.0/8"
DEFAULT_PREFIX = 24
IPV4, IPV6 = api.IPAMConfig.AddressFamily.IPV4, api.IPAMConfig.AddressFamily.IPV6


@dataclass(frozen=True, slots=True)
class DefaultPools:
    """Where subnets come from that nobody chose."""

    pools: tuple[Subnet, ...]
    prefix: int

    @classmethod
    def of(cls, clusters: Iterable[api.Cluster]) -> DefaultPools:
        """As the cluster object says, else 10.0.0.0/8 cut into /24."""
        for cluster in clusters:
            if cluster.defaultAddressPool:
                return cls(tuple(Subnet.parse(text) for text in cluster.defaultAddressPool), cluster.subnetSize or DEFAULT_PREFIX)
        return cls((Subnet.parse(DEFAULT_POOL),), DEFAULT_PREFIX)


def allocated_network(books: Books, view: View, network: api.Network) -> api.Network:
    """The network with all that it lacks, noted as held by it. An edited copy, or the same object when nothing lacks. Raises Refusal."""
    if is_allocated(network):
        return network
    edited = copy_of(network)
    name = driver_of(network)
    edited.driver_state.name = name
    edited.ipam.driver.SetInParent()
    for key, value in network.spec.driver_config.options.items():
        edited.driver_state.options.setdefault(key, value)
    if not edited.ipam.configs:
        edited.ipam.configs.extend(network.spec.ipam.configs)
    if not is_swarm_wide(network):
        return edited
    _fill_ipam(books, view, edited)
    _fill_vnis(books, edited)
    return edited


def _fill_ipam(books: Books, view: View, network: api.Network) -> None:
    driver = network.spec.ipam.driver
    network.ipam.driver.name = driver.name or "default"
    for option, value in driver.options.items():
        network.ipam.driver.options[option] = value
    if not network.ipam.configs:
        network.ipam.configs.add(family=IPV4)
    for config in network.ipam.configs:
        _fill_config(books, view, (Kind.NETWORK, network.id), config)


def _fill_config(books: Books, view: View, key: Key, config: api.IPAMConfig) -> None:
    block = _block(books, view, config)
    subnet = block.subnet
    config.subnet = str(subnet)
    config.family = IPV4 if subnet.version == 4 else IPV6
    books.add(key, block)
    for text in sorted(config.reserved):
        books.add(key, (subnet, take_address(books, (block,), text)[1]))
    if config.gateway:
        number = take_address(books, (Block(subnet, subnet),), config.gateway, anywhere=True)[1]
    else:
        number = next_address(books, (block,))[1]
        config.gateway = subnet.address(number)
    books.add(key, (subnet, number))


def _block(books: Books, view: View, config: api.IPAMConfig) -> Block:
    """The subnet to use, with the part to give addresses out from. Raises Refusal."""
    if not config.subnet:
        default = DefaultPools.of(view.clusters)
        found = (books.free_subnet(pool, max(default.prefix, pool.prefix)) for pool in default.pools)
        subnet = next((s for s in found if s is not None), None)
        if subnet is None:
            raise Refusal("the default address pools have no free subnet: remove a network, or name a subnet")
        return Block(subnet, subnet)
    try:
        subnet = Subnet.parse(config.subnet)
        part = Subnet.parse(config.range) if config.range else subnet
    except ValueError as error:
        raise Refusal(f"ipam configuration: {error}") from None
    if not subnet.holds(part):
        raise Refusal(f"ipam configuration: subnet {config.subnet} does not contain range {config.range}")
    if books.conflicts(Block(subnet, part)):
        raise Refusal(f"subnet {config.subnet}: Pool overlaps with other one on this address space; choose another subnet")
    return Block(subnet, part)


def _fill_vnis(books: Books, network: api.Network) -> None:
    """One id per IPv4 subnet: those that are given first, then free ones."""
    needed = sum(config.family == IPV4 for config in network.ipam.configs)
    if not needed:
        raise Refusal("an overlay network needs an IPv4 subnet: name one, or leave all subnets to choose")
    given = given_vnis(network.driver_state)
    key, numbers = (Kind.NETWORK, network.id), []
    for number in given[:needed]:
        if books.is_taken(Vnis(), number):
            raise Refusal(f"VXLAN id {number} is used by another network: choose another, or none")
        books.add(key, (Vnis(), number))
        numbers.append(number)
    while len(numbers) < needed:
        found = books.next(Vnis(), *CHOSEN_VNIS)
        if found is None:
            raise Refusal("no VXLAN id is free: remove a network")
        books.add(key, (Vnis(), found))
        numbers.append(found)
    network.driver_state.options[VNI_OPTION] = ",".join(str(number) for number in numbers)


def given_vnis(driver: api.Driver) -> list[int]:
    """The ids that somebody chose. Raises Refusal for what is none."""
    numbers = []
    for part in filter(None, driver.options.get(VNI_OPTION, "").split(",")):
        if not (part.isascii() and part.isdigit() and int(part) <= CHOSEN_VNIS[1]):
            raise Refusal(f"{part!r} in {VNI_OPTION} is no VXLAN id: use numbers from 0 to {CHOSEN_VNIS[1]}")
        numbers.append(int(part))
    return numbers


# --- addresses of a network


def blocks_of(network: api.Network) -> list[Block]:
    """What an allocated network gives addresses out from."""
    blocks = []
    for config in network.ipam.configs:
        subnet = Subnet.parse(config.subnet)
        blocks.append(Block(subnet, Subnet.parse(config.range) if config.range else subnet))
    return blocks


def next_address(books: Books, blocks: Sequence[Block]) -> tuple[Subnet, int]:
    """The next free address of the first block that has one. Raises Refusal."""
    for block in blocks:
        low, high = block.subnet.usable()
        found = books.next(block.subnet, max(low, block.part.base), min(high, block.part.last))
        if found is not None:
            return block.subnet, found
    parts = " and ".join(str(block.part) for block in blocks)
    raise Refusal(f"no address of {parts} is free: remove tasks or services that use it, or use a network with a larger subnet")


def take_address(books: Books, blocks: Sequence[Block], text: str, *, anywhere: bool = False) -> tuple[Subnet, int]:
    """An address that somebody asked for, plain or in CIDR notation. `anywhere`: also the subnet's first and last. Raises Refusal."""
    plain = text.partition("/")[0]
    try:
        number = parse_address(plain)
    except ValueError:
        raise Refusal(f"{text!r} is no IP address") from None
    version = 6 if ":" in plain else 4
    for block in blocks:
        low, high = (block.subnet.base, block.subnet.last) if anywhere else block.subnet.usable()
        if block.subnet.version == version and low <= number <= high:
            if books.is_taken(block.subnet, number):
                raise Refusal(f"could not allocate IP from IPAM: Address already in use: {plain}")
            return block.subnet, number
    raise Refusal(f"could not find an available IP: {plain} lies in no subnet of the network")
