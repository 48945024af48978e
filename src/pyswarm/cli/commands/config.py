"""`config create / ls / inspect / remove` (spec/cli-and-executor, section 11)."""

from __future__ import annotations

import click

from pyswarm.api import v1 as api
from pyswarm.cli import framework, helptext, resolve
from pyswarm.cli.commands import payload
from pyswarm.cli.framework import Call, no_arguments, one_argument
from pyswarm.cli.show import data

COMMAND = framework.Group("config", helptext.Text("Manage configs: files for services that are no secret"))
_CREATE = "create command takes a unique config name as an argument, and accepts config data via stdin or via a file"
_INSPECT = "inspect command takes a single config ID or name"
_REMOVE = "remove command takes a single config ID or name"


@COMMAND.declare(
    "create",
    one_argument("<config name>", _CREATE, _CREATE),
    summary="Create a config from standard input or a file",
    example="pyswarmctl config create nginx.conf --file ./nginx.conf\n"
    "pyswarmctl config create app.conf --file ./app.conf --template-driver golang",
    flags=[payload.FILE, payload.TEMPLATE],
)
def create(call: Call) -> None:
    """Read first, connect afterwards."""
    templating = payload.templating(call.given)
    spec = api.ConfigSpec(annotations=api.Annotations(name=call.argument), data=payload.read(call.given), templating=templating)
    with call.connect() as client:
        call.show(client.ask(client.control.CreateConfig, api.CreateConfigRequest(spec=spec)).config.id + "\n")


@COMMAND.declare(
    "ls", no_arguments("ls"), summary="List configs, the newest first", example="pyswarmctl config ls", flags=[framework.QUIET]
)
def ls(call: Call) -> None:
    """All configs."""
    with call.connect() as client:
        found = data.newest_configs(client.ask(client.control.ListConfigs, api.ListConfigsRequest()).configs)
    if call.given.truth("quiet"):
        call.show("".join(f"{config.id}\n" for config in found))
    else:
        call.show(data.configs(found, call.now()))


@COMMAND.declare(
    "inspect",
    one_argument("<config>", _INSPECT, _INSPECT),
    summary="Show a config and its data",
    example="pyswarmctl config inspect nginx.conf",
)
def inspect(call: Call) -> None:
    """The summary and the payload, byte for byte."""
    with call.connect() as client:
        click.echo(data.config(resolve.config(client, call.argument)), nl=False)


@COMMAND.declare(
    "remove",
    one_argument("<config>", _REMOVE, _REMOVE),
    summary="Remove a config that no service uses",
    example="pyswarmctl config rm nginx.conf",
    aliases=("rm",),
)
def remove(call: Call) -> None:
    """Remove it, print its ID."""
    with call.connect() as client:
        config = resolve.config(client, call.argument)
        client.ask(client.control.RemoveConfig, api.RemoveConfigRequest(config_id=config.id))
        call.show(config.id + "\n")
