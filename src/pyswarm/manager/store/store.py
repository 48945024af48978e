"""The store: committed tables, grouped writes, and the log's state machine (design rule 4)."""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Self, TypeVar

from pyswarm.api import defaults
from pyswarm.api import v1 as api
from pyswarm.clock import Clock, give_way
from pyswarm.manager.store import tables
from pyswarm.manager.store.events import Action, Commit, Event
from pyswarm.manager.store.rules import Exists, NotExist
from pyswarm.manager.store.tables import Kind, Table, copy_of
from pyswarm.manager.store.transaction import Change, Tx
from pyswarm.raft.log import Log, NodeStopped, TooLarge
from pyswarm.telemetry import STORE_WRITE, timing

R = TypeVar("R")
I = TypeVar("I")  # noqa: E741 - an item
GROUP_SECONDS = 0.02
RESTORE_ORDER = ("clusters", "configs", "extensions", "networks", "nodes", "resources", "secrets", "services", "tasks", "volumes")
SORTED_AT_ONCE = 5_000


@dataclass(slots=True)
class Waiting:
    """One caller of `update`: its function and where its result goes."""

    fn: Callable[[Tx], Any]
    done: asyncio.Future[Any]


@dataclass(slots=True)
class Group:
    """Callers whose changes share one log entry."""

    tx: Tx
    members: list[tuple[Waiting, Any, BaseException | None]] = field(default_factory=list)
    size: int = 0


