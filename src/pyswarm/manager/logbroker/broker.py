"""One term as leader: subscriptions, listening nodes, and the lines between them. A new `Broker` is made for every term."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from typing import NoReturn

import structlog

from pyswarm.api import ids
from pyswarm.api import v1 as api
from pyswarm.clock import Clock, wait_for
from pyswarm.errors import Cancelled, InvalidArgument, NotFound, PermissionDenied, SwarmError, Unknown
from pyswarm.manager.logbroker import selection
from pyswarm.manager.logbroker.feeds import Listener, Outbox
from pyswarm.manager.logbroker.subscription import LISTEN_PATIENCE, Subscription
from pyswarm.manager.store import Action, Commit, Event, Kind, Store

log = structlog.get_logger(__name__)

DOUBT_SECONDS = 0.5
"""A call whose messages just end may have broken off: the news of that follows the end of the messages. One that is closed has not."""

STOPPED = "the manager that served these logs leads no longer; ask again"
_HERE_OR_SOON = frozenset({api.NodeStatus.READY, api.NodeStatus.UNKNOWN})


@dataclass(eq=False, slots=True)
class Open:
    """A subscription, the way to its reader, and the streams on which its nodes were asked."""

    state: Subscription
    outbox: Outbox = field(default_factory=Outbox)
    asked: dict[str, Listener] = field(default_factory=dict)


class Broker:
    """Everything is lost with the term; readers ask the next leader again."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._by_id: dict[str, Open] = {}
        """Also under the ids that nodes were told later."""
        self._open: dict[Open, None] = {}
        self._listeners: dict[str, dict[Listener, None]] = {}
        self._stopped = False

    def stop(self) -> None:
        """End every stream."""
        self._stopped = True
        for listeners in self._listeners.values():
            for listener in listeners:
                listener.end()
        for one in self._open:
            one.outbox.close()

    # --- readers

    async def subscribe(self, request: api.SubscribeLogsRequest) -> AsyncGenerator[api.SubscribeLogsMessage, None]:
        """The lines, until nothing more comes. Raises InvalidArgument, Unknown when some are missing, Cancelled when the term ends."""
        one = self._begin(request)
        state, outbox = one.state, one.outbox
        try:
            while not self._stopped:
                while (message := outbox.take()) is not None:
                    yield message
                outbox.changed.clear()
                for note in state.tick(self._clock.monotonic()):
                    outbox.put(api.SubscribeLogsMessage(messages=[note]))
                if outbox or self._stopped:
                    continue
                if state.finished:
                    break
                deadline = state.next_deadline()
                await wait_for(outbox.changed, self._clock, None if deadline is None else max(0.0, deadline - self._clock.monotonic()))
        finally:
            self._end(one)
        if self._stopped:
            raise Cancelled(STOPPED)
        if missing := state.incomplete():
            raise Unknown(missing)

    def _begin(self, request: api.SubscribeLogsRequest) -> Open:
        wanted, now = selection.wanted(request), self._clock.monotonic()
        state = Subscription(ids.new_id(), wanted, request.options, now)
        one = self._by_id[state.id] = Open(state)
        self._open[one] = None
        found = selection.select(self._store, wanted, follow=request.options.follow)
        state.pending.update(found.pending)
        for node_id in found.nodes:
            self._include(one, node_id)
        self._look_at_end(one)
        return one

    def _end(self, one: Open) -> None:
        self._open.pop(one, None)
        one.outbox.close()
        for node_id, message in one.state.closing():
            one.asked[node_id].tell(message)
        self._by_id = {told: other for told, other in self._by_id.items() if other is not one}

    def _include(self, one: Open, node_id: str) -> None:
        """Count a node in, and ask it if it listens."""
        now = self._clock.monotonic()
        node = self._store.nodes.get(node_id)
        expected = node is not None and node.status.state in _HERE_OR_SOON
        if one.state.add(node_id, now, LISTEN_PATIENCE if expected or one.state.options.follow else 0.0):
            one.outbox.changed.set()
            listeners = self._listeners.get(node_id)
            if listeners:
                # Of several the newest: the others may be what is left of a broken connection.
                self._tell(one, next(reversed(listeners)))

    def _tell(self, one: Open, listener: Listener) -> None:
        state, node_id = one.state, listener.node_id
        whole = state.options.follow
        selector = selection.whole(state.selector) if whole else selection.narrowed(self._store, state.selector, node_id)
        for message in state.tell(node_id, selector, ids.new_id, self._clock.monotonic()):
            if not message.close:
                self._by_id[message.id] = one
            listener.tell(message)
        one.asked[node_id] = listener
        one.outbox.changed.set()

    # --- nodes

    async def listen(self, node_id: str) -> AsyncGenerator[api.SubscriptionMessage, None]:
        """Subscriptions as they come and go; ends with the term."""
        listener = Listener(node_id)
        self._listeners.setdefault(node_id, {})[listener] = None
        for one in tuple(self._open):
            if node_id in one.state.members:
                self._tell(one, listener)
        try:
            while not self._stopped and (message := await listener.next()) is not None:
                yield message
        finally:
            self._leave(listener)

    def _leave(self, listener: Listener) -> None:
        node_id = listener.node_id
        others = self._listeners[node_id]
        del others[listener]
        if not others:
            del self._listeners[node_id]
        for one in self._open:
            if one.asked.get(node_id) is not listener:
                continue
            if others:
                self._tell(one, next(reversed(others)))
            else:
                one.state.lost(node_id, self._clock.monotonic())
                one.outbox.changed.set()

    async def publish(self, messages: AsyncIterator[api.PublishLogsMessage], node_id: str) -> None:
        """Take in one node's lines for one subscription, as fast as its reader takes them; returns when it or the subscription ends.

        Raises InvalidArgument, NotFound, PermissionDenied for what does not belong here; Cancelled when the term ends.
        """
        first = await anext(messages, None)
        if first is None:
            return
        told = first.subscription_id
        one = self._publishing(told, node_id)
        try:
            closed = await self._take_all(one, told, first, messages, node_id)
            if not closed:
                await self._clock.sleep(DOUBT_SECONDS)
            one.state.ended(told, node_id)
        except SwarmError as error:
            one.state.ended(told, node_id, error.message)
            raise
        finally:
            one.state.broke_off(told, node_id, self._clock.monotonic())  # no news if it has ended
            one.outbox.changed.set()
        if self._stopped:
            raise Cancelled(STOPPED)

    def _publishing(self, told: str, node_id: str) -> Open:
        if not told:
            raise InvalidArgument("missing subscription ID")
        one = self._by_id.get(told)
        # A node that was never asked learns as little as if there were no such subscription.
        if one is None or node_id not in one.state.members:
            raise NotFound("unknown subscription ID")
        return one

    async def _take_all(
        self, one: Open, told: str, message: api.PublishLogsMessage, messages: AsyncIterator[api.PublishLogsMessage], node_id: str
    ) -> bool:
        """Until the node closes the subscription, or it has no reader any more (True), or the messages end (False)."""
        gone = asyncio.ensure_future(one.outbox.closed.wait())
        following: asyncio.Future[api.PublishLogsMessage | None] | None = None
        try:
            while not message.close:
                await self._take(one, told, message, node_id)
                following = asyncio.ensure_future(_next(messages))
                await asyncio.wait({following, gone}, return_when=asyncio.FIRST_COMPLETED)
                if not following.done():
                    return True
                received = following.result()
                if received is None:
                    return False
                _check_id(received, told)
                message = received
            return True
        finally:
            unfinished = [future for future in (gone, following) if future is not None]
            for future in unfinished:
                future.cancel()
            await asyncio.gather(*unfinished, return_exceptions=True)

    async def _take(self, one: Open, told: str, message: api.PublishLogsMessage, node_id: str) -> None:
        for line in message.messages:
            self._check_origin(line.context, node_id)
        member = one.state.members[node_id]
        member.waiting += 1
        try:
            if not await one.outbox.room():
                return
        finally:
            member.waiting -= 1
        fresh = one.state.relayed(told, node_id, message.messages, self._clock.monotonic())
        if fresh:
            one.outbox.put(api.SubscribeLogsMessage(messages=fresh))

    def _check_origin(self, context: api.LogContext, node_id: str) -> None:
        """A line comes from its own node; of a task that is known, from the node and the service that it belongs to."""
        if context.node_id != node_id:
            raise PermissionDenied(f"invalid NodeID: expected={node_id};received={context.node_id}")
        task = self._store.tasks.get(context.task_id)
        if task is not None and (task.node_id != node_id or task.service_id != context.service_id):
            _refuse(task, context, node_id)

    # --- the store

    def on_commit(self, commit: Commit) -> None:
        """Follow tasks as they come and go."""
        if not any(one.state.options.follow for one in self._open):
            return
        for event in commit.events:
            for one in tuple(self._open):
                if one.state.options.follow:
                    self._on_event(one, event)

    def _on_event(self, one: Open, event: Event) -> None:
        state, obj = one.state, event.obj
        if isinstance(obj, api.Task):
            if not state.selector.has(obj):
                return
            self._on_task(one, obj, event.action)
        elif event.action is not Action.REMOVE or obj.id not in _selected(state, event.kind):
            return
        if event.action is Action.REMOVE:
            state.forget(obj.id)
        self._look_at_end(one)

    def _on_task(self, one: Open, task: api.Task, action: Action) -> None:
        if action is Action.REMOVE or task.node_id:
            one.state.pending.discard(task.id)
        elif task.id in one.state.selector.tasks:
            one.state.pending.add(task.id)
        if action is not Action.REMOVE and task.node_id:
            self._include(one, task.node_id)

    def _look_at_end(self, one: Open) -> None:
        state = one.state
        if state.options.follow:
            state.set_spent(selection.spent(self._store, state.selector, state.gone), self._clock.monotonic())
            one.outbox.changed.set()


def _selected(state: Subscription, kind: Kind) -> frozenset[str]:
    return {Kind.SERVICE: state.selector.services, Kind.NODE: state.selector.nodes}.get(kind, frozenset())


async def _next(messages: AsyncIterator[api.PublishLogsMessage]) -> api.PublishLogsMessage | None:
    return await anext(messages, None)


def _check_id(message: api.PublishLogsMessage, told: str) -> None:
    if not message.subscription_id:
        raise InvalidArgument("missing subscription ID")
    if message.subscription_id != told:
        raise InvalidArgument("different subscription IDs in the same session")


def _refuse(task: api.Task, context: api.LogContext, node_id: str) -> NoReturn:
    log.warning("node sends lines of a task that it does not have", node=node_id, task=task.id, service=context.service_id)
    raise PermissionDenied(f"task {task.id} of service {context.service_id} is not on node {node_id}")
