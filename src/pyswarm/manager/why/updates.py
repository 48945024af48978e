"""How far the update of a service has come: what the updater itself would read off the records."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.api.private import why_pb2 as pb
from pyswarm.manager.orchestrator.global_ import obstacle
from pyswarm.manager.orchestrator.rolling import Config, failures
from pyswarm.manager.orchestrator.situation import Situation
from pyswarm.manager.orchestrator.slots import Place, is_global, updatable
from pyswarm.manager.orchestrator.update import Progress, Workers, blamed
from pyswarm.manager.store import View
from pyswarm.manager.why.nodes import Walk

U = api.UpdateStatus
PAUSED = frozenset({U.PAUSED, U.ROLLBACK_PAUSED})
OVER = frozenset({U.COMPLETED, U.ROLLBACK_COMPLETED})


@dataclass(frozen=True, slots=True)
class Standing:
    """Numbers of an update. `free_at`: when the next delay ends, in seconds; None without one."""

    config: Config
    pending: int
    busy: int
    failures: int
    free_at: float | None


def standing(view: View, service: api.Service, places: Iterable[Place], now: float) -> Walk[Standing]:
    """Look at every place of the service, one to a piece."""
    situation = situation_of(view, service, now)
    progress = Progress()
    by_node = is_global(service)
    for place in places:
        slot = situation.slot(place)
        if (tasks := updatable(service, slot)) and not (by_node and obstacle(service, situation.node(str(place)))):
            progress.add(situation, slot, tasks)
        yield
    config = Config.of(service)
    workers = Workers.of(situation, config, progress.attempts)
    return Standing(config, len(progress.pending), workers.busy, len(failures(progress.attempts, config)), workers.free_at)


def situation_of(view: View, service: api.Service, now: float) -> Situation:
    """For looking only: nothing is created, so no id is needed."""
    return Situation(view, service, now, str)


def message(service: api.Service, numbers: Standing | None) -> pb.Update:
    """The update of a service that has had one; without numbers when it is over."""
    status = service.update_status
    told = pb.Update(state=status.state, message=status.message, failed_task=blamed(status))
    if status.HasField("started_at"):
        told.started_at.CopyFrom(status.started_at)
    if status.HasField("completed_at"):
        told.completed_at.CopyFrom(status.completed_at)
    if numbers is not None:
        config = numbers.config
        told.parallelism, told.max_failure_ratio = config.parallelism, config.ratio
        told.pending, told.busy, told.failures = numbers.pending, numbers.busy, numbers.failures
        if numbers.free_at is not None:
            told.delay_until.CopyFrom(times.timestamp(numbers.free_at))
    return told