class Store:
    """Ten tables, read at any time on the event loop, written only through `update` and `batch`."""

    def __init__(self, clock: Clock) -> None:
        self.nodes = Table(tables.NODE)
        self.services = Table(tables.SERVICE)
        self.networks = Table(tables.NETWORK)
        self.tasks = Table(tables.TASK)
        self.clusters = Table(tables.CLUSTER)
        self.secrets = Table(tables.SECRET)
        self.resources = Table(tables.RESOURCE)
        self.extensions = Table(tables.EXTENSION)
        self.configs = Table(tables.CONFIG)
        self.volumes = Table(tables.VOLUME)
        self._tables: dict[Kind, Table[Any]] = {t.schema.kind: t for t in self._all()}
        self._clock = clock
        self._log: Log | None = None
        self._queue: deque[Waiting] = deque()
        self._wake = asyncio.Event()
        self._running = False
        self._commits = 0
        self._listeners: list[Callable[[Commit], None]] = []

    def _all(self) -> Sequence[Table[Any]]:
        return (
            self.nodes, self.services, self.networks, self.tasks, self.clusters,
            self.secrets, self.resources, self.extensions, self.configs, self.volumes,
        )  # fmt: skip

    def table(self, kind: Kind) -> Table[Any]:
        """The table of a kind."""
        return self._tables[kind]

    def attach(self, log: Log) -> None:
        """Say where writes go. Once, before `run`."""
        self._log = log

    async def run(self) -> None:
        """Serve writers until cancelled; those still waiting then fail with NodeStopped."""
        if self._log is None:
            raise RuntimeError("attach a log before running the store")
        self._running = True
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._queue:
                    await self._commit_group(self._log)
        finally:
            self._running = False
            for waiting in self._queue:
                if not waiting.done.done():
                    waiting.done.set_exception(NodeStopped())
            self._queue.clear()

    async def update(self, fn: Callable[[Tx], R]) -> R:
        """Run `fn` in a transaction; return its result once its changes are durable and visible.

        `fn` is synchronous, sees its own writes and those of callers served before it, and may be run more than once: it must change
        nothing but the transaction. Its exception rolls back its changes alone and is raised here, if this node still leads. Also raises
        the log's `ProposalError`s (look at `uncertain`), among them TooLarge when the changes exceed 1.5 MiB.
        """
        if not self._running:
            raise NodeStopped
        done: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._queue.append(Waiting(fn, done))
        self._wake.set()
        with timing(STORE_WRITE):
            return await done

    async def batch(self, items: Iterable[I], fn: Callable[[Tx, I], None]) -> list[Exception | None]:
        """`fn(tx, item)` for each item, without atomicity between items: as many to a log entry as the limits allow.

        Returns, per item, its exception or None. A failing item leaves nothing behind and does not stop the others.
        """
        batch = _Batch(items, fn, self._clock.monotonic)
        results: list[Exception | None] = []
        while not batch.over:
            done = await self.update(batch.run)
            batch.take_off(len(done))
            results += done
        return results

    async def _commit_group(self, log: Log) -> None:
        begun = self._clock.monotonic()
        group = self._collect(log)
        error: BaseException | None = None
        try:
            if group.tx.changes:
                await give_way(self._clock, begun)
                await log.propose(_request(group.tx.changes), group.tx)
            elif any(own is not None for _, _, own in group.members):
                # A refusal tells what the store holds, as a read does: a leader that was deposed without knowing must not give one.
                await log.read_barrier()
        except asyncio.CancelledError:
            error = NodeStopped(uncertain=bool(group.tx.changes))
            raise
        except Exception as exc:  # noqa: BLE001 - handed to every caller of the group
            error = exc
        finally:
            for waiting, result, own in group.members:
                if waiting.done.done():
                    continue
                if failure := error or own:
                    waiting.done.set_exception(failure)
                else:
                    waiting.done.set_result(result)

    def _collect(self, log: Log) -> Group:
        """Run waiting functions on one overlay until a limit is reached."""
        group = Group(Tx(self, log.applied_index, self._clock.now()))
        started = self._clock.monotonic()
        while self._queue:
            waiting = self._queue[0]
            if waiting.done.done():
                self._queue.popleft()
                continue
            if not self._admit(group, waiting):
                break
            self._queue.popleft()
            full = len(group.tx.changes) >= defaults.MAX_TRANSACTION_CHANGES or group.size >= defaults.BATCH_BYTES
            if full or self._clock.monotonic() - started > GROUP_SECONDS:
                break
        return group

    def _admit(self, group: Group, waiting: Waiting) -> bool:
        """Run one function; False when its changes must wait for the next entry."""
        tx = group.tx
        before = tx.savepoint()
        try:
            result = waiting.fn(tx)
        except Exception as exc:  # noqa: BLE001 - the caller's own error, handed back
            tx.rollback(before)
            group.members.append((waiting, None, exc))
            return True
        size = sum(change.size for change in tx.changes[before.changes :])
        if group.size + size > defaults.MAX_TRANSACTION_BYTES:
            tx.rollback(before)
            if before.changes:
                return False
            group.members.append((waiting, None, TooLarge()))
            return True
        group.size += size
        group.members.append((waiting, result, None))
        return True

    # --- events

    def on_commit(self, callback: Callable[[Commit], None]) -> Callable[[], None]:
        """Call back after every commit, on the event loop, in log order. The callback must be quick and must not raise. Returns undo."""
        self._listeners.append(callback)

        def undo() -> None:
            if callback in self._listeners:
                self._listeners.remove(callback)

        return undo

    def watch(self, wanted: Callable[[Event], bool]) -> Watch:
        """A stream of commits reduced to the wanted events; subscribes at once, so read the tables after calling it."""
        return Watch(self, wanted)

    def _publish(self, commit: Commit) -> None:
        self._commits += 1
        for listener in tuple(self._listeners):
            listener(commit)

    # --- the log's state machine

    def apply(self, index: int, request: api.InternalRaftRequest, proposal: Any | None) -> None:
        """Make a committed entry visible and tell the listeners. An entry that does not fit the tables is fatal (spec trap 2)."""
        changes = proposal.changes if isinstance(proposal, Tx) else _changes(request)
        self._publish(Commit(index, [self._apply_change(c) for c in changes]))

    def _apply_change(self, change: Change) -> Event:
        kind, action, obj = change.kind, change.action, change.obj
        table = self._tables[kind]
        known = obj.id in table
        if known is (action is Action.CREATE):
            raise Exists if known else NotExist
        if action is Action.REMOVE:
            table.drop(obj.id)
            return Event(kind, action, obj)
        return Event(kind, action, obj, table.put(obj))

    def capture(self) -> Callable[[], api.StoreSnapshot]:
        """The present contents; the returned function builds the message, in any thread."""
        contents = {t.schema.plural: t.contents() for t in self._all()}

        def build() -> api.StoreSnapshot:
            snapshot = api.StoreSnapshot()
            for plural, objects in contents.items():
                getattr(snapshot, plural).extend(objects[i] for i in _in_order(objects))
            return snapshot

        return build

    def prepare(self, snapshot: api.StoreSnapshot) -> Callable[[], None]:
        """Read a snapshot into tables aside, in any thread; the returned function makes them the store's own, on the event loop.

        Listeners see the difference as ordinary changes (spec section 7.5).
        """
        known = self._commits
        by_plural = {t.schema.plural: t for t in self._all()}
        fresh: list[tuple[Table[Any], Table[Any]]] = []
        for plural in RESTORE_ORDER:
            aside: Table[Any] = Table(by_plural[plural].schema)
            for obj in getattr(snapshot, plural):
                aside.put(copy_of(obj))
            fresh.append((by_plural[plural], aside))
        events = [event for table, aside in fresh for event in _difference(table, aside)]

        def restore() -> None:
            changed = events if self._commits == known else [event for table, aside in fresh for event in _difference(table, aside)]
            for table, aside in fresh:
                table.take_over(aside)
            self._publish(Commit(self._log.applied_index if self._log else 0, changed))

        return restore


