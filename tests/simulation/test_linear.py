"""The checker of histories knows good ones from bad ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from tests.simulation.users import Created, Known, Missing, Removed, Saw, Taken, Updated, step
from tests.support.linear import FOREVER, Call, explain


def register(state: int, what: tuple[str, int]) -> Iterable[int]:
    """A number that is written and read."""
    kind, value = what
    if kind == "write":
        yield value
    elif state == value:
        yield state


def counter(state: int, what: tuple[str, int]) -> Iterable[int]:
    """A number that is added to, and read."""
    kind, value = what
    if kind == "add":
        yield state + value
    elif state == value:
        yield state


def history(*calls: tuple[float, float, Any]) -> list[Call]:
    """Calls by beginning, end, and what."""
    return [Call(*call) for call in calls]


W, R, A = "write", "read", "add"

GOOD = {
    "one after another": history((0, 1, (W, 1)), (2, 3, (R, 1))),
    "a read beside a write sees the old": history((0, 5, (W, 1)), (1, 2, (R, 0))),
    "a read beside a write sees the new": history((0, 5, (W, 1)), (1, 2, (R, 1))),
    "two writes at once, either order": history((0, 5, (W, 1)), (0, 5, (W, 2)), (6, 7, (R, 1))),
    "an uncertain write that happened": history((0, FOREVER, (W, 1)), (2, 3, (R, 1))),
    "an uncertain write that did not happen": history((0, FOREVER, (W, 1)), (2, 3, (R, 0)), (4, 5, (R, 0))),
    "an uncertain write that happened late": history((0, FOREVER, (W, 1)), (2, 3, (R, 0)), (4, 5, (R, 1))),
    "an uncertain write that happened after another": history((0, FOREVER, (W, 1)), (2, 3, (W, 2)), (4, 5, (R, 2)), (6, 7, (R, 1))),
}
BAD = {
    "a stale read": history((0, 1, (W, 1)), (2, 3, (R, 0))),
    "a read of what nobody wrote": history((0, 1, (W, 1)), (0, 3, (R, 2))),
    "a lost write": history((0, 1, (W, 1)), (2, 3, (R, 1)), (4, 5, (R, 0))),
    "reads that go back": history((0, 9, (W, 1)), (1, 2, (R, 1)), (3, 4, (R, 0))),
    "a read before the write began": history((0, 1, (R, 1)), (2, 3, (W, 1))),
    "an uncertain write that came and went": history((0, FOREVER, (W, 1)), (2, 3, (R, 1)), (4, 5, (R, 0))),
    "two readers who disagree on the order": history((0, 1, (W, 1)), (0, 9, (W, 2)), (2, 3, (R, 2)), (4, 5, (R, 1))),
}


@pytest.mark.parametrize("name", GOOD)
def test_good_histories_of_a_register(name: str) -> None:
    """A history that some order of the calls explains is found to be good, and the order is one."""
    state = 0
    order = explain(GOOD[name], 0, register)
    assert order is not None
    for call in order:
        (state,) = register(state, call.what)


@pytest.mark.parametrize("name", BAD)
def test_bad_histories_of_a_register(name: str) -> None:
    """A stale read, a lost write and their like have no explanation."""
    assert explain(BAD[name], 0, register) is None


def test_write_applied_twice() -> None:
    """An addition that counts twice has no explanation; two additions of which one is uncertain have one."""
    assert explain(history((0, 1, (A, 1)), (2, 3, (R, 2))), 0, counter) is None
    assert explain(history((0, 1, (A, 1)), (0, FOREVER, (A, 1)), (2, 3, (R, 2))), 0, counter) is not None
    assert explain(history((0, FOREVER, (A, 1)), (2, 3, (R, 1)), (4, 5, (R, 2))), 0, counter) is None


def explained(*calls: tuple[float, float, Any]) -> bool:
    """Whether users of one service name may have seen this."""
    none: Known | None = None
    return explain(history(*calls), none, step) is not None


def test_life_of_a_service() -> None:
    """Creation, updates and removal as users see them are explained; each telling something impossible is not."""
    made, seen = Created("id1", "a", False), Saw("id1", "a")
    changed = Updated("id1", "a", "b", False)
    assert explained((0, 1, made), (2, 3, seen), (4, 5, changed), (6, 7, Saw("id1", "b")), (8, 9, Removed("id1")), (10, 11, Saw("", "")))
    assert not explained((0, 1, made), (2, 3, changed), (4, 5, seen))
    assert not explained((0, 1, made), (2, 3, Created("id2", "b", False)))
    assert not explained((0, 1, made), (2, 3, Removed("id1")), (4, 5, seen))
    assert not explained((0, 1, made), (2, 3, Missing("id1")))
    assert explained((0, 1, made), (2, 3, Taken()))
    assert not explained((0, 1, Taken()))


def test_uncertain_life_of_a_service() -> None:
    """A creation without an answer may have made the service, whose id a read then tells; it may not have made two."""
    begun = Created("", "a", False)
    assert explained((0, FOREVER, begun), (2, 3, Saw("", "")))
    assert explained((0, FOREVER, begun), (2, 3, Saw("id1", "a")), (4, 5, Removed("id1")))
    assert not explained((0, FOREVER, begun), (2, 3, Saw("id1", "a")), (4, 5, Saw("id2", "a")))
    assert not explained((0, FOREVER, begun), (2, 3, Saw("id1", "a")), (4, 5, Removed("id1")), (6, 7, Saw("id3", "a")))


def test_update_that_rolls_itself_back() -> None:
    """A moody update may take itself back, a plain one never does."""
    assert explained((0, 1, Created("i", "a", False)), (2, 3, Updated("i", "a", "b", True)), (4, 5, Saw("i", "b")), (6, 7, Saw("i", "a")))
    assert not explained(
        (0, 1, Created("i", "a", False)), (2, 3, Updated("i", "a", "b", False)), (4, 5, Saw("i", "b")), (6, 7, Saw("i", "a"))
    )
