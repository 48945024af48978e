"""What can be wrong with this manager's own copy of the log. All of these end the node: none is retried, none is papered over."""

from __future__ import annotations

from pathlib import Path

from pyswarm.errors import Internal


class RaftFailure(Internal):
    """Base of everything that ends a raft node for good. The text says what happened and what to do."""


class IncompatibleLibrary(RaftFailure):
    """The installed PySyncObj is not the one this code was written against."""


class StorageError(RaftFailure):
    """The directory with this manager's log cannot be used."""


class CorruptJournal(StorageError):
    """A log or snapshot file is damaged in a way that a crash cannot cause."""

    def __init__(self, file: Path | str, offset: int, what: str) -> None:
        super().__init__(
            f"raft log file {file} is damaged at byte {offset}: {what}. Nothing was changed. Restore this manager's state directory "
            "from a backup; or, where other managers have the data, remove this manager from the cluster, delete the directory, join again"
        )
        self.file = str(file)
        self.offset = offset


class ForeignDirectory(StorageError):
    """The directory holds the log of another node or cluster."""


class WrongKey(StorageError):
    """The directory was written under another data key."""

    def __init__(self, file: Path | str) -> None:
        super().__init__(
            f"raft file {file} cannot be decrypted with this manager's data key: the key file (swarm-node.key) and the raft directory "
            "do not belong together. Restore both from the same backup"
        )


class DirectoryInUse(StorageError):
    """Another process has the directory open."""


class JournalFailed(RaftFailure):
    """Writing the log failed. What was not synced was not acknowledged; what was, is safe."""


class ApplyFailed(RaftFailure):
    """A committed entry could not be applied; this manager's state can no longer be trusted to equal the others'."""


class LogDiverged(RaftFailure):
    """A leader contradicts an entry that is committed here."""
