"""What must hold after every commit, whatever happened: checked by the worlds that tests build."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from pyswarm.api import jobs
from pyswarm.api import v1 as api
from pyswarm.api.tasks import is_runnable
from pyswarm.manager.orchestrator import slots, tasklife
from pyswarm.manager.orchestrator.reaper import limit_of, needed
from pyswarm.manager.orchestrator.rolling import rolling_back
from pyswarm.manager.store import Action, Event, View, by

S = api.TaskState


def check_events(events: Iterable[Event]) -> None:
    """No task's observed or desired state falls, none changes its service, slot or node, and every step has an owner."""
    for event in events:
        if isinstance(event.obj, api.Task) and event.action is not Action.REMOVE:
            old = event.old if isinstance(event.old, api.Task) else None
            assert not (wrong := tasklife.violations(old, event.obj)), (event.obj.id, wrong)


def check_slots(view: View) -> None:
    """At most one task of a slot is meant to run, of a job in one iteration; two while a service may be updated start-first."""
    for service in view.services:
        for slot in slots.group(view.tasks.find(by.service(service.id)), by_node=slots.is_global(service)).values():
            _check_slot(service, slot)


def check_created(view: View, events: Iterable[Event]) -> None:
    """As `check_slots`, of the slots in which tasks were created."""
    for task in (e.obj for e in events if isinstance(e.obj, api.Task) and e.action is Action.CREATE):
        service = view.services.get(task.service_id)
        if service is not None:
            by_node = slots.is_global(service)
            tasks = [t for t in view.tasks.find(by.service(service.id)) if (t.node_id == task.node_id if by_node else t.slot == task.slot)]
            _check_slot(service, slots.Slot(task.node_id if by_node else task.slot, tasks))


def _check_slot(service: api.Service, slot: slots.Slot) -> None:
    specs = (service.spec, service.previous_spec)
    # What a rollback turns back may have been begun start-first: of that spec nothing is left.
    start_first = rolling_back(service) or any(api.UpdateConfig.START_FIRST in {s.update.order, s.rollback.order} for s in specs)
    runnable = Counter(t.job_iteration.index for t in slot.runnable)
    assert max(runnable.values(), default=0) <= 1 + start_first, (service.id, slot.place, [t.id for t in slot.runnable])


def check_jobs(view: View) -> None:
    """A replicated job never has more tasks at once than it may, and uses only as many slots as it needs completions."""
    for service in view.services:
        if service.spec.WhichOneof("mode") != "replicated_job":
            continue
        spec = service.spec.replicated_job
        current = [t for t in view.tasks.find(by.service(service.id)) if jobs.is_current(service, t)]
        at_once = {t.slot for t in current if is_runnable(t)}
        assert len(at_once) <= spec.max_concurrent, (service.id, at_once)
        assert all(t.slot < spec.total_completions for t in current), (service.id, [t.slot for t in current])


def check_history(view: View) -> None:
    """In quiet times no slot keeps more records than its limit, except live ones, and the one that shows that it is done."""
    for service in view.services:
        limit = limit_of(view, service)
        for slot in slots.group(view.tasks.find(by.service(service.id)), by_node=slots.is_global(service)).values():
            stays = needed(service, slot.tasks) | {t.id for t in slot.tasks if t.status.state <= S.RUNNING}
            assert limit < 0 or len(slot.tasks) <= max(limit, len(stays)), (service.id, slot.place, len(slot.tasks))
