"""The leader's signer: turns certificate requests in the store into certificates (spec/ca-and-security, section 10).

`issuance` decides; here is what drives it. Root, tokens, expiry and the nodes themselves are read from the store when they are needed, so a
change takes effect at once, and a node that was removed, or asked again meanwhile, is not signed for.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence

import structlog

from pyswarm.api import defaults
from pyswarm.api import v1 as api
from pyswarm.ca import issuance
from pyswarm.ca.issuance import Later, Order, Outcome, Refused, Signed
from pyswarm.ca.root import RootCA
from pyswarm.ca.validate import CertificateError
from pyswarm.clock import Clock, wait_for
from pyswarm.errors import Aborted, NotFound, Unknown
from pyswarm.manager.store import Commit, Kind, Store, Tx, View, by, copy_of
from pyswarm.raft.log import ProposalError

log = structlog.get_logger(__name__)

RETRY_SECONDS = 10.0
_COMMIT_RETRY_SECONDS = 1.0
_GROUP = 50


def default_cluster(view: View) -> api.Cluster | None:
    """The one cluster object, once it exists."""
    return next(iter(view.clusters.find(by.name(defaults.CLUSTER_NAME))), None)


class Signer:
    """Runs on the leader only; `run()` until leadership ends. It can be run again after it ended, never twice at the same time."""

    def __init__(self, store: Store, clock: Clock, rng: random.Random | None = None) -> None:
        self._store = store
        self._clock = clock
        # Only spreads retries.
        self._rng = rng or random.Random()  # noqa: S311
        self._running = False
        self._root: RootCA | None = None
        self._root_of: api.RootCA | None = None
        self._dirty: dict[str, None] = {}
        self._pending: set[str] = set()
        self._wake = asyncio.Event()
        self._on_stop: dict[object, Callable[[], None]] = {}

    def check_ready(self) -> None:
        """Raise Aborted unless requests can be taken here and now."""
        if not self._running:
            raise Aborted("CA signer is stopped")
        if self._root is None:
            raise Aborted("CA signer is still starting")

    @property
    def root(self) -> RootCA | None:
        """The root object in use while running and ready: what the newest valid stored root describes."""
        return self._root

    @property
    def pending(self) -> frozenset[str]:
        """Nodes whose requests wait for a key, a retry or a commit."""
        return frozenset(self._pending)

    def on_stop(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back when the signer stops. Returns undo."""
        token = object()
        self._on_stop[token] = callback

        def undo() -> None:
            self._on_stop.pop(token, None)

        return undo

    async def run(self) -> None:
        """Sign until cancelled. Raises Unknown when running already, NotFound when there is no cluster object to sign for."""
        if self._running:
            raise Unknown("CA signer is already running")
        self._running = True
        undo = self._store.on_commit(self._on_commit)
        try:
            cluster = default_cluster(self._store)
            if cluster is None:
                raise NotFound("the CA signer cannot start: there is no cluster object")
            self._refresh(cluster)
            self._mark(node.id for node in self._store.nodes)
            await self._serve()
        finally:
            undo()
            self._running = False
            self._root = self._root_of = None
            self._dirty.clear()
            self._pending.clear()
            for callback in list(self._on_stop.values()):
                callback()

    async def _serve(self) -> None:
        retry_at = self._clock.monotonic() + RETRY_SECONDS
        while True:
            await self._sign_dirty()
            self._wake.clear()
            left = retry_at - self._clock.monotonic()
            if left > 0 and await wait_for(self._wake, self._clock, left if self._pending else None):
                continue
            await self._retry()
            retry_at = self._clock.monotonic() + RETRY_SECONDS

    def _on_commit(self, commit: Commit) -> None:
        for event in commit.events:
            if isinstance(event.obj, api.Cluster) and event.kind is Kind.CLUSTER:
                if event.obj.spec.annotations.name == defaults.CLUSTER_NAME:
                    self._refresh(event.obj)
            elif isinstance(event.obj, api.Node) and issuance.order_for(event.obj) is not None:
                self._mark([event.obj.id])

    def _mark(self, node_ids: Iterable[str]) -> None:
        self._dirty.update(dict.fromkeys(node_ids))
        self._wake.set()

    def _refresh(self, cluster: api.Cluster) -> None:
        """Take over a changed root; the join tokens are no part of it. One that cannot be used leaves the old one in place."""
        stored = copy_of(cluster.root_ca)
        stored.ClearField("join_tokens")
        if stored == self._root_of:
            return
        try:
            self._root = RootCA.from_store(stored, now=self._clock.now())
        except CertificateError as error:
            log.error("stored root CA cannot be used", cluster=cluster.id, error=error.message)
            return
        self._root_of = stored
        self._mark(self._pending)

    async def _sign_dirty(self) -> None:
        while self._dirty:
            group = list(self._dirty)[:_GROUP]
            for node_id in group:
                del self._dirty[node_id]
            if not await self._sign(group):
                self._dirty.update(dict.fromkeys(group))
                await self._clock.sleep(_COMMIT_RETRY_SECONDS)
            # Others get a turn between groups.
            await asyncio.sleep(0)

    async def _retry(self) -> None:
        """Try the pending ones in random order until one still has to wait."""
        waiting = sorted(self._pending)
        self._rng.shuffle(waiting)
        for node_id in waiting:
            await self._sign([node_id])
            if node_id in self._pending:
                return

    async def _sign(self, node_ids: Sequence[str]) -> bool:
        """Sign for these nodes and commit the outcomes; False when the commit did not happen and should be tried again."""
        finished: list[tuple[Order, Signed | Refused]] = []
        for node_id in node_ids:
            order = self._order(node_id)
            if order is None:
                self._pending.discard(node_id)
                continue
            self._pending.add(node_id)
            outcome = self._outcome(order)
            if isinstance(outcome, Later):
                log.warning("certificate cannot be signed yet", node=node_id, reason=outcome.reason)
            else:
                finished.append((order, outcome))
        if not finished:
            return True
        try:
            errors = await self._store.batch(finished, _settle)
        except ProposalError as error:
            log.warning("certificates not committed", nodes=len(finished), error=error.message)
            return False
        for (order, outcome), failure in zip(finished, errors, strict=True):
            self._report(order, outcome, failure)
        return True

    def _order(self, node_id: str) -> Order | None:
        node = self._store.nodes.get(node_id)
        return issuance.order_for(node) if node is not None else None

    def _outcome(self, order: Order) -> Outcome:
        cluster = default_cluster(self._store)
        if cluster is None or self._root is None:
            return Later("there is no cluster object or no usable root CA")
        return issuance.sign(order, self._root, cluster.id, issuance.expiry_of(cluster), self._clock.now())

    def _report(self, order: Order, outcome: Signed | Refused, failure: Exception | None) -> None:
        if failure is not None:
            log.error("certificate not stored", node=order.node_id, error=str(failure))
            return
        self._pending.discard(order.node_id)
        if isinstance(outcome, Refused):
            log.warning("certificate refused", node=order.node_id, error=outcome.error)
        else:
            log.info("certificate issued", node=order.node_id, role=api.NodeRole.Name(order.role))


def _settle(tx: Tx, item: tuple[Order, Signed | Refused]) -> None:
    order, outcome = item
    node = tx.nodes.get(order.node_id)
    changed = issuance.settled(node, order, outcome) if node is not None else None
    if changed is not None:
        tx.nodes.update(changed)
