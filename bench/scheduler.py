"""How fast waiting tasks are bound to nodes, in the shapes of SwarmKit's own scheduler benchmark. Prints JSON lines, then how costs grow.

    python -m bench.scheduler                        # every shape, each in a process of its own
    python -m bench.scheduler --shape 1k-10k --profile

A shape is its number of nodes and of tasks. The tasks of plain shapes belong to no service; `plugin` ones want a network plugin that every
third node has; `service` ones are the replicas of one service, with reservations and two spread preferences. One transaction creates all
nodes and tasks; the clock starts just before it is committed and stops when as many task updates have been seen as there are tasks and the
scheduler has ended. So it covers the commit, its events, the quiet time, all decisions, their commits and their events, in a store that
commits at once. `cpu` is processor time of the process in the same span; `peak_mb` the process's largest size. Afterwards an independent
checker looks at every placement; `--unchecked` leaves that out.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import math
import pstats
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.manager.scheduler.checker import check

from pyswarm.api import v1 as api
from pyswarm.clock import SystemClock
from pyswarm.garbage import keep_pauses_short
from pyswarm.manager.loop import Driver
from pyswarm.manager.scheduler.scheduler import Scheduler
from pyswarm.manager.store import Action, Commit, Kind, Store, Tx

PLAIN, PLUGIN, SERVICE = "plain", "plugin", "service"
ZONES, RACKS = 5, 4


@dataclass(frozen=True, slots=True)
class Shape:
    """One line of the table. `goal` in seconds, None where none was set."""

    nodes: int
    tasks: int
    kind: str = PLAIN
    goal: float | None = None

    @property
    def name(self) -> str:
        """As given on the command line."""
        kind = "" if self.kind == PLAIN else f"{self.kind}-"
        return f"{kind}{self.nodes // 1000}k-{self.tasks // 1000}k"


SHAPES = (
    Shape(1_000, 1_000, goal=0.1),
    Shape(1_000, 10_000, goal=0.25),
    Shape(1_000, 100_000, goal=3.0),
    Shape(100_000, 1_000, goal=2.0),
    Shape(10_000, 1_000),
    Shape(10_000, 100_000),
    Shape(1_000, 1_000, PLUGIN),
    Shape(1_000, 1_000, SERVICE),
    Shape(1_000, 10_000, PLUGIN, goal=0.3),
    Shape(1_000, 100_000, PLUGIN, goal=3.0),
    Shape(5_000, 100_000, PLUGIN, goal=4.0),
    Shape(1_000, 10_000, SERVICE, goal=0.3),
    Shape(1_000, 100_000, SERVICE, goal=3.0),
)


def node(number: int, kind: str) -> api.Node:
    """Every third lists a plugin; for services it has resources and a place."""
    made = api.Node(id=f"node{number:06}", status=api.NodeStatus(state=api.NodeStatus.State.READY))
    made.spec.annotations.name = f"name{number}"
    made.description.engine.SetInParent()
    if number % 3 == 0:
        made.description.engine.plugins.add(type="Network", name="network")
    if kind == SERVICE:
        made.description.resources.MergeFrom(api.Resources(nano_cpus=64 * 10**9, memory_bytes=1 << 38))
        made.spec.annotations.labels.update({"zone": f"z{number % ZONES}", "rack": f"r{number // ZONES % RACKS}"})
    return made


def task(number: int, kind: str) -> api.Task:
    """A task that waits for a node."""
    made = api.Task(id=f"task{number}", desired_state=api.TaskState.RUNNING)
    made.service_annotations.name = f"task{number}"
    made.status.state = api.TaskState.PENDING
    if kind == PLUGIN:
        made.networks.add().network.driver_state.name = "network"
    if kind == SERVICE:
        made.service_id, made.slot, made.spec_version.index = "service", number + 1, 1
        made.spec.container.image = "registry.example.com/team/image:1.2.3"
        made.spec.resources.reservations.MergeFrom(api.Resources(nano_cpus=10**7, memory_bytes=1 << 24))
        for label in ("zone", "rack"):
            made.spec.placement.preferences.add(spread=api.SpreadOver(spread_descriptor=f"node.labels.{label}"))
    return made


class Immediate:
    """A log that commits at once and keeps nothing, as SwarmKit's store does in its benchmark."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.applied_index = 0

    async def propose(self, request: api.InternalRaftRequest, proposal: Any | None = None) -> int:
        """Apply."""
        await asyncio.sleep(0)
        self.applied_index += 1
        self._store.apply(self.applied_index, request, proposal)
        return self.applied_index

    async def read_barrier(self) -> None:
        """Nothing to wait for."""


class Placed:
    """Counts the updates of tasks, and how many entries they came in."""

    def __init__(self, wanted: int) -> None:
        self.entries = 0
        self.done = asyncio.Event()
        self._left = wanted

    def on_commit(self, commit: Commit) -> None:
        """See Store.on_commit."""
        updates = sum(e.kind is Kind.TASK and e.action is Action.UPDATE for e in commit.events)
        self.entries += updates > 0
        self._left -= updates
        if self._left <= 0:
            self.done.set()


