"""What many agents and many tasks cost the managers; one JSON object a line.

    python -m bench.agents --idle 1000 --managers 3 --seconds 60     # nodes that join and then only live
    python -m bench.agents --lives --agents 300 --tasks 10000        # services made, all tasks RUNNING in the store, services removed

The managers are processes of their own with their flags' defaults, and run no tasks; all agents are imitated in this process
(bench/fleet.py), on the same cores. Processor time is the managers'. An idle run must show no change of leadership, no node declared down
and no late heartbeat.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import pathlib
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tools.cluster import Cluster, StoryError

from bench.fleet import Fleet
from bench.managers import managers
from pyswarm.api import v1 as api
from pyswarm.api.swarmkit.control_pb2_grpc import ControlStub
from pyswarm.rpc.channel import connect_unverified
from pyswarm.rpc.turns import Loop

if TYPE_CHECKING:
    from pyswarm.api.swarmkit.control_pb2_grpc import ControlAsyncStub

PATIENCE = 300.0
POLL_SECONDS = 0.2
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Moment:
    """When, and how much processor time each manager had used by then, in seconds."""

    at: float
    used: dict[str, float]

    def since(self, before: Moment) -> tuple[float, dict[str, float]]:
        """Wall seconds, and processor seconds of each manager."""
        return self.at - before.at, {name: used - before.used[name] for name, used in self.used.items()}


class Watched:
    """Managers whose processes and logs are looked at. node-1 leads at first."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def now(self) -> Moment:
        """The present."""
        return Moment(time.perf_counter(), {name: self._cpu(daemon.pid) for name, daemon in self._cluster.daemons.items()})

    @staticmethod
    def _cpu(pid: int) -> float:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def memory_mb(self, field: str) -> dict[str, float]:
        """VmRSS or VmHWM (the peak) of each manager, in megabytes."""
        status = {name: pathlib.Path(f"/proc/{daemon.pid}/status").read_text() for name, daemon in self._cluster.daemons.items()}
        return {name: round(int(text.split(f"{field}:")[1].split()[0]) / 1024, 1) for name, text in status.items()}

    def logged(self, words: str) -> int:
        """How often the managers logged this."""
        return sum((self._cluster.root / f"{name}.log").read_text(errors="replace").count(words) for name in self._cluster.daemons)


def rounded(seconds: dict[str, float], of: float = 1.0) -> dict[str, float]:
    """Figures to print; `of`: as a share of so much."""
    return {name: round(used / of, 3) for name, used in seconds.items()}


def report(shape: str, **figures: object) -> None:
    """One line, with the load that the machine had."""
    print(json.dumps({"shape": shape, **figures, "load": round(os.getloadavg()[0], 1)}), flush=True)


async def answered(what: str, fine: Callable[[], Awaitable[bool]], pause: float = POLL_SECONDS) -> None:
    """Ask until it is so. Raises StoryError."""
    deadline = time.monotonic() + PATIENCE
    while not await fine():
        if time.monotonic() > deadline:
            raise StoryError(f"waited {PATIENCE:.0f} s in vain until {what}")
        await asyncio.sleep(pause)


async def counted(what: str, enough: Callable[[], bool]) -> None:
    """The same of our own counters, of which asking costs nothing."""

    async def fine() -> bool:
        return enough()

    await answered(what, fine, POLL_SECONDS / 10)


async def idle(cluster: Cluster, stub: ControlAsyncStub, agents: int, seconds: float) -> None:
    """Join, then live."""
    watched = Watched(cluster)
    fleet = Fleet(list(cluster.remotes.values()), cluster.token())
    won = watched.logged("raft leadership won")

    async def figures(before: Moment) -> dict[str, object]:
        wall, used = watched.now().since(before)
        nodes = (await stub.ListNodes(api.ListNodesRequest())).nodes
        return {
            "agents": agents,
            "managers": len(cluster.daemons),
            "seconds": round(wall, 2),
            "core_share": rounded(used, wall),
            "rss_mb": watched.memory_mb("VmRSS"),
            "leadership_changes": watched.logged("raft leadership won") - won,
            "declared_down": watched.logged("node is silent"),
            "not_ready": sum(node.status.state != api.NodeStatus.READY for node in nodes),
            **fleet.beats_so_far(),
        }

    before = watched.now()
    async with fleet.running(agents):
        report("join", **await figures(before))
        before = watched.now()
        await asyncio.sleep(seconds)
        report("idle", **await figures(before))


