"""A leader change between any two commits leads to the same end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pyswarm.api import times
from pyswarm.api import v1 as api
from tests.support import invariants
from tests.support.swarm import ANY, NONE, cluster, config, job, node, restart, service
from tests.support.world import Fate, World

S = api.TaskState
DRAIN = api.NodeSpec.DRAIN
ROLLBACK, CONTINUE = api.UpdateConfig.ROLLBACK, api.UpdateConfig.CONTINUE
Procedure = Callable[[World], None]


def scale(world: World) -> None:
    """Up, then down."""
    world.scale(7)
    world.run(3)
    world.scale(2)
    world.run(10)


def restarts(world: World) -> None:
    """Two tasks fail, then one completes."""
    for t in world.live()[:2]:
        world.report(t.id, S.FAILED)
    world.run(3)
    world.report(world.live()[-1].id, S.COMPLETE)
    world.run(20)


def update(**kwargs: Any) -> Procedure:
    """An update with this config."""

    def procedure(world: World) -> None:
        world.edit_service(lambda spec: spec.update.CopyFrom(config(**kwargs)))
        world.set_image("v:2")
        world.run(25)

    return procedure


def failing(procedure: Procedure, *images: str) -> Procedure:
    """The procedure with tasks of these images failing in even slots; at last they behave."""

    def with_failures(world: World) -> None:
        bad = Fate(start=0.5, life=0.2)
        world.fate = lambda t: bad if t.spec.container.image in images and t.slot % 2 == 0 else Fate(start=0.5, stop=0.5)
        procedure(world)
        world.fate = lambda _: Fate(start=0.5, stop=0.5)
        world.run(10)

    return with_failures


def drain(world: World) -> None:
    """One node is drained, another goes down."""
    world.edit_node("n1", availability=DRAIN)
    world.run(5)
    world.edit_node("n2", state=api.NodeStatus.DOWN)
    world.run(20)


def manual_rollback(world: World) -> None:
    """An update, then back."""
    update(parallelism=2, delay=0.5)(world)
    world.manual_rollback()
    world.run(30)


def superseded(world: World) -> None:
    """An update while another is under way."""
    world.set_image("v:2")
    world.run(1.2)
    world.set_image("v:3")
    world.run(60)


BACK = {"action": ROLLBACK, "ratio": 0.3, "delay": 1.0, "monitor": 1.0}
PROCEDURES: dict[str, Procedure] = {
    "scale": scale,
    "restart": restarts,
    "stop-first": update(parallelism=1, delay=0.5, monitor=2),
    "start-first": update(parallelism=2, delay=0.5, monitor=2, start_first=True),
    "all at once": update(parallelism=0),
    "pause": failing(update(parallelism=1, delay=1), "v:2"),
    "continue": failing(update(parallelism=2, action=CONTINUE, delay=1), "v:2"),
    "start-first continue": failing(update(parallelism=1, action=CONTINUE, start_first=True), "v:2"),
    "rollback": failing(update(parallelism=1, **BACK), "v:2"),
    "start-first rollback": failing(update(parallelism=1, start_first=True, **BACK), "v:2"),
    "rollback pauses": failing(update(parallelism=1, **BACK), "v:1", "v:2"),
    "manual rollback": manual_rollback,
    "superseded": superseded,
    "drain": drain,
}
KINDS = {
    "any": service(replicas=4, policy=restart(ANY, delay=1)),
    "none": service(replicas=4, policy=restart(NONE)),
    "attempts": service(replicas=4, policy=restart(ANY, delay=1, attempts=2)),
    "global": service(replicas=None, policy=restart(ANY, delay=1)),
}

ENDS = Fate(start=0.5, life=2.0, end=S.COMPLETE, stop=0.5)
FAILS = Fate(start=0.5, life=0.5, stop=0.5)


def run_through(world: World) -> None:
    """A job to its end."""
    world.run(60)


def fail_first(world: World) -> None:
    """The first two tasks of each place fail."""
    world.fate = lambda t: FAILS if sum(1 for o in world.tasks() if world.place(o) == world.place(t) and o.id < t.id) < 2 else ENDS
    world.run(60)


def fail_always(world: World) -> None:
    """Tasks of one slot, or of one node, fail whenever they are tried; the policy may give up."""
    world.fate = lambda t: FAILS if world.place(t) in {0, "n1"} else ENDS
    world.run(60)


def run_again(world: World) -> None:
    """An update in the middle, and another after the end."""
    world.run(3)
    world.set_image("v:2")
    world.run(60)
    world.manual_rollback()
    world.run(60)


def trouble_with_nodes(world: World) -> None:
    """Nodes are drained, lost and added in the middle; they return."""
    world.run(1)
    drain(world)
    world.put(node("n4"))
    world.edit_node("n1", availability=api.NodeSpec.ACTIVE)
    world.edit_node("n2", state=api.NodeStatus.READY)
    world.run(60)


JOB_PROCEDURES: dict[str, Procedure] = {p.__name__: p for p in (run_through, fail_first, fail_always, run_again, trouble_with_nodes)}
JOBS = {
    "any": job(completions=5, at_once=2, policy=restart(ANY, delay=1)),
    "none": job(completions=5, at_once=2, policy=restart(NONE)),
    "attempts": job(completions=5, at_once=2, policy=restart(ANY, delay=1, attempts=2)),
    "global": job(completions=None, policy=restart(ANY, delay=1)),
    "global attempts": job(completions=None, policy=restart(ANY, delay=1, attempts=2)),
}


@pytest.mark.parametrize("procedure", JOB_PROCEDURES)
@pytest.mark.parametrize("kind", JOBS)
def test_jobs_with_a_new_leader_after_every_step(kind: str, procedure: str) -> None:
    """Replacing the loops after each commit changes neither what a job comes to nor when. [orchestration 152]"""

    def played(*, fresh: bool) -> World:
        world = World(cluster(3), node("n1"), node("n2"), node("n3"), fate=lambda _: ENDS)
        world.put(JOBS[kind])
        world.fresh = fresh
        JOB_PROCEDURES[procedure](world)
        return world

    calm, disturbed = played(fresh=False), played(fresh=True)
    assert disturbed.picture() == calm.picture()
    assert disturbed.last_change == pytest.approx(calm.last_change, abs=0.2)
    invariants.check_history(disturbed.store)


def play(kind: str, procedure: str, *, fresh: bool) -> World:
    """The world after a procedure; with `fresh` it has a new leader after every commit."""
    world = World(cluster(3), node("n1"), node("n2"), node("n3"), fate=lambda _: Fate(start=0.5, stop=0.5))
    world.put(KINDS[kind])
    world.run(5)
    world.fresh = fresh
    PROCEDURES[procedure](world)
    return world


def duration(world: World) -> float:
    """Seconds from the start of an update to its end, 0.0 when it has none."""
    status = world.service().update_status
    if not status.HasField("completed_at"):
        return 0.0
    return times.seconds_of(status.completed_at) - times.seconds_of(status.started_at)


CASES = [(kind, name) for kind in KINDS for name in PROCEDURES if not (kind == "global" and name == "scale")]


@pytest.mark.parametrize(("kind", "procedure"), CASES)
def test_new_leader_after_every_step(kind: str, procedure: str) -> None:
    """Replacing the loops after each commit changes neither the end nor the pace of a procedure. [orchestration 65] [orchestration 78]"""
    calm, disturbed = (play(kind, procedure, fresh=fresh) for fresh in (False, True))
    assert disturbed.picture() == calm.picture()
    assert duration(disturbed) == pytest.approx(duration(calm), abs=0.2)
    invariants.check_history(disturbed.store)
