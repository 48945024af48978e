"""The volume enforcer."""

from __future__ import annotations

import pytest

from pyswarm.api import v1 as api
from pyswarm.manager.orchestrator.volumeenforcer import VolumeEnforcer
from pyswarm.manager.store import Action, Event, Kind
from tests.manager.csi.support import S, mount, task, volume
from tests.support.loops import new_store, settle

AVAILABILITIES = api.VolumeSpec.VolumeAvailability.values()


@pytest.mark.parametrize("availability", AVAILABILITIES)
def test_drain(availability: api.VolumeSpec.VolumeAvailability.ValueType) -> None:
    """Draining rejects what still lives, and changes no desired state; ended tasks and other volumes' stay; pausing touches nothing.

    [scheduling 143; orchestration 160]
    """
    kept = volume("v")
    kept.spec.availability = availability
    tasks = [
        task(state.lower(), mount("v"), on="n", state=S.Value(state), holds="v") for state in ("ASSIGNED", "RUNNING", "COMPLETE", "FAILED")
    ]
    leaving = task("leaving", mount("v"), on="n", state=S.RUNNING, holds="v")
    leaving.desired_state = S.SHUTDOWN
    store = new_store(kept, volume("w"), *tasks, leaving, task("other", mount("w"), on="n", state=S.RUNNING, holds="w"))
    settle(VolumeEnforcer(), store, 77.0)
    changed = {t.id: t for t in store.tasks if t.status.message}
    assert set(changed) == ({"assigned", "running"} if availability == api.VolumeSpec.DRAIN else set())
    for rejected in changed.values():
        assert (rejected.status.state, rejected.desired_state) == (S.REJECTED, S.RUNNING)
        assert rejected.status.message == "task rejected by volume enforcer"
        assert rejected.status.err == "attached to volume which is being drained"
        assert rejected.status.timestamp.seconds == 77


def test_many() -> None:
    """More tasks than fit one transaction take several."""
    kept = volume("v")
    kept.spec.availability = api.VolumeSpec.DRAIN
    store = new_store(kept, *(task(f"t{n}", mount("v"), on="n", state=S.RUNNING, holds="v") for n in range(450)))
    settle(VolumeEnforcer(), store, 0.0)
    assert {t.status.state for t in store.tasks} == {S.REJECTED}


def test_events() -> None:
    """A volume that turns to be drained is looked at, no other, and nothing else."""
    drained, loop = volume("v"), VolumeEnforcer()
    drained.spec.availability = api.VolumeSpec.DRAIN
    assert loop.on_event(Event(Kind.VOLUME, Action.UPDATE, drained, volume("v"))) == ("v-id",)
    assert loop.on_event(Event(Kind.VOLUME, Action.UPDATE, volume("v"), drained)) == ()
    assert loop.on_event(Event(Kind.VOLUME, Action.REMOVE, drained)) == ()
    assert loop.on_event(Event(Kind.NODE, Action.UPDATE, api.Node())) == ()
