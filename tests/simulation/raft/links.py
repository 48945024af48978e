"""Ways between members: one in each direction, which delays, loses, stalls and breaks. In order, unless the weather is wild."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable, Iterator

from pyswarm.raft import codec
from pyswarm.raft.messages import Message

Way = tuple[int, int]
"""From, to."""


class Links:
    """`tell(way, up)` is what the sender gets to know. A way that is cut loses everything at once, but its sender notices only later."""

    def __init__(self, chance: random.Random, reorder: bool, tell: Callable[[Way, bool], None], there: Callable[[int], bool]) -> None:
        self._chance = chance
        self._reorder = reorder
        self._tell = tell
        self._there = there
        self.now = 0.0
        self.cuts: set[Way] = set()
        self.sent = 0
        self._up: set[Way] = set()
        self._down: set[Way] = set()
        self._notices: list[tuple[float, Way]] = []
        self._epochs: dict[Way, int] = {}
        self._latest: dict[Way, float] = {}
        self._queue: list[tuple[float, int, Way, int, Message]] = []

    def add(self, way: Way) -> None:
        """From now on somebody tries to keep a way up."""
        self._down.add(way)

    def is_up(self, way: Way) -> bool:
        """Whether the sender may put messages on it."""
        return way in self._up

    def post(self, sender: int, messages: Iterable[tuple[int, Message]]) -> None:
        """Send, each with a delay."""
        # the library keeps members in sets, whose order differs between processes: a seed must not
        for to, message in sorted(messages, key=lambda m: m[0]):
            way = (sender, to)
            if way not in self._up:
                continue
            at = self.now + self._chance.uniform(0.001, 0.15)
            if self._reorder:
                if self._chance.random() < 0.1:
                    at += self._chance.uniform(0, 8)
                self._enqueue(at, way, message)
                if self._chance.random() < 0.1:
                    self._enqueue(at + self._chance.uniform(0, 5), way, message)
            else:
                if self._chance.random() < 0.01:
                    at += self._chance.uniform(0, 5)
                at = max(at, self._latest.get(way, 0) + 1e-6)
                self._latest[way] = at
                self._enqueue(at, way, message)

    def _enqueue(self, at: float, way: Way, message: Message) -> None:
        self.sent += 1
        heapq.heappush(self._queue, (at, self.sent, way, self._epochs.get(way, 0), message))

    def due(self) -> Iterator[tuple[int, int, Message]]:
        """What arrives now."""
        while self._queue and self._queue[0][0] <= self.now:
            _, _, way, epoch, message = heapq.heappop(self._queue)
            if way not in self.cuts and (epoch == self._epochs.get(way, 0) or self._reorder):
                yield *way, codec.parse(codec.encode(message).SerializeToString())

    def step(self) -> None:
        """Senders notice what is cut, and try again what is down."""
        for notice in [n for n in self._notices if n[0] <= self.now]:
            self._notices.remove(notice)
            if notice[1] in self.cuts:
                self.fall(notice[1])
        for way in sorted(self._down):
            if way not in self.cuts and self._there(way[1]) and self._there(way[0]) and self._chance.random() < 0.5:
                self._down.discard(way)
                self._up.add(way)
                self._tell(way, True)

    def fall(self, way: Way) -> None:
        """The connection breaks: what is under way is lost, and the sender knows."""
        self._epochs[way] = self._epochs.get(way, 0) + 1
        self._latest.pop(way, None)
        self._down.add(way)
        if way in self._up:
            self._up.discard(way)
            self._tell(way, False)

    def cut(self, way: Way) -> None:
        """Nothing passes any more."""
        if way not in self.cuts:
            self.cuts.add(way)
            self._notices.append((self.now + self._chance.uniform(0, 6), way))

    def calm(self) -> None:
        """From now on everything arrives, in order, as on any real connection."""
        self._reorder = False
        self.heal()

    def heal(self) -> None:
        """All ways work again; what was on them while they were cut is lost."""
        for way in sorted(self.cuts):
            self.fall(way)
        self.cuts.clear()
