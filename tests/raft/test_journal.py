"""The journal: durable when it says so, whole after any crash, loud about everything else."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from pyswarm.api.private import raft_pb2
from pyswarm.raft import records
from pyswarm.raft import segments as journal_module
from pyswarm.raft.disk import DirectoryDisk
from pyswarm.raft.errors import CorruptJournal, ForeignDirectory, JournalFailed, StorageError, WrongKey
from pyswarm.raft.journal import Entry, Journal
from pyswarm.raft.vault import Cipher, Vault
from tests.raft.disks import MemoryDisk, PowerCut

KEY = b"k" * 32
OTHER_KEY = b"o" * 32
State = tuple[list[Entry], int, str | None]


def vault(key: bytes = KEY, cluster: str = "cluster", node: str = "node", raft_id: int = 7) -> Vault:
    """The keys and names of the manager under test."""
    return Vault(cluster, node, (key,), raft_id)


def reopen(disk: MemoryDisk, *keys: bytes) -> Journal:
    """The journal as the next process finds it."""
    journal = Journal.open_existing(disk, Vault("cluster", "node", keys or (KEY,)))
    assert journal is not None
    return journal


def filled(count: int = 5, disk: MemoryDisk | None = None) -> tuple[MemoryDisk, Journal]:
    """A journal with entries 1 … count, each synced on its own."""
    disk = disk or MemoryDisk()
    journal = Journal.create(disk, vault())
    for index in range(2, count + 1):
        journal.add(b"d%d" % index, index, 1)
        journal.sync()
    return disk, journal


def state(journal: Journal) -> State:
    """Everything that must survive."""
    return journal[:], journal.getCurrentTerm(), journal.getVotedForNodeId()


def start(journal: Journal, index: int) -> raft_pb2.LogStart:
    """The beginning of a snapshot that ends with the journal's entry `index`."""
    prev, last = journal.at(index - 1), journal.at(index)
    assert prev is not None
    assert last is not None
    return raft_pb2.LogStart(
        prev=raft_pb2.LogEntry(command=prev[0], index=prev[1], term=prev[2]),
        last=raft_pb2.LogEntry(command=last[0], index=last[1], term=last[2]),
    )


def only_file(disk: MemoryDisk) -> str:
    """The one segment."""
    (name,) = disk.durable
    return name


def test_reopening_finds_entries_term_and_vote() -> None:
    """What was synced is there again, in the list form that PySyncObj reads. [store 104]"""
    disk, journal = filled(5)
    journal.setCurrentTerm(3, "9")
    journal.setRaftCommitIndex(4)
    journal.close()
    again = reopen(disk)
    assert state(again) == state(journal)
    assert len(again) == 5
    assert again[0] == (b"\x01", 1, 0)
    assert again[-1] == (b"d5", 5, 1)
    assert again[1:3] == [(b"d2", 2, 1), (b"d3", 3, 1)]
    assert again.getRaftCommitIndex() == 4
    assert again.identity == journal.identity


def test_an_empty_directory_holds_no_journal() -> None:
    """No segment means a new member, not an error."""
    assert Journal.open_existing(MemoryDisk(), vault()) is None


def test_term_and_vote_are_durable_when_set() -> None:
    """A vote may be sent as soon as setCurrentTerm returns: power may go right then. [store 125]"""
    disk, journal = filled(2)
    journal.setCurrentTerm(8, "3")
    again = reopen(disk.after_crash())
    assert (again.getCurrentTerm(), again.getVotedForNodeId()) == (8, "3")


def test_unsynced_entries_are_not_claimed_durable() -> None:
    """`durable_index` follows sync, not add, and falls with a truncation."""
    _, journal = filled(3)
    journal.add(b"x", 4, 1)
    assert (journal.durable_index, journal.dirty) == (3, True)
    journal.sync()
    assert (journal.durable_index, journal.dirty) == (4, False)
    journal.deleteEntriesFrom(1)
    assert journal.durable_index == 1


def test_one_sync_serves_many_entries() -> None:
    """Entries added together cost one write and one sync."""
    disk, journal = filled(2)
    before = disk.calls
    for index in range(3, 103):
        journal.add(b"x", index, 1)
    journal.sync()
    journal.sync()
    assert disk.calls - before == 2


def test_truncation_survives_and_later_entries_replace() -> None:
    """deleteEntriesFrom takes a list position; the new tail is what is found again."""
    disk, journal = filled(6)
    journal.deleteEntriesFrom(3)
    journal.add(b"new", 4, 2)
    journal.sync()
    assert reopen(disk)[:] == [*filled(3)[1][:], (b"new", 4, 2)]


