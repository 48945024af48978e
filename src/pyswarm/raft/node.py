"""The raft node of a manager: the door (`raft.log.Log`) that store and manager use, and the loop behind it."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import structlog

from pyswarm.api import v1 as api
from pyswarm.clock import Clock
from pyswarm.raft.log import Member, NodeStopped, StateMachine
from pyswarm.raft.replica import Events, Job, RaftSettings, Replica
from pyswarm.raft.storage import Directories, Directory, Storage, found_storage, open_storage
from pyswarm.raft.vault import Vault

__all__ = ["RaftNode", "RaftSettings"]

R = TypeVar("R")
C = TypeVar("C")
log = structlog.get_logger(__name__)


class RaftNode:
    """One manager's member of the replicated log; implements `Log`.

    `directory` holds everything (`<state>/raft`); an empty one founds a cluster of one. `data_key` encrypts it, `old_keys` are also tried
    when reading. `config` is asked each time for the cluster's RaftConfig. `addr` is what others reach this manager at, and may be empty.
    `open_directory` lets tests put something else in place of real files.
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
        open_directory: Callable[[Path], Directories] = Directory,
    ) -> None:
        self._open_directory = open_directory
        self._vault = Vault(cluster_id, node_id, (data_key, *old_keys))
        self._path = directory
        self._machine = machine
        self._clock = clock
        self._settings = settings
        self._config = config
        self._addr = addr
        self._replica: Replica | None = None
        self._stopped = False
        self._failure: BaseException | None = None
        self._leadership_listeners: list[Callable[[bool], None]] = []
        self._member_listeners: list[Callable[[Sequence[Member]], None]] = []
        self._done: deque[tuple[Job, Any, Exception | None]] = deque()
        self._wake = asyncio.Event()
        self._started = asyncio.Event()

    # --- Log

    @property
    def applied_index(self) -> int:
        """See Log; 0 before the node started."""
        return self._replica.applied if self._replica else 0

    @property
    def is_leader(self) -> bool:
        """See Log."""
        return self._replica is not None and self._replica.leads

    @property
    def raft_id(self) -> int:
        """This member's raft id; 0 before the node started."""
        return self._replica.raft_id if self._replica else 0

    async def propose(self, request: api.InternalRaftRequest, proposal: Any | None = None) -> int:
        """See Log. When the caller is cancelled, an entry not yet appended is dropped; an appended one takes its course."""
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._alive().submit(request, proposal, done)
        self._wake.set()
        return await done

    async def read_barrier(self) -> None:
        """See Log."""
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._alive().submit_barrier(done)
        self._wake.set()
        await done

    def members(self) -> Sequence[Member]:
        """See Log; empty before the node started."""
        return self._replica.members() if self._replica else ()

    def on_leadership(self, callback: Callable[[bool], None]) -> Callable[[], None]:
        """See Log. Also before `run`; when this node leads already, `callback(True)` is called at once."""
        undo = _subscribe(self._leadership_listeners, callback)
        if self.is_leader:
            callback(True)
        return undo

    def on_members(self, callback: Callable[[Sequence[Member]], None]) -> Callable[[], None]:
        """See Log. Also before `run`."""
        return _subscribe(self._member_listeners, callback)

    # --- life

    def advertise(self, addr: str) -> None:
        """Be reachable at `addr`, which may be known only once a port is bound. Before `run`."""
        self._addr = addr

    async def started(self) -> None:
        """Return when the state on disk is loaded and the node takes part. Raises what ended `run`, if it ended before."""
        await self._started.wait()
        if self._failure is not None:
            raise self._failure

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

    async def _run(self, disk_thread: ThreadPoolExecutor) -> None:
        directory = await _in(disk_thread, lambda: self._open_directory(self._path))
        try:
            storage = await _in(disk_thread, lambda: self._load(directory))
            try:
                await self._serve(disk_thread, storage)
            finally:
                if self._replica is not None:
                    self._replica.stop()
                await _in(disk_thread, storage.journal.close)
        finally:
            directory.close()

    def _load(self, directory: Directories) -> Storage:
        """Open what is there, or found a cluster. Blocking."""
        spare = self._config().log_entries_for_slow_followers
        storage = open_storage(directory.log, directory.snapshots, self._vault, spare)
        if storage is None:
            self._vault.adopt(secrets.randbelow(1 << 63) + 1)
            storage = found_storage(directory.log, directory.snapshots, self._vault, self._addr)
        return storage

    async def _serve(self, disk_thread: ThreadPoolExecutor, storage: Storage) -> None:
        events = Events(self._tell_leadership, self._tell_members)
        chance = random.Random(secrets.randbits(128))  # noqa: S311 - election jitter and request ids, no secrets
        clock = self._clock.monotonic
        replica = Replica(storage, self._machine, self._settings, clock, self._config, events, chance, self._addr)
        self._replica = replica
        replica.restore()
        log.info("raft node started", raft_id=f"{replica.raft_id:x}", applied=replica.applied, directory=str(self._path))
        self._started.set()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._tick(replica))
                await self._rounds(replica, disk_thread, group)
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _rounds(self, replica: Replica, disk_thread: ThreadPoolExecutor, group: asyncio.TaskGroup) -> None:
        """The loop: one sync per round, however many proposals wait. Never busy: it sleeps until something happens."""
        while True:
            self._wake.clear()
            while self._done:
                job, result, error = self._done.popleft()
                job.then(result, error)
            replica.begin()
            if replica.must_sync:
                await _in(disk_thread, replica.sync)
            again = replica.finish()
            for job in replica.jobs():
                group.create_task(self._work(job))
            if again:
                await asyncio.sleep(0)
            else:
                await self._wake.wait()

    async def _work(self, job: Job) -> None:
        result, error = None, None
        try:
            result = await _in(None, job.work)
        except Exception as exc:  # noqa: BLE001 - the job's own `then` decides whether this is fatal
            error = exc
        self._done.append((job, result, error))
        self._wake.set()

    async def _tick(self, replica: Replica) -> None:
        while True:
            await self._clock.sleep(self._settings.tick)
            replica.count_tick()
            self._wake.set()

    def _alive(self) -> Replica:
        if self._replica is None or self._stopped:
            raise NodeStopped
        return self._replica

    def _tell_leadership(self, leads: bool) -> None:
        for listener in tuple(self._leadership_listeners):
            listener(leads)

    def _tell_members(self, members: Sequence[Member]) -> None:
        for listener in tuple(self._member_listeners):
            listener(members)


def _subscribe(listeners: list[C], callback: C) -> Callable[[], None]:
    listeners.append(callback)

    def undo() -> None:
        if callback in listeners:
            listeners.remove(callback)

    return undo


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
