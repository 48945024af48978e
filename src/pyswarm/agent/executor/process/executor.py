"""The door of the process executor."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
from collections.abc import Iterable, Sequence
from pathlib import Path

import structlog

from pyswarm.agent.dependencies import Dependencies
from pyswarm.agent.executor import ExecutorError
from pyswarm.agent.executor.files import wanted_files
from pyswarm.agent.executor.memory import CANDIDATES, Memory
from pyswarm.agent.executor.payloads import Payloads
from pyswarm.agent.executor.process.controller import ProcessController
from pyswarm.agent.executor.process.given import check_targets, environment, task_files
from pyswarm.agent.executor.process.handles import kill_forgotten
from pyswarm.agent.executor.process.links import FOLDER, VARIABLE, make_links, volume_links
from pyswarm.agent.executor.process.recipe import HOST_NETWORK, recipe
from pyswarm.agent.executor.process.supervised import Supervised
from pyswarm.agent.executor.spec import container_spec
from pyswarm.agent.executor.volumes import check_mounted
from pyswarm.api import v1 as api
from pyswarm.clock import Clock, SystemClock

ENGINE_VERSION = "process"
"""What the node says in place of an engine's version."""

_log = structlog.get_logger(__name__)


class ProcessExecutor:
    """Runs tasks as processes, with their directories below `<state>/worker/tasks`.

    `hostname`, when not empty, replaces the machine's; `generic` are the generic resources of the node, `memory` the places where a tmpfs
    for secrets and configs may be.
    """

    def __init__(
        self,
        state: Path,
        *,
        hostname: str = "",
        generic: Sequence[api.GenericResource] = (),
        clock: Clock | None = None,
        memory: Sequence[Path] = CANDIDATES,
    ) -> None:
        self._directory = state.absolute() / "worker" / "tasks"
        name = f"process-{hashlib.sha256(os.fsencode(self._directory)).hexdigest()[:16]}"
        self._memory = Memory(lambda: name, memory)
        self._dependencies = Dependencies()
        self._clock = clock if clock is not None else SystemClock()
        self._description = description(hostname, generic)

    def use_dependencies(self, dependencies: Dependencies) -> None:
        """Secrets and configs of tasks come from here."""
        self._dependencies = dependencies

    async def check(self) -> None:
        """Raises ExecutorError when this machine cannot supervise processes."""
        if not hasattr(os, "pidfd_open") or not os.access("/proc/self/stat", os.R_OK):
            raise ExecutorError("--executor process needs Linux 5.3 or newer with /proc mounted")

    async def describe(self) -> api.NodeDescription:
        """This machine."""
        return self._description

    async def configure(self, node: api.Node) -> None:
        """Nothing of a node object matters to processes."""

    async def set_network_keys(self, keys: Sequence[api.EncryptionKey]) -> None:
        """Processes have no network of their own to protect."""

    def controller(self, task: api.Task) -> ProcessController:
        """A controller for `task`. Raises ExecutorError when it cannot run as a process: no command, unsupported parts, bad templates."""
        wanted = wanted_files(container_spec(task))
        check_targets(wanted)
        variables = environment(wanted, self._memory.directory(task.id)) if wanted else {}
        given, supervised = self._dependencies.of(task), self._supervised(task.id)
        links = volume_links(task, self._description, given.place)
        if links:
            variables = {**variables, VARIABLE: str(supervised.path / FOLDER)}
        made = recipe(task, self._description, files=variables)
        files = task_files(task.id, wanted, self._memory, Payloads(task, self._description, given), made)

        async def volumes() -> None:
            check_mounted(task, given)
            if links:
                await asyncio.to_thread(make_links, supervised.path, links)

        return ProcessController(task, made, supervised, self._clock, files, volumes=volumes)

    async def remove_strays(self, keep: Iterable[str]) -> None:
        """Kill the processes of tasks that are not in `keep` and delete their directories, if they still have any. Raises ExecutorError."""
        kept = set(keep)
        for entry in sorted(self._directory.iterdir()) if self._directory.is_dir() else ():
            if entry.is_dir() and entry.name not in kept:
                _log.info("removing process of a forgotten task", task=entry.name)
                stray = self._supervised(entry.name)
                await stray.stop(9, 0.0)
                await stray.delete()
        for task_id in await asyncio.to_thread(kill_forgotten, self._directory, kept):
            _log.info("removed process of a task whose directory is gone", task=task_id)
        await asyncio.to_thread(self._memory.keep_only, kept)

    async def close(self) -> None:
        """Nothing is held in memory."""

    def _supervised(self, task_id: str) -> Supervised:
        return Supervised(self._directory / task_id, self._clock)


def description(hostname: str = "", generic: Sequence[api.GenericResource] = ()) -> api.NodeDescription:
    """This machine as a node: name, platform, processors that this process may use, memory."""
    system = os.uname()
    return api.NodeDescription(
        hostname=hostname or socket.gethostname(),
        platform=api.Platform(os=system.sysname.lower(), architecture=system.machine),
        resources=api.Resources(nano_cpus=len(os.sched_getaffinity(0)) * 1_000_000_000, memory_bytes=_memory(), generic=generic),
        engine=api.EngineDescription(engine_version=ENGINE_VERSION, plugins=[api.PluginDescription(type="Network", name=HOST_NETWORK)]),
    )


def _memory() -> int:
    """Bytes of memory, 0 when /proc does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 0
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemTotal:")]
    return found[0] if found else 0
