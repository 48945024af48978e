"""`help [command...]`."""

from __future__ import annotations

import click

from pyswarm.cli import framework, helptext
from pyswarm.cli.flagset import FlagError
from pyswarm.cli.framework import Call


def show_help(call: Call) -> None:
    """The help of the command whose words are the arguments, or of the program."""
    context = call.context.find_root()
    command: click.Command = context.command
    for word in call.arguments:
        found = command.get_command(context, word) if isinstance(command, click.Group) else None
        if found is None:
            raise FlagError(f'unknown help topic "{" ".join(call.arguments)}"')
        command, context = found, click.Context(found, info_name=found.name, parent=context)
    call.show(command.get_help(context) + "\n")


COMMAND = framework.Command(
    "help",
    show_help,
    framework.Arguments("[command...]", lambda _: ""),
    [],
    helptext.Text("Explain any command", "pyswarmctl help service create"),
)
