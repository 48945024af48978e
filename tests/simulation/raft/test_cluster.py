"""Random lives of whole clusters."""

from __future__ import annotations

import collections
import logging
from collections.abc import Iterator

import pytest

from pyswarm.raft.reads import Round
from tests.simulation.raft.cluster import Cluster, Violation, Weather, unfiltered


@pytest.fixture
def _quiet_library() -> Iterator[None]:
    """The library says aloud what goes wrong; here that is the point."""
    logging.getLogger("pysyncobj").setLevel(logging.CRITICAL + 1)
    yield
    logging.getLogger("pysyncobj").setLevel(logging.NOTSET)


ORDERED, WILD = Weather(), Weather(reorder=True)
POLITICS = Weather(join=0.01, remove=0.01, transfer=0.01)
READING = Weather(read=0.5, pause=0.003)
READING_WILD = Weather(reorder=True, read=0.5, pause=0.003, join=0.01, remove=0.01, transfer=0.01)


def joined(seed: int, size: int, weather: Weather) -> Cluster:
    """One member, and the others about to join it."""
    cluster = Cluster(seed, 1, weather)
    for _ in range(size - 1):
        cluster.join()
    return cluster


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("size", "weather"), [(3, ORDERED), (3, WILD), (5, ORDERED), (5, WILD)])
def test_nothing_acknowledged_is_lost_and_nobody_diverges(seed: int, size: int, weather: Weather) -> None:
    """Partitions, stalls, resets, crashes with torn disks, snapshots: the invariants hold and the cluster recovers. [store 138]"""
    cluster = Cluster(seed, size, weather)
    cluster.run(800)
    assert any(outcome.index is not None for _, outcome in cluster.proposals)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("size", [1, 3])
def test_members_come_and_go(seed: int, size: int) -> None:
    """The same while managers join, are removed, and hand leadership over, in the middle of everything else. [store 138]"""
    cluster = joined(seed, size, POLITICS)
    cluster.run(800)
    assert len(cluster.managers) > size
    assert cluster.transfers


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("size", "weather"), [(3, READING), (5, READING_WILD)])
def test_no_read_misses_what_was_acknowledged_before_it(seed: int, size: int, weather: Weather) -> None:
    """Whoever believes to lead, through pauses, partitions and changes of members, answers with the newest state or not at all."""
    cluster = joined(seed, size, weather)
    cluster.run(1000)
    assert cluster.reads_answered > 5


def test_a_leader_that_answers_without_asking_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same lives, with reads that believe in their leader, show stale ones: the judgement works."""
    monkeypatch.setattr(Round, "proven", lambda *_: True)
    with pytest.raises(Violation, match="answered a read from before"):
        collections.deque((joined(seed, 5, READING_WILD).run(1000) for seed in range(40)), maxlen=0)


def test_a_sole_leader_syncs_what_it_counts() -> None:
    """In this life a power cut takes the entry that opened a sole member's term, right after the library counted it as committed."""
    Cluster(128, 1, POLITICS).run(1000)


def test_a_seed_tells_the_same_story_twice() -> None:
    """A failing seed is a bug report that replays."""
    first, second = Cluster(3, 5, WILD), Cluster(3, 5, WILD)
    for cluster in (first, second):
        cluster.run(400)
    assert first.history == second.history
    assert (first.now, first.sequence) == (second.now, second.sequence)


@pytest.mark.usefixtures("_quiet_library")
def test_the_filter_is_what_makes_it_hold() -> None:
    """The same lives with PySyncObj unfiltered make members apply different entries: the simulation sees the defects. [store 138]"""
    violations = []
    for seed in range(12):
        try:
            Cluster(seed, 3, WILD, unfiltered).run(2000)
        except Violation as exc:
            violations.append(str(exc))
    assert len([v for v in violations if "differently" in v or "lost" in v or "two leaders" in v]) >= 3, violations


def test_a_violation_is_seen() -> None:
    """The judgement itself works: a member with another state is noticed."""
    cluster = Cluster(1, 3, Weather(cut=0, isolate=0, reset=0, crash=0))
    cluster.run(100)
    cluster.managers[2].machine.names[0] = "something else"
    with pytest.raises(Violation, match="another state"):
        cluster.judge_all()
