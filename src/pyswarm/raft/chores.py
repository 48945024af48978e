"""The blocking work of one member that goes on beside its rounds: taking snapshots, loading them for others, deleting old ones."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog

from pyswarm.api import v1 as api
from pyswarm.raft.journal import Journal
from pyswarm.raft.rekeying import Rekeying
from pyswarm.raft.snapshots import Capture, SnapshotFiles, SnapshotStore
from pyswarm.raft.transfers import Loaded, Sender

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """Blocking work for a thread; `then(result, error)` must be called on the driving thread between rounds, and may raise."""

    work: Callable[[], Any]
    then: Callable[[Any, Exception | None], None]


class Chores:
    """Decides when a snapshot is due, hands out the work, and gives disk and memory back when it is done."""

    def __init__(
        self,
        files: SnapshotFiles,
        journal: Journal,
        capture: Capture,
        config: Callable[[], api.RaftConfig],
        chance: random.Random,
    ) -> None:
        self._files = files
        self._journal = journal
        self._config = config
        self._tried = 0
        self._loading = False
        self.snapshots = SnapshotStore(files, capture, lambda: config().keep_old_snapshots)
        self.sender = Sender(chance, lambda: self.snapshots.index)
        self.rekeying = Rekeying(journal.keys, journal, files, self.snapshots)

    def snapshot_due(self, applied: int) -> bool:
        """Whether the state after entry `applied` is to be kept now; says yes once per entry, so that a failure waits for the next one."""
        config = self._config()
        interval = config.snapshot_interval
        many = interval and applied - self.snapshots.index >= interval
        if self.snapshots.busy or applied <= self._tried or not (many or self.rekeying.wants_snapshot(applied)):
            return False
        self._journal.spare_entries = max(config.log_entries_for_slow_followers, self.sender.held(applied))
        self._tried = applied
        return True

    def release_log(self) -> None:
        """Once a snapshot is on disk, log files with nothing but older entries may go."""
        oldest = self.snapshots.take_finished()
        if oldest is not None:
            self._journal.release(oldest - 1)

    def jobs(self, applied: int) -> list[Job]:
        """Work that has become due. Each is handed out once."""
        due = []
        if (take := self.snapshots.take_job()) is not None:
            due.append(Job(take, lambda _, error: self.snapshots.finish(error)))
        if self.sender.wanted and not self._loading:
            self._loading = True
            due.append(Job(self._load, self._loaded))
        if self.rekeying.advance(applied):
            due.append(Job(self.rekeying.remove_snapshots, lambda _, error: self.rekeying.snapshots_removed(error, applied)))
        return due

    def _load(self) -> Loaded | None:
        snapshot = self._files.load()
        return Loaded.of(snapshot) if snapshot is not None else None

    def _loaded(self, loaded: Loaded | None, error: Exception | None) -> None:
        """A snapshot that could not be read (it may just have been replaced by a newer one) is asked for again by the next heartbeat."""
        self._loading = False
        self.sender.wanted = False
        if error is not None:
            log.error("snapshot for another manager could not be loaded, will be tried again", error=str(error))
        elif loaded is not None:
            self.sender.provide(loaded)
