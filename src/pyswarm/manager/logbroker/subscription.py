"""One subscription: which nodes serve it, what they have sent, who is missing, when it ends. Pure; time is passed in (seconds, monotonic).

A node that goes away and comes back is asked again under a new id, and what it sent before is not relayed twice (`api.logs`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pyswarm.api import logs
from pyswarm.api import v1 as api
from pyswarm.api.logs import Places
from pyswarm.manager.logbroker.selection import Wanted

LISTEN_PATIENCE = 3.0
"""How long a node that should be there is given to listen (again): sessions are renewed, and a new leader is found only after a moment."""

SILENCE = 60.0
"""How long a node that does not follow may send nothing, while it is not us who make it wait."""

LINGER = 3.0
"""How long followed output is waited for after the last line, once nothing that could write another is left."""


@dataclass(slots=True)
class Member:
    """One node. `told` is the id under which it was last asked, empty before; `absent_until` is set while it does not listen."""

    heard: float
    told: str = ""
    absent_until: float | None = None
    done: bool = False
    waiting: int = 0
    """Messages of it that wait for the reader."""
    places: Places = field(default_factory=Places)


class Subscription:
    """The state of one subscription."""

    def __init__(self, subscription_id: str, selector: Wanted, options: api.LogSubscriptionOptions, now: float) -> None:
        self.id = subscription_id
        self.selector = selector
        self.options = options
        self.members: dict[str, Member] = {}
        self.pending: set[str] = set()
        self.gone: set[str] = set()
        """Selected ids whose object was removed."""
        self.over = False
        """Following makes no sense any more."""
        self._spent = False
        self._last = now
        self._reasons: list[str] = []
        self._skip: dict[str, Places] = {}

    # --- nodes

    def add(self, node_id: str, now: float, patience: float) -> bool:
        """Count a node in; it has `patience` seconds to begin to listen. False when it was counted in before."""
        if node_id in self.members:
            return False
        self.members[node_id] = Member(heard=now, absent_until=now + patience)
        return True

    def tell(self, node_id: str, selector: api.LogSelector, new_id: Callable[[], str], now: float) -> list[api.SubscriptionMessage]:
        """What a node that listens is told. The first time: the subscription; later: that the old one is over, and a new one instead.

        Nothing if it has sent everything already; one that is to follow may have been shut down in good order, and have more now.
        """
        member = self.members[node_id]
        if member.done and not self.options.follow:
            return []
        member.done, member.absent_until, member.heard = False, None, now
        if not member.told:
            member.told = self.id
            return [api.SubscriptionMessage(id=self.id, selector=selector, options=self.options)]
        old, member.told = member.told, new_id()
        self._skip.pop(old, None)
        self._skip[member.told] = member.places.copy()
        again = api.SubscriptionMessage(id=member.told, selector=selector, options=member.places.resumed(self.options))
        return [api.SubscriptionMessage(id=old, close=True), again]

    def closing(self) -> list[tuple[str, api.SubscriptionMessage]]:
        """Whom to tell at the end, and what."""
        return [
            (node_id, api.SubscriptionMessage(id=member.told, close=True))
            for node_id, member in self.members.items()
            if member.told and not member.done
        ]

    def lost(self, node_id: str, now: float) -> None:
        """The node listens no longer, or what it was sending broke off."""
        member = self.members.get(node_id)
        if member is not None and not member.done and member.absent_until is None:
            member.absent_until = now + LISTEN_PATIENCE

    def broke_off(self, told: str, node_id: str, now: float) -> None:
        """What the node was sending under the id `told` ended without its saying so."""
        if self.members[node_id].told in {told, ""}:
            self.lost(node_id, now)

    def ended(self, told: str, node_id: str, error: str = "") -> None:
        """The node has sent everything under the id `told`, or failed to. Repeated it completes nothing, but an error is remembered."""
        if self.members[node_id].told in {told, ""}:
            self._finish(node_id, error)

    def _finish(self, node_id: str, error: str) -> None:
        member = self.members[node_id]
        member.done, member.absent_until = True, None
        if error:
            self._reasons.append(error)

    # --- lines

    def relayed(self, told: str, node_id: str, messages: Sequence[api.LogMessage], now: float) -> list[api.LogMessage]:
        """Take in what a node sent under the id `told`; returns what of it the reader wants and has not had before.

        The streams are looked at here too: Docker Engines send both whatever is asked for.
        """
        member = self.members[node_id]
        member.heard = self._last = now
        skip, streams = self._skip.get(told), frozenset(self.options.streams)
        fresh = [message for message in messages if skip is None or skip.passes(message)]
        for message in fresh:
            member.places.remember(message)
        return [message for message in fresh if not streams or message.stream in streams]

    def forget(self, object_id: str) -> None:
        """A service, node or task was removed from the store."""
        if object_id in self.selector.services | self.selector.nodes | self.selector.tasks:
            self.gone.add(object_id)
        for member in self.members.values():
            member.places.forget(object_id)

    # --- time

    def set_spent(self, spent: bool, now: float) -> None:
        """Whether something can still write what is followed."""
        if spent and not self._spent:
            self._last = max(self._last, now)
        self._spent = spent

    @property
    def finished(self) -> bool:
        """Nothing more comes."""
        return self.over if self.options.follow else all(member.done for member in self.members.values())

    def next_deadline(self) -> float | None:
        """When `tick` has something to do at the latest; None when only events matter."""
        moments = [member.absent_until for member in self.members.values() if member.absent_until is not None]
        if not self.options.follow:
            moments += [member.heard + SILENCE for member in self.members.values() if _owes(member)]
        elif self._spent:
            moments.append(self._last + LINGER)
        return min(moments, default=None)

    def tick(self, now: float) -> list[api.LogMessage]:
        """Draw the conclusions of time passing. Returns notes for the reader: once per node and absence, when following."""
        notes: list[api.LogMessage] = []
        for node_id, member in self.members.items():
            if member.absent_until is not None and member.absent_until <= now:
                member.absent_until = None
                if self.options.follow:
                    notes.append(logs.missing(node_id))
                else:
                    self._finish(node_id, f"node {node_id} {'disconnected unexpectedly' if member.told else 'is not available'}")
            elif not self.options.follow and _owes(member) and member.heard + SILENCE <= now:
                self._finish(node_id, f"node {node_id} has sent nothing for {SILENCE:g} s")
        waiting = any(member.waiting for member in self.members.values())
        if self._spent and not waiting and self._last + LINGER <= now:
            self.over = True
        return notes

    def incomplete(self) -> str:
        """What is missing from what was read to the end, as one sentence; empty when nothing is."""
        reasons = [*self._reasons, *(f"task {task_id} has not been scheduled" for task_id in sorted(self.pending))]
        if self.options.follow or not reasons:
            return ""
        return f"warning: incomplete log stream. some logs could not be retrieved for the following reasons: {', '.join(reasons)}"


def _owes(member: Member) -> bool:
    """It was asked and should be sending."""
    return bool(member.told) and not member.done and not member.waiting and member.absent_until is None
