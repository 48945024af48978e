"""Addresses and subnets as numbers."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from functools import lru_cache

_OCTETS = {str(number): number for number in range(256)}
Net = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Subnet:
    """A block of addresses: the key under which its addresses are kept apart from others'."""

    version: int
    base: int
    prefix: int

    @classmethod
    def of(cls, net: Net) -> Subnet:
        """The same block."""
        return cls(net.version, int(net.network_address), net.prefixlen)

    @classmethod
    def parse(cls, text: str) -> Subnet:
        """From CIDR notation; host bits may be set. Raises ValueError for anything else, and for netmasks and bare addresses."""
        address, prefix = split(text)
        return cls(_version(text), address & ~_hosts(_version(text), prefix), prefix)

    @property
    def last(self) -> int:
        """Its last address."""
        return self.base | _hosts(self.version, self.prefix)

    def usable(self) -> tuple[int, int]:
        """First and last address that may be given out: not the subnet's own nor the broadcast address, unless there are only two."""
        bits = 32 if self.version == 4 else 128
        if self.prefix >= bits - 1:
            return self.base, self.last
        return self.base + 1, self.last - (self.version == 4)

    def within(self, number: int) -> bool:
        """Whether an address lies in it."""
        return self.base <= number <= self.last

    def holds(self, other: Subnet) -> bool:
        """Whether another block lies in it."""
        return other.version == self.version and self.base <= other.base and other.last <= self.last

    def address(self, number: int) -> str:
        """One of its addresses, without prefix length."""
        return render(self.version, number)

    def interface(self, number: int) -> str:
        """One of its addresses with its prefix length, as addresses are stored: `10.0.1.5/24`."""
        return f"{render(self.version, number)}/{self.prefix}"

    def __str__(self) -> str:
        return self.interface(self.base)


@lru_cache(maxsize=1 << 15)
def located(text: str) -> tuple[Subnet, int]:
    """The subnet and the number behind a stored address. Raises ValueError."""
    address, prefix = split(text)
    version = _version(text)
    return Subnet(version, address & ~_hosts(version, prefix), prefix), address


def split(text: str) -> tuple[int, int]:
    """Address and prefix length of CIDR notation. Raises ValueError."""
    address, slash, prefix = text.partition("/")
    if not slash or not (prefix.isascii() and prefix.isdigit()):
        raise ValueError(f"{text!r} is not in CIDR notation")
    number, bits = parse_address(address), int(prefix)
    if bits > (32 if _version(text) == 4 else 128):
        raise ValueError(f"{text!r} is not in CIDR notation")
    return number, bits


def parse_address(text: str) -> int:
    """An address as a number. Raises ValueError, also for zero-padded octets and scopes."""
    if ":" not in text:
        octets = text.split(".")
        if len(octets) != 4 or not all(octet in _OCTETS for octet in octets):
            raise ValueError(f"{text!r} is no IP address")
        first, second, third, last = (_OCTETS[octet] for octet in octets)
        return first << 24 | second << 16 | third << 8 | last
    if "%" in text:
        raise ValueError(f"{text!r} is no IP address")
    return int(ipaddress.IPv6Address(text))


def render(version: int, number: int) -> str:
    """An address from its number."""
    if version == 4:
        return f"{number >> 24}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    return str(ipaddress.IPv6Address(number))


def _version(text: str) -> int:
    return 6 if ":" in text else 4


def _hosts(version: int, prefix: int) -> int:
    return (1 << ((32 if version == 4 else 128) - prefix)) - 1
