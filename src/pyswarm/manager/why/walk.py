"""What has to be gathered to explain a task or a whole service, and the answer (see the package for why these are generators)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from pyswarm.api import v1 as api
from pyswarm.api.private import why_pb2 as pb
from pyswarm.api.tasks import is_runnable, is_terminal
from pyswarm.errors import NotFound
from pyswarm.manager.orchestrator.global_ import Obstacle, obstacle
from pyswarm.manager.orchestrator.slots import Place, Slot, is_global
from pyswarm.manager.scheduler.nodeinfo import Version, version_of
from pyswarm.manager.store import Store, by
from pyswarm.manager.why import updates
from pyswarm.manager.why.nodes import Survey, Walk, left_out, survey
from pyswarm.manager.why.reasons import Case, explanation, is_as_wanted

S = api.TaskState
MOST_EXPLAINED = 1000
"""Explanations in one answer."""

PIECE = 200
"""Tasks looked up before others may run."""


@dataclass(slots=True)
class Gathered:
    """What one answer is made from. Found once: equal tasks are refused by the same nodes, and a service has one update."""

    store: Store
    now: float
    orphan_after: float
    surveys: dict[tuple[Version, str], Survey] = field(default_factory=dict)
    standings: dict[str, updates.Standing] = field(default_factory=dict)

    def survey_key(self, task: api.Task) -> tuple[Version, str]:
        """What the scheduler's groups differ in."""
        return version_of(task) if task.HasField("spec_version") else (task.id, 0), task.node_id

    def case(self, task: api.Task) -> Case:
        """The task as it is now, with what has been found."""
        service = self.store.services.get(task.service_id) if task.service_id else None
        situation = updates.situation_of(self.store, service or api.Service(id=task.service_id), self.now)
        slot = _alike(situation.slot(_place_of(service, task)), task.job_iteration.index) if service is not None else Slot(0, [task])
        case = Case(situation, service, slot, task, self.orphan_after)
        return replace(case, survey=self.surveys.get(self.survey_key(task)), standing=self.standings.get(task.service_id))


def explain_task(gathered: Gathered, task_id: str) -> Walk[pb.ExplainResponse]:
    """The reason of one task. Raises NotFound."""
    told = yield from _told(gathered, task_id)
    if told is None:
        raise NotFound(f"task {task_id} not found")
    return pb.ExplainResponse(explanations=[told])


def explain_place(gathered: Gathered, service_id: str, place: Place) -> Walk[pb.ExplainResponse]:
    """What one place of a service has come to. Raises NotFound for a service or place that is not there."""
    service = _service(gathered.store, service_id)
    slot = updates.situation_of(gathered.store, service, gathered.now).slot(place)
    standing_for = _standing_for(service, slot) or (slot.tasks[-1] if slot.tasks else None)
    told = (yield from _told(gathered, standing_for.id)) if standing_for is not None else None
    if told is None:
        raise NotFound(f"task {service.spec.annotations.name}.{place} not found")
    return pb.ExplainResponse(explanations=[told])


def explain_service(gathered: Gathered, service_id: str) -> Walk[pb.ExplainResponse]:
    """Every place of the service that is not as wanted, and the service as a whole. Raises NotFound."""
    store = gathered.store
    service = _service(store, service_id)
    places = yield from _places(store, service)
    if service.HasField("update_status") and service.update_status.state not in updates.OVER:
        gathered.standings[service_id] = yield from updates.standing(store, service, places, gathered.now)
    response = pb.ExplainResponse(service=pb.Overview(service_id=service_id))
    overview, short = response.service, 0
    for place in places:
        slot = updates.situation_of(store, service, gathered.now).slot(place)
        main = _standing_for(service, slot) if _has_place(store, service, place) else None
        told = (yield from _told(gathered, main.id)) if main is not None else None
        if told is not None:
            # What was stopped and may be replaced will be: there the task is still to be made.
            overview.as_wanted += is_as_wanted(told) and told.state != S.SHUTDOWN
            short += not is_as_wanted(told)
        if told is None or is_as_wanted(told):
            told = yield from _left_over(gathered, slot, main)
        if told is not None and len(response.explanations) < MOST_EXPLAINED:
            response.explanations.append(told)
        elif told is not None:
            overview.more += 1
        yield
    _count(store, service, overview, short)
    if service.HasField("update_status"):
        overview.update.CopyFrom(updates.message(service, gathered.standings.get(service_id)))
    return response


