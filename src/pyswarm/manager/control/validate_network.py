"""Is a network spec one that the cluster can carry out? (spec/control-api, sections 9.1 and 9.2). Pure; the order is observable."""

from __future__ import annotations

from pyswarm.api import defaults
from pyswarm.api import v1 as api
from pyswarm.errors import InvalidArgument, PermissionDenied, Unimplemented
from pyswarm.manager.allocator import Refusal, Subnet, given_vnis, parse_address
from pyswarm.manager.control.names import check_service_name

DRIVERS = frozenset({"overlay", "macvlan", "bridge", "ipvlan", "host"})
"""What every Docker Engine on Linux has. Others would be plugins of the manager, which it has none of."""


def check_network(spec: api.NetworkSpec) -> None:
    """The whole spec. Raises InvalidArgument, PermissionDenied, Unimplemented."""
    if spec.attachable and spec.ingress:
        raise InvalidArgument("ingress network cannot be attachable")
    check_service_name(spec.annotations.name)
    if defaults.PREDEFINED_LABEL in spec.annotations.labels:
        raise PermissionDenied(
            f"label {defaults.PREDEFINED_LABEL} is for internally created predefined networks and cannot be applied by users"
        )
    check_driver(spec)
    if spec.HasField("ipam"):
        check_ipam(spec.ipam)


def check_driver(spec: api.NetworkSpec) -> None:
    """A driver that is named must be there. Raises InvalidArgument, Unimplemented."""
    if not spec.HasField("driver_config"):
        return
    name = spec.driver_config.name
    if spec.ingress and name and name != "overlay":
        raise Unimplemented("only overlay driver is currently supported for ingress network")
    if not name:
        raise InvalidArgument("driver name: if driver is specified name is required")
    if name not in DRIVERS:
        raise InvalidArgument(f"plugin {name} not supported")
    try:
        given_vnis(spec.driver_config)
    except Refusal as refusal:
        raise InvalidArgument(refusal.reason) from None


def check_ipam(ipam: api.IPAMOptions) -> None:
    """Driver and subnets. Raises InvalidArgument."""
    if ipam.HasField("driver"):
        if not ipam.driver.name:
            raise InvalidArgument("driver name: if driver is specified name is required")
        if ipam.driver.name.lower() != "default":
            raise InvalidArgument(f"plugin {ipam.driver.name} not supported")
    for config in ipam.configs:
        _check_config(config)


def _check_config(config: api.IPAMConfig) -> None:
    """Unlike the reference the whole range must lie in the subnet, and so must reserved addresses."""
    subnet = _subnet(config.subnet, "subnet")
    if config.range and not subnet.holds(_subnet(config.range, "range")):
        raise InvalidArgument(f"ipam configuration: subnet {config.subnet} does not contain range {config.range}")
    named = [("gateway", config.gateway)] if config.gateway else []
    for word, text in [*named, *(("reserved address", text) for text in sorted(config.reserved))]:
        try:
            number = parse_address(text)
        except ValueError:
            raise InvalidArgument(f"ipam configuration: invalid {word} {text}") from None
        if (":" in text) != (subnet.version == 6) or not subnet.within(number):
            raise InvalidArgument(f"ipam configuration: subnet {config.subnet} does not contain {word} {text}")


def _subnet(text: str, word: str) -> Subnet:
    try:
        return Subnet.parse(text)
    except ValueError:
        raise InvalidArgument(f"ipam configuration: invalid {word} {text}") from None
