"""Which node a container or process on this machine belongs to when the node itself is no longer what it was.

A node whose state directory was deleted comes back under another id and knows nothing of what it ran before. The place where it lives stays
the same, so what it starts carries the place's name too.
"""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path

MACHINE_ID = Path("/etc/machine-id")


def name_of(state: Path, machine_id: Path = MACHINE_ID) -> str:
    """A name for a state directory, whose parent exists: the same in every life of the node there, another one anywhere else.

    The wrong name twice would make a node remove its neighbour's containers, so more counts than the path: the machine's id and the host's
    name, since machines made from one image share the first; and which directory the parent is, since daemons in containers may share both,
    the path and the engine, but no files. Raises OSError when there is no parent.
    """
    parent = state.absolute().parent.stat()
    try:
        machine = machine_id.read_text().strip()
    except OSError:
        machine = ""
    place = (machine, socket.gethostname(), str(parent.st_dev), str(parent.st_ino), str(state.absolute()))
    return hashlib.sha256(os.fsencode("\0".join(place))).hexdigest()[:16]
