"""Replacing the key under which log and snapshots are kept, while both are in use (spec/store-and-raft, section 18.5).

From the round in which it begins, everything new is under the new key. What is under older ones stays until a snapshot under the new key
covers all of it; then older snapshots go, after them older segments. So a start that needs no older key proves that none is left.
"""

from __future__ import annotations

import asyncio
import enum

import structlog

from pyswarm.raft.journal import Journal
from pyswarm.raft.log import ProposalError
from pyswarm.raft.snapshots import SnapshotFiles, SnapshotStore
from pyswarm.raft.vault import Vault

log = structlog.get_logger(__name__)


class Step(enum.Enum):
    """What brings a change of the key further."""

    WAIT = enum.auto()
    """For entries to be applied."""
    SNAPSHOT = enum.auto()
    REMOVE = enum.auto()
    """What is older than the newest snapshot."""


def next_step(last_old: int, snapshot: int, applied: int) -> Step:
    """What to do when entries up to `last_old` may be under an older key, the newest snapshot ends with entry `snapshot`.

    Of snapshots that end with `last_old` or later, all must be under the new key.
    """
    if snapshot >= last_old:
        return Step.REMOVE
    return Step.SNAPSHOT if applied >= last_old else Step.WAIT


class Rekeying:
    """See the module. Driven by the rounds of one member; all calls between its syncs, but for `remove_snapshots`."""

    def __init__(self, vault: Vault, journal: Journal, files: SnapshotFiles, snapshots: SnapshotStore) -> None:
        self._vault = vault
        self._journal = journal
        self._files = files
        self._snapshots = snapshots
        self._wishes: list[tuple[bytes, asyncio.Future[None]]] = []
        self._waiting: list[asyncio.Future[None]] = []
        self._last_old = 0
        self._removing = False
        self._failed_at = 0
        self.releasing = False
        """Whether old segments go with the next sync."""

    def ask(self, key: bytes, done: asyncio.Future[None]) -> None:
        """Change to `key`; `done` is resolved when nothing under another one is left."""
        self._wishes.append((key, done))

    @property
    def due(self) -> bool:
        """Whether `begin` has something to do."""
        return bool(self._wishes) and not self._removing and not self.releasing

    def begin(self, arriving: int) -> None:
        """Begin what was asked for. `arriving`: the last entry of a snapshot from the leader that is being stored, 0 for none."""
        if not self.due:
            return
        for key, done in self._wishes:
            if self._vault.encrypts_with(key) and not self._vault.outdated:
                _resolve(done)
                continue
            self._vault.rekey(key)
            self._waiting.append(done)
        self._wishes.clear()
        if self._waiting:
            self._journal.rekey()
            self._last_old = max(self._journal.last_index, self._snapshots.begun + 1, arriving + 1)
            log.info("raft data key changes", last=self._last_old)

    def wants_snapshot(self, applied: int) -> bool:
        """Whether only a snapshot is missing."""
        return bool(self._last_old) and next_step(self._last_old, self._snapshots.index, applied) is Step.SNAPSHOT

    def advance(self, applied: int) -> bool:
        """After a sync: note what it removed; whether `remove_snapshots` is to be called now, in a thread."""
        if self.releasing:
            self._finish()
        if not self._last_old or self._removing or applied <= self._failed_at:
            return False
        self._removing = next_step(self._last_old, self._snapshots.index, applied) is Step.REMOVE
        return self._removing

    def remove_snapshots(self) -> None:
        """Blocking. Raises OSError."""
        self._files.remove_before(self._snapshots.index)

    def snapshots_removed(self, error: Exception | None, applied: int) -> None:
        """How that went. After a failure it is tried again when another entry is applied."""
        self._removing = False
        if error is not None:
            self._failed_at = applied
            log.error("old raft snapshots could not be deleted, will be tried again", error=str(error))
            return
        self._journal.segments.release_older_keys()
        self.releasing = True

    def _finish(self) -> None:
        self._vault.forget_older_keys()
        self.releasing, self._last_old = False, 0
        log.info("raft data key changed", snapshot=self._snapshots.index)
        for done in self._waiting:
            _resolve(done)
        self._waiting.clear()

    def fail(self, reason: ProposalError) -> None:
        """The member stops; a change under way is taken up by its next life."""
        for done in (*self._waiting, *(done for _, done in self._wishes)):
            if not done.done():
                done.set_exception(reason)


def _resolve(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)
