"""The reckoning of tests/cluster/chaos must notice what it is there to notice."""

from __future__ import annotations

import grpc
import pytest

from pyswarm.api import v1 as api
from tests.cluster.users import Created, Known, Memory, Missing, Outcome, Outrun, Removed, Saw, Taken, Updated, What, outcome, step
from tests.support.linear import FOREVER

MADE, SEEN = Created("i", "a"), Saw("i", "a")


def told(*calls: tuple[float, float, What]) -> str:
    """What is wrong with a history of one config."""
    memory = Memory()
    for begin, end, what in calls:
        memory.add("c", begin, end, what)
    return memory.unexplained()


@pytest.mark.parametrize(
    ("why", "calls"),
    [
        ("an acknowledged write is lost", [(0, 1, MADE), (2, 3, Updated("i", "a", "b")), (4, 5, SEEN)]),
        ("an acknowledged config is lost", [(0, 1, MADE), (2, 3, Saw("", ""))]),
        ("a write comes back", [(0, 1, MADE), (2, 3, Updated("i", "a", "b")), (4, 5, Updated("i", "b", "c")), (6, 7, Saw("i", "b"))]),
        ("two updates of one version are acknowledged", [(0, 1, MADE), (2, 9, Updated("i", "a", "b")), (2, 9, Updated("i", "a", "c"))]),
        ("a write that certainly did not happen shows", [(0, 1, MADE), (2, 3, Saw("i", "x"))]),
        ("a repeated call finds its own work", [(0, 1, Taken())]),
        ("a repeated update finds its own work", [(0, 1, MADE), (2, 3, Outrun("i", "a"))]),
        ("what is there is missing", [(0, 1, MADE), (2, 3, Missing("i"))]),
        ("what was removed is there", [(0, 1, MADE), (2, 3, Removed("i")), (4, 5, SEEN)]),
        ("a read is stale", [(0, 1, MADE), (2, 3, Updated("i", "a", "b")), (4, 5, Saw("i", "b")), (6, 7, SEEN)]),
        ("an uncertain write happens twice", [(0, 1, MADE), (2, FOREVER, Updated("i", "a", "b")), (3, 4, Saw("i", "b")), (5, 6, SEEN)]),
    ],
)
def test_bad_histories(why: str, calls: list[tuple[float, float, What]]) -> None:
    """What must never be told to users is found."""
    assert told(*calls), why


@pytest.mark.parametrize(
    "calls",
    [
        [(0, 1, MADE), (2, FOREVER, Updated("i", "a", "b")), (3, 4, SEEN), (5, 6, Saw("i", "b"))],
        [(0, 1, MADE), (2, FOREVER, Updated("i", "a", "b")), (3, 4, SEEN)],
        [(0, FOREVER, Created("", "a")), (2, 3, Taken()), (4, 5, SEEN), (6, 7, Removed("i")), (8, 9, Saw("", ""))],
        [(0, 9, MADE), (1, 8, Saw("", "")), (2, 7, SEEN), (3, 6, Outrun("i", "z"))],
        [(0, 1, MADE), (2, 3, Removed("i")), (4, 5, Missing("i")), (6, 7, Created("j", "b")), (8, 9, Missing("i"))],
    ],
)
def test_good_histories(calls: list[tuple[float, float, What]]) -> None:
    """What may happen is explained, with uncertain calls that did and that did not."""
    assert told(*calls) == ""


def test_states_that_are_not_known() -> None:
    """An id that no answer told is learnt from the next one."""
    assert list(step(Known("", "a"), SEEN)) == [Known("i", "a")]


def test_what_errors_say() -> None:
    """A refusal, a failure that certainly changed nothing, one that may have, and one that nobody foresaw are told apart."""
    code = grpc.StatusCode
    assert [outcome(c, text) for c, text in (
        (code.ALREADY_EXISTS, "config c already exists"),
        (code.UNKNOWN, "update out of sequence"),
        (code.UNKNOWN, "The swarm does not have a leader. It's possible"),
        (code.UNKNOWN, "raft: failed to process the request: node lost leader status"),
        (code.UNAVAILABLE, "Socket closed"),
        (code.INTERNAL, "internal error in Control.CreateConfig"),
    )] == [Outcome(True, Taken), Outcome(True, Outrun), Outcome(True), Outcome(False), Outcome(False), None]  # fmt: skip


def test_one_version_per_value() -> None:
    """A write that was applied twice shows as one value in two versions."""
    memory = Memory()
    config = api.Config(id="i", spec=api.ConfigSpec(annotations=api.Annotations(labels={"value": "a"})))
    for version, found in ((7, 0), (7, 0), (8, 1)):
        config.meta.version.index = version
        memory.note(config)
        assert len(memory.oddities) == found


def test_longest_gap() -> None:
    """It is counted from the fault on, also when no write was acknowledged at all."""
    memory = Memory(acknowledged=[1.0, 2.0, 2.5, 6.0])
    assert memory.longest_gap(2.25, 4.0) == 1.5
    assert memory.longest_gap(0.0, 6.5) == 3.5
    assert memory.longest_gap(7.0, 9.0) == 2.0
