"""The volume enforcer: rejects tasks that use a volume which is being drained (spec/orchestration, section 12.2).

It changes the observed state, not the desired one, so that the orchestrators then replace the task under its restart policy.
"""

from __future__ import annotations

from collections.abc import Iterable

from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.manager.changes import Update
from pyswarm.manager.loop import Decision
from pyswarm.manager.orchestrator.update import STEP
from pyswarm.manager.store import Action, Event, View, by, copy_of

S = api.TaskState
MESSAGE = "task rejected by volume enforcer"
ERROR = "attached to volume which is being drained"


class VolumeEnforcer:
    """Implements `Loop[str]`; keys are volume ids."""

    name = "volume enforcer"
    quiet = 0.0
    patience = 0.0

    def on_event(self, event: Event) -> Iterable[str]:
        """A volume that is being drained."""
        volume = event.obj
        drained = isinstance(volume, api.Volume) and volume.spec.availability == api.VolumeSpec.DRAIN
        return (volume.id,) if drained and event.action is Action.UPDATE else ()

    def everything(self, view: View) -> Iterable[str]:
        """All volumes."""
        return [volume.id for volume in view.volumes]

    def decide(self, view: View, key: str, now: float) -> Decision:
        """The tasks of a volume to reject."""
        volume = view.volumes.get(key)
        if volume is None or volume.spec.availability != api.VolumeSpec.DRAIN:
            return Decision()
        live = [t for t in view.tasks.find(by.volume(key)) if t.desired_state <= S.COMPLETE and t.status.state < S.COMPLETE]
        return Decision([Update(_rejected(task, now)) for task in live[:STEP]], again=len(live) > STEP)


def _rejected(task: api.Task, now: float) -> api.Task:
    edited = copy_of(task)
    edited.status.state = S.REJECTED
    edited.status.message = MESSAGE
    edited.status.err = ERROR
    edited.status.timestamp.CopyFrom(times.timestamp(now))
    return edited
