"""Those who write and read through the members, and what they were told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from pyswarm.raft.log import ProposalError
from pyswarm.raft.replica import Replica
from tests.raft.nodes import Recorder, create
from tests.support.linear import FOREVER, Call

What = tuple[str, int]


class Outcome:
    """What becomes of a wish; stands in for a future, without an event loop."""

    def __init__(self, name: str = "", now: Callable[[], float] = lambda: 0.0, look: Callable[[], int] = lambda: 0) -> None:
        self.name = name
        self.index: int | None = None
        self.error: BaseException | None = None
        self.begin = now()
        self.end = FOREVER
        self.seen = 0
        """What a reader found when it was told that it may look: how many writes were there."""
        self._now = now
        self._look = look

    def done(self) -> bool:
        """See Future."""
        return self.index is not None or self.error is not None

    def set_result(self, index: int) -> None:
        """See Future."""
        self.index, self.end, self.seen = index, self._now(), self._look()

    def set_exception(self, error: BaseException) -> None:
        """See Future."""
        self.error, self.end = error, self._now()

    @property
    def refused(self) -> bool:
        """It certainly did not and will not happen."""
        return self.error is not None and not (isinstance(self.error, ProposalError) and self.error.uncertain)


class Clients:
    """All of them together."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.writes: list[Outcome] = []
        self.reads: list[Outcome] = []

    def write(self, replica: Replica, name: str = "") -> Outcome:
        """One more write through a member."""
        outcome = Outcome(name or f"w{len(self.writes)}", self._now)
        try:
            replica.submit(create(outcome.name), None, outcome)  # type: ignore[arg-type]
        except ProposalError as error:
            outcome.set_exception(error)
        self.writes.append(outcome)
        return outcome

    def read(self, replica: Replica, machine: Recorder) -> Outcome:
        """One more read through a member."""
        outcome = Outcome("", self._now, lambda: len(machine.names))
        try:
            replica.submit_read(outcome)  # type: ignore[arg-type]
        except ProposalError as error:
            outcome.set_exception(error)
        self.reads.append(outcome)
        return outcome

    def history(self, order: Sequence[str]) -> list[Call]:
        """What was done and seen, in terms of the order in which the writes are in the log."""
        place = {name: n for n, name in enumerate(order)}
        calls = [Call(w.begin, w.end if w.index is not None else FOREVER, ("write", place[w.name])) for w in self.writes if w.name in place]
        return calls + [Call(r.begin, r.end, ("read", r.seen)) for r in self.reads if r.index is not None]


def step(length: int, what: What) -> Iterable[int]:
    """The model: a list that writes append to, each at its place, and reads see as long as it is then."""
    kind, n = what
    return () if n != length else (length + 1,) if kind == "write" else (length,)
