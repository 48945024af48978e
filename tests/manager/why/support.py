"""A world with the real scheduler and allocator, and questions to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.api.private import why_pb2 as pb
from pyswarm.manager.allocator import Allocator
from pyswarm.manager.changes import Update
from pyswarm.manager.loop import Loop
from pyswarm.manager.scheduler.scheduler import Scheduler
from pyswarm.manager.store import copy_of
from pyswarm.manager.why import walk
from pyswarm.manager.why.nodes import R, Walk
from tests.support.world import World, all_loops

S = api.TaskState
ORPHAN_AFTER = 24 * 3600.0


def _loops(new_id: Callable[[], str]) -> list[Loop[Any]]:
    return [Allocator(), Scheduler(), *all_loops(new_id)]


class Whole(World):
    """A world in which nothing but the scheduler places tasks. `allocates` False: no allocator either."""

    def __init__(self, *objects: Any, allocates: bool = True, **how: Any) -> None:
        loops = _loops if allocates else lambda new_id: [loop for loop in _loops(new_id) if loop.name != "allocator"]
        super().__init__(*objects, loops=loops, **how)

    def _after(self, task: api.Task, load: dict[str, int]) -> api.Task | None:
        return None if task.status.state <= S.PENDING else super()._after(task, load)

    def say(self, task_id: str, state: api.TaskState.ValueType, err: str = "", exit_code: int = 0) -> None:
        """An agent's report with an error."""
        changed = copy_of(self.task(task_id))
        changed.status.state, changed.status.err = state, err
        changed.status.timestamp.CopyFrom(times.timestamp(self.now))
        changed.status.applied_at.CopyFrom(times.timestamp(self.now))
        if exit_code:
            changed.status.container.exit_code = exit_code
        self.change(Update(changed))


def finish(work: Walk[R]) -> R:
    """The result of a walk."""
    while True:
        try:
            next(work)
        except StopIteration as done:
            result: R = done.value
            return result


def gathered(world: World) -> walk.Gathered:
    """As the service has it."""
    return walk.Gathered(world.store, world.now + world.skew, ORPHAN_AFTER)


def why(world: World, task_id: str) -> pb.Explanation:
    """One task's explanation."""
    (told,) = finish(walk.explain_task(gathered(world), task_id)).explanations
    assert told.WhichOneof("reason")
    return told


def why_place(world: World, place: int | str = 1, service_id: str = "svc") -> pb.Explanation:
    """One place's."""
    (told,) = finish(walk.explain_place(gathered(world), service_id, place)).explanations
    return told


def why_service(world: World, service_id: str = "svc") -> pb.ExplainResponse:
    """A service's."""
    return finish(walk.explain_service(gathered(world), service_id))


def reasons(answer: pb.ExplainResponse) -> list[str]:
    """The names of the reasons, in order."""
    return [str(told.WhichOneof("reason")) for told in answer.explanations]
