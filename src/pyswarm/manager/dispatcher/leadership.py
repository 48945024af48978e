"""One term as leader: what the dispatcher knows and does between winning and losing leadership.

A new `Leadership` is made for every term, so nothing of an old one can leak into the next.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import structlog

from pyswarm.api import defaults, ids, times
from pyswarm.api import v1 as api
from pyswarm.clock import Clock, wait_for
from pyswarm.errors import Aborted, Cancelled, InvalidArgument, NotFound, SwarmError, Unknown
from pyswarm.manager.dispatcher import nodestate, statuses
from pyswarm.manager.dispatcher.config import Config, draw_period
from pyswarm.manager.dispatcher.orphans import OrphanLoop
from pyswarm.manager.dispatcher.registry import Expired, Registry
from pyswarm.manager.dispatcher.streams import SessionStream, Streams
from pyswarm.manager.loop import Driver
from pyswarm.manager.store import Action, Commit, Store, Tx, by
from pyswarm.raft.log import Log, Member, ProposalError
from pyswarm.rpc import reach
from pyswarm.rpc.caller import Caller

log = structlog.get_logger(__name__)

RETRY_SECONDS = 1.0
CONFIRM_SECONDS = 0.1
STALL_SECONDS = 0.5
MOST_CONFIRMATIONS = 10


class Leadership:
    """Sessions, open streams and waiting reports of one term."""

    def __init__(self, store: Store, raft: Log, clock: Clock, node_id: str, rng: random.Random, config: Config) -> None:
        self.store = store
        self.clock = clock
        self.config = config
        self.registry = Registry(config.rate_window, config.rate_count)
        self.streams = Streams(store, clock, config)
        self._raft = raft
        self._node_id = node_id
        self._rng = rng
        self._period = config.period
        self._cluster = api.Cluster()
        self._managers: Sequence[api.WeightedPeer] = ()
        self._batch = statuses.Batch()
        self._batch_waits = asyncio.Event()
        self._batch_full = asyncio.Event()
        self._batch_taken = asyncio.Event()
        self._reporters = 0
        self._deadline_moved = asyncio.Event()
        self._down: dict[str, Expired] = {}

    # --- the term

    async def take_over(self) -> None:
        """Put every node that is not down on trial: it must be heard within twice the usual grace. Failures are logged only."""
        self._read_cluster()
        waiting = [node.id for node in self.store.nodes if nodestate.awaits_takeover(node)]
        now = self.clock.monotonic()
        for node_id in waiting:
            self.registry.add_unknown(node_id, now + self.draw() * self.config.grace_unknown)
        try:
            results = await self.store.batch(waiting, _take_over_node)
        except ProposalError as error:
            log.error("nodes not moved to unknown", error=str(error))
            return
        for node_id, failure in zip(waiting, results, strict=True):
            if failure is not None:
                log.error("node not moved to unknown", node=node_id, error=str(failure))

    async def serve(self) -> None:
        """Expire the silent, write what is reported, give up what is lost, and tell the streams; until cancelled."""
        undo = [self.store.on_commit(self._on_commit), self._raft.on_members(self._on_members)]
        self._read_cluster()
        self._on_members(self._raft.members())
        not_before = self.clock.now() + self._period * self.config.grace_unknown
        orphans = Driver(OrphanLoop(self.config.orphan_after, not_before), self.store, self.clock)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._expire_silent())
                group.create_task(self._write_reports())
                group.create_task(orphans.run())
        finally:
            for function in undo:
                function()
            self._stop()

    def _stop(self) -> None:
        """End every stream with the answer that sends agents looking for the next leader."""
        self._let_crowd_go()
        for stream in self.streams:
            if isinstance(stream, SessionStream):
                stream.repeat()
                stream.end(Aborted("node must disconnect"))
            else:
                stream.end(Cancelled("context canceled"))

    # --- what session messages say

    def session_message(self, session_id: str, node: api.Node, remote_addr: str) -> api.SessionMessage:
        """Everything a node should know besides its tasks; `remote_addr` is where it calls from."""
        return api.SessionMessage(
            session_id=session_id,
            node=node,
            managers=[self._reachable(manager, remote_addr) for manager in self._managers],
            network_bootstrap_keys=self._cluster.network_bootstrap_keys,
            RootCA=self._cluster.root_ca.ca_cert,
        )

    def _reachable(self, manager: api.WeightedPeer, remote_addr: str) -> api.WeightedPeer:
        """Only this manager's own address is known to be ours to interpret."""
        if manager.peer.node_id != self._node_id or not reach.is_wildcard(manager.peer.addr):
            return manager
        peer = api.Peer(node_id=manager.peer.node_id, addr=reach.seen_from(manager.peer.addr, remote_addr))
        return api.WeightedPeer(peer=peer, weight=manager.weight)

    def draw(self) -> float:
        """A heartbeat period with jitter, in seconds."""
        return draw_period(self._period, self.config, self._rng)

    def _read_cluster(self) -> None:
        found = self.store.clusters.find(by.name(defaults.CLUSTER_NAME))
        if not found:
            return
        self._cluster = found[0]
        configured = self._cluster.spec.dispatcher.heartbeat_period
        self._period = times.seconds_of(configured) if times.seconds_of(configured) > 0 else self.config.period

    def _on_members(self, members: Sequence[Member]) -> None:
        weight = self.config.manager_weight
        self._managers = [api.WeightedPeer(peer=api.Peer(node_id=m.node_id, addr=m.addr), weight=weight) for m in members]
        self.streams.repeat_sessions()

    def _on_commit(self, commit: Commit) -> None:
        for event in commit.events:
            if isinstance(event.obj, api.Cluster):
                if event.action is not Action.REMOVE:
                    self._read_cluster()
                    self.streams.repeat_sessions()
            else:
                self.streams.on_event(event)

    # --- sessions

    async def open_session(self, request: api.SessionRequest, caller: Caller) -> str:
        """Resume the session that the node names, or register it anew; returns the session's id once the store says READY.

        Raises Unavailable (too often), Unknown (no such node), and what the log raises.
        """
        node_id = caller.node_id
        description = request.description if request.HasField("description") else None
        if self.registry.is_current(node_id, request.session_id):
            await self._write_ready(node_id, description, caller.remote_addr)
            return request.session_id
        now = self.clock.monotonic()
        self.registry.admit(node_id, now)
        if node_id not in self.store.nodes:
            raise Unknown("node not found")
        session_id = ids.new_id()
        # Registered before the write: an expiry of the old session that is under way sees the new one and leaves the node alone.
        self.registry.register(node_id, session_id, now, now + self.draw() * self.config.grace)
        self._deadline_moved.set()
        for stream in self.streams.of_other_sessions(node_id, session_id):
            stream.end(InvalidArgument("session invalid"))
        try:
            await self._write_ready(node_id, description, caller.remote_addr)
        except SwarmError:
            self.registry.forget(node_id, session_id)
            raise
        log.info("node registered", node=node_id, session=session_id)
        return session_id

    async def _write_ready(self, node_id: str, description: api.NodeDescription | None, remote_addr: str) -> None:
        node = self.store.nodes.get(node_id)
        if node is not None and node_id not in self._down and nodestate.ready(node, description, remote_addr) is None:
            return

        def write(tx: Tx) -> None:
            stored = tx.nodes.get(node_id)
            if stored is None:
                raise Unknown("node not found")
            changed = nodestate.ready(stored, description, remote_addr)
            if changed is not None:
                tx.nodes.update(changed)

        await self.store.update(write)

    def beat(self, node_id: str, session_id: str) -> float:
        """A sign of life; returns the seconds until the next one is wanted. Never waits for anything."""
        period = self.draw()
        before = self.registry.next_deadline()
        self.registry.beat(node_id, session_id, self.clock.monotonic() + period * self.config.grace)
        if self.registry.next_deadline() != before:
            self._deadline_moved.set()  # the period was shortened
        return period

    # --- silence

    async def _expire_silent(self) -> None:
        """Declare nodes down whose grace is over, and keep trying until the store knows."""
        while True:
            stalled = 0.0 if self._down else await self._wait_for_deadline()
            if self.registry.any_due(due := self.clock.monotonic()):
                await self._listen_once_more(stalled)
                self._down.update((gone.node_id, gone) for gone in self.registry.expire(due))
            if self._down:
                await self._write_down()

    async def _wait_for_deadline(self) -> float:
        """Until something may have expired. Returns by how many seconds this process overslept."""
        while True:
            self._deadline_moved.clear()
            deadline = self.registry.next_deadline()
            asked = None if deadline is None else deadline - self.clock.monotonic()
            if asked is not None and asked <= 0:
                return 0.0
            if not await wait_for(self._deadline_moved, self.clock, asked):
                return max(0.0, self.clock.monotonic() - (deadline or 0.0))

    async def _listen_once_more(self, stalled: float) -> None:
        """Time to read heartbeats that arrived but were not served: a manager that was held up must not blame its nodes.

        One that is held up for good gives up after some attempts: who is gone must be noticed nevertheless.
        """
        for _ in range(MOST_CONFIRMATIONS):
            asked = CONFIRM_SECONDS + min(stalled, self._period * self.config.grace)
            before = self.clock.monotonic()
            await self.clock.sleep(asked)
            stalled = self.clock.monotonic() - before - asked
            if stalled < STALL_SECONDS:
                return

    async def _write_down(self) -> None:
        expired = list(self._down.values())
        try:
            results = await self.store.batch(expired, self._write_one_down)
        except ProposalError as error:
            log.warning("nodes not marked down yet", nodes=len(expired), error=str(error))
            await self.clock.sleep(RETRY_SECONDS)
            return
        for gone, failure in zip(expired, results, strict=True):
            if failure is not None:
                log.error("node not marked down", node=gone.node_id, error=str(failure))
            else:
                log.info("node is silent", node=gone.node_id)
            self._down.pop(gone.node_id, None)
            for stream in self.streams.of_session(gone.node_id, gone.session_id):
                stream.end(NotFound("node not registered"))

    def _write_one_down(self, tx: Tx, gone: Expired) -> None:
        if gone.node_id in self.registry:
            return
        node = tx.nodes.get(gone.node_id)
        # A node that was removed falls silent too.
        changed = nodestate.down(node, registered=bool(gone.session_id)) if node is not None else None
        if changed is not None:
            tx.nodes.update(changed)

    # --- reports

    def add_task_reports(self, reports: Sequence[statuses.TaskReport]) -> None:
        """Queue reported statuses; they are in the store a batch later."""
        self._batch.add_tasks(reports)
        self._batch_changed()

    def add_volume_reports(self, reports: Sequence[statuses.VolumeReport]) -> None:
        """Queue reports of volumes no longer in use."""
        self._batch.add_volumes(reports)
        self._batch_changed()

    def _batch_changed(self) -> None:
        if len(self._batch):
            self._batch_waits.set()
        if len(self._batch) >= self.config.batch_items:
            self._batch_full.set()

    async def join_crowd(self) -> None:
        """Called before a report is answered. When many report, all but the first wait until the batch is about to be written.

        A node has one such call under way. Answered at once, it sends each status by itself, and the calls cost more than what they say.
        """
        self._reporters += 1
        if self._reporters > self.config.crowd:
            await wait_for(self._batch_taken, self.clock, self.config.crowd_seconds)

    def _let_crowd_go(self) -> None:
        self._batch_taken.set()
        self._batch_taken = asyncio.Event()
        self._reporters = 0

    async def _write_reports(self) -> None:
        while True:
            await self._batch_waits.wait()
            await wait_for(self._batch_full, self.clock, self.config.batch_seconds)
            batch, self._batch = self._batch, statuses.Batch()
            self._batch_waits.clear()
            self._batch_full.clear()
            self._let_crowd_go()
            await self._write_batch(batch)

    async def _write_batch(self, batch: statuses.Batch) -> None:
        items, now = batch.items(), self.clock.now()
        try:
            results = await self.store.batch(items, lambda tx, report: statuses.write(tx, report, self._node_id, now))
        except ProposalError as error:
            log.warning("reported statuses not written yet", reports=len(items), error=str(error))
            self._batch.merge_older(batch)
            await self.clock.sleep(RETRY_SECONDS)
            self._batch_changed()
            return
        for report, failure in zip(items, results, strict=True):
            if failure is not None:
                log.error("reported status not written", report=type(report).__name__, error=str(failure))


def _take_over_node(tx: Tx, node_id: str) -> None:
    node = tx.nodes.get(node_id)
    changed = nodestate.taken_over(node) if node is not None else None
    if changed is not None:
        tx.nodes.update(changed)
