"""Replacing the data key of a manager's log: what is written in which order, and that power may go at any moment of it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pyswarm.api import v1 as api
from pyswarm.ca.dek import DataKeys
from pyswarm.ca.keystore import KeyStore
from pyswarm.ca.root import RootCA
from pyswarm.ca.unlock import KEK
from pyswarm.manager import datakeys
from pyswarm.manager.datakeys import DataKeyChange, data_keys
from pyswarm.raft import segments
from pyswarm.raft.errors import RaftFailure, WrongKey
from pyswarm.raft.log import ProposalError
from pyswarm.raft.node import RaftNode
from tests.ca import pki
from tests.ca.cluster import running as running_component
from tests.raft.disks import MemoryDisk, PowerCut
from tests.raft.nodes import Memory, Recorder, create, new_node, running
from tests.support.clock import VirtualClock, settle

FIRST = b"1" * 32
CONFIG = api.RaftConfig(keep_old_snapshots=3, log_entries_for_slow_followers=100)
WANTED = DataKeys(FIRST, needs_rotation=True)


class Power:
    """Once `cut_after` said so, every step that changes a disk counts; the last one and all after it have no effect."""

    def __init__(self) -> None:
        self.left: int | None = None

    def cut_after(self, steps: int) -> None:
        """Let so many steps happen."""
        self.left = steps

    @property
    def gone(self) -> bool:
        """Whether a step was in vain."""
        return self.left is not None and self.left < 0

    def step(self) -> None:
        """Something is about to change. Raises PowerCut."""
        if self.left is not None:
            self.left -= 1
        if self.gone:
            raise PowerCut


class PoweredDisk(MemoryDisk):
    """A directory that shares its power with others."""

    def __init__(self, power: Power, files: dict[str, bytes] | None = None) -> None:
        super().__init__(files)
        self.power = power

    def _step(self) -> None:
        self.power.step()
        super()._step()


class Headers:
    """The key file as far as data keys are concerned."""

    def __init__(self, keys: DataKeys | None, power: Power | None = None) -> None:
        self.keys = keys
        self.power = power or Power()
        self.written: list[DataKeys | None] = []
        self.full = False

    def update_data_keys(self, change: Callable[[DataKeys | None], DataKeys | None]) -> DataKeys | None:
        """See KeyFile."""
        wanted = change(self.keys)
        if wanted != self.keys:
            if self.full:
                raise OSError(errno.ENOSPC, "No space left on device")
            self.power.step()
            self.keys = wanted
            self.written.append(wanted)
        return wanted

    def want(self) -> None:
        """Ask for another key, as locking does."""
        assert self.keys is not None
        self.keys = replace(self.keys, needs_rotation=True)


class Rekeyed:
    """A log that only remembers under which keys it was put. Changes wait for `gate`."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None

    async def rekey(self, key: bytes) -> None:
        """See RaftNode."""
        self.asked.append(key)
        await self.gate.wait()
        if self.error is not None:
            raise self.error


