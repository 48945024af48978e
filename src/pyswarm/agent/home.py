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
    """A name for a state directory on this machine: the same in every life of the node there, another one anywhere else.

    The host's name counts too: machines made from one image share a machine id, and may share an engine.
    """
    try:
        machine = machine_id.read_text().strip()
    except OSError:
        machine = ""
    place = b"\0".join((machine.encode(), socket.gethostname().encode(), os.fsencode(state.absolute())))
    return hashlib.sha256(place).hexdigest()[:16]