def _left_over(gathered: Gathered, slot: Slot, main: api.Task | None) -> Walk[pb.Explanation | None]:
    """The newest other task of a place that still lives, and should not or does not as it should."""
    for task in reversed(slot.tasks):
        if is_terminal(task) or (main is not None and task.id == main.id):
            continue
        told = yield from _told(gathered, task.id)
        if told is not None and not is_as_wanted(told):
            return told
    return None


def _count(store: Store, service: api.Service, overview: pb.Overview, short: int) -> None:
    """How many places there are to be; `short` are there and not as wanted."""
    match service.spec.WhichOneof("mode"):
        case "replicated":
            overview.wanted = service.spec.replicated.replicas
        case "replicated_job":
            overview.wanted = service.spec.replicated_job.total_completions
            overview.max_concurrent = service.spec.replicated_job.max_concurrent
        case _:
            nodes = [n for n in store.nodes if not _has_place(store, service, n.id)]
            overview.wanted = len(store.nodes) - len(nodes)
            overview.left_out.extend(left_out(service, nodes))
    overview.missing = max(0, overview.wanted - overview.as_wanted - short)


def _told(gathered: Gathered, task_id: str) -> Walk[pb.Explanation | None]:
    """The task's explanation, once everything is there that it takes; None when the task is gone.

    Looked up again after every pause: it may have got what it waited for.
    """
    store = gathered.store
    while (task := store.tasks.get(task_id)) is not None:
        case = gathered.case(task)
        if case.wants_survey and case.survey is None:
            gathered.surveys[gathered.survey_key(task)] = yield from survey(store, task)
        elif case.wants_standing and case.standing is None and case.service is not None:
            places = yield from _places(store, case.service)
            gathered.standings[task.service_id] = yield from updates.standing(store, case.service, places, gathered.now)
        else:
            return explanation(case)
    return None


def _service(store: Store, service_id: str) -> api.Service:
    service = store.services.get(service_id)
    if service is None:
        raise NotFound(f"service {service_id} not found")
    return service


def _places(store: Store, service: api.Service) -> Walk[Sequence[Place]]:
    """The places that have tasks, in ascending order."""
    found: set[Place] = set()
    listed = store.tasks.unordered(by.service(service.id))
    yield
    for number, task_id in enumerate(listed, 1):
        task = store.tasks.get(task_id)
        if task is not None:
            found.add(_place_of(service, task))
        if number % PIECE == 0:
            yield
    ordered = sorted(found, key=lambda place: place)
    yield
    return ordered


def _place_of(service: api.Service, task: api.Task) -> Place:
    return task.node_id if is_global(service) else task.slot


def _alike(slot: Slot, iteration: int) -> Slot:
    """The place as one iteration of a job sees it; a service has only one."""
    return Slot(slot.place, [t for t in slot.tasks if t.job_iteration.index == iteration])


def _standing_for(service: api.Service, slot: Slot) -> api.Task | None:
    """The task that shows what a place has come to; None for one that is given up."""
    tasks = _alike(slot, service.job_status.job_iteration.index).tasks
    completed = [t for t in tasks if t.HasField("job_iteration") and t.status.state == S.COMPLETE]
    runnable = [t for t in tasks if is_runnable(t)]
    newest = (completed or runnable or tasks)[-1:]
    return newest[0] if newest and newest[0].desired_state < S.REMOVE else None


def _has_place(store: Store, service: api.Service, place: Place) -> bool:
    """Whether the service is to have a task there. What is on a paused node stays there."""
    if not isinstance(place, str):
        return True
    in_the_way = obstacle(service, store.nodes.get(place))
    if in_the_way is not Obstacle.PAUSED:
        return in_the_way is None
    return any(t.service_id == service.id and t.desired_state < S.REMOVE for t in store.tasks.find(by.node(place)))
