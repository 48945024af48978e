"""The cluster volumes of this node: mounted when assigned, unmounted when taken back and nobody here uses them any more."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from pyswarm.agent.csi import records
from pyswarm.agent.csi.nodeplugin import NodePlugin, published_path, staging_path
from pyswarm.agent.disk import Disk
from pyswarm.agent.executor import TemporaryError
from pyswarm.api import v1 as api
from pyswarm.clock import Clock, wait_for
from pyswarm.csi.access import secrets_of
from pyswarm.csi.plugins import Plugins
from pyswarm.csi.retry import Attendant
from pyswarm.errors import FailedPrecondition, InvalidArgument, NotFound, SwarmError

log = structlog.get_logger(__name__)
LEAVE_SECONDS = 60.0


class VolumeNotReady(TemporaryError):
    """A task's volume is not mounted (yet, or any more): the task waits."""


@dataclass(slots=True)
class Held:
    """A volume that was assigned, and how far it is."""

    assignment: api.VolumeAssignment
    removing: bool = False
    published: bool = False


class NodeVolumes:
    """`add` and `remove` as the manager says; `path` for tasks; `run` for as long as the agent lives.

    `secret` finds a secret of this node by id. `in_use` says whether a task here still has a volume, `released` hears of each that was
    unmounted for good. Directories are below `directory`, made and deleted through `disk`.
    """

    def __init__(
        self,
        plugins: Plugins,
        directory: Path,
        clock: Clock,
        disk: Disk,
        *,
        secret: Callable[[str], api.Secret | None],
        in_use: Callable[[str], bool],
        released: Callable[[str], None],
    ) -> None:
        self._plugins = plugins
        self._directory = directory
        self._disk = disk
        self._secret = secret
        self._in_use = in_use
        self._released = released
        self._held: dict[str, Held] = {}
        self._left: dict[str, api.VolumeAssignment] = {}
        self._changed = asyncio.Event()
        self._nodes = {name: NodePlugin(plugins.get(name), directory) for name in plugins}
        self._clock = clock
        self._infos: dict[str, api.NodeCSIInfo] = {}
        self._attendant = Attendant("volume on this node", self._attend, clock)

    async def load(self) -> None:
        """Learn what an earlier life of the daemon mounted; before anything else."""
        self._left = await self._disk.run(lambda: records.load(self._directory))

    # --- from the manager

    def add(self, assignment: api.VolumeAssignment) -> None:
        """Mount it; again with what is new about it."""
        held = self._held.get(assignment.id)
        if held is None or held.removing or held.assignment != assignment:
            self._held[assignment.id] = Held(assignment)
            self._attendant.poke(assignment.id)

    def remove(self, assignment: api.VolumeAssignment) -> None:
        """Unmount it, also when this life of the daemon never mounted it."""
        held = self._held.get(assignment.id)
        if held is None or not held.removing:
            self._held[assignment.id] = Held(assignment, removing=True)
            self._attendant.poke(assignment.id)

    def settle(self) -> None:
        """The manager has named all that this node is to have: what an earlier life left beyond that goes."""
        for volume_id, assignment in self._left.items():
            if volume_id not in self._held:
                self.remove(assignment)
        self._left.clear()

    async def leave(self) -> None:
        """Unmount everything; returns when it is done. Raises FailedPrecondition when that takes too long, naming what is left."""
        self.settle()
        for held in tuple(self._held.values()):
            self.remove(held.assignment)
        deadline = self._clock.monotonic() + LEAVE_SECONDS
        while self._held:
            self._changed.clear()
            if not await wait_for(self._changed, self._clock, deadline - self._clock.monotonic()):
                raise FailedPrecondition(f"these volumes cannot be unmounted: {', '.join(sorted(self._held))}; the log says why")

    def task_ended(self, task: api.Task) -> None:
        """A task has let go of its volumes: those that wait for it can go."""
        for attachment in task.volumes:
            held = self._held.get(attachment.id)
            if held is not None and held.removing:
                self._attendant.poke(attachment.id)

    # --- for tasks and node

    def place(self, volume_id: str) -> Path:
        """Where the volume is, or will be."""
        return published_path(self._directory, volume_id)

    def path(self, volume_id: str) -> Path:
        """Where the volume is mounted. Raises VolumeNotReady while it is not."""
        held = self._held.get(volume_id)
        if held is not None and held.removing:
            raise VolumeNotReady(f"volume {volume_id}: volume being removed")
        if held is None or not held.published:
            raise VolumeNotReady(f"volume {volume_id}: published path is unavailable")
        return self.place(volume_id)

    async def describe(self) -> list[api.NodeCSIInfo]:
        """What each plugin says of this node, by name. One that does not answer is left out, unless it did before: it may be starting
        anew, and volumes that it has here must find it again.
        """
        answers = await asyncio.gather(*map(self._info, self._nodes))
        self._infos.update({info.plugin_name: info for info in answers if info is not None})
        return [self._infos[name] for name in sorted(self._infos)]

    async def _info(self, name: str) -> api.NodeCSIInfo | None:
        try:
            return await self._nodes[name].info()
        except SwarmError as error:
            log.debug("plugin does not describe this node", plugin=name, error=error.message)
            return None

    # --- work

    async def run(self) -> None:
        """Until cancelled. What is mounted stays mounted."""
        try:
            await self._attendant.run()
        finally:
            await self._plugins.close()

    async def _attend(self, volume_id: str) -> None:
        held = self._held.get(volume_id)
        if held is None:
            return
        if held.removing:
            await self._unmount(held)
        elif not held.published:
            await self._mount(held)

    async def _mount(self, held: Held) -> None:
        assignment = held.assignment
        plugin = self._plugin(assignment)
        secrets = secrets_of(assignment.secrets, self._secret)
        await self._disk.run(lambda: self._prepare(assignment))
        await plugin.stage(assignment, secrets)
        await plugin.publish(assignment, secrets)
        held.published = True
        log.info("volume mounted", volume=assignment.id, driver=assignment.driver.name)

    async def _unmount(self, held: Held) -> None:
        assignment = held.assignment
        if self._in_use(assignment.id):
            raise FailedPrecondition("a task on this node still uses it")
        if assignment.driver.name in self._plugins or await self._disk.run(lambda: self._was_here(assignment.id)):
            plugin = self._plugin(assignment)
            await plugin.unpublish(assignment)
            await plugin.unstage(assignment)
            await self._disk.run(lambda: self._clear(assignment.id))
        if self._held.get(assignment.id) is held:
            del self._held[assignment.id]
            self._changed.set()
            self._released(assignment.id)
            log.info("volume unmounted", volume=assignment.id, driver=assignment.driver.name)

    def _plugin(self, assignment: api.VolumeAssignment) -> NodePlugin:
        if not assignment.id or assignment.id in {".", ".."} or "/" in assignment.id:
            raise InvalidArgument(f"{assignment.id!r} is no volume's ID")
        name = assignment.driver.name
        try:
            return self._nodes[name]
        except KeyError:
            raise NotFound(f"cannot get plugin {name}: start pyswarmd on this node with --csi-plugin {name}=unix:///PATH") from None

    def _prepare(self, assignment: api.VolumeAssignment) -> None:
        """Note the volume down, and make the directories that plugins expect to find; the mount point itself is theirs to make."""
        records.save(self._directory, assignment)
        staging_path(self._directory, assignment.id).mkdir(mode=0o700, parents=True, exist_ok=True)
        published_path(self._directory, assignment.id).parent.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _was_here(self, volume_id: str) -> bool:
        return staging_path(self._directory, volume_id).exists() or published_path(self._directory, volume_id).exists()

    def _clear(self, volume_id: str) -> None:
        """Only what is empty: whatever a plugin left mounted is never deleted into."""
        for path in (staging_path(self._directory, volume_id), published_path(self._directory, volume_id)):
            with contextlib.suppress(OSError):
                path.rmdir()
        records.forget(self._directory, volume_id)