def test_commit_hint_never_points_beyond_the_log() -> None:
    """A commit index that outlived its entries is cut to the log's end."""
    disk, journal = filled(3)
    journal.setRaftCommitIndex(900)
    journal.close()
    assert reopen(disk).getRaftCommitIndex() == 3


def test_payloads_are_not_readable_on_disk() -> None:
    """Commands and votes are encrypted at rest; the headers name the owner in clear."""
    disk, journal = filled(2)
    journal.add(b"a very secret value", 3, 1)
    journal.setCurrentTerm(2, "vote-for-me")
    content = disk.durable[only_file(disk)]
    assert b"secret" not in content
    assert b"vote-for-me" not in content
    assert b"cluster" in content


def test_every_file_has_its_own_key() -> None:
    """Two journals under one data key share no record bytes that open with each other's header."""
    one, two = filled(2)[0], filled(2)[0]
    a, b = one.durable[only_file(one)], two.durable[only_file(two)]
    head = records.scan(a, 1)[0][0].end
    mixed = MemoryDisk({only_file(one): a[:head] + b[records.scan(b, 1)[0][0].end :]})
    with pytest.raises(CorruptJournal, match="changed or moved"):
        Journal.open_existing(mixed, vault())


def test_wrong_key_is_named_as_such() -> None:
    """Opening with another data key says so, and is not taken for damage. [store 104]"""
    disk, _ = filled(3)
    with pytest.raises(WrongKey, match="data key"):
        Journal.open_existing(disk, vault(key=b"other-key-other-key-other-key-32"))


def test_older_keys_open_older_files() -> None:
    """With a new key in front, the old one still reads what it wrote."""
    disk, journal = filled(3)
    again = Journal.open_existing(disk, Vault("cluster", "node", (b"n" * 32, KEY)))
    assert again is not None
    assert again[:] == journal[:]


def test_after_a_change_of_keys_old_segments_can_go() -> None:
    """A new key begins a new segment with the last entry; without what was before, it opens with that key alone. [store 104]"""
    disk, journal = filled(5)
    disk.durable["0000000000000001-0000000000000001.wal.torn"] = b"cut off"
    journal.keys.rekey(OTHER_KEY)
    journal.rekey()
    journal.add(b"new", 6, 1)
    journal.sync()
    for key in (KEY, OTHER_KEY):
        with pytest.raises(WrongKey):
            reopen(disk, key)
    both = reopen(disk, OTHER_KEY, KEY)
    assert both[:] == journal[:]
    assert both.keys.outdated
    journal.segments.release_older_keys()
    journal.sync()
    alone = reopen(disk, OTHER_KEY)
    assert alone[:] == journal[4:]
    assert not alone.keys.outdated
    assert only_file(disk)


def test_a_tail_from_before_a_change_of_keys_may_still_be_replaced() -> None:
    """Entries that a new leader overrules, also ones below the new segment's first, are replaced in it."""
    disk, journal = filled(6)
    journal.keys.rekey(OTHER_KEY)
    journal.rekey()
    journal.deleteEntriesFrom(2)
    for index in range(3, 8):
        journal.add(b"ruled", index, 2)
    journal.sync()
    assert reopen(disk, OTHER_KEY, KEY)[:] == journal[:]
    journal.segments.release_older_keys()
    journal.sync()
    assert reopen(disk, OTHER_KEY)[:] == journal[2:]


@pytest.mark.parametrize(("cluster", "node", "word"), [("other", "node", "cluster"), ("cluster", "other", "node")])
def test_a_foreign_directory_is_refused(cluster: str, node: str, word: str) -> None:
    """The directory of another cluster or node is named, not read."""
    disk, _ = filled(3)
    with pytest.raises(ForeignDirectory, match=f"belongs to {word}"):
        Journal.open_existing(disk, vault(cluster=cluster, node=node, raft_id=0))


def test_a_newer_format_is_refused() -> None:
    """A file of a later format asks for the later program."""
    disk, _ = filled(2)
    name = only_file(disk)
    data = disk.durable[name]
    found = records.scan(data, 1)[0]
    outer = raft_pb2.SealedHeader.FromString(found[0].payload)
    header = raft_pb2.FileHeader.FromString(outer.header)
    header.format = 99
    outer.header = header.SerializeToString()
    changed = records.encode(records.Kind.IDENTITY, 1, 1, 0, 0, outer.SerializeToString()) + data[found[0].end :]
    with pytest.raises(StorageError, match="format 99"):
        Journal.open_existing(MemoryDisk({name: changed}), vault())


