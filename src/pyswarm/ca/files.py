"""Files that survive a crash: after any interruption a reader finds the old content or the new, never a mixture.

Everything pyswarm writes to disk (journals aside) goes through here.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_atomically(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Make `path` hold exactly `data` with permission bits `mode`, durably, in one step.

    A temporary file `.tmp-<name>*` in the same directory is filled, synced and renamed over `path`; then the directory is synced.
    When it returns the new content survives a power cut; when it raises (OSError) `path` is as it was, unless only the last sync of the
    directory failed. Missing directories are not created. Blocking: call it from a thread where the disk may be slow.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".tmp-{path.name}", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make renames and deletions inside the directory `path` durable. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def ensure_directory(path: Path, mode: int) -> None:
    """Create `path` and what is missing above it; a directory created here gets `mode`, an existing one keeps its own."""
    if path.is_dir():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(exist_ok=True)
    path.chmod(mode)
    sync_directory(path.parent)


def remove_durably(path: Path) -> None:
    """Delete `path` if it is there, and make that last."""
    path.unlink(missing_ok=True)
    sync_directory(path.parent)
