"""From the flags of `network create` to a spec (spec/cli-and-executor, section 12). Pure."""

from __future__ import annotations

import ipaddress

from pyswarm.api import v1 as api
from pyswarm.cli import flags
from pyswarm.cli.flagset import FlagError, Given

Net = ipaddress.IPv4Network | ipaddress.IPv6Network


def build(given: Given) -> api.NetworkSpec:
    """The spec. Raises FlagError; nothing that was typed is left out silently."""
    if "name" not in given:
        raise FlagError("--name is required")
    for flag, owner in (("opts", "driver"), ("gateway", "subnet"), ("ip-range", "subnet")):
        if flag in given and owner not in given:
            raise FlagError(f"--{flag} needs --{owner}")
    spec = api.NetworkSpec(annotations=api.Annotations(name=given.text("name")))
    spec.annotations.labels.update(flags.labels(given.texts("label")))
    spec.attachable, spec.ingress = given.truth("attachable"), given.truth("ingress")
    spec.internal, spec.ipv6_enabled = given.truth("internal"), given.truth("ipv6")
    if "driver" in given:
        driver = api.Driver(name=given.text("driver"), options=flags.driver_options(given.texts("opts")))
        spec.driver_config.CopyFrom(driver)
    if "ipam-driver" in given:
        spec.ipam.driver.CopyFrom(api.Driver(name=given.text("ipam-driver")))
    if "subnet" in given:
        spec.ipam.SetInParent()
        spec.ipam.configs.extend(_configs(given.texts("subnet"), given.texts("gateway"), given.texts("ip-range")))
    return spec


def _configs(subnets: list[str], gateways: list[str], ranges: list[str]) -> list[api.IPAMConfig]:
    """Each subnet with the first gateway and the first range inside it that no subnet before it took."""
    left_gateways = [(text, _address(text)) for text in gateways]
    left_ranges = [(text, _cidr(text).network_address) for text in ranges]
    configs: list[api.IPAMConfig] = []
    for subnet in subnets:
        net = _cidr(subnet)
        configs.append(
            api.IPAMConfig(
                family=api.IPAMConfig.AddressFamily.IPV4 if net.version == 4 else api.IPAMConfig.AddressFamily.IPV6,
                subnet=subnet,
                gateway=_take(left_gateways, net),
                range=_take(left_ranges, net),
            )
        )
    for flag, left in (("gateway", left_gateways), ("ip-range", left_ranges)):
        if left:
            raise FlagError(f"--{flag} {left[0][0]} lies in no --subnet that has none yet")
    return configs


def _take(left: list[tuple[str, ipaddress.IPv4Address | ipaddress.IPv6Address]], net: Net) -> str:
    for position, (text, address) in enumerate(left):
        if address in net:
            del left[position]
            return text
    return ""


def _cidr(text: str) -> Net:
    try:
        if "/" not in text:
            raise ValueError
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise FlagError(f"invalid CIDR address: {text}") from None


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise FlagError(f"invalid gateway address: {text}") from None