def test_a_torn_tail_is_cut_at_every_length() -> None:
    """However much of the last record arrived, all before it is there, the rest is cut, and writing goes on. [store 107]"""
    disk, journal = filled(4)
    name = only_file(disk)
    data = disk.durable[name]
    last_start = records.scan(data, 1)[0][-2].end
    for size in range(last_start + 1, len(data)):
        torn = MemoryDisk({name: data[:size]})
        again = reopen(torn)
        assert again[:] == journal[:3]
        assert torn.durable[name] == data[:last_start]
        assert torn.durable[name + ".torn"] == data[last_start:size]
        again.add(b"next", 4, 2)
        again.sync()
        assert reopen(torn)[-1] == (b"next", 4, 2)


def test_pages_that_never_arrived_are_cut() -> None:
    """A last batch whose middle is zeros, as after a power cut, is cut from there; its later records were never acknowledged."""
    disk, journal = filled(3)
    name = only_file(disk)
    size = len(disk.durable[name])
    for index in range(4, 40):
        journal.add(bytes([index]) * 100, index, 1)
    journal.sync()
    data = bytearray(disk.durable[name])
    hole = (size // 512 + 2) * 512
    data[hole : hole + 512] = bytes(512)
    again = reopen(MemoryDisk({name: bytes(data)}))
    assert again[:3] == journal[:3]
    assert again[:] == journal[: len(again)]


@pytest.mark.parametrize("bit", [0, 7])
def test_any_changed_byte_is_noticed(bit: int) -> None:
    """A flipped bit anywhere is fatal and names file and remedy; it is never read as data, and changes nothing. [store 107]"""
    disk, journal = filled(4)
    name = only_file(disk)
    data = disk.durable[name]
    last_start = records.scan(data, 1)[0][-2].end
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 1 << bit
        broken = MemoryDisk({name: bytes(damaged)})
        if position >= last_start and records.scan(bytes(damaged), 1)[1].torn:  # type: ignore[union-attr]
            assert reopen(broken)[:] == journal[:3], "a length field that grew looks like a torn record"
            continue
        with pytest.raises(CorruptJournal, match="join again") as caught:
            reopen(broken)
        assert name in str(caught.value)
        assert broken.durable == {name: bytes(damaged)}


def test_damage_before_acknowledged_records_is_fatal() -> None:
    """Zeros in the middle are no torn tail when later batches prove that they had been synced."""
    disk, _ = filled(40)
    name = only_file(disk)
    data = bytearray(disk.durable[name])
    data[1024:1536] = bytes(512)
    with pytest.raises(CorruptJournal, match="after it was safe"):
        reopen(MemoryDisk({name: bytes(data)}))


def test_missing_segment_is_fatal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hole in the numbering of segments is said, not skipped."""
    monkeypatch.setattr(journal_module, "SEGMENT_BYTES", 1)
    disk, _ = filled(5)
    names = sorted(disk.durable)
    assert len(names) > 3
    del disk.durable[names[1]]
    with pytest.raises(CorruptJournal, match="is missing"):
        reopen(disk)


def test_a_torn_segment_that_is_not_the_last_is_fatal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the newest file can have been interrupted."""
    monkeypatch.setattr(journal_module, "SEGMENT_BYTES", 1)
    disk, _ = filled(5)
    names = sorted(disk.durable)
    disk.durable[names[1]] = disk.durable[names[1]][:-3]
    with pytest.raises(CorruptJournal):
        reopen(disk)


def test_segments_roll_and_old_ones_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a snapshot whole segments before it are deleted; what is needed stays readable. [store 103]"""
    monkeypatch.setattr(journal_module, "SEGMENT_BYTES", 600)
    disk, journal = filled(40)
    before = len(disk.durable)
    origin = start(journal, 30)
    journal.deleteEntriesTo(28)
    journal.release(29)
    journal.sync()
    assert len(disk.durable) < before / 2
    again = reopen(disk)
    again.view_from(origin)
    assert again[:] == journal[:]
    assert again[0][1] == 29


def test_spare_entries_stay_for_slow_followers() -> None:
    """deleteEntriesTo keeps the configured number more than asked for. [store 101]"""
    _, journal = filled(20)
    journal.spare_entries = 5
    journal.deleteEntriesTo(14)
    assert journal[0][1] == 10
    journal.spare_entries = 100
    journal.deleteEntriesTo(8)
    assert journal[0][1] == 10


def test_view_starts_at_the_snapshot_until_revealed() -> None:
    """Entries before the snapshot are hidden while PySyncObj loads it, then serve slow followers."""
    disk, journal = filled(20)
    origin = start(journal, 12)
    again = reopen(disk)
    again.spare_entries = 4
    again.view_from(origin)
    assert (again[0][1], again[1][1], again[-1][1], len(again)) == (11, 12, 20, 10)
    assert [e[1] for e in again[:2]] == [11, 12]
    again.reveal()
    assert (again[0][1], again[-1][1]) == (7, 20)


def test_a_snapshot_ahead_of_the_log_replaces_it() -> None:
    """After a crash between a received snapshot's file and its record in the log, the log restarts from the snapshot, durably."""
    disk, _ = filled(3)
    ahead = raft_pb2.LogStart(
        prev=raft_pb2.LogEntry(command=b"p", index=50, term=2), last=raft_pb2.LogEntry(command=b"l", index=51, term=2)
    )
    again = reopen(disk)
    again.view_from(ahead)
    again.sync()
    assert again[:] == [(b"p", 50, 2), (b"l", 51, 2)]
    assert reopen(disk)[:] == again[:]


def test_entries_after_the_snapshot_survive_an_untrimmed_log() -> None:
    """A crash between snapshot and trimming loses nothing. [store 124]"""
    disk, journal = filled(20)
    again = reopen(disk)
    again.view_from(start(journal, 10))
    assert again[-1] == (b"d20", 20, 1)


def test_a_gap_between_snapshot_and_log_is_fatal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Falling back to a snapshot older than the log's beginning is refused instead of starting with a hole."""
    monkeypatch.setattr(journal_module, "SEGMENT_BYTES", 600)
    disk, journal = filled(40)
    old = start(journal, 5)
    journal.deleteEntriesTo(28)
    journal.release(29)
    journal.sync()
    with pytest.raises(CorruptJournal, match="begins with entry"):
        reopen(disk).view_from(old)


def test_installing_a_snapshot_is_one_record() -> None:
    """`restart` replaces all entries at once; before its sync the old log is found, after it the new one."""
    disk, journal = filled(5)
    old = journal[:]
    journal.restart((b"p", 90, 4), (b"l", 91, 4))
    assert reopen(disk.after_crash())[:] == old
    journal.sync()
    assert reopen(disk.after_crash())[:] == [(b"p", 90, 4), (b"l", 91, 4)]


def test_clear_is_refused() -> None:
    """The library's two-step clearing would not be atomic."""
    with pytest.raises(RuntimeError):
        filled(3)[1].clear()


def test_a_full_disk_is_final() -> None:
    """After one failed write nothing is accepted, and what was synced is found again. [store 126]"""
    disk, journal = filled(3)
    disk.full_at = disk.calls + 2
    journal.add(b"x", 4, 1)
    with pytest.raises(JournalFailed, match="No space left"):
        journal.sync()
    disk.full_at = 0
    for attempt in (lambda: journal.add(b"y", 5, 1), journal.sync, lambda: journal.setCurrentTerm(9, None)):
        with pytest.raises(JournalFailed):
            attempt()
    journal.close()
    assert journal.durable_index == 3
    assert reopen(disk.after_crash())[:] == filled(3)[1][:]


def test_entries_that_cannot_be_sealed(monkeypatch: pytest.MonkeyPatch) -> None:
    """When encrypting the third of five fails, none of the five is on disk, and nothing is written after. [store 106]"""
    disk, journal = filled(3)
    seal, sealed = Cipher.seal, 0

    def fail_at_third(cipher: Cipher, plain: bytes, context: bytes) -> bytes:
        nonlocal sealed
        sealed += 1
        if sealed == 3:
            raise MemoryError
        return seal(cipher, plain, context)

    with monkeypatch.context() as patch:
        patch.setattr(Cipher, "seal", fail_at_third)
        for index in range(4, 9):
            journal.add(b"x", index, 1)
        with pytest.raises(MemoryError):
            journal.sync()
    journal.setRaftCommitIndex(3)
    journal.close()
    assert reopen(disk)[:] == filled(3)[1][:]


def test_founding_may_be_interrupted() -> None:
    """A power cut while the first file is made leaves no journal at all."""
    disk = MemoryDisk()
    disk.die_at = 1
    with pytest.raises(PowerCut):
        Journal.create(disk, vault())
    assert Journal.open_existing(disk.after_crash(), vault()) is None


Step = Callable[[Journal], None]


def script(seed: int) -> list[Step]:
    """A random life: appends, truncations, terms, snapshots installed, trims, keys changed, syncs."""
    chance = random.Random(seed)
    last_old = 0

    def append(journal: Journal) -> None:
        for _ in range(chance.randint(1, 4)):
            journal.add(chance.randbytes(chance.randint(1, 200)), journal.last[1] + 1, journal.getCurrentTerm())

    def truncate(journal: Journal) -> None:
        if len(journal) > 3:
            journal.deleteEntriesFrom(chance.randint(2, len(journal) - 1))

    def term(journal: Journal) -> None:
        journal.setCurrentTerm(journal.getCurrentTerm() + 1, str(chance.randint(1, 5)))

    def install(journal: Journal) -> None:
        at = journal.last[1] + 10
        journal.restart((b"p", at, 1), (b"l", at + 1, 1))

    def trim(journal: Journal) -> None:
        if len(journal) > 8:
            journal.deleteEntriesTo(3)
            journal.release(journal[0][1])

    def rekey(journal: Journal) -> None:
        nonlocal last_old
        journal.keys.rekey(OTHER_KEY)
        journal.rekey()
        last_old = journal.last_index

    def release(journal: Journal) -> None:
        if last_old and not journal.dirty and journal.last_index >= last_old:
            journal.deleteEntriesTo(len(journal) - 1)
            journal.segments.release_older_keys()

    choices: list[Step] = [append, append, append, truncate, term, install, trim, rekey, release, Journal.sync, Journal.sync]
    return [chance.choice(choices) for _ in range(40)]


@pytest.mark.parametrize("seed", range(6))
def test_power_may_go_at_every_write(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever power goes: a state between the last acknowledged and the last requested is found, never a mixture. [store 125]"""
    monkeypatch.setattr(journal_module, "SEGMENT_BYTES", 1500)
    monkeypatch.setattr(journal_module, "SPARE_SEGMENT_BYTES", 300)
    for die_at in itertools.count(2):
        disk = MemoryDisk()
        disk.die_at = die_at
        journal = Journal.create(disk, vault())
        history = [state(journal)]
        safe = 0
        died = False
        for step in script(seed):
            first_kept = journal[0][1]
            try:
                if step is Journal.sync:
                    journal.sync()
                else:
                    _record(journal, history, step)
            except PowerCut:
                died = True
            if died:
                history.append(state(journal))
                break
            if not journal.dirty:
                safe = len(history) - 1
        if not died:
            return
        for keep, holes in itertools.product((0, 1, 47, 60, 300, 600, 10**6), (False, True)):
            found = reopen(disk.after_crash(keep, holes), KEY, OTHER_KEY)
            allowed = [_tail(s, first_kept) for s in history[safe:]]
            assert _tail(state(found), first_kept) in allowed, f"power cut at write {die_at}, kept {keep}, holes {holes}"


def _record(journal: Journal, history: list[State], step: Step) -> None:
    """Run a step, noting the state after each single change, because a crash may fall between any two."""
    plain_add = journal.add

    def add(command: bytes, idx: int, term: int) -> None:
        plain_add(command, idx, term)
        history.append(state(journal))

    journal.add = add  # type: ignore[method-assign]
    try:
        step(journal)
    finally:
        journal.add = plain_add  # type: ignore[method-assign]
    history.append(state(journal))


def _tail(whole: State, first: int) -> State:
    """Without entries that may or may not have been trimmed."""
    return [e for e in whole[0] if e[1] >= first], whole[1], whole[2]


def test_a_real_directory_keeps_its_modes(tmp_path: Path) -> None:
    """Directory 0700, files 0600, content as in memory."""
    disk = DirectoryDisk(tmp_path / "wal")
    journal = Journal.create(disk, vault())
    journal.add(b"x", 2, 1)
    journal.sync()
    journal.close()
    assert (tmp_path / "wal").stat().st_mode & 0o777 == 0o700
    assert {p.stat().st_mode & 0o777 for p in (tmp_path / "wal").iterdir()} == {0o600}
    (tmp_path / "wal" / ".tmp-left-over").write_bytes(b"half")
    again = Journal.open_existing(DirectoryDisk(tmp_path / "wal"), vault())
    assert again is not None
    assert again[:] == journal[:]
    assert not (tmp_path / "wal" / ".tmp-left-over").exists()
    again.close()
