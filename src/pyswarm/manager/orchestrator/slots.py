"""Slots: the places that tasks of a service fill (spec/orchestration, sections 5 and 6.3)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.api.tasks import is_runnable
from pyswarm.manager.orchestrator import restart
from pyswarm.manager.orchestrator.tasks import by_creation, created

S = api.TaskState
Place: TypeAlias = int | str
"""A slot number of a replicated service or job, or the node of a global one."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One place with all its records, oldest first."""

    place: Place
    tasks: Sequence[api.Task]

    @property
    def runnable(self) -> list[api.Task]:
        """The tasks that are meant to run, now or once released."""
        return [t for t in self.tasks if is_runnable(t)]


def is_global(service: api.Service) -> bool:
    """Whether its places are nodes."""
    return service.spec.WhichOneof("mode") in {"global", "global_job"}


def in_order(tasks: Iterable[api.Task]) -> list[api.Task]:
    """Oldest record first."""
    return sorted(tasks, key=by_creation)


def group(tasks: Iterable[api.Task], *, by_node: bool = False) -> dict[Place, Slot]:
    """Tasks of one service by place, in ascending order of places."""
    found: dict[Place, list[api.Task]] = {}
    for task in tasks:
        found.setdefault(task.node_id if by_node else task.slot, []).append(task)
    ordered = sorted(found.items(), key=lambda item: item[0])
    return {place: Slot(place, records if len(records) == 1 else in_order(records)) for place, records in ordered}


def updatable(service: api.Service, slot: Slot) -> list[api.Task]:
    """The tasks that make the slot count as occupied; none makes it dead.

    Those that are meant to run; else the newest, if it ended and its policy keeps it so: it is done, not missing. During a rollback such a
    task from before the update does not count, so that the slot is filled anew; one that the update or the rollback made does.
    Newest means by creation: a predecessor that stops slowly reports last, but it is not what the slot came to.
    """
    if runnable := slot.runnable:
        return runnable
    if not slot.tasks:
        return []
    newest = slot.tasks[-1]
    if newest.desired_state >= S.REMOVE or restart.may_restart(slot.tasks, newest):
        return []
    status = service.update_status
    if status.state == api.UpdateStatus.ROLLBACK_STARTED and created(newest) < times.seconds_of(status.started_at):
        return []
    return [newest]


def surplus(occupied: Sequence[tuple[Slot, Sequence[api.Task]]], keep: int) -> list[Slot]:
    """The slots that go when only `keep` of these (ascending) may stay: the most dispensable ones.

    First what no node has or what is double, then from the fullest nodes; among equals the not running, then the higher numbers.
    """
    running_first = sorted(occupied, key=lambda item: not any(t.status.state == S.RUNNING for t in item[1]))
    on_node: dict[str, int] = {}
    ranked: list[tuple[float, Slot]] = []
    for slot, tasks in running_first:
        rank = float("inf")
        if len(tasks) == 1 and tasks[0].node_id:
            rank = on_node[tasks[0].node_id] = on_node.get(tasks[0].node_id, 0) + 1
        ranked.append((rank, slot))
    ranked.sort(key=lambda item: item[0])
    return [slot for _, slot in ranked[keep:]]
