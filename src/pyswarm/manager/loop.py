"""The one driver that all control loops share (design rule 2).

A control loop is the pure half: which keys an event touches, and what one key needs now. The driver is the thin half: it collects dirty
keys from commits, waits out the loop's quiet time, decides inside a store transaction (so a decision never works on stale objects), commits
many keys together, and looks again when a decision asked for it. Level-triggered: deciding twice, or after a missed event, or on a new
leader, ends in the same place; a new leader marks everything dirty and nothing else is repaired.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import structlog

from pyswarm.api import defaults
from pyswarm.clock import Clock, wait_for
from pyswarm.manager.changes import Change, apply
from pyswarm.manager.store import Commit, Event, Store, Tx, View
from pyswarm.raft.log import ProposalError

K = TypeVar("K", bound=Hashable)
log = structlog.get_logger(__name__)

SLICE_SECONDS = 0.02
RETRY_SECONDS = 1.0
BURST_KEYS = 1000
"""With more dirty keys than this there is nothing left to wait for: a quiet time ends."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What one key needs now.

    `changes` are at most a few hundred: with more to do, return the first part and `again`. `wake` is the moment (wall clock, seconds) at
    which the key deserves another look even if nothing happens; None when only events matter.
    """

    changes: Sequence[Change] = ()
    again: bool = False
    wake: float | None = None


class Loop(Protocol[K]):
    """The pure half of a control loop. No method awaits, reads a clock, or does I/O."""

    name: str

    @property
    def quiet(self) -> float:
        """Seconds without a further event before deciding; 0 decides at once. Asked again after each event."""
        ...

    patience: float
    """Seconds after which it decides although events keep coming."""

    def on_event(self, event: Event) -> Iterable[K]:
        """The keys that a change touches. May keep a mirror of the store up to date; called once per event, in log order."""
        ...

    def everything(self, view: View) -> Iterable[K]:
        """All keys, when the loop starts. A loop with a mirror (re)builds it here."""
        ...

    def decide(self, view: View, key: K, now: float) -> Decision:
        """What a key needs. Called again for the same state it must find the same: what it notes in a mirror is not for good."""
        ...


@dataclass(slots=True)
class _Pass(Generic[K]):
    """What one transaction did."""

    done: list[tuple[K, Decision]] = field(default_factory=list)
    failed: list[tuple[K, Exception]] = field(default_factory=list)


class Driver(Generic[K]):
    """Runs one loop on the leader. `run()` until cancelled."""

    def __init__(self, loop: Loop[K], store: Store, clock: Clock) -> None:
        self._loop = loop
        self._store = store
        self._clock = clock
        self._dirty: dict[K, None] = {}
        self._wakes: list[tuple[float, int, K]] = []
        self._wake_at: dict[K, float] = {}
        self._order = 0
        self._event = asyncio.Event()

    @property
    def name(self) -> str:
        """The loop's name."""
        return self._loop.name

    async def run(self) -> None:
        """Drive the loop until cancelled. Errors of one key are logged and retried; they never stop the others."""
        undo = self._store.on_commit(self._on_commit)
        try:
            self._mark(self._loop.everything(self._store))
            while True:
                await self._wait()
                await self._settle()
                await self._work()
        finally:
            undo()

    def _on_commit(self, commit: Commit) -> None:
        self._mark([key for event in commit.events for key in self._loop.on_event(event)])

    def _mark(self, keys: Iterable[K]) -> None:
        if marked := dict.fromkeys(keys):
            self._dirty.update(marked)
            self._event.set()  # also for a key that is dirty already: the quiet time starts anew

    async def _wait(self) -> None:
        """Until a key is dirty or a wake-up is due."""
        while not self._dirty:
            self._event.clear()
            await wait_for(self._event, self._clock, self._until_next_wake())
            self._collect_due()

    def _until_next_wake(self) -> float | None:
        return max(0.0, self._wakes[0][0] - self._clock.now()) if self._wakes else None

    def _collect_due(self) -> None:
        now = self._clock.now()
        while self._wakes and self._wakes[0][0] <= now:
            at, _, key = heapq.heappop(self._wakes)
            if self._wake_at.get(key) == at:
                del self._wake_at[key]
                self._dirty[key] = None

    async def _settle(self) -> None:
        """Let a burst of events finish, within the loop's patience."""
        if not self._loop.quiet:
            return
        deadline = self._clock.monotonic() + self._loop.patience
        while len(self._dirty) <= BURST_KEYS:
            self._event.clear()
            left = min(self._loop.quiet, deadline - self._clock.monotonic())
            if left <= 0 or not await wait_for(self._event, self._clock, left):
                return

    async def _work(self) -> None:
        """Decide for the dirty keys, as many to a transaction as fit."""
        while self._dirty:
            self._collect_due()
            keys = list(self._dirty)
            self._dirty.clear()
            try:
                outcome = await self._store.update(lambda tx: self._decide(tx, keys))  # noqa: B023 - awaited before keys changes
            except ProposalError as exc:
                log.warning("control loop could not commit", loop=self._loop.name, error=str(exc))
                self._mark(keys)
                await self._clock.sleep(RETRY_SECONDS)
                continue
            self._settle_outcome(keys, outcome)

    def _decide(self, tx: Tx, keys: Sequence[K]) -> _Pass[K]:
        outcome: _Pass[K] = _Pass()
        started, now = self._clock.monotonic(), self._clock.now()
        for key in keys:
            before = tx.savepoint()
            try:
                decision = self._loop.decide(tx, key, now)
                apply(tx, decision.changes)
            except Exception as exc:  # noqa: BLE001 - the supervisor of all loops: logged, counted, retried
                tx.rollback(before)
                outcome.failed.append((key, exc))
            else:
                outcome.done.append((key, decision))
            if len(tx.changes) >= defaults.MAX_TRANSACTION_CHANGES or self._clock.monotonic() - started > SLICE_SECONDS:
                break
        return outcome

    def _settle_outcome(self, keys: Sequence[K], outcome: _Pass[K]) -> None:
        for key, decision in outcome.done:
            self._schedule(key, decision.wake)
        for key, error in outcome.failed:
            log.error("control loop failed for one key", loop=self._loop.name, key=str(key), exc_info=error)
            self._schedule(key, self._clock.now() + RETRY_SECONDS)
        self._mark(keys[len(outcome.done) + len(outcome.failed) :])
        self._mark(key for key, decision in outcome.done if decision.again)

    def _schedule(self, key: K, at: float | None) -> None:
        if at is None:
            self._wake_at.pop(key, None)
        elif self._wake_at.get(key) != at:
            self._wake_at[key] = at
            self._order += 1
            heapq.heappush(self._wakes, (at, self._order, key))