def spec(name: str, replicas: int) -> api.ServiceSpec:
    """A service as small as they come."""
    container = api.ContainerSpec(image="bench:1", command=["sleep", "3600"])
    return api.ServiceSpec(
        annotations=api.Annotations(name=name),
        task=api.TaskSpec(container=container),
        replicated=api.ReplicatedService(replicas=replicas),
    )


async def lives(cluster: Cluster, stub: ControlAsyncStub, agents: int, tasks: int, services: int) -> None:
    """Services with many tasks come and go."""
    watched = Watched(cluster)
    fleet = Fleet(list(cluster.remotes.values()), cluster.token())
    async with fleet.running(agents):
        before = watched.now()
        made = []
        for number in range(services):
            created = await stub.CreateService(api.CreateServiceRequest(spec=spec(f"bench-{number}", tasks // services)))
            made.append(created.service.id)
        await counted("all tasks run", lambda: fleet.count(api.TaskState.RUNNING) >= tasks)
        await answered("the store has them so", lambda: run_in_store(stub, made, tasks))
        lived(watched, fleet, "up", before, agents, tasks)
        before = watched.now()
        for service_id in made:
            await stub.RemoveService(api.RemoveServiceRequest(service_id=service_id))
        await counted("all tasks are shut down", lambda: fleet.count(api.TaskState.SHUTDOWN) >= tasks)
        await answered("all tasks are gone", lambda: none_left(stub))
        lived(watched, fleet, "down", before, agents, tasks)


async def run_in_store(stub: ControlAsyncStub, services: list[str], tasks: int) -> bool:
    """Whether the store has as many tasks RUNNING."""
    answer = await stub.ListServiceStatuses(api.ListServiceStatusesRequest(services=services))
    return sum(status.running_tasks for status in answer.statuses) >= tasks


async def none_left(stub: ControlAsyncStub) -> bool:
    """Whether the store has no tasks."""
    return not (await stub.ListTasks(api.ListTasksRequest())).tasks


def lived(watched: Watched, fleet: Fleet, shape: str, before: Moment, agents: int, tasks: int) -> None:
    """One line."""
    wall, used = watched.now().since(before)
    report(
        shape, agents=agents, tasks=tasks, seconds=round(wall, 2), cpu_seconds=rounded(used), peak_mb=watched.memory_mb("VmHWM"),
        **fleet.beats_so_far(),
    )  # fmt: skip


async def measure(flags: argparse.Namespace) -> None:
    """What the flags say."""
    with managers(flags.managers) as cluster:
        for name in cluster.daemons:
            cluster.ask("node", "drain", name)
        async with await connect_unverified(f"unix:{cluster.socket}") as channel:
            stub: ControlAsyncStub = ControlStub(channel)
            if flags.lives:
                await lives(cluster, stub, flags.agents, flags.tasks, flags.services)
            else:
                await idle(cluster, stub, flags.idle, flags.seconds)


def main() -> int:
    """Parse flags, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--managers", type=int, default=1, help="how many to start")
    parser.add_argument("--idle", type=int, default=1_000, help="nodes that join and stay idle")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long they do")
    parser.add_argument("--lives", action="store_true", help="the lives of tasks instead")
    parser.add_argument("--agents", type=int, default=300, help="nodes that run them")
    parser.add_argument("--tasks", type=int, default=10_000, help="how many in all")
    parser.add_argument("--services", type=int, default=10, help="of how many services")
    flags = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with asyncio.Runner(loop_factory=Loop) as runner:
            runner.run(measure(flags))
    except StoryError as error:
        print(f"bench.agents: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
