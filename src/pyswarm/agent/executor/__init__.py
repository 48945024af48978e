"""How tasks run: the interface between the agent and what starts containers or processes, and one package for each such thing.

Owns: the contract below. An executor describes the node and makes one `Controller` per task; the task manager (agent) drives the controller
through the states, one call at a time, and may cancel any call and make it again, also in a later life of the daemon.
Never: an executor never talks to a manager and never decides a task's state; it reports by returning or raising.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import Protocol

from pyswarm.api import v1 as api


class ExecutorError(Exception):
    """A task operation failed for good: REJECTED before STARTING, FAILED from there on. The text ends in `status.err`."""


class TemporaryError(ExecutorError):
    """It failed for a passing reason (engine restarting, dependency not there yet): the task manager tries again."""


class AlreadyPrepared(Exception):
    """Prepare found the task prepared. Counts as success."""


class AlreadyStarted(Exception):
    """Start found the task started. Counts as success."""


class ExitError(ExecutorError):
    """The task's process ended with a non-zero code."""

    def __init__(self, code: int, cause: str = "") -> None:
        super().__init__(f"task: non-zero exit ({code})" + (f": {cause}" if cause else ""))
        self.code = code


class Controller(Protocol):
    """One task's container or process. Every method may be called again after cancellation and after a daemon restart."""

    async def update(self, task: api.Task) -> None:
        """Take note of a new desired state or spec detail; most executors do nothing."""
        ...

    async def prepare(self) -> None:
        """Make everything but start it. Raises AlreadyPrepared, ExecutorError, TemporaryError."""
        ...

    async def start(self) -> None:
        """Start it and return once it runs (and is healthy, if it has a health check). Raises AlreadyStarted, ExecutorError."""
        ...

    async def wait(self) -> None:
        """Return when it ended with code 0; raise ExitError otherwise."""
        ...

    async def shutdown(self) -> None:
        """Stop it gracefully: its stop signal, then a kill after its grace period. Fine when it already ended."""
        ...

    async def terminate(self) -> None:
        """Kill it."""
        ...

    async def remove(self) -> None:
        """Stop it if needed and delete all that belongs to it. Fine when it is already gone."""
        ...

    async def close(self) -> None:
        """Drop what this object holds in memory; the container or process is left alone."""
        ...

    async def container_status(self) -> api.ContainerStatus | None:
        """Id, pid and exit code as they are now; None when there is no container."""
        ...

    async def port_status(self) -> api.PortStatus | None:
        """The host ports in use; None when there are none."""
        ...

    def logs(self, options: api.LogSubscriptionOptions) -> AsyncGenerator[api.LogMessage, None]:
        """Lines of output, oldest first: those there are now, and with `options.follow` all until the task has ended.

        May run beside any other call, several times over. Reads as fast as it is asked for lines. Raises ExecutorError.
        """
        ...


class Executor(Protocol):
    """What runs tasks on this node."""

    async def describe(self) -> api.NodeDescription:
        """The node as the engine sees it (hostname, platform, resources, plugins). Raises ExecutorError while unreachable."""
        ...

    async def configure(self, node: api.Node) -> None:
        """The node object changed (labels, role, attachments)."""
        ...

    async def set_network_keys(self, keys: Sequence[api.EncryptionKey]) -> None:
        """New gossip and IPsec keys."""
        ...

    def controller(self, task: api.Task) -> Controller:
        """A controller for a task. Raises ExecutorError when the spec cannot run here; must not block."""
        ...

    async def remove_strays(self, keep: Iterable[str]) -> None:
        """Remove containers or processes of this node, left by an earlier life, whose task id is not in `keep`."""
        ...

    async def close(self) -> None:
        """Release connections and threads; tasks keep running."""
        ...
