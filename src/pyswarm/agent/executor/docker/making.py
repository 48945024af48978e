"""How a task's container comes to be: networks, volumes, image, secrets and configs, creation, start."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

from pyswarm.agent.executor import AlreadyPrepared, ExecutorError
from pyswarm.agent.executor.docker import pulls
from pyswarm.agent.executor.docker.containers import ContainerRequest
from pyswarm.agent.executor.docker.engine import Engine
from pyswarm.agent.executor.docker.given import unseen
from pyswarm.agent.executor.docker.http import EngineError, EngineUnavailable
from pyswarm.agent.executor.memory import TaskFiles


class Maker:
    """Makes one container.

    Cancelling a call here does not undo what the engine has begun, so creation and start run to their end behind a cancelled caller;
    `settled` waits for that, and whoever stops or removes the container calls it first, or he would miss what is about to appear.
    """

    def __init__(self, engine: Engine, request: ContainerRequest, files: TaskFiles) -> None:
        self._engine = engine
        self._request = request
        self._files = files
        self._pulling: asyncio.Task[None] | None = None
        self._making: asyncio.Task[None] | None = None

    async def prepare(self) -> None:
        """Make everything but start it. Raises AlreadyPrepared when the container is there from an earlier life, or ExecutorError."""
        await self.settled()
        for network in self._request.networks:
            await self._create_network(network)
        for volume in self._request.volumes:
            await self._engine.create_volume(volume)
        await self._ensure_image()
        version = await self._engine.api_version()
        try:
            await self._finish(self._create(version))
        except EngineError as error:
            if error.status == 409 and await self._engine.inspect(self._request.name) is not None:
                raise AlreadyPrepared from error
            raise

    async def start(self) -> None:
        """Start the created container. Raises ExecutorError."""
        await self._finish(self._start())

    async def settled(self) -> None:
        """Waits for a creation or start that an earlier, cancelled call left going."""
        if self._making is not None and not self._making.done():
            await asyncio.wait([self._making])

    async def end_pull(self) -> None:
        """Give up a pull in progress."""
        await _ended(self._pulling)

    async def close(self) -> None:
        """Wait for nothing any more. What the engine has begun it finishes."""
        await _ended(self._pulling)
        await _ended(self._making)

    async def _create(self, version: tuple[int, int]) -> None:
        name = self._request.name
        await self._files.deliver()
        try:
            await self._engine.create(name, self._request.create_body(version))
        except EngineError as error:
            raise unseen(error, self._request.files, self._engine.address) from error
        for network, endpoint in self._request.connect_later(version).items():
            await self._engine.connect(network, name, endpoint)

    async def _start(self) -> None:
        await self._files.deliver()  # The machine, and its memory with it, may have been restarted since the creation.
        try:
            await self._engine.start(self._request.name)
        except EngineError as error:
            raise EngineError(error.status, error.message, "starting container failed: ") from error

    async def _create_network(self, body: dict[str, object]) -> None:
        try:
            await self._engine.create_network(body)
        except EngineError as error:
            if error.status != 409:
                raise

    async def _ensure_image(self) -> None:
        """Pulls only what is missing. One pull per task: a cancelled prepare that is called again waits for the same one."""
        image = self._request.image
        if self._pulling is None or self._pulling.cancelled():
            if await self._engine.has_image(image):
                return
            self._pulling = asyncio.create_task(pulls.pull(self._engine, image, self._request.registry_auth), name=f"pull {image}")
            self._pulling.add_done_callback(_retrieve)
        pulling = self._pulling
        try:
            await asyncio.shield(pulling)
        except EngineUnavailable:
            raise
        except ExecutorError as error:
            reason = str(error).removeprefix("Error response from daemon: ")
            raise ExecutorError(f"Error response from daemon: No such image: {image} (pulling it failed: {reason})") from error
        finally:
            if pulling.done():
                self._pulling = None

    async def _finish(self, work: Coroutine[object, object, None]) -> None:
        self._making = asyncio.create_task(work, name=f"make {self._request.name}")
        self._making.add_done_callback(_retrieve)
        await asyncio.shield(self._making)


async def _ended(work: asyncio.Task[None] | None) -> None:
    if work is not None and not work.done():
        work.cancel()
        await asyncio.wait([work])


def _retrieve(work: asyncio.Task[None]) -> None:
    """Marks a failure as seen: the caller may have been cancelled, and the next call meets the failure itself."""
    if not work.cancelled():
        work.exception()
