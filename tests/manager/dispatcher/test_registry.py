"""Sessions, grace and rate limit without a loop."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyswarm.errors import InvalidArgument, NotFound, Unavailable
from pyswarm.manager.dispatcher.config import Config, draw_period
from pyswarm.manager.dispatcher.registry import Expired, Registry


def registry() -> Registry:
    """With the defaults of the rate limit."""
    return Registry(8.0, 3)


def test_jitter_stays_within_epsilon() -> None:
    """Every drawn period lies within epsilon of the configured one. [dispatcher 1]"""
    rng = random.Random(7)
    draws = [draw_period(0.1, Config(epsilon=0.05), rng) for _ in range(1024)]
    assert min(draws) >= 0.05
    assert max(draws) < 0.15
    assert max(draws) - min(draws) > 0.08


def test_no_epsilon_no_jitter() -> None:
    """Without epsilon every draw is the period. [dispatcher 2]"""
    assert {draw_period(5.0, Config(epsilon=0), random.Random(n)) for n in range(20)} == {5.0}


@pytest.mark.parametrize("period", [0.0, -1.0])
def test_period_that_is_none_counts_as_default(period: float) -> None:
    """A heartbeat period that is not positive would expire all nodes at once; the default is used instead. [dispatcher trap 16]"""
    assert 4.5 <= draw_period(period, Config(), random.Random(1)) < 5.5


def test_beaten_entry_does_not_expire() -> None:
    """Heartbeats in time keep an entry; the first missed one ends it, once. [dispatcher 3, 4]"""
    r = registry()
    r.register("n", "s", 0.0, 0.2)
    for step in range(1, 5):
        assert r.expire(step * 0.1) == []
        r.beat("n", "s", step * 0.1 + 0.2)
    assert r.expire(0.59) == []
    assert r.expire(0.61) == [Expired("n", "s")]
    assert r.expire(99.0) == []


def test_shorter_timeout_counts_from_the_next_beat() -> None:
    """A shorter period takes effect with the heartbeat that draws it, then at once. [dispatcher 6]"""
    r = registry()
    r.register("n", "s", 0.0, 1.0)
    assert not r.any_due(0.5)
    r.beat("n", "s", 0.6)
    assert r.next_deadline() == pytest.approx(0.6)
    assert r.expire(0.6) == [Expired("n", "s")]


def test_check_tells_unknown_nodes_from_wrong_sessions() -> None:
    """No entry is NOT_FOUND; another, an empty or a missing session id is INVALID_ARGUMENT. [dispatcher 25, 26]"""
    r = registry()
    with pytest.raises(NotFound, match=r"^node not registered$"):
        r.check("n", "")
    r.add_unknown("n", 30.0)
    for session in ("", "s"):
        with pytest.raises(InvalidArgument, match=r"^session invalid$"):
            r.check("n", session)
    r.register("n", "s", 0.0, 15.0)
    r.check("n", "s")
    with pytest.raises(InvalidArgument):
        r.check("n", "")


def test_old_deadline_does_not_end_a_newer_session() -> None:
    """A timer belongs to its session: the old one's moment passes without effect. [dispatcher 39]"""
    r = registry()
    r.register("n", "s1", 0.0, 15.0)
    r.register("n", "s2", 14.9, 29.9)
    assert r.expire(15.0) == []
    r.forget("n", "s1")
    r.check("n", "s2")
    assert r.expire(29.9) == [Expired("n", "s2")]


def test_new_node_may_register_four_times() -> None:
    """The first registration of a new node is not counted; the fifth within the window is refused. [dispatcher 10]"""
    r = registry()
    for number in range(4):
        r.admit("n", 0.0)
        r.register("n", f"s{number}", 0.0, 15.0)
    with pytest.raises(Unavailable, match=r"^node n exceeded rate limit count of registrations$"):
        r.admit("n", 0.0)


def test_unknown_node_may_register_three_times_and_again_later() -> None:
    """An expected node fails at the fourth attempt; refused attempts do not prolong the wait. [dispatcher 9, 11]"""
    r = registry()
    r.add_unknown("n", 30.0)
    for number in range(3):
        r.admit("n", 1.0)
        r.register("n", f"s{number}", 1.0, 15.0)
    for moment in (1.0, 5.0, 9.0):
        with pytest.raises(Unavailable):
            r.admit("n", moment)
    r.admit("n", 9.01)


def test_no_window_no_limit() -> None:
    """With a window of zero nodes register as they like. [dispatcher 8]"""
    r = Registry(0.0, 3)
    for number in range(10):
        r.admit("n", 0.0)
        r.register("n", f"s{number}", 0.0, 15.0)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.1, 3.0), st.floats(0.0, 1.0)), max_size=60))
def test_heap_and_deadlines_agree(beats: list[tuple[str, float, float]]) -> None:
    """Whatever the beats, an entry expires at the first look at or after its latest deadline, never before."""
    r, deadlines, now = registry(), dict[str, float](), 0.0
    for node_id, ahead, pause in beats:
        now += pause
        assert {gone.node_id for gone in r.expire(now)} == {n for n, at in deadlines.items() if at <= now}
        deadlines = {n: at for n, at in deadlines.items() if at > now}
        if node_id in deadlines:
            r.beat(node_id, "s", now + ahead)
        else:
            r.register(node_id, "s", now, now + ahead)
        deadlines[node_id] = now + ahead
        due = r.next_deadline()
        assert due is not None
        assert due <= min(deadlines.values())
