"""`node ...` (spec/cli-and-executor, section 7)."""

from __future__ import annotations

from collections.abc import Callable

from pyswarm import errors
from pyswarm.api import v1 as api
from pyswarm.cli import flags, framework, helptext, resolve
from pyswarm.cli.flagset import BOOL, STRINGS, Flag
from pyswarm.cli.framework import Call, no_arguments, one_argument
from pyswarm.cli.show import nodes, tasks

COMMAND = framework.Group("node", helptext.Text("Look at nodes, change their role and availability"))
_ONE = one_argument("<node>", "missing node ID", "command takes exactly 1 argument")


@COMMAND.declare("ls", no_arguments("ls"), summary="List nodes", example="pyswarmctl node ls", flags=[framework.QUIET])
def ls(call: Call) -> None:
    """All nodes; the leader has a star."""
    with call.connect() as client:
        found = client.ask(client.control.ListNodes, api.ListNodesRequest()).nodes
    if call.given.truth("quiet"):
        call.show("".join(f"{node.id}\n" for node in found))
    else:
        call.show(nodes.listing(found))


@COMMAND.declare(
    "inspect",
    one_argument("<node>", "node ID missing", "inspect command takes exactly 1 argument"),
    summary="Show a node and its tasks",
    example="pyswarmctl node inspect node-1",
    flags=[framework.ALL],
)
def inspect(call: Call) -> None:
    """The node, then the tasks on it."""
    with call.connect() as client:
        node = resolve.node(client, call.argument)
        request = api.ListTasksRequest(filters=api.ListTasksRequest.Filters(node_ids=[node.id]))
        found = client.ask(client.control.ListTasks, request).tasks
        call.show(nodes.summary(node))
        if found:
            table = tasks.table(found, call.names(client).node, call.now(), all_tasks=call.given.truth("all"))
            call.show("\n" + table)


def _change(call: Call, edit: Callable[[api.NodeSpec], None], unchanged: str) -> None:
    """Edit the node's spec as it is now; when that changes nothing, it is an error that says so."""
    with call.connect() as client:
        node = resolve.node(client, call.argument)
        spec = api.NodeSpec()
        spec.CopyFrom(node.spec)
        edit(spec)
        if spec == node.spec:
            raise errors.FailedPrecondition(unchanged.format(call.argument))
        client.ask(client.control.UpdateNode, api.UpdateNodeRequest(node_id=node.id, node_version=node.meta.version, spec=spec))


def _set_availability(call: Call, availability: api.NodeSpec.Availability.ValueType, unchanged: str) -> None:
    def edit(spec: api.NodeSpec) -> None:
        spec.availability = availability

    _change(call, edit, unchanged)


def _set_role(call: Call, role: api.NodeRole.ValueType, unchanged: str) -> None:
    def edit(spec: api.NodeSpec) -> None:
        spec.desired_role = role

    _change(call, edit, unchanged)


@COMMAND.declare("activate", _ONE, summary="Let a node take tasks again", example="pyswarmctl node activate node-1")
def activate(call: Call) -> None:
    """Availability ACTIVE."""
    _set_availability(call, api.NodeSpec.Availability.ACTIVE, "Node {} is already active")


@COMMAND.declare("pause", _ONE, summary="Give a node no more tasks, leave those it has", example="pyswarmctl node pause node-1")
def pause(call: Call) -> None:
    """Availability PAUSE."""
    _set_availability(call, api.NodeSpec.Availability.PAUSE, "Node {} was already paused")


@COMMAND.declare("drain", _ONE, summary="Move a node's tasks elsewhere", example="pyswarmctl node drain node-1")
def drain(call: Call) -> None:
    """Availability DRAIN."""
    _set_availability(call, api.NodeSpec.Availability.DRAIN, "Node {} was already drained")


@COMMAND.declare("promote", _ONE, summary="Make a worker a manager", example="pyswarmctl node promote node-2")
def promote(call: Call) -> None:
    """Desired role manager."""
    _set_role(call, api.NodeRole.MANAGER, "Node {} is already a manager")


@COMMAND.declare("demote", _ONE, summary="Make a manager a worker", example="pyswarmctl node demote node-2")
def demote(call: Call) -> None:
    """Desired role worker."""
    _set_role(call, api.NodeRole.WORKER, "Node {} is already a worker")


@COMMAND.declare(
    "update",
    one_argument("<node>", "node ID missing", "command takes exactly 1 argument"),
    summary="Change a node's labels",
    example="pyswarmctl node update node-2 --label security=high --label zone=east\npyswarmctl node update node-2 --label ''",
    flags=[Flag("label", STRINGS, "label (key=value); those given replace all the node has, '' removes them")],
)
def update(call: Call) -> None:
    """Replace the labels."""
    labels = flags.labels(call.given.texts("label"), "malformed label for node ")

    def edit(spec: api.NodeSpec) -> None:
        if "label" in call.given:
            spec.annotations.labels.clear()
            spec.annotations.labels.update(labels)

    _change(call, edit, "No change for node {}")


@COMMAND.declare(
    "remove",
    one_argument("<node>", "missing node ID", "remove command takes exactly 1 argument"),
    summary="Take a node out of the cluster",
    more="The node must be down, or --force given; a manager must be demoted first.",
    example="pyswarmctl node rm node-3",
    flags=[Flag("force", BOOL, "remove it even while it is alive", "f")],
    aliases=("rm",),
)
def remove(call: Call) -> None:
    """Remove the node."""
    with call.connect() as client:
        node = resolve.node(client, call.argument)
        client.ask(client.control.RemoveNode, api.RemoveNodeRequest(node_id=node.id, force=call.given.truth("force")))
