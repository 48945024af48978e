"""Snapshots of the replicated state: files that are whole, verified and encrypted, or not there.

Taking one never stops the loop for longer than copying a few dictionaries: the state is captured on the loop, and built, encrypted and
written in a thread. PySyncObj is told "done" only after file and directory are synced; what it then does (dropping old entries) may be cut
short by a crash at any point without loss, because the journal is read together with the snapshot (spec/store-and-raft, section 21.7).
"""

from __future__ import annotations

import enum
import itertools
import re
from collections.abc import Callable

import structlog
from cryptography.exceptions import InvalidTag
from google.protobuf.message import DecodeError

from pyswarm.api import v1 as api
from pyswarm.api.private import raft_pb2
from pyswarm.raft import parts, records
from pyswarm.raft.disk import Disk
from pyswarm.raft.errors import CorruptJournal, StorageError
from pyswarm.raft.journal import Entry
from pyswarm.raft.records import Kind
from pyswarm.raft.vault import Vault
from pyswarm.telemetry import RAFT_SNAPSHOT, timing

log = structlog.get_logger(__name__)

_NAME = re.compile(r"[0-9a-f]{16}-([0-9a-f]{16})\.snap")
_BROKEN = ".broken"

Capture = Callable[[], Callable[[], tuple[raft_pb2.LogSnapshot, api.StoreSnapshot]]]
"""Takes a view of the present state; the function it returns makes the messages, without `start`, in any thread. They stay apart because
putting one into the other would copy it in one long step."""


class SnapshotFiles:
    """The directory of snapshots. Blocking."""

    def __init__(self, disk: Disk, vault: Vault) -> None:
        self._disk = disk
        self._vault = vault
        self.damaged: dict[str, CorruptJournal] = {}
        """What `find` passed over, and why."""

    def names(self) -> list[str]:
        """The snapshots, newest first."""
        found = [n for n in self._disk.names() if _NAME.fullmatch(n)]
        return sorted(found, key=_index_of, reverse=True)

    def load(self) -> raft_pb2.LogSnapshot | None:
        """The newest usable snapshot; damaged ones are renamed `*.broken`. Raises WrongKey, ForeignDirectory, StorageError."""
        found = self.find()
        self.set_aside()
        return found

    def find(self) -> raft_pb2.LogSnapshot | None:
        """The newest usable snapshot, changing nothing. Raises WrongKey, ForeignDirectory, StorageError."""
        self.damaged = {}
        for name in self.names():
            try:
                return self._read(name)
            except CorruptJournal as exc:
                self.damaged[name] = exc
        return None

    def set_aside(self) -> None:
        """Rename what `find` passed over to `*.broken`: it turned out not to be needed."""
        for name, exc in self.damaged.items():
            log.error("a raft snapshot is damaged and set aside", file=name, reason=str(exc))
            self._disk.rename(name, name + _BROKEN)
        self.damaged = {}

    def oldest(self) -> int:
        """Index of the oldest snapshot kept, 0 without any."""
        names = self.names()
        return _index_of(names[-1]) if names else 0

    def write(self, snapshot: raft_pb2.LogSnapshot, keep_old: int, store: api.StoreSnapshot | None = None) -> None:
        """Store a snapshot durably, then delete all but it and the `keep_old` before it. Raises OSError; then nothing was deleted.

        `store`: the state, if it is not in the snapshot already. The file holds the parts as a record each, and an empty one at the end.
        """
        last = snapshot.start.last
        header, cipher = self._vault.new_file()
        content = [records.encode(Kind.IDENTITY, 1, 1, 0, 0, header)]
        whole = parts.split(snapshot, store) if store is not None else parts.split(*parts.apart(snapshot))
        for number, part in enumerate(itertools.chain(whole, (b"",)), 2):
            sealed = cipher.seal(part, records.context(Kind.PART, number, last.index, last.term))
            content.append(records.encode(Kind.PART, number, 1, last.index, last.term, sealed))
        name = f"{last.term:016x}-{last.index:016x}.snap"
        self._disk.create(name, b"".join(content))
        for old in self.names()[1 + keep_old :]:
            self._disk.remove(old)

    def remove_before(self, index: int) -> None:
        """Delete all snapshots that are older, and those set aside as damaged. Raises OSError."""
        for name in self._disk.names():
            if name.endswith(_BROKEN) or (_NAME.fullmatch(name) and _index_of(name) < index):
                self._disk.remove(name)

    def _read(self, name: str) -> raft_pb2.LogSnapshot:
        file = str(self._disk.path / name)
        found, damage = records.scan(self._disk.read(name), 1)
        kinds = [r.kind for r in found]
        if damage is not None or kinds not in ([Kind.IDENTITY, Kind.SNAPSHOT], [Kind.IDENTITY] + [Kind.PART] * (len(found) - 1)):
            raise CorruptJournal(file, damage.offset if damage else 0, damage.what if damage else "it does not hold a snapshot")
        cipher = self._vault.open_file(found[0].payload, file)
        snapshot, plain = raft_pb2.LogSnapshot(), b"nothing"
        try:
            for record in found[1:]:
                plain = cipher.open(record.payload, records.context(record.kind, record.number, record.index, record.term))
                snapshot.MergeFromString(plain)
        except (InvalidTag, DecodeError):
            raise CorruptJournal(file, found[0].end, "its content was changed") from None
        if kinds[-1] != Kind.SNAPSHOT and plain:
            raise CorruptJournal(file, found[-1].end, "its end is missing")
        if snapshot.snapshot.version != api.Snapshot.V0:
            raise StorageError(f"raft snapshot {file}: unrecognized snapshot version {snapshot.snapshot.version}")
        return snapshot


