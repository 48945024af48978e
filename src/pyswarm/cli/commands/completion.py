"""`completion <shell>`."""

from __future__ import annotations

from click.shell_completion import get_completion_class

from pyswarm.cli import framework, helptext
from pyswarm.cli.flagset import FlagError
from pyswarm.cli.framework import PROGRAM, Call

SHELLS = ("bash", "fish", "zsh")


def completion(call: Call) -> None:
    """The script that teaches the shell pyswarmctl's commands and flags."""
    shell = get_completion_class(call.argument) if call.argument in SHELLS else None
    if shell is None:
        raise FlagError(f'no completion for shell "{call.argument}": there is one for {", ".join(SHELLS)}')
    call.show(shell(call.context.find_root().command, {}, PROGRAM, f"_{PROGRAM.upper()}_COMPLETE").source() + "\n")


COMMAND = framework.Command(
    "completion",
    completion,
    framework.one_argument("<bash|fish|zsh>", "shell missing: bash, fish or zsh", "completion command takes exactly 1 argument"),
    [],
    helptext.Text("Print a completion script for a shell", "source <(pyswarmctl completion bash)"),
)
