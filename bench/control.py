"""CreateService, GetService and ListServices per second through a control socket; one JSON object a line.

    python -m bench.control                      # starts a pyswarmd of its own, process executor, one manager
    python -m bench.control --managers 3         # three of them on this host; asked is the leader, then also a follower that passes on
    python -m bench.control --socket /tmp/node-1/swarm.sock

The clients are coroutines of this one process, each with a connection of its own; the daemon is another process on the same cores. Services
have no replicas unless told otherwise, so that what is measured is the write path and not the tasks. What was created is removed again.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import pathlib
import secrets
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tools.cluster import StoryError

from bench.managers import managers
from pyswarm.api import v1 as api
from pyswarm.api.swarmkit.control_pb2_grpc import ControlStub
from pyswarm.rpc.channel import connect_unverified

if TYPE_CHECKING:
    from pyswarm.api.swarmkit.control_pb2_grpc import ControlAsyncStub

    Call = Callable[[ControlAsyncStub, int], Awaitable[object]]

LISTED = 1_500
CALLS = {1: 500, 64: 2_000}


@dataclass(frozen=True)
class Target:
    """The daemon that is measured; `pid` is None for one we did not start. `asked`: whether it leads or passes calls on."""

    socket: pathlib.Path
    pid: int | None = None
    managers: int = 1
    asked: str = "leader"

    def peak_mb(self) -> float | None:
        """The most memory the daemon has had, in megabytes."""
        if self.pid is None:
            return None
        status = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return round(int(status.split("VmHWM:")[1].split()[0]) / 1024, 1)


@contextlib.asynccontextmanager
async def connections(socket: pathlib.Path, count: int) -> AsyncIterator[list[ControlAsyncStub]]:
    """Stubs on connections that are up."""
    async with contextlib.AsyncExitStack() as stack:
        stubs = []
        for _ in range(count):
            channel = await stack.enter_async_context(await connect_unverified(f"unix:{socket}"))
            stubs.append(ControlStub(channel))
        await asyncio.gather(*(stub.ListClusters(api.ListClustersRequest()) for stub in stubs))
        yield stubs


async def run(
    stubs: Sequence[ControlAsyncStub], calls: int, call: Callable[[ControlAsyncStub, int], Awaitable[object]]
) -> tuple[float, list[float]]:
    """`calls` calls, shared by all clients, each waiting for its answer before the next. Total and single seconds."""
    numbers = iter(range(calls))
    single: list[float] = []

    async def client(stub: ControlAsyncStub) -> None:
        for number in numbers:
            started = time.perf_counter()
            await call(stub, number)
            single.append(time.perf_counter() - started)

    started = time.perf_counter()
    await asyncio.gather(*map(client, stubs))
    return time.perf_counter() - started, sorted(single)


def report(target: Target, shape: str, clients: int, seconds: float, single: Sequence[float], **more: object) -> None:
    """One line."""
    line = {
        "shape": shape,
        "clients": clients,
        "calls": len(single),
        "nodes": target.managers,
        "seconds": round(seconds, 3),
        "per_second": round(len(single) / seconds, 1),
        "p50_ms": round(single[len(single) // 2] * 1000, 2),
        "p99_ms": round(single[len(single) * 99 // 100] * 1000, 2),
        "managers": target.managers,
        "asked": target.asked,
        **more,
        "peak_mb": target.peak_mb(),
    }
    print(json.dumps(line), flush=True)


def spec(name: str, replicas: int) -> api.ServiceSpec:
    """A small service; with replicas its tasks sleep."""
    container = api.ContainerSpec(image="bench:1", command=["sleep", "3600"])
    annotations = api.Annotations(name=name, labels={"bench": "control"})
    return api.ServiceSpec(
        annotations=annotations, task=api.TaskSpec(container=container), replicated=api.ReplicatedService(replicas=replicas)
    )


async def create(target: Target, clients: int, calls: int, replicas: int) -> None:
    """CreateService with so many clients; removes what it made."""
    prefix, made = f"b{secrets.token_hex(4)}", list[str]()

    async def one(stub: ControlAsyncStub, number: int) -> None:
        answer = await stub.CreateService(api.CreateServiceRequest(spec=spec(f"{prefix}-{number}", replicas)))
        made.append(answer.service.id)

    async with connections(target.socket, clients) as stubs:
        try:
            seconds, single = await run(stubs, calls, one)
            report(target, "create_service", clients, seconds, single, tasks=calls * replicas)
        finally:
            await remove(stubs, made)


async def read(target: Target) -> None:
    """GetService and ListServices with one client and many services."""
    prefix, made = f"b{secrets.token_hex(4)}", list[str]()
    async with connections(target.socket, 32) as stubs:

        async def fill(stub: ControlAsyncStub, number: int) -> None:
            answer = await stub.CreateService(api.CreateServiceRequest(spec=spec(f"{prefix}-{number}", 0)))
            made.append(answer.service.id)

        async def get(stub: ControlAsyncStub, number: int) -> object:
            return await stub.GetService(api.GetServiceRequest(service_id=made[number]))

        try:
            await run(stubs, LISTED, fill)
            seconds, single = await run(stubs[:1], 1_000, get)
            report(target, "get_service", 1, seconds, single, services=LISTED, tasks=0)
            everything = api.ListServicesRequest()
            seconds, single = await run(stubs[:1], 50, lambda stub, _number: stub.ListServices(everything))
            report(target, "list_services", 1, seconds, single, services=LISTED, tasks=0)
        finally:
            await remove(stubs, made)


async def remove(stubs: Sequence[ControlAsyncStub], made: Sequence[str]) -> None:
    """Delete services."""
    await run(stubs, len(made), lambda stub, number: stub.RemoveService(api.RemoveServiceRequest(service_id=made[number])))


async def measure(target: Target, clients: Sequence[int], calls: int | None, replicas: int) -> None:
    """All shapes."""
    for count in clients:
        await create(target, count, calls or CALLS.get(count, 50 * count), replicas)
    await read(target)


async def measure_own(count: int, clients: Sequence[int], calls: int | None, replicas: int) -> None:
    """The same of managers that are started for it."""
    with managers(count) as cluster:
        leader = Target(cluster.socket, cluster.daemons["node-1"].pid, count)
        await measure(leader, clients, calls, replicas)
        if count > 1:
            follower = Target(cluster.socket_of("node-2"), cluster.daemons["node-2"].pid, count, "follower")
            await measure(follower, clients, calls, replicas)


def main() -> int:
    """Parse flags, find or start a daemon, measure."""
    parser = argparse.ArgumentParser(description="CreateService, GetService and ListServices through a control socket.")
    parser.add_argument("--socket", type=pathlib.Path, help="control socket of a running manager; default: start one")
    parser.add_argument("--managers", type=int, default=1, help="how many to start, without --socket")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 64], help="numbers of clients to measure with")
    parser.add_argument("--calls", type=int, help="CreateService calls per measurement")
    parser.add_argument("--replicas", type=int, default=0, help="replicas of each service")
    flags = parser.parse_args()
    try:
        if flags.socket:
            asyncio.run(measure(Target(flags.socket), flags.clients, flags.calls, flags.replicas))
        else:
            asyncio.run(measure_own(flags.managers, flags.clients, flags.calls, flags.replicas))
    except StoryError as error:
        print(f"bench.control: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