async def measure(shape: Shape, *, checked: bool, profile: cProfile.Profile | None = None, idle: float = 0.2) -> dict[str, object]:
    """One line. `idle` seconds are what the scheduler has to find out that there is nothing to do yet.

    Raises AssertionError, where `checked`, for a placement that is not as it must be.
    """
    clock = SystemClock()
    store = Store(clock)
    log = Immediate(store)
    store.attach(log)  # type: ignore[arg-type]  # as much of a log as is used
    placed = Placed(shape.tasks)
    writing = asyncio.create_task(store.run())
    scheduling = asyncio.create_task(Driver(Scheduler(), store, clock).run())
    await asyncio.sleep(idle)
    tx = Tx(store, 0, clock.now())
    if shape.kind == SERVICE:
        tx.services.create(api.Service(id="service", spec_version=api.Version(index=1)))
    for number in range(shape.nodes):
        tx.nodes.create(node(number, shape.kind))
    for number in range(shape.tasks):
        tx.tasks.create(task(number, shape.kind))
    store.on_commit(placed.on_commit)
    if profile:
        profile.enable()
    begun, used = time.perf_counter(), time.process_time()
    log.applied_index += 1
    store.apply(log.applied_index, api.InternalRaftRequest(), tx)
    del tx
    await placed.done.wait()
    for running in (scheduling, writing):
        running.cancel()
    await asyncio.gather(scheduling, writing, return_exceptions=True)
    seconds, cpu = time.perf_counter() - begun, time.process_time() - used
    if profile:
        profile.disable()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if checked:
        check(list(store.nodes), list(store.tasks), list(store.services))
    what: dict[str, object] = {"bench": "scheduler", "shape": shape.name, "nodes": shape.nodes, "tasks": shape.tasks, "goal": shape.goal}
    return what | {"seconds": round(seconds, 3), "cpu": round(cpu, 3), "entries": placed.entries, "peak_mb": round(peak)}


def alone(shape: Shape, *options: str) -> dict[str, Any]:
    """A shape in a process of its own, so that its memory is its own."""
    command = [sys.executable, "-m", "bench.scheduler", "--shape", shape.name, *options]
    line = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
    print(line, flush=True)
    found: dict[str, Any] = json.loads(line)
    return found


def exponent(points: Sequence[tuple[float, float]]) -> float:
    """The p of y ~ x^p that fits best: 0 is flat, 1 is proportional."""
    logs = [(math.log(x), math.log(y)) for x, y in points]
    mean_x, mean_y = (sum(v) / len(logs) for v in zip(*logs, strict=True))
    covariance, variance = sum((x - mean_x) * (y - mean_y) for x, y in logs), sum((x - mean_x) ** 2 for x, _ in logs)
    return float(covariance / variance)


def growth(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, object]]:
    """How processor time grows, from the lines of all shapes.

    With the tasks: the exponent of the time per task over the number of tasks. With the nodes: what a node costs once (it has to be stored
    and looked at), and the exponent of what a task costs besides, over the number of nodes.
    """
    by_shape = {str(line["shape"]): line for line in lines}
    found: list[dict[str, object]] = []
    for kind in ("", f"{PLUGIN}-", f"{SERVICE}-"):
        series = [by_shape[name] for name in (f"{kind}1k-1k", f"{kind}1k-10k", f"{kind}1k-100k") if name in by_shape]
        per_task = [(line["tasks"], line["cpu"] / line["tasks"]) for line in series]
        found.append(
            {"per_task_over_tasks": kind + "1k", "us": [round(y * 1e6, 1) for _, y in per_task], "exponent": round(exponent(per_task), 2)}
        )
    series = [by_shape[name] for name in ("1k-1k", "10k-1k", "100k-1k")]
    per_node = (series[-1]["cpu"] - series[0]["cpu"]) / (series[-1]["nodes"] - series[0]["nodes"])
    found.append({"per_node_once": "1k tasks", "us": round(per_node * 1e6, 1), "of": [line["cpu"] for line in series]})
    series = [by_shape[name] for name in ("1k-100k", "10k-100k")]
    besides = [(line["nodes"], (line["cpu"] - per_node * line["nodes"]) / line["tasks"]) for line in series]
    found.append(
        {"per_task_over_nodes": "100k tasks", "us": [round(y * 1e6, 1) for _, y in besides], "exponent": round(exponent(besides), 2)}
    )
    return found


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=[s.name for s in SHAPES])
    parser.add_argument("--profile", action="store_true", help="print what took longest; with --shape")
    parser.add_argument("--unchecked", action="store_true", help="do not check the placements")
    args = parser.parse_args()
    if args.shape is None:
        lines = [alone(shape, *(["--unchecked"] if args.unchecked else [])) for shape in SHAPES]
        for line in growth(lines):
            print(json.dumps({"bench": "scheduler-growth", **line}), flush=True)
        return
    shape = next(s for s in SHAPES if s.name == args.shape)
    keep_pauses_short()
    profile = cProfile.Profile() if args.profile else None
    print(json.dumps(asyncio.run(measure(shape, checked=not args.unchecked, profile=profile))), flush=True)
    if profile:
        pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(35)


if __name__ == "__main__":
    main()
