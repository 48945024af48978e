"""A store of many tasks: filling it, a snapshot while it serves, a start from that, a member that joins and gets it. Prints JSON lines.

    python -m bench.volume                       # 100,000 tasks, 5,000 nodes
    python -m bench.volume --tasks 10000 --directory /some/disk

Everything runs in this one process. `longest_stall_ms` is how late a task that wants to run every two milliseconds was at most: for so long
nothing else got its turn, neither a call nor a heartbeat. `peak_mb` is the process's largest size so far. `gc_ms` is the longest pause of
the garbage collector, part of the stalls.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import resource
import secrets
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import structlog

from bench.members import Member
from pyswarm.api import v1 as api
from pyswarm.clock import SystemClock
from pyswarm.garbage import keep_pauses_short
from pyswarm.manager.store import Store

TICK = 0.002


class Watchdog:
    """Longest stalls of the loop, and of the garbage collector."""

    def __init__(self) -> None:
        self.stall = 0.0
        self.gc = 0.0
        self._gc_begun = 0.0

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            before = time.perf_counter()
            await asyncio.sleep(TICK)
            self.stall = max(self.stall, time.perf_counter() - before - TICK)

    def on_gc(self, phase: str, _info: dict[str, int]) -> None:
        """See gc.callbacks."""
        if phase == "start":
            self._gc_begun = time.perf_counter()
        else:
            self.gc = max(self.gc, time.perf_counter() - self._gc_begun)


@contextlib.asynccontextmanager
async def phase(name: str, **more: object) -> AsyncIterator[dict[str, Any]]:
    """Measures what happens in the `with` block and prints a line; what the block adds to the result goes with it."""
    dog, result = Watchdog(), dict(more)
    gc.callbacks.append(dog.on_gc)
    watching = asyncio.create_task(dog.run())
    begun = time.perf_counter()
    try:
        yield result
        await asyncio.sleep(2 * TICK)
    finally:
        seconds = time.perf_counter() - begun
        watching.cancel()
        gc.callbacks.remove(dog.on_gc)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    line = {"seconds": round(seconds, 3), "longest_stall_ms": round(dog.stall * 1000, 1), "gc_ms": round(dog.gc * 1000, 1)}
    load = round(os.getloadavg()[0], 1)
    print(json.dumps({"shape": f"volume-{name}", **result, **line, "peak_mb": round(peak), "load": load}), flush=True)


def task(number: int) -> api.Task:
    """A task of ordinary size; a hundred belong to each service, twenty run on each node."""
    made = api.Task(id=f"{number:025d}", service_id=f"{number // 100:025d}", slot=number, node_id=f"{number // 20:025d}")
    made.spec.container.image = "registry.example.com/team/image:1.2.3"
    made.spec.container.env.extend(f"VARIABLE_{i}=value {i}" for i in range(5))
    made.annotations.name = f"service-{number // 100}.{number}"
    made.status.state = api.TaskState.RUNNING
    made.desired_state = api.TaskState.RUNNING
    return made


def node(number: int) -> api.Node:
    """A node of ordinary size."""
    made = api.Node(id=f"{number:025d}")
    made.description.hostname = f"host-{number}"
    made.description.platform.architecture, made.description.platform.os = "x86_64", "linux"
    made.description.resources.nano_cpus, made.description.resources.memory_bytes = 8_000_000_000, 16 << 30
    made.description.engine.engine_version = "20.10.24"
    made.status.state, made.status.addr = api.NodeStatus.READY, f"10.0.{number // 256}.{number % 256}"
    made.spec.membership = api.NodeSpec.ACCEPTED
    made.certificate.cn, made.certificate.certificate = made.id, b"x" * 1_200
    return made


async def fill(store: Store, tasks: int, nodes: int) -> None:
    """So many of each."""
    errors = await store.batch(map(node, range(nodes)), lambda tx, made: tx.nodes.create(made) and None)
    errors += await store.batch(map(task, range(tasks)), lambda tx, made: tx.tasks.create(made) and None)
    assert not any(errors)


@contextlib.asynccontextmanager
async def stored(name: str, directory: Path, leader: Member | None = None) -> AsyncIterator[tuple[Member, Store]]:
    """A member with a store."""
    store = Store(SystemClock())
    member = Member(name, directory, store)
    store.attach(member.node)
    writing = asyncio.create_task(store.run())
    try:
        await member.start(leader.node if leader is not None else None)
        yield member, store
    finally:
        await member.stop()
        writing.cancel()


async def keep_writing(store: Store, slowest: list[float]) -> None:
    """One small write after the other; how long the slowest took, in milliseconds."""
    while True:
        secret = api.Secret(id=secrets.token_hex(12))
        secret.spec.annotations.name = secret.id
        begun = time.perf_counter()
        await store.update(lambda tx: tx.secrets.create(secret))  # noqa: B023 - awaited before it changes
        slowest[0] = max(slowest[0], round((time.perf_counter() - begun) * 1000, 1))
        await asyncio.sleep(0.005)


def snapshot_bytes(directory: Path) -> int:
    """Size of the newest snapshot of a member, 0 without one."""
    found = sorted((directory / "snap-pyswarm").glob("*.snap"))
    return found[-1].stat().st_size if found else 0


async def measure(directory: Path, count: int, nodes: int) -> None:
    """All phases."""
    sizes = {"nodes": nodes, "tasks": count}
    async with stored("first", directory) as (member, store):
        async with phase("fill", **sizes):
            await fill(store, count, nodes)
        async with phase("snapshot", **sizes) as result:
            slowest = [0.0]
            writing = asyncio.create_task(keep_writing(store, slowest))
            member.config.snapshot_interval = 1_000_000 if not count else 1
            while not (size := snapshot_bytes(directory / "first")):  # noqa: ASYNC110 - a file has no event
                await asyncio.sleep(0.01)
            member.config.snapshot_interval = 0
            await asyncio.sleep(0.3)
            writing.cancel()
            result |= {"bytes": size, "slowest_write_ms": slowest[0]}
    async with phase("start", **sizes), stored("first", directory) as (member, store):
        assert len(store.tasks) == count
    async with stored("first", directory) as (member, store):
        member.config.log_entries_for_slow_followers = 0
        async with phase("join", **sizes) as result:
            slowest = [0.0]
            writing = asyncio.create_task(keep_writing(store, slowest))
            async with stored("second", directory, member) as (_, copy):
                while len(copy.tasks) != count:  # noqa: ASYNC110 - as a user would see it
                    await asyncio.sleep(0.01)
                writing.cancel()
                result |= {"slowest_write_ms": slowest[0], "leads_still": member.node.is_leader}


async def main() -> None:
    """Parse flags, measure in a temporary directory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, help="where to put it; a memory file system makes syncs free")
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--nodes", type=int, default=5_000)
    options = parser.parse_args()
    keep_pauses_short()  # as the daemon does
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    with tempfile.TemporaryDirectory(dir=options.directory) as parent:
        await measure(Path(parent), options.tasks, options.nodes)


if __name__ == "__main__":
    asyncio.run(main())
