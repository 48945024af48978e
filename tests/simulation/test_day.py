"""A day of cluster life, in under a second."""

from __future__ import annotations

from tests.simulation.cluster import run
from tests.simulation.day import CALM, Day


def test_a_day() -> None:
    """Services, updates, a rollback, a drain, a failed node and a restarted manager in one day: everything as it should be after each."""
    outcome = run(0, CALM, kind=Day)
    assert outcome.seconds >= 24 * 3600
    assert outcome.commits > 100
