"""The raft node of a manager: the door (`raft.log.Log`) that store and manager use, and the loop behind it."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import structlog

from pyswarm.api import v1 as api
from pyswarm.clock import Clock, give_way
from pyswarm.raft.council import Council
from pyswarm.raft.errors import StorageError
from pyswarm.raft.links import Connect
from pyswarm.raft.log import Joined, NodeStopped, StateMachine
from pyswarm.raft.network import Network, RaftTransportService
from pyswarm.raft.recovery import begin_anew
from pyswarm.raft.replica import Events, Job, RaftSettings, Replica
from pyswarm.raft.storage import Directories, Directory, Storage, found_storage, join_storage, open_storage
from pyswarm.raft.vault import Vault

__all__ = ["Joined", "RaftNode", "RaftSettings"]

TELL_SECONDS = 0.01
"""How long the others may be left without the news that an entry is committed. Writes that follow one another bring it with them, which
halves what is sent."""

STAND_DOWN_SECONDS = 0.5
"""How long a former leader puts off what the next one does, until its own duties have ended. They are cancelled by then, so it takes a
moment; if one of them does not let go, the log goes on nevertheless."""

R = TypeVar("R")
log = structlog.get_logger(__name__)


class RaftNode(Council):
    """One manager's member of the replicated log; implements `Log`.

    `directory` holds everything (`<state>/raft`); an empty one founds a cluster of one, or joins one with `join` (or `adopt`).
    `data_key` encrypts it, `old_keys` are also tried when reading: `rekey` gets rid of them. `config` is asked each time for the cluster's
    RaftConfig. `addr` is what others reach this manager at, and may be empty. With `force_new_cluster` it goes on as the only member of its
    cluster, with all it has; then an empty directory is an error. `connect` makes channels to other managers; without it there are none.
    `transport` is what others talk to and must be served before `run`. `open_directory` lets tests put something else in place of real
    files.
    Made and used on the event loop's thread; inert until `run`.
    """

    def __init__(
        self,
        *,
        node_id: str,
        cluster_id: str,
        directory: Path,
        machine: StateMachine,
        data_key: bytes,
        clock: Clock,
        settings: RaftSettings,
        config: Callable[[], api.RaftConfig],
        addr: str = "",
        old_keys: Sequence[bytes] = (),
        connect: Connect | None = None,
        join: Joined | None = None,
        force_new_cluster: bool = False,
        open_directory: Callable[[Path], Directories] = Directory,
    ) -> None:
        super().__init__(cluster_id, clock, connect)
        self._open_directory = open_directory
        self._vault = Vault(cluster_id, node_id, (data_key, *old_keys))
        self._path = directory
        self._machine = machine
        self._settings = settings
        self._config = config
        self._resident.addr = addr
        self._join = join
        self._force_new_cluster = force_new_cluster
        self.transport = RaftTransportService(cluster_id, self._resident)
        """The service `pyswarm.v1.RaftTransport` of this member."""
        self._followed: tuple[object, object] = (None, None)
        """Guests and contacts that links were made for. Both are replaced when they change, the contacts also when a member is removed."""
        self.duties_ended: Callable[[], Awaitable[object]] = _at_once
        """Awaited between a loss of leadership and the next entry that is applied: no duty of a leader may see another one's work."""
        self._failure: BaseException | None = None
        self._done: deque[tuple[Job, Any, Exception | None]] = deque()
        self._untold = asyncio.Event()
        self._started = asyncio.Event()
        self._member = asyncio.Event()

    # --- life

    def advertise(self, addr: str) -> None:
        """Be reachable at `addr`, which may be known only once a port is bound. While it leads, the members' table follows at once."""
        self._resident.addr = addr
        if self._resident.replica is not None:
            self._resident.replica.advertise(addr)
            self._wake.set()

    async def has_state(self) -> bool:
        """Whether there is a log on disk. Before `run`.

        From a False on, others are told that there is none, which a leader must know before it lets this manager in. Raises StorageError.
        """

        def look() -> bool:
            directory = self._open_directory(self._path)
            try:
                return bool(directory.log.names() or directory.snapshots.names())
            finally:
                directory.close()

        found = await _in(None, look)
        self._resident.empty = not found
        return found

    def adopt(self, joined: Joined) -> None:
        """Be the member that a leader has agreed to take in. Before `run`, without a log."""
        self._join = joined

    async def started(self) -> None:
        """Return when the state on disk is loaded and the node takes part. Raises what ended `run`, if it ended before."""
        await self._started.wait()
        if self._failure is not None:
            raise self._failure

    async def joined(self) -> None:
        """Return when this node is a member: its own addition is applied here. Raises what ended `run`, if it ended before."""
        await self._member.wait()
        if self._failure is not None:
            raise self._failure

    async def rekey(self, key: bytes) -> None:
        """Keep log and snapshots under `key` from now on; returns when nothing is left on disk under an older key. After `started`.

        Until then a next life needs all keys that were in use since. Writes go on meanwhile. When the caller is cancelled, the change takes
        its course. Raises NodeStopped.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._alive().rekey(key, done)
        self._wake.set()
        await done

    async def run(self) -> None:
        """Take part until cancelled. Once only.

        Raises RaftFailure when this manager's log cannot be used or trusted any more: wrong directory or key, damage, a failed write, an
        entry that cannot be applied. Everyone who waits for a proposal is told before.
        """
        with ThreadPoolExecutor(1, thread_name_prefix="raft-disk") as disk_thread:
            try:
                await self._run(disk_thread)
            except BaseException as exc:
                self._failure = NodeStopped() if isinstance(exc, asyncio.CancelledError) else exc
                raise
            finally:
                self._stopped = True
                self._started.set()
                self._member.set()

    async def _run(self, disk_thread: ThreadPoolExecutor) -> None:
        directory = await _in(disk_thread, lambda: self._open_directory(self._path))
        try:
            storage = await _in(disk_thread, lambda: self._load(directory))
            try:
                await self._serve(disk_thread, storage)
            finally:
                self._resident.replica, self._resident.empty = None, False
                self._resident.make_room()
                if self._replica is not None:
                    self._replica.stop()
                await _in(disk_thread, storage.journal.close)
        finally:
            directory.close()

    def _load(self, directory: Directories) -> Storage:
        """Open what is there, or found a cluster, or begin as one that joins. Blocking."""
        spare = self._config().log_entries_for_slow_followers
        storage = open_storage(directory.log, directory.snapshots, self._vault, spare)
        if self._force_new_cluster:
            if storage is None:
                raise StorageError(f"there is no log in {self._path} to make a new cluster from: use the state directory of a manager")
            begin_anew(storage, self._resident.addr, secrets.randbits(63) | 1)
        join, addr = self._join, self._resident.addr
        if storage is None and join is not None:
            if had_a_log(join):
                raise StorageError(f"raft directory {self._path} is empty, but raft member {join.raft_id:x} once had a log: join again")
            self._vault.adopt(join.raft_id)
            return join_storage(directory.log, directory.snapshots, self._vault)
        if storage is None:
            self._vault.adopt(secrets.randbelow(1 << 63) + 1)
            return found_storage(directory.log, directory.snapshots, self._vault, addr)
        if join is not None and join.raft_id != storage.journal.identity.raft_id:
            raise StorageError(
                f"raft directory {self._path} belongs to raft member {storage.journal.identity.raft_id:x}, not to {join.raft_id:x}"
            )
        return storage

    async def _serve(self, disk_thread: ThreadPoolExecutor, storage: Storage) -> None:
        events = Events(self._tell_leadership, self._tell_members, self._tell_removed)
        chance = random.Random(secrets.randbits(128))  # noqa: S311 - election jitter and request ids, no secrets
        clock, addr = self._clock.monotonic, self._resident.addr
        replica = Replica(storage, self._machine, self._settings, clock, self._config, events, chance, addr)
        snapshot = storage.snapshot
        if snapshot is not None:
            replica.restore(await _in(disk_thread, lambda: self._machine.prepare(snapshot.snapshot.store)))
        self._replica = self._resident.replica = replica
        log.info("raft node started", raft_id=f"{replica.raft_id:x}", applied=replica.applied, directory=str(self._path))
        self._started.set()
        network = Network(self._resident, self._connect, self._clock) if self._connect is not None else None
        try:
            async with asyncio.TaskGroup() as group:
                if network is not None:
                    network.open(group)
                group.create_task(self._tick(replica))
                group.create_task(self._tell(replica))
                await self._rounds(replica, network, disk_thread, group)
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _rounds(self, replica: Replica, network: Network | None, disk_thread: ThreadPoolExecutor, group: asyncio.TaskGroup) -> None:
        """The loop: one sync per round, however many proposals wait. Never busy: it sleeps until something happens."""
        take, led = replica.traffic.take, False
        while True:
            self._wake.clear()
            while self._done:
                job, result, error = self._done.popleft()
                job.then(result, error)
            replica.begin()
            if network is not None:
                self._resident.make_room()
                self._connect_all(replica, network)
                network.send(take(synced=False))
            if replica.must_sync:
                await _in(disk_thread, replica.sync)
            if network is not None:
                network.send(take(synced=True))
            if led and not replica.leads:
                led = False
                await self._stand_down()
            begun = self._clock.monotonic()
            again = replica.finish()
            led = led or replica.leads
            if network is not None:
                network.send(take(synced=not replica.must_sync))
            if replica.untold:
                self._untold.set()
            for job in replica.jobs():
                group.create_task(self._work(job))
            if not self._member.is_set() and replica.is_member:
                self._member.set()
            await give_way(self._clock, begun)
            if again:
                await asyncio.sleep(0)
            else:
                await self._wake.wait()

    async def _stand_down(self) -> None:
        try:
            async with asyncio.timeout(STAND_DOWN_SECONDS):
                await self.duties_ended()
        except TimeoutError:
            log.warning("a leader's duties go on although it leads no more", seconds=STAND_DOWN_SECONDS)

    def _connect_all(self, replica: Replica, network: Network) -> None:
        """Let links follow who there is, whenever that has changed."""
        guests, contacts = self.transport.guests, replica.contacts
        if self._followed[0] is not guests or self._followed[1] is not contacts:
            self._followed = guests, contacts
            self._follow(replica, network)
        for raft_id in self._resident.newcomers():
            network.hurry(raft_id)

    def _follow(self, replica: Replica, network: Network) -> None:
        hosts = {m.raft_id: m.addr for m in self._join.members} if self._join is not None and not replica.is_member else {}
        guests = self.transport.guests
        hosts |= guests | {i: m.addr for i, m in replica.contacts.items() if m.addr}
        network.follow({i: addr for i, addr in hosts.items() if i != replica.raft_id and i not in replica.membership.removed}, guests)

    async def _work(self, job: Job) -> None:
        result, error = None, None
        try:
            result = await _in(None, job.work)
        except Exception as exc:  # noqa: BLE001 - the job's own `then` decides whether this is fatal
            error = exc
        self._done.append((job, result, error))
        self._wake.set()

    async def _tell(self, replica: Replica) -> None:
        """See to it that a commit is told soon, if no entry follows."""
        while True:
            await self._untold.wait()
            self._untold.clear()
            known = replica.core.committed
            await self._clock.sleep(TELL_SECONDS)
            if replica.untold and replica.core.committed == known:
                replica.tell()
                self._wake.set()

    async def _tick(self, replica: Replica) -> None:
        """Begins at a random moment: members that count the same ticks at the same moments would stand against each other."""
        await self._clock.sleep(self._settings.tick * random.random())  # noqa: S311
        while True:
            await self._clock.sleep(self._settings.tick)
            replica.count_tick()
            self._wake.set()


async def _at_once() -> None:
    """Nothing to wait for."""


def had_a_log(join: Joined) -> bool:
    """Whether a raft id was in use before: with an empty directory, the votes and acknowledgements given under it are forgotten."""
    return any(m.raft_id == join.raft_id for m in join.members)


async def _in(thread: ThreadPoolExecutor | None, work: Callable[[], R]) -> R:
    """Run blocking work in a thread. Cancelling waits for it to end: what comes next touches the same files."""
    future = asyncio.get_running_loop().run_in_executor(thread, work)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        if not future.cancelled():
            future.exception()
        raise
