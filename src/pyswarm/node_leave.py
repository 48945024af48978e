"""Leaving a cluster for good (`pyswarmd --leave`): the node ends what it runs and forgets who it was.

Done by the node itself, stopped, without asking a manager: it must work when there is none any more, or when the node was removed. Each
step can be repeated, and the certificate goes last, so a leave that was cut short is finished by the next one.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog
from cryptography import x509

from pyswarm.agent.disk import ThreadDisk
from pyswarm.agent.executor import Executor, ExecutorError
from pyswarm.agent.reporter import Reporter
from pyswarm.agent.worker import Worker
from pyswarm.ca import keystore
from pyswarm.ca.credentials import Identity, identity_of
from pyswarm.ca.validate import CertificateError
from pyswarm.clock import Clock
from pyswarm.csi.plugins import Plugins
from pyswarm.errors import FailedPrecondition
from pyswarm.node_join import StartError
from pyswarm.node_state import StateDirectory
from pyswarm.rpc.caller import MANAGER

log = structlog.get_logger(__name__)


async def leave(
    directory: StateDirectory, make: Callable[[str], Awaitable[Executor]], clock: Clock, plugins: Plugins | None = None
) -> None:
    """Remove all tasks of the worker that lives in `directory`, unmount its volumes, then remove all it kept there.

    `make` gives the executor of the node with this id, `plugins` are its storage plugins. Raises SwarmError with one line for the
    operator, and what `make` raises; what could not be removed is still known then.
    """
    with directory.locked():
        who = _identity(directory)
        if MANAGER in who.roles:
            raise FailedPrecondition(
                f"node {who.node_id} in {directory.path} is a manager: its cluster must do without it first. Demote it "
                f"(pyswarmctl node demote {who.node_id}) while it runs, or, if that cluster is no more, delete the directory"
            )
        executor = await make(who.node_id)
        try:
            await _remove_tasks(directory, executor, clock, plugins)
            await executor.remove_strays(())
            _check_unmounted(directory.tasks.parent)
        except ExecutorError as error:
            raise FailedPrecondition(f"node {who.node_id} did not leave, for it cannot remove its tasks: {error}") from error
        finally:
            await executor.close()
        await asyncio.to_thread(directory.forget_everything)
    log.info("node left; its cluster knows nothing of it: pyswarmctl node rm", node=who.node_id, cluster=who.organization)


def _identity(directory: StateDirectory) -> Identity:
    path = directory.certificates / keystore.CERT_FILE
    try:
        return identity_of(x509.load_pem_x509_certificate(path.read_bytes()))
    except FileNotFoundError:
        raise StartError(f"--leave: no node lives in {directory.path}; name its directory with --state-dir") from None
    except (OSError, ValueError, CertificateError) as error:
        raise StartError(f"--leave: {path} does not say who the node is ({error})") from error


def _check_unmounted(worker: Path) -> None:
    """Nothing is deleted below which a volume might be: it would be its data. Raises FailedPrecondition."""
    volumes = worker / "volumes"
    found = sorted(path for kind in ("published", "staged") for path in (volumes / kind).glob("*"))
    if found:
        raise FailedPrecondition(f"{found[0]} may be a mounted volume: unmount it and remove it, so that its data is not deleted")


async def _remove_tasks(directory: StateDirectory, executor: Executor, clock: Clock, plugins: Plugins | None) -> None:
    """Let a worker take over what runs and is mounted, and remove it."""
    # Scatters retries; nothing here is secret.
    rng = random.Random()  # noqa: S311
    worker = Worker(
        executor=executor, database=directory.tasks, reporter=Reporter(), clock=clock, rng=rng, disk=ThreadDisk(), plugins=plugins
    )

    async def end() -> None:
        await worker.leave()
        await worker.volumes.leave()

    running = asyncio.ensure_future(worker.run())
    leaving = asyncio.ensure_future(end())
    try:
        await asyncio.wait({running, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
        leaving.result()
    finally:
        for work in (running, leaving):
            work.cancel()
        await asyncio.gather(running, leaving, return_exceptions=True)
