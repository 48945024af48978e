"""Which volumes this node may have mounted, on its disk: noted before the first call of a plugin, forgotten after the last.

Only what it takes to unmount them: ids and driver, no secret and no context. Blocking.
"""

from __future__ import annotations

from pathlib import Path

import structlog
from google.protobuf.message import DecodeError

from pyswarm.api import v1 as api
from pyswarm.ca.files import ensure_directory, remove_durably, write_atomically

log = structlog.get_logger(__name__)
FOLDER = "held"


def save(directory: Path, assignment: api.VolumeAssignment) -> None:
    """Note a volume down. Raises OSError."""
    record = api.VolumeAssignment(id=assignment.id, volume_id=assignment.volume_id, driver=api.Driver(name=assignment.driver.name))
    ensure_directory(directory / FOLDER, 0o700)
    write_atomically(directory / FOLDER / assignment.id, record.SerializeToString(deterministic=True))


def load(directory: Path) -> dict[str, api.VolumeAssignment]:
    """What is noted down, by id. A file that cannot be read is left where it is, and said."""
    found: dict[str, api.VolumeAssignment] = {}
    folder = directory / FOLDER
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.startswith("."):
            continue
        try:
            record = api.VolumeAssignment.FromString(path.read_bytes())
        except (OSError, DecodeError) as error:
            log.error("note of a mounted volume cannot be read", path=str(path), error=str(error))
            continue
        if record.id == path.name:
            found[record.id] = record
    return found


def forget(directory: Path, volume_id: str) -> None:
    """The volume is not mounted any more. Raises OSError."""
    if (directory / FOLDER).is_dir():
        remove_durably(directory / FOLDER / volume_id)
