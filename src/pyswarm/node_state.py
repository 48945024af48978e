"""What a node keeps in its state directory besides certificates, log and tasks: the lock, the settings of its next start.

Layout (spec/dispatcher-agent-node, section 26): `certificates/`, `state.json` (known managers), `worker/tasks.db`, `raft/`, and, ours,
`settings.json` and `daemon.lock`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pyswarm.ca import files
from pyswarm.errors import FailedPrecondition
from pyswarm.raft import storage

_VERSION = 1


class StateDirectoryError(FailedPrecondition):
    """The state directory cannot be used; the message names it and the way out."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a restart needs without being told again. Ticks are in tenths of a second."""

    hostname: str = ""
    listen_control_api: str = "/var/run/swarmd.sock"
    listen_remote_api: str = "0.0.0.0:4242"
    advertise_remote_api: str = ""
    executor: str = "docker"
    engine_addr: str = "unix:///var/run/docker.sock"
    generic_node_resources: str = ""
    listen_metrics: str = ""
    csi_plugins: str = ""
    """One `NAME=unix:///PATH` a line."""
    heartbeat_tick: int = 1
    election_tick: int = 10


class StateDirectory:
    """The paths of one node, and the few files that belong to the node itself. Methods block on the disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.certificates = path / "certificates"
        self.remotes = path / "state.json"
        self.tasks = path / "worker" / "tasks.db"
        self.raft = path / "raft"
        self._settings = path / "settings.json"
        self._lock = path / "daemon.lock"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Make the directory (0700) and hold it against other daemons. Raises StateDirectoryError."""
        try:
            files.ensure_directory(self.path, 0o700)
            descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StateDirectoryError(
                f"cannot use state directory {self.path}: {error.strerror or error}; choose another one with --state-dir"
            ) from error
        with os.fdopen(descriptor, "r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                owner = file.read(32).strip() or "unknown"
                raise StateDirectoryError(
                    f"state directory {self.path} is in use by another pyswarmd (process {owner}); "
                    "stop that one, or choose another directory with --state-dir"
                ) from error
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            yield

    def load_settings(self) -> Settings | None:
        """What the last start that became ready was told; None when there was none. Raises StateDirectoryError naming a broken file."""
        try:
            content = json.loads(self._settings.read_text("utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            raise self._broken(str(error)) from error
        if not isinstance(content, dict) or content.pop("version", None) != _VERSION:
            raise self._broken("it was written by another version")
        kinds = {field.name: type(field.default) for field in dataclasses.fields(Settings)}
        for name, value in content.items():
            if type(value) is not kinds.get(name):
                raise self._broken(f"unexpected {name}")
        return Settings(**content)

    def save_settings(self, settings: Settings) -> None:
        """Remember for the next start; writes only what changed. Raises OSError."""
        content = json.dumps({"version": _VERSION, **dataclasses.asdict(settings)}, indent=1).encode()
        if not self._settings.exists() or self._settings.read_bytes() != content:
            files.write_atomically(self._settings, content, 0o600)

    def log_is_empty(self) -> bool:
        """No manager ever kept a log here."""
        kept = (self.raft / storage.LOG_DIRECTORY, self.raft / storage.SNAPSHOT_DIRECTORY)
        return not any(entry.is_file() for directory in kept for entry in directory.glob("*"))

    def forget_log(self) -> None:
        """Remove the replicated log of a manager that is none any more."""
        shutil.rmtree(self.raft, ignore_errors=True)

    def forget_identity(self) -> None:
        """Remove what a failed first start left, so that the next one begins anew."""
        shutil.rmtree(self.certificates, ignore_errors=True)
        self.remotes.unlink(missing_ok=True)

    def forget_everything(self) -> None:
        """Remove all but the lock, certificates last: until then a node lives here. Raises OSError."""
        for path in (self.tasks.parent, self.raft):
            if path.exists():
                shutil.rmtree(path)
        for file in (self._settings, self.remotes):
            file.unlink(missing_ok=True)
        shutil.rmtree(self.certificates)

    def _broken(self, reason: str) -> StateDirectoryError:
        return StateDirectoryError(f"{self._settings} cannot be read ({reason}); remove it and give the flags again")
