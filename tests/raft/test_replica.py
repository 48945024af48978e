"""Rounds of one member."""

from __future__ import annotations

from tests.simulation.raft.cluster import Cluster, Weather


def test_member_that_does_not_lead_comes_to_rest() -> None:
    """What a member meant to send as a leader does not keep its rounds going once it does not lead."""
    replica = Cluster(1, 3, Weather()).managers[1].replica
    assert replica is not None
    replica.traffic.push = True
    replica.begin()
    replica.sync()
    assert not replica.finish()
