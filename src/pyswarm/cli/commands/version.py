"""`version`."""

from __future__ import annotations

import sys

from pyswarm import __version__
from pyswarm.cli import framework, helptext
from pyswarm.cli.framework import Call


def version(call: Call) -> None:
    """The program as it was called, the package, its version."""
    call.show(f"{sys.argv[0]} pyswarm {__version__}\n")


COMMAND = framework.Command(
    "version", version, framework.no_arguments("version"), [], helptext.Text("Print the version of pyswarmctl", "pyswarmctl version")
)
