"""Random lives of whole clusters."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pyswarm.raft.reads import Round
from tests.simulation.raft.clients import step
from tests.simulation.raft.cluster import Cluster, unfiltered
from tests.simulation.raft.judge import Violation
from tests.simulation.raft.lives import made, quiet, run_seed
from tests.simulation.raft.trouble import live
from tests.simulation.raft.weather import CALM, EVERYTHING, Weather, small_sizes
from tests.support.linear import Call, explain

GROUP = 6


@pytest.mark.parametrize("first", range(0, 60, GROUP))
def test_nothing_acknowledged_is_lost_and_nobody_diverges(first: int) -> None:
    """One to seven members, any mixture of faults: the invariants hold, reads are fresh, and the cluster recovers. [store 137, 138]"""
    for seed in range(first, first + GROUP):
        run_seed(seed)


def test_lives_with_everything_in_them() -> None:
    """The same with every fault and every change of members at once; something of each really happens. [store 93, 138]"""
    lives = []
    for size in (1, 3, 3, 5, 5):
        with small_sizes(), quiet():
            lives.append(cluster := Cluster(len(lives), size, EVERYTHING))
            live(cluster, 600)
    judges = [cluster.judge for cluster in lives]
    managers = [manager for cluster in lives for manager in cluster.managers.values()]
    reads = [read for cluster in lives for read in cluster.clients.reads]
    assert max(len(judge.leaders) for judge in judges) > 1
    assert any(judge.installed for judge in judges)
    assert len(managers) > 1 + 3 + 3 + 5 + 5
    assert any(manager.removed for manager in managers)
    assert any(manager.addr != "addr" for manager in managers)
    assert sum(manager.rekeyed for manager in managers) > 10
    assert any(read.index is not None for read in reads)
    assert any(read.error is not None for read in reads)


def test_a_seed_tells_the_same_story_twice() -> None:
    """A failing seed is a bug report that replays."""
    ends = []
    for _ in range(2):
        with small_sizes(), quiet():
            cluster, steps = made(4)
            live(cluster, steps)
        ends.append((cluster.judge.history, cluster.judge.leaders, cluster.now, cluster.links.sent, cluster.chance.random()))
    assert ends[0] == ends[1]


def test_the_filter_is_what_makes_it_hold() -> None:
    """With PySyncObj unfiltered, members apply different entries and lose writes: the simulation sees the defects. [store 138]"""
    found: list[str] = []
    for seed in range(40):
        with small_sizes(), quiet():
            found += violation(Cluster(seed, 3, Weather(reorder=True), unfiltered), 1500)
        if len([v for v in found if "differently" in v or "lost" in v or "two leaders" in v]) == 3:
            return
    pytest.fail(f"too little is seen: {found}")


def violation(cluster: Cluster, steps: int) -> list[str]:
    """What is wrong with a life, if anything."""
    try:
        live(cluster, steps)
    except Violation as found:
        return [str(found)]
    return []


def test_a_leader_that_answers_without_asking_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same lives, with reads that believe in their leader, show old ones: the simulation sees them."""
    monkeypatch.setattr(Round, "proven", lambda *_: True)
    weather = replace(CALM, freeze=0.01, propose=0.3, read=0.5)
    with small_sizes(), quiet():
        assert any("old was read as fresh" in text for seed in range(40) for text in violation(Cluster(seed, 3, weather), 600))


def served() -> Cluster:
    """Three members without trouble, and a few writes and reads."""
    cluster = Cluster(1, 3, Weather(cut=0, isolate=0, reset=0, crash=0))
    for _ in range(250):
        cluster.step()
    cluster.calm()
    cluster.conclude()
    return cluster


def test_another_state_is_seen() -> None:
    """The judgement itself works: a member with another state is noticed."""
    with quiet():
        cluster = served()
    cluster.managers[2].machine.names[0] = "something else"
    with pytest.raises(Violation, match="another state"):
        cluster.conclude()


def test_an_old_read_is_seen() -> None:
    """The judgement itself works: a read that misses what was acknowledged before it began is noticed."""
    with quiet():
        cluster = served()
    read = max(cluster.clients.reads, key=lambda read: read.seen)
    read.seen //= 2
    with pytest.raises(Violation, match="old was read as fresh"):
        cluster.conclude()
    assert explain([Call(0, 1, ("write", 0)), Call(2, 3, ("read", 0))], 0, step) is None
    assert explain([Call(0, 2, ("write", 0)), Call(1, 3, ("read", 0))], 0, step) is not None


def test_a_refused_write_that_happened_is_seen() -> None:
    """The judgement itself works: "it certainly did not happen" is taken at its word."""
    with quiet():
        cluster = served()
    write = next(write for write in cluster.clients.writes if write.index is not None)
    write.index, write.error = None, ValueError("refused")
    with pytest.raises(Violation, match="refused for certain"):
        cluster.conclude()


def test_without_trouble_nothing_changes_hands() -> None:
    """Idle for a hundred election time-outs: one leader, one term. [store 136]"""
    with quiet():
        cluster = Cluster(2, 3, CALM)
        for _ in range(10_000):
            cluster.step()
    assert len(cluster.judge.leaders) == 1