class State(enum.IntEnum):
    """PySyncObj's SERIALIZER_STATE, by value."""

    IDLE = 0
    WORKING = 1
    SUCCESS = 2
    FAILED = 3


class SnapshotStore:
    """What PySyncObj calls its serializer: starts a snapshot, says when it is done. Loop thread only, except the job it hands out."""

    def __init__(self, files: SnapshotFiles, capture: Capture, keep_old: Callable[[], int]) -> None:
        self._files = files
        self._capture = capture
        self._keep_old = keep_old
        self._state = State.IDLE
        self._id: int | None = None
        self._job: Callable[[], None] | None = None
        self._writing = 0
        self._oldest = 0
        self._finished: int | None = None
        self.index = 0
        """Index of the newest snapshot on disk."""

    # --- what PySyncObj calls

    def serialize(self, data: tuple[object, Entry, Entry, object], id: int) -> None:  # noqa: A002 - PySyncObj's name
        """Begin a snapshot of the present state, which is that after entry `data[1]`."""
        last, prev = data[1], data[2]
        build = self._capture()
        keep_old = self._keep_old()

        def job() -> None:
            start = raft_pb2.LogStart(
                prev=raft_pb2.LogEntry(command=prev[0], index=prev[1], term=prev[2]),
                last=raft_pb2.LogEntry(command=last[0], index=last[1], term=last[2]),
            )
            with timing(RAFT_SNAPSHOT):
                head, store = build()
                head.start.CopyFrom(start)
                self._files.write(head, keep_old, store)
            self._oldest = self._files.oldest()

        self._state, self._id, self._job, self._writing = State.WORKING, id, job, last[1]

    def checkSerializing(self) -> tuple[int, int | None]:  # noqa: N802 - PySyncObj's name
        """State and id; success and failure are told once."""
        state = self._state
        if state is State.SUCCESS:
            self._finished = self._oldest
        if state in {State.SUCCESS, State.FAILED}:
            self._state = State.IDLE
        return state, self._id

    # --- what the node calls

    @property
    def busy(self) -> bool:
        """Whether a snapshot is being taken, or its end not yet noticed."""
        return self._state is not State.IDLE

    @property
    def begun(self) -> int:
        """Index of the newest snapshot on disk or on its way there."""
        return max(self.index, self._writing)

    def take_job(self) -> Callable[[], None] | None:
        """The blocking work of a snapshot that was just begun; call it in a thread, then `finish`."""
        job, self._job = self._job, None
        return job

    def take_finished(self) -> int | None:
        """Once after each snapshot whose end PySyncObj has noticed: the index of the oldest snapshot still kept."""
        finished, self._finished = self._finished, None
        return finished

    def finish(self, error: Exception | None) -> None:
        """Say how the job went."""
        if error is None:
            self.index = max(self.index, self._writing)
            self._state = State.SUCCESS
        else:
            log.error("snapshot failed, will be tried again", error=str(error), index=self._writing)
            self._state = State.FAILED


def _index_of(name: str) -> int:
    match = _NAME.fullmatch(name)
    return int(match.group(1), 16) if match else 0