class Watch:
    """Commits reduced to the wanted events, as an asynchronous iterator. Use with `with`; leaving it unsubscribes."""

    def __init__(self, store: Store, wanted: Callable[[Event], bool]) -> None:
        self._wanted = wanted
        self._commits: asyncio.Queue[Commit] = asyncio.Queue()
        self._undo = store.on_commit(self._on_commit)

    def _on_commit(self, commit: Commit) -> None:
        events = [e for e in commit.events if self._wanted(e)]
        if events:
            self._commits.put_nowait(Commit(commit.index, events))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._undo()

    async def next(self) -> Commit:
        """The next commit with a wanted event."""
        return await self._commits.get()

    async def __aiter__(self) -> AsyncIterator[Commit]:
        while True:
            yield await self._commits.get()


class _Batch(Generic[I]):
    """Items on their way into log entries: what was drawn from the source stays here until it is done, for a run may be repeated."""

    def __init__(self, items: Iterable[I], fn: Callable[[Tx, I], None], monotonic: Callable[[], float]) -> None:
        self._source = iter(items)
        self._fn = fn
        self._monotonic = monotonic
        self._drawn: deque[I] = deque()
        self._exhausted = False
        self._draw()

    @property
    def over(self) -> bool:
        """Nothing is left."""
        return self._exhausted and not self._drawn

    def take_off(self, count: int) -> None:
        """The first items are done."""
        for _ in range(count):
            self._drawn.popleft()
        if not self._drawn:
            self._draw()

    def run(self, tx: Tx) -> list[Exception | None]:
        """As many items as the limits and GROUP_SECONDS allow, at least one, each with its own savepoint; the error of each, if any."""
        done: list[Exception | None] = []
        first, size, started = len(tx.changes), 0, self._monotonic()
        while len(done) < len(self._drawn) or self._draw():
            before = tx.savepoint()
            error: Exception | None = None
            try:
                self._fn(tx, self._drawn[len(done)])
            except Exception as exc:  # noqa: BLE001 - reported for this item
                tx.rollback(before)
                error = exc
            added = sum(change.size for change in tx.changes[before.changes :])
            if done and size + added > defaults.BATCH_BYTES:
                tx.rollback(before)
                break
            size += added
            done.append(error)
            if len(tx.changes) - first >= defaults.MAX_TRANSACTION_CHANGES or size >= defaults.BATCH_BYTES:
                break
            if self._monotonic() - started > GROUP_SECONDS:
                break
        return done

    def _draw(self) -> bool:
        """One more item from the source, if there is one: making them may be work too."""
        for item in self._source:
            self._drawn.append(item)
            return True
        self._exhausted = True
        return False


def events_of(request: api.InternalRaftRequest) -> list[Event]:
    """What an entry of the log did, without the objects as they were before updates. Raises ValueError."""
    return [Event(change.kind, change.action, change.obj) for change in _changes(request)]


def _in_order(objects: Mapping[str, Any]) -> Iterator[str]:
    """The ids, sorted; sorting many at once is one long step for the interpreter."""
    ids = list(objects)
    return heapq.merge(*(sorted(ids[i : i + SORTED_AT_ONCE]) for i in range(0, len(ids), SORTED_AT_ONCE)))


def _difference(old: Table[Any], new: Table[Any]) -> list[Event]:
    """What happens to listeners when one table takes the place of another."""
    before, after, kind = old.contents(), new.contents(), old.schema.kind
    events = [Event(kind, Action.CREATE if i not in before else Action.UPDATE, obj, before.get(i)) for i, obj in after.items()]
    return events + [Event(kind, Action.REMOVE, obj) for i, obj in before.items() if i not in after]


def _request(changes: Iterable[Change]) -> api.InternalRaftRequest:
    request = api.InternalRaftRequest()
    for change in changes:
        action = request.action.add(action=change.action.value)
        getattr(action, change.kind.value).CopyFrom(change.obj)
    return request


def _changes(request: api.InternalRaftRequest) -> list[Change]:
    """The actions of an entry; each object copied out, so that it does not keep the whole entry in memory."""
    changes = []
    for action in request.action:
        kind = action.WhichOneof("target")
        if kind is None or action.action not in {1, 2, 3}:
            raise ValueError("log entry holds an action without a target or of an unknown kind")
        changes.append(Change(Kind(kind), Action(action.action), copy_of(getattr(action, kind))))
    return changes
