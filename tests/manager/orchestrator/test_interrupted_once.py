"""One leader change, after each single step of a procedure in turn: the end is the same, and nothing is done twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.manager.store import Action, Event, Tx
from tests.support.swarm import ANY, cluster, config, node, restart, service
from tests.support.world import Fate, World

S = api.TaskState
CALM = Fate(start=0.5, stop=0.5)
Procedure = Callable[[World], None]


class Interrupted(World):
    """A world whose leader is replaced once: after so many commits, whoever made the last of them. All loops are new then."""

    _left: int | None = None

    def interrupt(self, after: int) -> None:
        """Count from now."""
        self._left = after

    def _commit(self, tx: Tx) -> list[Event]:
        events = super()._commit(tx)
        if self._left is not None:
            self._left -= 1
            if self._left == 0:
                self.new_leader()
        return events


def stop_first(world: World) -> None:
    """A rolling update, one by one."""
    world.set_image("v:2")
    world.run(15)


def start_first(world: World) -> None:
    """A rolling update that starts the new before it stops the old."""
    world.edit_service(lambda spec: spec.update.CopyFrom(config(1, delay=0.2, monitor=1.0, start_first=True)))
    world.set_image("v:2")
    world.run(15)


def automatic_rollback(world: World) -> None:
    """An update whose second task fails, and which turns back."""
    failing = config(1, delay=0.2, monitor=1.0, action=api.UpdateConfig.ROLLBACK)
    world.edit_service(lambda spec: spec.update.CopyFrom(failing))
    world.fate = lambda t: Fate(start=0.5, life=0.3, stop=0.5) if (t.slot, t.spec.container.image) == (2, "v:2") else CALM
    world.set_image("v:2")
    world.run(25)


def pause(world: World) -> None:
    """An update whose second task fails, and which pauses; its task is restarted until it lives."""
    world.fate = lambda t: Fate(start=0.5, life=0.3, stop=0.5) if t.slot == 2 and t.spec.container.image == "v:2" else CALM
    world.set_image("v:2")
    world.run(8)
    world.fate = lambda _: CALM
    world.run(8)


def rollback_by_hand(world: World) -> None:
    """An update, and back in the middle of it."""
    world.set_image("v:2")
    world.run(2)
    world.manual_rollback()
    world.run(15)


def scale_up_and_down(world: World) -> None:
    """Up to five, down to one."""
    world.scale(5)
    world.run(3)
    world.scale(1)
    world.run(5)


def drain(world: World) -> None:
    """A node is drained, and used again."""
    world.edit_node("n1", availability=api.NodeSpec.DRAIN)
    world.run(5)
    world.edit_node("n1", availability=api.NodeSpec.ACTIVE)
    world.run(5)


def node_loss(world: World) -> None:
    """A node goes down and comes back; its task's successor waits for the restart delay."""
    world.edit_node("n2", state=api.NodeStatus.DOWN)
    world.run(5)
    world.edit_node("n2", state=api.NodeStatus.READY)
    world.run(5)


def node_removal(world: World) -> None:
    """A node goes down and is removed."""
    world.edit_node("n2", state=api.NodeStatus.DOWN)
    world.run(0.5)
    world.remove_node("n2")
    world.run(5)


def crashes(world: World) -> None:
    """A task fails until its attempts are used up."""
    world.fate = lambda t: Fate(start=0.2, life=0.2) if (t.slot or t.node_id) in (1, "n1") else CALM
    world.report(world.live()[0].id, S.FAILED)
    world.run(15)


def nodes_come_and_go(world: World) -> None:
    """A node joins; another is drained, paused, and used again; the new one is removed."""
    world.put(node("n4", labels={"zone": "a"}))
    world.run(2)
    for availability in (api.NodeSpec.DRAIN, api.NodeSpec.PAUSE, api.NodeSpec.ACTIVE):
        world.edit_node("n1", availability=availability)
        world.run(2)
    world.remove_node("n4")
    world.run(2)


def removal(world: World) -> None:
    """The service is removed in the middle of an update."""
    world.set_image("v:2")
    world.run(1)
    world.remove_service()
    world.run(5)


POLICY = restart(ANY, delay=1, attempts=3)
UPDATE = config(1, delay=0.2, monitor=1.0)
REPLICATED = service(replicas=3, policy=POLICY, update=UPDATE, rollback=UPDATE)
GLOBAL = service(replicas=None, policy=POLICY, update=UPDATE, rollback=UPDATE, constraints=("node.labels.zone != b",))
BOTH: tuple[Procedure, ...] = (
    stop_first,
    start_first,
    automatic_rollback,
    pause,
    rollback_by_hand,
    drain,
    node_loss,
    node_removal,
    crashes,
    removal,
)
CASES = [(REPLICATED, p) for p in (*BOTH, scale_up_and_down)] + [(GLOBAL, p) for p in (*BOTH, nodes_come_and_go)]


def play(kind: api.Service, procedure: Procedure, after: int | None) -> tuple[Interrupted, int]:
    """The world after a procedure whose leader was replaced after so many of its steps, and the number of its steps."""
    world = Interrupted(cluster(3), *(node(n, labels={"zone": "a"}) for n in ("n1", "n2", "n3")), fate=lambda _: CALM)
    world.put(kind)
    world.run(2)
    before = len(world.commits)
    if after is not None:
        world.interrupt(after)
    procedure(world)
    return world, len(world.commits) - before


def what_was_done(world: World) -> dict[Any, Counter[Any]]:
    """How often what happened to whom: to tasks by slot or node, to services. Whatever is done twice counts twice."""
    done: dict[Any, Counter[Any]] = {}
    for event in (event for commit in world.commits for event in commit):
        if isinstance(event.obj, api.Task):
            place: Any = event.obj.slot or event.obj.node_id
            what = (event.action, event.obj.spec.container.image, *_task_step(event))
        elif isinstance(event.obj, api.Service):
            place, what = event.obj.id, (event.action, event.obj.spec.task.container.image, event.obj.update_status.state)
        else:
            continue
        done.setdefault(place, Counter())[what] += 1
    return done


def _task_step(event: Event) -> tuple[str, str]:
    task = event.obj
    assert isinstance(task, api.Task)
    if event.action is Action.REMOVE:
        return "", ""
    return S.Name(task.desired_state), S.Name(task.status.state)


def ends(world: World) -> list[float]:
    """When updates ended, and the tasks that are left were made; seconds."""
    completed = [times.seconds_of(s.update_status.completed_at) for s in world.store.services]
    return completed + sorted(times.seconds_of(t.meta.created_at) for t in world.store.tasks)


@pytest.mark.parametrize(("kind", "procedure"), CASES, ids=[f"{'global' if k is GLOBAL else 'replicated'}-{p.__name__}" for k, p in CASES])
def test_leader_replaced_after_each_step(kind: api.Service, procedure: Procedure) -> None:
    """Wherever the leader is replaced, tasks, versions, attempts and update status end as without, at the same times; no step is repeated.

    [orchestration 65] [orchestration 78]
    """
    calm, steps = play(kind, procedure, None)
    expected = calm.picture(), what_was_done(calm)
    for step in range(1, steps + 1):
        world, _ = play(kind, procedure, step)
        assert (world.picture(), what_was_done(world)) == expected, f"after step {step} of {steps}"
        assert ends(world) == pytest.approx(ends(calm), abs=0.1), f"after step {step} of {steps}"
