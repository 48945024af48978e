"""`network create / ls / inspect / remove` (spec/cli-and-executor, section 12)."""

from __future__ import annotations

from pyswarm.api import v1 as api
from pyswarm.cli import framework, helptext, network_spec, resolve
from pyswarm.cli.flagset import BOOL, STRING, STRINGS, Flag
from pyswarm.cli.framework import Call, no_arguments, one_argument
from pyswarm.cli.show import networks

COMMAND = framework.Group("network", helptext.Text("Manage networks"))
_MISSING = "network ID missing"

CREATE_FLAGS = [
    Flag("attachable", BOOL, "let containers join that no service runs"),
    Flag("driver", STRING, "network driver", default='"overlay"'),
    Flag("gateway", STRINGS, "gateway address inside one of the subnets"),
    Flag("ingress", BOOL, "make it the network over which ports are published on all nodes"),
    Flag("internal", BOOL, "no way out of it"),
    Flag("ip-range", STRINGS, "part of a subnet that addresses are given out from (CIDR)"),
    Flag("ipam-driver", STRING, "address management driver"),
    Flag("ipv6", BOOL, "use IPv6 as well; needs an IPv6 subnet"),
    Flag("label", STRINGS, "label of the network (key=value)"),
    Flag("name", STRING, "network name; required"),
    Flag("opts", STRINGS, "option of --driver (key=value)"),
    Flag("subnet", STRINGS, "address range of the network (CIDR)"),
]


@COMMAND.declare(
    "create",
    no_arguments("create"),
    summary="Create a network",
    example="pyswarmctl network create --name backend --driver overlay --subnet 10.99.0.0/16 --gateway 10.99.0.1",
    flags=CREATE_FLAGS,
)
def create(call: Call) -> None:
    """Create it, print its ID."""
    spec = network_spec.build(call.given)
    with call.connect() as client:
        call.show(client.ask(client.control.CreateNetwork, api.CreateNetworkRequest(spec=spec)).network.id + "\n")


@COMMAND.declare("ls", no_arguments("ls"), summary="List networks", example="pyswarmctl network ls", flags=[framework.QUIET])
def ls(call: Call) -> None:
    """All networks."""
    with call.connect() as client:
        found = client.ask(client.control.ListNetworks, api.ListNetworksRequest()).networks
    if call.given.truth("quiet"):
        call.show("".join(f"{network.id}\n" for network in found))
    else:
        call.show(networks.listing(found))


@COMMAND.declare(
    "inspect",
    one_argument("<network>", _MISSING, "inspect command takes exactly 1 argument"),
    summary="Show a network",
    example="pyswarmctl network inspect ingress",
)
def inspect(call: Call) -> None:
    """The network and its addresses."""
    with call.connect() as client:
        call.show(networks.summary(resolve.network(client, call.argument)))


@COMMAND.declare(
    "remove",
    one_argument("<network>", _MISSING, "remove command takes exactly 1 argument"),
    summary="Remove a network that no service uses",
    example="pyswarmctl network rm backend",
    aliases=("rm",),
)
def remove(call: Call) -> None:
    """Remove it, print what was typed."""
    with call.connect() as client:
        network = resolve.network(client, call.argument)
        client.ask(client.control.RemoveNetwork, api.RemoveNetworkRequest(network_id=network.id))
        call.show(call.argument + "\n")
