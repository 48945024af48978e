"""Random lives of jobs: every task always has exactly one reason, and it fits the task."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pyswarm.api import v1 as api
from pyswarm.manager.orchestrator.jobslots import Progress
from tests.manager.orchestrator.test_jobs_property import EVENTS, FATES, NODES, came_to, happen, quiet
from tests.manager.orchestrator.test_property import EXAMPLES, POLICIES
from tests.manager.why.support import Whole, why, why_service
from tests.manager.why.test_property import check
from tests.support.swarm import cluster, job, node
from tests.support.world import Fate


@settings(max_examples=EXAMPLES)
@given(
    shape=st.one_of(st.none(), st.tuples(st.integers(0, 3), st.integers(0, 6))),
    policy=POLICIES,
    fates=FATES,
    history=st.lists(EVENTS, max_size=10),
)
def test_lives(shape: tuple[int, int] | None, policy: api.RestartPolicy, fates: list[Fate], history: list[tuple[str, Any]]) -> None:
    """Whatever happens to a job, each of its tasks has one reason that fits; in the end what is complete is as wanted."""
    world = Whole(cluster(3), *(node(n) for n in NODES), fate=lambda t: fates[int(t.id[3:]) % len(fates)])
    world.put(job(completions=None, policy=policy) if shape is None else job(completions=shape[1], at_once=shape[0], policy=policy))
    for what, value in history:
        happen(world, what, value)
        for _ in range(3):
            world.step()
            for one in world.tasks():
                check(why(world, one.id), one)
        told = why_service(world).service
        assert 0 <= told.missing <= told.wanted
    quiet(world)
    answer = why_service(world)
    places = list(came_to(world).values())
    assert (answer.service.wanted, answer.service.as_wanted) == (len(places), places.count(Progress.COMPLETE))
    assert [told.WhichOneof("reason") for told in answer.explanations if told.WhichOneof("reason") != "failed"] == []
    assert len(answer.explanations) == places.count(Progress.SPENT)
    assert answer.service.missing == places.count(Progress.OPEN)
