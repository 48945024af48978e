"""The door of the Docker executor."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import structlog

from pyswarm.agent.dependencies import Dependencies
from pyswarm.agent.executor import ExecutorError
from pyswarm.agent.executor.docker.containers import HOME_LABEL, NODE_LABEL, container_request
from pyswarm.agent.executor.docker.controller import DockerController
from pyswarm.agent.executor.docker.describe import description
from pyswarm.agent.executor.docker.engine import Engine
from pyswarm.agent.executor.docker.events import Events
from pyswarm.agent.executor.docker.given import file_mounts, task_files
from pyswarm.agent.executor.docker.http import EngineUnavailable, Transport
from pyswarm.agent.executor.files import wanted_files
from pyswarm.agent.executor.memory import CANDIDATES, Memory
from pyswarm.agent.executor.payloads import Payloads
from pyswarm.agent.executor.spec import container_spec
from pyswarm.agent.executor.volumes import check_mounted
from pyswarm.api import v1 as api
from pyswarm.clock import Clock, SystemClock

DEFAULT_ADDRESS = "unix:///var/run/docker.sock"

_log = structlog.get_logger(__name__)


class DockerExecutor:
    """Runs tasks in the engine at `engine_addr` (`unix:///path`, `tcp://host:port`).

    `node_id` is asked when it is needed, since a joining node has none at first. `hostname`, when not empty, replaces the engine's;
    `generic` are the generic resources of the node, `memory` the places where a tmpfs for secrets and configs may be; `home` names where
    the node lives (`agent.home`; empty: nowhere), and is asked when it is needed too. Raises ExecutorError for an address that is none.
    Must be made on the event loop.
    """

    def __init__(
        self,
        engine_addr: str,
        node_id: Callable[[], str],
        *,
        hostname: str = "",
        generic: Sequence[api.GenericResource] = (),
        clock: Clock | None = None,
        memory: Sequence[Path] = CANDIDATES,
        home: Callable[[], str] = str,
    ) -> None:
        self._engine = Engine(Transport(engine_addr))
        self._node_id = node_id
        self._hostname = hostname
        self._generic = tuple(generic)
        self._clock = clock if clock is not None else SystemClock()
        self._events = Events(self._engine, node_id, self._clock)
        self._home = home
        self._memory = Memory(lambda: home() or node_id(), memory)
        self._dependencies = Dependencies()
        self._description: api.NodeDescription | None = None

    def use_dependencies(self, dependencies: Dependencies) -> None:
        """Secrets and configs of tasks come from here."""
        self._dependencies = dependencies

    async def check(self) -> None:
        """Ask the engine whether it is there. Raises ExecutorError with one line for the operator when it is not."""
        try:
            await self._engine.info()
        except ExecutorError as error:
            cause = error.__cause__ if isinstance(error, EngineUnavailable) else None
            reason = _reason(cause) if cause is not None else str(error)
            raise ExecutorError(
                f"no Docker Engine answers at {self._engine.address} ({reason}): start it, name another one with --engine-addr, "
                "or run tasks as plain processes with --executor process"
            ) from error

    async def describe(self) -> api.NodeDescription:
        """The node as the engine describes it. A failing plugin list only leaves the managed plugins out."""
        info = await self._engine.info()
        try:
            plugins = await self._engine.plugins()
        except ExecutorError as error:
            _log.warning("listing engine plugins failed", engine=self._engine.address, error=str(error))
            plugins = ()
        self._description = description(info, plugins, self._generic)
        if self._hostname:
            self._description.hostname = self._hostname
        return self._description

    async def configure(self, node: api.Node) -> None:
        """Nothing of a node object matters to the engine."""

    async def set_network_keys(self, keys: Sequence[api.EncryptionKey]) -> None:
        """A plain engine has no overlay networks to protect."""

    def controller(self, task: api.Task) -> DockerController:
        """A controller for `task`. Raises ExecutorError when its spec cannot run here (runtime, image, templates, unsupported parts)."""
        wanted = wanted_files(container_spec(task))
        mounts = file_mounts(wanted, self._memory.directory(task.id)) if wanted else ()
        given = self._dependencies.of(task)
        request = container_request(task, self._description, files=mounts, home=self._home(), place=given.place)
        files = task_files(task.id, wanted, self._memory, Payloads(task, self._description, given))
        check = functools.partial(check_mounted, task, given)
        return DockerController(self._engine, self._events, task, request, self._clock, files, check_mounted=check)

    async def remove_strays(self, keep: Iterable[str]) -> None:
        """Delete this node's containers whose task is not in `keep`, also those that it made when it had another id. Raises ExecutorError
        when the engine refuses.
        """
        kept = set(keep)
        found = await self._engine.list_labelled(f"{NODE_LABEL}={self._node_id()}")
        if home := self._home():
            found += await self._engine.list_labelled(f"{HOME_LABEL}={home}")
        for container in found:
            if container.task_id and container.task_id not in kept:
                _log.info("removing container of a forgotten task", task=container.task_id, container=container.id[:12])
                await self._engine.remove(container.id)
        await asyncio.to_thread(self._memory.keep_only, kept)

    async def close(self) -> None:
        """Stop reading events and drop connections."""
        await self._events.close()
        self._engine.close()


def _reason(error: BaseException) -> str:
    """The innermost system error of a failed connection, in words: `No such file or directory`, `Connection refused`."""
    seen: BaseException | None = error
    words = ""
    while seen is not None:
        if isinstance(seen, OSError) and seen.strerror:
            words = seen.strerror
        arguments = [argument for argument in seen.args if isinstance(argument, BaseException)]
        seen = arguments[-1] if arguments else (seen.__cause__ or seen.__context__)
    return words or "no answer"
