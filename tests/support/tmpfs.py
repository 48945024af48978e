"""Memory for tests that place secrets and configs."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def private_tmpfs() -> Iterator[Path]:
    """A directory of our own on a tmpfs."""
    directory = Path(tempfile.mkdtemp(prefix="psw-test-", dir="/dev/shm"))
    try:
        directory.chmod(0o755)  # Tasks of other users pass through it.
        yield directory
    finally:
        shutil.rmtree(directory)


def files_below(directory: Path) -> list[str]:
    """All files, as paths relative to `directory`."""
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if not path.is_dir())


def everything_below(directory: Path) -> list[str]:
    """The same with directories."""
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))
