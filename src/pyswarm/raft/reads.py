"""Reads on a leader: when its state may be shown as the newest there is. Bookkeeping only, never waits, writes nothing.

A read is right when everything is applied that was committed before it was asked for. Who that was is what a leader cannot know alone: it
may have been replaced while it was paused or cut off. So it notes its commit index and then asks the others whether its term is still
theirs (Ongaro's thesis, section 6.4). A majority that says so cannot have elected another leader before it was asked; so nothing beyond the
noted index was committed by then. No clock takes part in this, so none can make it wrong.

All reads that wait when a round of questions begins share it. One that comes later waits for the next round: the answers under way may be
older than it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from pyswarm.raft.log import ProposalError

Reader = asyncio.Future[int]


@dataclass(slots=True)
class Round:
    """One question to everybody, on behalf of some reads."""

    number: int
    index: int
    readers: list[Reader]
    asked: set[int] = field(default_factory=set)
    echoed: set[int] = field(default_factory=set)

    def proven(self, voters: AbstractSet[int]) -> bool:
        """Whether a majority, this member with it, had the term after the question was put. `voters`: the others that vote now."""
        return 2 * (len(self.echoed & voters) + 1) > len(voters) + 1


class Reads:
    """The reads of one member while it leads; the rounds are numbered through its whole life, so an answer fits only its own."""

    def __init__(self) -> None:
        self._waiting: list[Reader] = []
        self._round: Round | None = None
        self._proven: list[tuple[int, list[Reader]]] = []
        self._number = 0

    def add(self, reader: Reader) -> None:
        """Have the next round be about this read too."""
        self._waiting.append(reader)

    def echo(self, member: int, number: int) -> None:
        """A member of this leader's term has answered a round."""
        if self._round is not None and self._round.number == number:
            self._round.echoed.add(member)

    def advance(self, committed: int, applied: int, voters: AbstractSet[int]) -> None:
        """Note what was proven, release who has it applied, and begin the next round. Only while leadership is announced."""
        while True:
            if self._round is None:
                self._begin(committed)
            if self._round is None or not self._round.proven(voters):
                break
            self._proven.append((self._round.index, self._round.readers))
            self._round = None
        for index, readers in self._proven:
            if index <= applied:
                for reader in readers:
                    if not reader.done():
                        reader.set_result(applied)
        self._proven = [(index, readers) for index, readers in self._proven if index > applied]

    def _begin(self, committed: int) -> None:
        readers, self._waiting = [r for r in self._waiting if not r.done()], []
        if readers:
            self._number += 1
            self._round = Round(self._number, committed, readers)

    def questions(self, voters: AbstractSet[int], *, again: bool) -> tuple[int, list[int]]:
        """The round's number and who is to be asked now; `again`: also those whose answer may have been lost."""
        if self._round is None:
            return 0, []
        if again:
            self._round.asked &= self._round.echoed
        missing = sorted(voters - self._round.asked)
        self._round.asked.update(missing)
        return self._round.number, missing

    def fail(self, error: ProposalError) -> None:
        """Leadership is gone: no read can be answered here."""
        readers = [*self._waiting, *(r for _, waiting in self._proven for r in waiting), *(self._round.readers if self._round else ())]
        self._waiting, self._proven, self._round = [], [], None
        for reader in readers:
            if not reader.done():
                reader.set_exception(error)
