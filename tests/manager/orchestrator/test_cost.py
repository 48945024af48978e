"""What deciding costs for a large service."""

from __future__ import annotations

import time

from pyswarm.api import v1 as api
from pyswarm.manager.orchestrator.orchestrator import Key
from pyswarm.manager.orchestrator.replicated import Replicated
from tests.support import swarm
from tests.support.loops import commit, new_store

REPLICAS = 4000
CPU_SECONDS = 2.0


def test_large_service_is_created_quickly() -> None:
    """4000 tasks from nothing take a third of a second of processor time; the limit leaves room for slow machines. 10,000 take 1.3 s."""
    store = new_store(swarm.cluster(), swarm.service(replicas=REPLICAS))
    loop = Replicated(swarm.ids())
    started = time.process_time()
    dirty: dict[Key, None] = dict.fromkeys(loop.everything(store))
    while dirty:
        key = next(iter(dirty))
        del dirty[key]
        decision = loop.decide(store, key, 1000.0)
        dirty.update({key: None} if decision.again else {})
        for event in commit(store, list(decision.changes), 1000.0):
            dirty.update(dict.fromkeys(loop.on_event(event)))
    assert time.process_time() - started < CPU_SECONDS
    assert len(store.tasks) == REPLICAS
    assert {t.desired_state for t in store.tasks} == {api.TaskState.RUNNING}
