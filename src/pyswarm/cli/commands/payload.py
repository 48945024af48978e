"""Where the data of a secret or config comes from."""

from __future__ import annotations

import sys
from pathlib import Path

from pyswarm import errors
from pyswarm.api import v1 as api
from pyswarm.cli.flagset import STRING, Flag, Given

FILE = Flag("file", STRING, "read the data from this file instead of standard input", "f")
LANGUAGE = "golang"
TEMPLATE = Flag("template-driver", STRING, "expand templates in the data for each task (golang)")


def templating(given: Given) -> api.Driver | None:
    """What expands templates in the data; None: nothing does. Raises InvalidArgument for what no node could do."""
    name = given.text("template-driver")
    if name not in {"", LANGUAGE}:
        raise errors.InvalidArgument(f"--template-driver {name}: there is only one, {LANGUAGE}")
    return api.Driver(name=name) if name else None


def read(given: Given) -> bytes:
    """The bytes of --file, else all of standard input. Raises InvalidArgument with the system's reason."""
    if "file" in given:
        name = given.text("file")
        try:
            return Path(name).read_bytes()
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise errors.InvalidArgument(f"Error reading from file '{name}': open {name}: {reason}") from None
    try:
        return sys.stdin.buffer.read()
    except OSError as error:
        raise errors.InvalidArgument(f"Error reading content from STDIN: {error.strerror or error}") from None
