"""Is there an order in which these calls could have happened one after another? A checker for histories of one object.

Wing and Gong's search with Lowe's memory of visited configurations: a call may take effect at any moment between its beginning and its end;
one whose outcome is unknown at any moment after its beginning, or never. Written for short histories with little concurrency, as the
simulation's clients make them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

State = TypeVar("State", bound=Hashable)
FOREVER = float("inf")


@dataclass(frozen=True, slots=True)
class Call:
    """One call. `end` is when its answer came, FOREVER if none did. `what` says what it was, for the model and for people."""

    begin: float
    end: float
    what: Any

    @property
    def uncertain(self) -> bool:
        """Nobody knows whether it happened."""
        return self.end == FOREVER


def explain(calls: Sequence[Call], initial: State, step: Callable[[State, Any], Iterable[State]]) -> list[Call] | None:
    """An order that explains the history; None when there is none.

    `step(state, what)` gives the states in which the object may be after a call that ended as `what` says: none if it cannot have.
    Uncertain calls appear in the order only if they had to happen.
    """
    ordered = sorted(calls, key=lambda call: call.begin)
    certain = sum(1 << n for n, call in enumerate(ordered) if not call.uncertain)
    seen: set[tuple[int, State]] = set()
    start: tuple[int, State, Call | None] = (0, initial, None)
    choices: list[Iterator[tuple[int, State, Call | None]]] = [iter([start])]
    trail: list[Call | None] = []
    while choices:
        chosen = next(choices[-1], None)
        if chosen is None:
            choices.pop()
            if trail:
                trail.pop()
            continue
        done, state, call = chosen
        if done & certain == certain:
            return [taken for taken in [*trail, call] if taken is not None]
        if (done, state) not in seen:
            seen.add((done, state))
            trail.append(call)
            choices.append(iter(list(_successors(ordered, done, state, step))))
    return None


def _successors(
    ordered: Sequence[Call], done: int, state: State, step: Callable[[State, Any], Iterable[State]]
) -> Iterator[tuple[int, State, Call | None]]:
    """What may come next: a call that began before every other waiting one ended.

    One that fits now and changes nothing is taken without looking at others: whatever order there is, it can as well come first in it.
    Otherwise each write that overtakes a read would be tried with all that follows before the read is found to fit no more.
    """
    waiting = [(n, call) for n, call in enumerate(ordered) if not done >> n & 1]
    first_end = min(call.end for _, call in waiting)
    found: list[tuple[int, State, Call | None]] = []
    for n, call in waiting:
        if call.begin > first_end:
            break
        afters = tuple(step(state, call.what))
        if afters == (state,) and not call.uncertain:
            return iter([(done | 1 << n, state, call)])
        found += ((done | 1 << n, after, call) for after in afters)
    return iter(found)