async def until(condition: Callable[[], bool]) -> None:
    """Wait for threads and for the loop."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - thread and loop have no event in common
            await asyncio.sleep(0.001)
    await settle()


def test_a_first_key() -> None:
    """Made once, and kept. [ca 113; store 11]"""
    headers = Headers(None)
    made = data_keys(headers)
    assert headers.keys == made
    assert len(made.current) == 32
    assert not made.pending
    assert data_keys(headers) == made
    assert len(headers.written) == 1


async def test_order_of_writes() -> None:
    """The new key is in the file before the log is put under it, and replaces the old one after. [ca 114, 115; store 12, 13]"""
    headers, log = Headers(WANTED), Rekeyed()
    log.gate.clear()
    async with running_component(DataKeyChange(headers, log.rekey, VirtualClock()).run()):
        await until(lambda: bool(log.asked))
        (new,) = log.asked
        assert headers.written == [DataKeys(FIRST, pending=new)]
        log.gate.set()
        await until(lambda: len(headers.written) == 2)
        assert headers.keys == DataKeys(new)
        assert log.asked == [new]


async def test_nothing_wanted() -> None:
    """Without the wish nothing is written; with it, it is seen when told. A manager without keys has nothing to do. [store 111]"""
    headers, log = Headers(DataKeys(FIRST)), Rekeyed()
    change = DataKeyChange(headers, log.rekey, VirtualClock())
    async with running_component(change.run()):
        change.look()
        await settle()
        headers.want()
        change.look()
        await until(lambda: len(headers.written) == 2)
        assert len(log.asked) == 1
        headers.keys = None
        change.look()
        await settle()
    assert headers.keys is None


async def test_wishes_during_a_change() -> None:
    """However many there are, exactly one more change follows, with another key. [store 113]"""
    headers, log = Headers(WANTED), Rekeyed()
    log.gate.clear()
    change = DataKeyChange(headers, log.rekey, VirtualClock())
    async with running_component(change.run()):
        await until(lambda: len(log.asked) == 1)
        for _ in range(5):
            headers.want()
            change.look()
        log.gate.set()
        await until(lambda: headers.keys == DataKeys(log.asked[-1]) and len(log.asked) == 2)
        change.look()
        await until(lambda: len(log.asked) == 2)
    assert len(set(log.asked)) == 2


async def test_a_file_that_cannot_be_written() -> None:
    """Before: the old key stays in use and it is tried again. After: what the log did is not undone, only the note is. [store 12, 111]"""
    headers, log, clock = Headers(WANTED), Rekeyed(), VirtualClock()
    headers.full = True
    async with running_component(DataKeyChange(headers, log.rekey, clock).run()):
        await until(lambda: bool(clock.sleeping))
        assert (headers.keys, log.asked) == (WANTED, [])
        headers.full = False
        log.gate.clear()
        await clock.advance(datakeys.RETRY_SECONDS)
        await until(lambda: len(log.asked) == 1)
        headers.full = True
        log.gate.set()
        await until(lambda: bool(clock.sleeping))
        (new,) = log.asked
        assert headers.keys == DataKeys(FIRST, pending=new)
        headers.full = False
        await clock.advance(datakeys.RETRY_SECONDS)
        await until(lambda: headers.keys == DataKeys(new))
    assert log.asked == [new, new]


async def test_a_log_that_refuses() -> None:
    """The change stays open and is tried again."""
    headers, log, clock = Headers(WANTED), Rekeyed(), VirtualClock()
    log.error = ProposalError("not now")
    async with running_component(DataKeyChange(headers, log.rekey, clock).run()):
        await until(lambda: bool(clock.sleeping))
        log.error = None
        await clock.advance(datakeys.RETRY_SECONDS)
        await until(lambda: headers.keys == DataKeys(log.asked[0]))


async def test_locking_replaces_the_key_of_a_real_file(tmp_path: Path) -> None:
    """From plain to locked: the file ends with one new key, encrypted, and no wish. [ca 118; store 13]"""
    store = KeyStore(tmp_path)
    now = VirtualClock().now()
    pair = pki.issue(RootCA.create(now=now), now=now)
    store.write(pair.cert_pem, pair.key_pem)
    first = data_keys(store)
    log = Rekeyed()
    change = DataKeyChange(store, log.rekey, VirtualClock())
    async with running_component(change.run()):
        assert store.rotate_kek(KEK(b"k" * 32, 5)).locked
        change.look()
        await until(lambda: store.data_keys() not in {first, replace(first, needs_rotation=True)} and not store.data_keys().pending)  # type: ignore[union-attr]
    again = KeyStore(tmp_path, b"k" * 32)
    again.read()
    assert again.data_keys() == DataKeys(log.asked[0])
    assert set(again.headers()) == {"raft-dek"}


def manager(memory: Memory, headers: Headers, machine: Recorder) -> RaftNode:
    """A node with the keys of the file, as a manager starts it."""
    keys = data_keys(headers)
    return new_node(
        memory,
        machine,
        CONFIG,
        data_key=keys.pending or keys.current,
        old_keys=[keys.current] if keys.pending else [],
    )


class World:
    """What survives, and what was acknowledged."""

    def __init__(self, memory: Memory, keys: DataKeys, acknowledged: list[str]) -> None:
        self.power = Power()
        self.log = PoweredDisk(self.power, memory.memory_log.durable)
        self.snapshots = PoweredDisk(self.power, memory.memory_snapshots.durable)
        self.headers = Headers(keys, self.power)
        self.acknowledged = list(acknowledged)

    @property
    def changed(self) -> bool:
        """Whether the change is over."""
        keys = self.headers.keys
        return keys is not None and keys.current != FIRST and keys == DataKeys(keys.current)

    async def live(self, steps: int | None) -> None:
        """Change the key under writes, until that is done, or for so many steps. Everything acknowledged must be there at the start."""
        machine = Recorder()
        node = manager(Memory(self.log, self.snapshots), self.headers, machine)
        with contextlib.suppress(RaftFailure, ProposalError, PowerCut):
            async with running(node), asyncio.timeout(10):
                assert set(self.acknowledged) <= set(machine.names)
                if steps is not None:
                    self.power.cut_after(steps)
                async with running_component(DataKeyChange(self.headers, node.rekey, VirtualClock()).run()):
                    while not self.power.gone and not self.changed:
                        await node.propose(create(name := f"n{len(self.acknowledged)}"))
                        self.acknowledged.append(name)

    def after_crash(self) -> World:
        """What the next life finds."""
        assert self.headers.keys is not None
        return World(Memory(self.log.after_crash(), self.snapshots.after_crash()), self.headers.keys, self.acknowledged)


async def prepared() -> tuple[Memory, list[str]]:
    """A log under the first key, with snapshots."""
    memory, acknowledged = Memory(), [f"old{i}" for i in range(6)]
    async with running(
        new_node(
            memory,
            Recorder(),
            api.RaftConfig(snapshot_interval=2, keep_old_snapshots=3, log_entries_for_slow_followers=100),
            data_key=FIRST,
        )
    ) as node:
        for name in acknowledged:
            await node.propose(create(name))
            await asyncio.sleep(0.002)
        await until(lambda: len(memory.memory_snapshots.durable) > 1)
    return memory, acknowledged


@pytest.mark.timeout(120)
async def test_power_may_go_at_every_write_of_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the keys in the file the next life starts, has all that was acknowledged, and goes on; also when it is cut short itself.

    [store 109, 110]
    """
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 400)
    memory, acknowledged = await prepared()
    assert len(memory.memory_log.durable) > 3
    open_changes = 0
    for steps in itertools.count():
        first = World(memory, WANTED, acknowledged)
        await first.live(steps)
        if not first.power.gone:
            break
        for steps_of_second in (0, 3, 7):
            second = first.after_crash()
            assert second.headers.keys is not None
            open_changes += bool(second.headers.keys.pending)
            await second.live(steps_of_second)
            last = second.after_crash()
            await last.live(None)
            assert last.changed
            assert set(last.acknowledged) <= set(await names_of(last))
            with pytest.raises(WrongKey):
                await new_node(Memory(last.log, last.snapshots), Recorder(), data_key=FIRST).run()
    assert open_changes > 20, steps


async def names_of(world: World) -> list[str]:
    """What a start with only the present key finds."""
    assert world.headers.keys is not None
    machine = Recorder()
    async with running(new_node(Memory(world.log, world.snapshots), machine, CONFIG, data_key=world.headers.keys.current)):
        return machine.names
