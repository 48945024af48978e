"""A world in which every loop has a twin that heard of nothing: both must want the same of the same store."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.manager import constraints
from pyswarm.manager.loop import Loop
from pyswarm.manager.orchestrator import nodes
from pyswarm.manager.orchestrator.global_ import Global
from pyswarm.manager.store import copy_of
from tests.support.swarm import ids
from tests.support.world import Runner, World


class Compared(World):
    """Its loops settle through `follow` and `pass_time`, which compare. Commits take no time, so that twins live at the same moment."""

    def __init__(self, *objects: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.tick = 0.0
        self.put(*objects)

    def follow(self, first: type[Loop[Any]] | None = None) -> None:
        """Let all loops settle, each until it is content, until none has anything more to do.

        `first` is the class of the loop to begin with. What a node's new labels make unfit is the enforcer's to reject, what a service's
        new constraints do is the update's to replace: afterwards nothing tells one from the other, and whoever comes first has it.
        """
        changed = True
        while changed:
            changed = False
            for runner in sorted(self.runners, key=lambda r: type(r.loop) is not first):
                changed |= self._settle_compared(runner)

    def pass_time(self, seconds: float) -> None:
        """Everything that happens within a span; at each moment at which something does, loops and twins are compared."""
        end = self.now + seconds
        for _ in range(1000):
            self.follow()
            if self.agents_step():
                continue
            after = min([*self._wakes(), *self._agent_times()], default=end + 1)
            if after > end:
                self.now = max(self.now, end)
                return self.follow()
            self.now = max(self.now, after)
        raise AssertionError("does not come to rest")

    def agents_step(self) -> bool:
        """One round of scheduler and agents; whether anything happened."""
        return self._live()

    def stamped(self, state: api.TaskState.ValueType) -> api.TaskStatus:
        """A status as an agent reports it now."""
        return api.TaskStatus(state=state, timestamp=times.timestamp(self.now))

    def _settle_compared(self, runner: Runner) -> bool:
        """Let one loop decide until it is content; whether it did anything."""
        twin = self._twin(runner)
        before = len(self.commits)
        unfit = {t.id for t in self.store.tasks if self._is_unfit(t)} if isinstance(runner.loop, Global) else ()
        self._settle_one(runner)
        twin.settle()
        followed, reconciled = contents(self, twin, unfit), contents(twin, self, unfit)
        assert followed == reconciled, difference(runner.loop.name, followed, reconciled)
        wanted = twin.runners[0].wakes
        if wanted:
            at = min(wanted.values())
            assert min(runner.wakes.values(), default=at + 1) <= at, f"{runner.loop.name} oversleeps {wanted}"
        return len(self.commits) > before

    def _is_unfit(self, task: api.Task) -> bool:
        """It no longer suits its node: the global orchestrator stops it or leaves that to the enforcer, as it hears of service or node."""
        node, service = self.store.nodes.get(task.node_id), self.store.services.get(task.service_id)
        if node is None or service is None or nodes.is_invalid(node):
            return False
        return not constraints.node_matches(node, service.spec.task.placement)

    def _settle_one(self, runner: Runner) -> None:
        for key in [k for k, at in runner.wakes.items() if at <= self.now]:
            del runner.wakes[key]
            runner.dirty[key] = None
        while runner.dirty:
            key = next(iter(runner.dirty))
            del runner.dirty[key]
            self._decide_one(runner, key)

    def _twin(self, runner: Runner) -> World:
        """A world with the same store and clock, and with only this kind of loop, new."""
        twin = World(loops=lambda new_id: [loop for loop in self._loops(new_id) if type(loop) is type(runner.loop)], now=self.now)
        twin.now, twin.tick, twin._index, twin._new_id = self.now, 0.0, self._index, ids("twin")
        for kind in ("nodes", "services", "tasks", "clusters"):
            for obj in getattr(self.store, kind):
                getattr(twin.store, kind).put(obj)
        twin.new_leader()
        return twin


def contents(world: World, other: World, left_out: Container[str] = ()) -> list[str]:
    """All that a store holds, but for the ids of tasks that the other does not know, and for the versions of objects."""
    found = [_without_version(obj) for table in (world.store.tasks, world.store.services) for obj in table if obj.id not in left_out]
    for obj in found:
        if isinstance(obj, api.Task) and obj.id not in other.store.tasks:
            obj.ClearField("id")
    return sorted(map(str, found))


def difference(name: str, followed: list[str], reconciled: list[str]) -> str:
    """What only one of both stores holds, an object a line."""
    sides = ("followed", followed, reconciled), ("reconciled", reconciled, followed)
    return "\n".join([name, *(f"{side}: {' '.join(obj.split())}" for side, own, other in sides for obj in own if obj not in other)])


def _without_version(obj: Any) -> Any:
    made = copy_of(obj)
    made.meta.ClearField("version")
    made.meta.ClearField("updated_at")
    return made
