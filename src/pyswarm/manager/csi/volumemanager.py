"""The thin loop: looks at volumes, asks their plugins for what `states.steps` says, and writes down what came of it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable

import structlog

from pyswarm.api import v1 as api
from pyswarm.clock import Clock
from pyswarm.csi.access import secrets_of
from pyswarm.csi.plugins import Plugins
from pyswarm.csi.retry import Attendant
from pyswarm.errors import FailedPrecondition, SwarmError
from pyswarm.manager.csi import states
from pyswarm.manager.csi.controller import Controller
from pyswarm.manager.csi.states import Action, Step
from pyswarm.manager.store import Action as Change
from pyswarm.manager.store import Commit, Event, Store, Tx

log = structlog.get_logger(__name__)


class VolumeManager:
    """Runs on the leader: `run()` until cancelled. `plugins` are those of this machine, closed when it ends."""

    def __init__(self, store: Store, plugins: Plugins, clock: Clock) -> None:
        self._store = store
        self._plugins = plugins
        self._controllers: dict[str, Controller] = {}
        self._attendant = Attendant("cluster volume", self._attend, clock)

    async def run(self) -> None:
        """Look at every volume now, and at each whose needs change."""
        self._controllers.clear()
        undo = self._store.on_commit(self._on_commit)
        try:
            for volume in self._store.volumes:
                if states.steps(volume):
                    self._attendant.poke(volume.id)
            await self._attendant.run()
        finally:
            undo()
            await self._plugins.close()

    def _on_commit(self, commit: Commit) -> None:
        for event in commit.events:
            for volume_id in touched(self._store.volumes, event):
                self._attendant.poke(volume_id)

    async def _attend(self, volume_id: str) -> None:
        """All that the volume needs now. What fails does not stop the rest; the last error is raised in the end, for another attempt."""
        failure: SwarmError | None = None
        volume = self._store.volumes.get(volume_id)
        for step in states.steps(volume) if volume is not None else ():
            try:
                await self._take(volume_id, step)
            except SwarmError as error:
                failure = error
                if step.node_id:
                    await self._store.update(functools.partial(states.failed, volume_id=volume_id, step=step, error=error.message))
        if failure is not None:
            raise failure

    async def _take(self, volume_id: str, step: Step) -> None:
        """One step, from the latest copy of the volume, and what comes of it written down."""
        volume = self._store.volumes.get(volume_id)
        if volume is None or step not in states.steps(volume):
            return
        await self._store.update(await self._ask(volume, step))
        log.info("volume attended to", volume=volume_id, name=volume.spec.annotations.name, step=step.action.value, node=step.node_id)

    async def _ask(self, volume: api.Volume, step: Step) -> Callable[[Tx], None]:
        """The result of the plugin's call, ready to be written."""
        secrets = secrets_of(volume.spec.secrets, self._store.secrets.get)
        controller, partial = self._controller(volume), functools.partial
        match step.action:
            case Action.CREATE:
                return partial(states.created, volume_id=volume.id, info=await controller.create(volume, secrets))
            case Action.DELETE:
                await controller.delete(volume, secrets)
                return partial(states.deleted, volume_id=volume.id)
            case Action.PUBLISH:
                context = await controller.publish(volume, self._node(volume, step), secrets) if await controller.publishes() else {}
                return partial(states.published, volume_id=volume.id, node_id=step.node_id, context=context)
            case Action.UNPUBLISH:
                if await controller.publishes():
                    await controller.unpublish(volume, self._node_left(volume, step), secrets)
                return partial(states.unpublished, volume_id=volume.id, node_id=step.node_id)

    def _controller(self, volume: api.Volume) -> Controller:
        """Raises NotFound for a driver without plugin here."""
        name = volume.spec.driver.name
        if name not in self._controllers:
            self._controllers[name] = Controller(self._plugins.get(name))
        return self._controllers[name]

    def _node(self, volume: api.Volume, step: Step) -> str:
        found = states.csi_node_id(self._store, step.node_id, volume.spec.driver.name)
        if found is None:
            raise FailedPrecondition(
                f"CSI node ID not found for given Swarm node ID: plugin {volume.spec.driver.name} does not run on node {step.node_id}"
            )
        return found

    def _node_left(self, volume: api.Volume, step: Step) -> str:
        """The id to take the volume back from. That of a removed node is lost; if it was the only one, "all nodes" says the same."""
        if self._store.nodes.get(step.node_id) is None and len(volume.publish_status) == 1:
            return ""
        return self._node(volume, step)


def touched(volumes: Iterable[api.Volume], event: Event) -> list[str]:
    """The volumes that need something else, or may get it now, by this change: themselves changed, or a node's plugins did. Pure."""
    new, old = event.obj, event.old
    if isinstance(new, api.Volume):
        if event.action is Change.REMOVE:
            return []
        before = states.steps(old) if isinstance(old, api.Volume) else []
        # A message that was written changes nothing about what is to be done: it must not cut the pause after a failure short.
        return [new.id] if states.steps(new) != before else []
    if isinstance(new, api.Node):
        known = list(old.description.csi_info) if isinstance(old, api.Node) else []
        present = list(new.description.csi_info) if event.action is not Change.REMOVE else []
        if known != present:
            return [volume.id for volume in volumes if any(step.node_id == new.id for step in states.steps(volume))]
    return []
