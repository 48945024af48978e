"""`pyswarmctl`: the root of the command tree, and the one place where errors become text and exit statuses.

0 is success, 1 a failure that one line on stderr names, 2 a wrong command line, 130 an interrupt. Families are imported on demand.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from pyswarm.cli import framework, helptext
from pyswarm.errors import SwarmError

FAILURE, USAGE, INTERRUPTED = 1, 2, 130

_FAMILIES = {
    "cluster": framework.Entry("Look at and change cluster settings", "pyswarm.cli.commands.cluster"),
    "completion": framework.Entry("Print a completion script for a shell", "pyswarm.cli.commands.completion"),
    "config": framework.Entry("Manage configs", "pyswarm.cli.commands.config"),
    "help": framework.Entry("Explain any command", "pyswarm.cli.commands.help"),
    "network": framework.Entry("Manage networks", "pyswarm.cli.commands.network"),
    "node": framework.Entry("Manage nodes", "pyswarm.cli.commands.node"),
    "secret": framework.Entry("Manage secrets", "pyswarm.cli.commands.secret"),
    "service": framework.Entry("Manage services", "pyswarm.cli.commands.service", ("svc",)),
    "task": framework.Entry("Look at tasks", "pyswarm.cli.commands.task"),
    "volume": framework.Entry("Manage cluster volumes", "pyswarm.cli.commands.volume"),
    "version": framework.Entry("Print the version", "pyswarm.cli.commands.version"),
}
_EXAMPLE = """\
export SWARM_SOCKET=/tmp/node-1/swarm.sock
pyswarmctl node ls
pyswarmctl service create --name redis --image redis:3.0.5"""


class Root(framework.Group):
    """The program. Called, it exits."""

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, *_: object, **extra: Any) -> Any:
        """Run a command line (default: the process's own) and exit with its status."""
        sys.exit(self._status(args, prog_name or framework.PROGRAM, {**extra, "standalone_mode": False}))

    def _status(self, args: Sequence[str] | None, program: str, extra: dict[str, Any]) -> int:
        try:
            result = super().main(args, program, **extra)
            sys.stdout.flush()
        except click.UsageError as error:
            path = error.ctx.command_path if error.ctx else program
            click.echo(f"Error: {_one_line(error.format_message())}\nSee '{path} --help'.", err=True)
            return USAGE
        except SwarmError as error:
            click.echo(f"Error: {_one_line(error.message)}", err=True)
            return FAILURE
        except (click.Abort, KeyboardInterrupt):
            return INTERRUPTED
        except BrokenPipeError:
            # Whoever read us has gone (`| head`); the interpreter must not try to flush once more at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return FAILURE
        except OSError as error:
            click.echo(f"Error: {_one_line(str(error.strerror or error))}", err=True)
            return FAILURE
        return result if isinstance(result, int) else 0


def _one_line(text: str) -> str:
    return " ".join(text.split("\n")).strip()


ROOT = Root(
    framework.PROGRAM, helptext.Text("Look at and change a pyswarm cluster through the control socket of one of its managers", _EXAMPLE)
)
ROOT.entries.update(_FAMILIES)


def main() -> None:
    """Entry point of the console script."""
    ROOT()
