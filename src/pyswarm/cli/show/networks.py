"""Networks: the list and the summary."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from pyswarm.api import v1 as api
from pyswarm.cli import columns
from pyswarm.cli.columns import entry
from pyswarm.cli.show import parts


def listing(networks: Iterable[api.Network]) -> str:
    """`network ls`. The driver of a network that is not allocated yet is empty."""
    rows = ((network.id, network.spec.annotations.name, network.driver_state.name) for network in networks)
    return columns.table(columns.LIST, ["ID", "Name", "Driver"], rows)


def summary(network: api.Network) -> str:
    """`network inspect`."""
    spec = network.spec
    lines = [
        *parts.if_any("ID", network.id),
        *parts.if_any("Name", spec.annotations.name),
        "Spec:\t",
        *_map("  Labels:\t", spec.annotations.labels, "    "),
        entry("  IPv6Enabled", str(spec.ipv6_enabled).lower()),
        entry("  Internal", str(spec.internal).lower()),
    ]
    if network.HasField("driver_state"):
        lines += ["Driver:\t", entry("  Name", network.driver_state.name)]
        lines += _map("  Options:\t", network.driver_state.options, "    ")
    if network.HasField("ipam"):
        lines += ["IPAM:\t", *_ipam(network.ipam)]
    return columns.SUMMARY.text(lines)


def _ipam(ipam: api.IPAMOptions) -> Iterator[str]:
    if ipam.HasField("driver"):
        yield "  Driver:\t"
        yield from parts.if_any("    Name", ipam.driver.name)
        yield from _map("    Options:\t", ipam.driver.options, "      ")
    for config in ipam.configs:
        yield "  IPAM Config:\t"
        yield entry("    Family", api.IPAMConfig.AddressFamily.Name(config.family))
        yield from parts.if_any("    Subnet", config.subnet)
        yield from parts.if_any("    Range", config.range)
        yield from parts.if_any("    Gateway", config.gateway)
        yield from _map("    Reserved:\t", config.reserved, "      ")


def _map(heading: str, values: Mapping[str, str], indent: str) -> list[str]:
    return [heading, *(f"{indent}{key} = {value}" for key, value in parts.sorted_map(values))] if values else []
