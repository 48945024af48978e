"""Commit latency and throughput of one manager's log, with real syncs, and how long a cold start takes. Prints JSON lines.

    python bench/commit.py [--directory DIR] [--entries 10000]

`directory` should be on the disk that matters: a memory file system makes syncs free.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

from pyswarm.api import v1 as api
from pyswarm.clock import SystemClock
from pyswarm.raft.node import RaftNode, RaftSettings

SEQUENTIAL = 1000
AT_ONCE = 100


class Counter:
    """A state machine that only counts."""

    applied = 0

    def apply(self, index: int, request: api.InternalRaftRequest, proposal: Any | None) -> None:  # noqa: ARG002 - the interface
        """See StateMachine."""
        self.applied += 1

    def capture(self) -> Callable[[], api.StoreSnapshot]:
        """See StateMachine."""
        return api.StoreSnapshot

    def prepare(self, snapshot: api.StoreSnapshot) -> Callable[[], None]:  # noqa: ARG002 - the interface
        """See StateMachine."""
        return lambda: None


def request(number: int) -> api.InternalRaftRequest:
    """A task of ordinary size."""
    task = api.Task(id=f"task{number:021d}", service_id="s" * 25, slot=number)
    task.spec.container.image = "registry.example.com/team/image:1.2.3"
    task.spec.container.env.extend(f"VARIABLE_{i}=value {i}" for i in range(5))
    return api.InternalRaftRequest(action=[api.StoreAction(action=api.StoreActionKind.STORE_ACTION_CREATE, task=task)])


def report(name: str, **values: float) -> None:
    """One line of result."""
    print(json.dumps({"bench": name, **{k: round(v, 3) for k, v in values.items()}}), flush=True)


async def sequential(node: RaftNode) -> None:
    """One proposal after the other."""
    times = []
    for number in range(SEQUENTIAL):
        begun = time.perf_counter()
        await node.propose(request(number))
        times.append((time.perf_counter() - begun) * 1000)
    times.sort()
    report("commit-sequential", n=SEQUENTIAL, median_ms=statistics.median(times), p99_ms=times[int(len(times) * 0.99)])


async def grouped(node: RaftNode, total: int) -> None:
    """Many proposers at once: entries that wait together share a sync."""

    async def proposer(count: int) -> None:
        for number in range(count):
            await node.propose(request(number))

    begun = time.perf_counter()
    await asyncio.gather(*(proposer(total // AT_ONCE) for _ in range(AT_ONCE)))
    elapsed = time.perf_counter() - begun
    report("commit-grouped", n=total, proposers=AT_ONCE, per_second=total / elapsed)


async def session(directory: Path, work: Callable[[RaftNode], Any]) -> tuple[float, int]:
    """Start a node, do something with it, stop it; seconds until it led, and entries applied by then."""
    machine, won = Counter(), asyncio.Event()
    node = RaftNode(
        node_id="bench", cluster_id="bench", directory=directory, machine=machine, data_key=b"k" * 32, clock=SystemClock(),
        settings=RaftSettings(), config=lambda: api.RaftConfig(snapshot_interval=0),
    )  # fmt: skip
    node.on_leadership(lambda leads: won.set() if leads else None)
    begun = time.perf_counter()
    running = asyncio.create_task(node.run())
    await won.wait()
    ready, replayed = time.perf_counter() - begun, machine.applied
    await work(node)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return ready, replayed


async def main() -> None:
    """All benches, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, default=None)
    parser.add_argument("--entries", type=int, default=10_000)
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    with tempfile.TemporaryDirectory(dir=options.directory) as parent:
        await session(Path(parent) / "a", sequential)
        await session(Path(parent) / "b", lambda node: grouped(node, options.entries))
        ready, replayed = await session(Path(parent) / "b", lambda _: asyncio.sleep(0))
        report("cold-start", entries=replayed, seconds=ready)


if __name__ == "__main__":
    asyncio.run(main())
