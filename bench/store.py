"""What the store costs as it grows: memory, writes, and every selector. Prints JSON lines, then how each cost grows.

    python -m bench.store                            # up to 5,000 nodes and 100,000 tasks, each size in a process of its own
    python -m bench.store --tasks 10000 --nodes 500  # one size

Per size: `fill` (create everything through `Store.batch`, in a log that commits at once), `update` (one task's state, a commit each),
then for each selector `find`, whose result has about the same number of objects at each size. `seconds` is per call except for `fill`.
`growth` is the exponent p of the best fit seconds ~ tasks^p: 0 where a look-up costs what it returns.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from bench.scheduler import Immediate, slope
from bench.volume import fill
from pyswarm.api import v1 as api
from pyswarm.clock import SystemClock
from pyswarm.garbage import keep_pauses_short
from pyswarm.manager.store import Selector, Store, Tx, by, copy_of

SIZES = ((1_000, 50), (10_000, 500), (100_000, 5_000))
CALLS = 2_000
ODD = 20
"""So many tasks are in another state than the rest."""


async def measure(tasks: int, nodes: int) -> None:
    """One size."""
    store = Store(SystemClock())
    store.attach(Immediate(store))  # type: ignore[arg-type]  # as much of a log as is used
    writing = asyncio.create_task(store.run())
    await asyncio.sleep(0)

    def report(shape: str, seconds: float, **more: object) -> None:
        peak = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        line = {"shape": shape, "nodes": nodes, "tasks": tasks, "seconds": round(seconds, 9), **more, "peak_mb": peak}
        print(json.dumps(line | {"load": round(os.getloadavg()[0], 1)}), flush=True)

    begun = time.perf_counter()
    await fill(store, tasks, nodes)
    report("fill", time.perf_counter() - begun)

    begun = time.perf_counter()
    for number in range(ODD):
        await store.update(lambda tx: _fail(tx, f"{number:025d}"))  # noqa: B023 - awaited before it changes
    report("update", (time.perf_counter() - begun) / ODD)

    for name, wanted in selectors(store).items():
        begun, returned = time.perf_counter(), 0
        for number in range(CALLS):
            returned += len(wanted(number))
        report(f"find-{name}", (time.perf_counter() - begun) / CALLS, returned=returned / CALLS)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)


def _fail(tx: Tx, task_id: str) -> None:
    task = tx.tasks.get(task_id)
    assert task is not None
    changed = copy_of(task)
    changed.status.state = api.TaskState.FAILED
    tx.tasks.update(changed)


def selectors(store: Store) -> dict[str, Callable[[int], list[Any]]]:
    """What is looked for at the n-th call, by name."""
    some = [task for _, task in zip(range(500), store.tasks, strict=False)]

    def find(selector: Callable[[api.Task], Selector]) -> Callable[[int], list[Any]]:
        return lambda number: store.tasks.find(selector(some[number % len(some)]))

    return {
        "service": find(lambda task: by.service(task.service_id)),
        "node": find(lambda task: by.node(task.node_id)),
        "slot": find(lambda task: by.slot(task.service_id, task.slot)),
        "state": lambda _: store.tasks.find(by.task_state(api.TaskState.FAILED)),
        "desired-state": lambda _: store.tasks.find(by.desired_state(api.TaskState.SHUTDOWN)),
        "name": find(lambda task: by.name(task.annotations.name)),
    }


def alone(tasks: int, nodes: int) -> Iterator[dict[str, Any]]:
    """A size in a process of its own, so that its memory is its own."""
    command = [sys.executable, "-m", "bench.store", "--tasks", str(tasks), "--nodes", str(nodes)]
    for line in subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines():
        print(line, flush=True)
        yield json.loads(line)


def main() -> None:
    """Measure one size, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int)
    parser.add_argument("--nodes", type=int, default=0)
    options = parser.parse_args()
    if options.tasks is not None:
        keep_pauses_short()
        asyncio.run(measure(options.tasks, options.nodes))
        return
    points: dict[str, list[tuple[float, float]]] = {}
    for tasks, nodes in SIZES:
        for line in alone(tasks, nodes):
            per_task = line["tasks"] if line["shape"] == "fill" else 1
            points.setdefault(line["shape"], []).append((line["tasks"], line["seconds"] / per_task))
    print(json.dumps({"growth": {shape: round(slope(found), 2) for shape, found in points.items()}}), flush=True)


if __name__ == "__main__":
    main()
