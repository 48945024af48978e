"""How long writers wait when the leader of three managers dies, and when it is told to stop; one JSON object a line.

    python -m bench.failover                     # 20 times kill -9, 20 times SIGTERM
    python -m bench.failover --kills 5 --stops 0

The managers are processes of their own with their flags' defaults. A client writes through the socket of a manager that lives on, one call
after the other; measured is the longest time between two acknowledged writes, whatever failed in between, from before the signal until
another manager leads. Then the manager is started again, and the next round begins once three members are reachable.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import pathlib
import secrets
import statistics
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING

import grpc.aio
from tools.cluster import PATIENCE, Cluster, StoryError

from bench.managers import managers, names
from pyswarm.api import v1 as api
from pyswarm.api.swarmkit.control_pb2_grpc import ControlStub
from pyswarm.rpc.channel import connect_unverified

if TYPE_CHECKING:
    from pyswarm.api.swarmkit.control_pb2_grpc import ControlAsyncStub

MANAGERS = names(3)
CALL_SECONDS = 20.0
KILLS, STOPS = 20, 20
SETTLE_SECONDS = 1.0


@contextlib.asynccontextmanager
async def connection(socket: pathlib.Path) -> AsyncIterator[ControlAsyncStub]:
    """A stub on a manager's socket."""
    async with await connect_unverified(f"unix:{socket}") as channel:
        yield ControlStub(channel)


async def members(stub: ControlAsyncStub) -> dict[str, api.ManagerStatus]:
    """What is known of the managers, by host name."""
    answer = await stub.ListNodes(api.ListNodesRequest(), timeout=CALL_SECONDS)
    return {n.description.hostname: n.manager_status for n in answer.nodes if n.HasField("manager_status")}


async def leader_of_three(cluster: Cluster) -> str:
    """The leader's name, once all three are reachable."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with contextlib.suppress(grpc.aio.AioRpcError, StopIteration, OSError):
            async with connection(cluster.socket) as stub:
                found = await members(stub)
                if len(found) == len(MANAGERS) and all(m.reachability == api.RaftMemberStatus.REACHABLE for m in found.values()):
                    return next(name for name, status in found.items() if status.leader)
        await asyncio.sleep(0.1)
    raise StoryError("three managers did not come together again")


async def write(stub: ControlAsyncStub) -> None:
    """One acknowledged write."""
    spec = api.SecretSpec(annotations=api.Annotations(name=f"bench-{secrets.token_hex(8)}"), data=b"x")
    await stub.CreateSecret(api.CreateSecretRequest(spec=spec), timeout=CALL_SECONDS)


async def round_of(cluster: Cluster, end: Callable[[str], object]) -> tuple[float, int]:
    """The longest time without an acknowledged write while the leader ends and another follows it, and how many calls failed meanwhile."""
    name = await leader_of_three(cluster)
    await asyncio.sleep(SETTLE_SECONDS)
    cluster.socket = cluster.socket_of(next(other for other in MANAGERS if other != name))
    longest, failed = 0.0, 0
    async with connection(cluster.socket) as stub:
        await write(stub)
        last = time.perf_counter()
        ending = asyncio.create_task(asyncio.to_thread(end, name))
        followed = False
        while not followed:
            try:
                await write(stub)
                now = time.perf_counter()
                longest, last = max(longest, now - last), now
                followed = not (await members(stub))[name].leader
            except grpc.aio.AioRpcError:
                failed += 1
    await ending
    cluster.start(name)
    return longest, failed


def report(what: str, seconds: Sequence[float], failed: Sequence[int]) -> None:
    """One line."""
    line = {
        "shape": what,
        "managers": len(MANAGERS),
        "rounds": len(seconds),
        "median_s": round(statistics.median(seconds), 3),
        "worst_s": round(max(seconds), 3),
        "failed_calls": sum(failed),
    }
    print(json.dumps(line), flush=True)


async def measure(cluster: Cluster, what: str, rounds: int, end: Callable[[str], object]) -> None:
    """All rounds of one kind."""
    results = [await round_of(cluster, end) for _ in range(rounds)]
    if results:
        report(what, [seconds for seconds, _ in results], [failed for _, failed in results])


async def main() -> None:
    """Both kinds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=KILLS, help="rounds that end the leader with kill -9")
    parser.add_argument("--stops", type=int, default=STOPS, help="rounds that end it with SIGTERM")
    options = parser.parse_args()
    with managers(len(MANAGERS)) as cluster:
        await measure(cluster, "leader killed", options.kills, cluster.kill)
        await measure(cluster, "leader stopped", options.stops, cluster.terminate)


if __name__ == "__main__":
    asyncio.run(main())
