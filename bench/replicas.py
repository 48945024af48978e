"""How long until 20 replicas of one service run on one Docker Engine; one JSON object a line.

    python -m bench.replicas                     # needs root, dockerd and busybox-static; starts engines and daemons of its own

Counted from the moment the client calls CreateService until a client that lists the tasks every 20 ms sees all of them RUNNING. Shapes:

* `own_executor`: one pyswarmd, manager and agent, running the tasks in an engine with `--engine-addr`;
* `joined_engine`: one pyswarmd that only manages, and an engine made a worker with `docker swarm join`;
* `engine_alone`: the same number of containers created and started by clients of the engine's API, eight at a time, without anybody
  orchestrating: what the engine itself takes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeAlias

from docker import APIClient
from tools import engine as engines
from tools.cluster import Cluster, StoryError, until

from pyswarm.api import v1 as api
from pyswarm.api.swarmkit.control_pb2_grpc import ControlStub
from pyswarm.rpc.channel import connect_unverified

if TYPE_CHECKING:
    from pyswarm.api.swarmkit.control_pb2_grpc import ControlAsyncStub

IMAGE = "busybox:latest"
POLL_SECONDS = 0.02
PATIENCE = 120.0
CLIENTS = 8

Run: TypeAlias = Callable[[int], float]


def spec(replicas: int) -> api.ServiceSpec:
    """A service whose tasks sleep until they are stopped, which is what the image does."""
    return api.ServiceSpec(
        annotations=api.Annotations(name="bench"),
        task=api.TaskSpec(container=api.ContainerSpec(image=IMAGE)),
        replicated=api.ReplicatedService(replicas=replicas),
    )


@contextlib.asynccontextmanager
async def control(cluster: Cluster) -> AsyncIterator[ControlAsyncStub]:
    """A client whose connection is up."""
    async with await connect_unverified(f"unix:{cluster.socket}") as channel:
        stub = ControlStub(channel)
        await stub.ListClusters(api.ListClustersRequest())
        yield stub


async def tasks_are(stub: ControlAsyncStub, fine: Callable[[Sequence[api.Task]], bool]) -> None:
    """Wait until the tasks are as wanted. Raises StoryError."""
    deadline = time.monotonic() + PATIENCE
    while not fine((await stub.ListTasks(api.ListTasksRequest())).tasks):
        if time.monotonic() > deadline:
            raise StoryError(f"the tasks were not as wanted within {PATIENCE:.0f} s")
        await asyncio.sleep(POLL_SECONDS)


async def serve(cluster: Cluster, replicas: int) -> float:
    """Create the service, wait, remove it; the seconds until all ran."""

    def all_run(tasks: Sequence[api.Task]) -> bool:
        return sum(task.status.state == api.TaskState.RUNNING for task in tasks) == replicas

    async with control(cluster) as stub:
        began = time.perf_counter()
        service = (await stub.CreateService(api.CreateServiceRequest(spec=spec(replicas)))).service
        await tasks_are(stub, all_run)
        seconds = time.perf_counter() - began
        await stub.RemoveService(api.RemoveServiceRequest(service_id=service.id))
        await tasks_are(stub, lambda tasks: not tasks)
    return seconds


@contextlib.contextmanager
def own_executor(root: pathlib.Path, engine: engines.Engine) -> Iterator[Run]:
    """One node that manages and works."""
    cluster = Cluster(root, ("--engine-addr", engine.address))
    try:
        cluster.found()
        cluster.await_ready(1)
        yield lambda replicas: asyncio.run(serve(cluster, replicas))
    finally:
        cluster.stop()


@contextlib.contextmanager
def joined_engine(root: pathlib.Path, engine: engines.Engine) -> Iterator[Run]:
    """A node that manages, and an engine that works."""
    cluster = Cluster(root, ("--executor", "process"))
    try:
        cluster.found()
        cluster.ask("node", "drain", "node-1")
        with contextlib.closing(APIClient(engine.address, version="auto")) as client:
            client.join_swarm([cluster.remote], cluster.token(), listen_addr="127.0.0.1", advertise_addr="127.0.0.1")
        until("both nodes are READY", lambda: [row[3] for row in cluster.nodes().values()] == ["READY"] * 2)
        yield lambda replicas: asyncio.run(serve(cluster, replicas))
    finally:
        cluster.stop()


@contextlib.contextmanager
def engine_alone(_root: pathlib.Path, engine: engines.Engine) -> Iterator[Run]:
    """No cluster."""
    with contextlib.closing(APIClient(engine.address, version="auto")) as client, ThreadPoolExecutor(CLIENTS) as pool:

        def one(_number: int) -> str:
            made = str(client.create_container(IMAGE)["Id"])
            client.start(made)
            return made

        def run(replicas: int) -> float:
            began = time.perf_counter()
            made = list(pool.map(one, range(replicas)))
            seconds = time.perf_counter() - began
            list(pool.map(lambda container: client.remove_container(container, force=True), made))
            return seconds

        yield run


SHAPES = {"own_executor": own_executor, "joined_engine": joined_engine, "engine_alone": engine_alone}


def measure(shape: str, replicas: int, runs: int) -> None:
    """One shape on an engine of its own: print its line."""
    with tempfile.TemporaryDirectory(prefix="psw-", dir="/tmp", ignore_cleanup_errors=True) as directory:
        root = pathlib.Path(directory)
        with engines.running(root / "engine") as engine:
            with contextlib.closing(APIClient(engine.address, version="auto")) as client:
                info = client.info()
            with SHAPES[shape](root, engine) as run:
                seconds = [run(replicas) for _ in range(runs)]
    line = {
        "bench": "replicas",
        "shape": shape,
        "replicas": replicas,
        "runs": runs,
        "counted_from": "the call of CreateService" if shape != "engine_alone" else "the first create",
        "seconds": {
            "median": round(statistics.median(seconds), 2),
            "min": round(min(seconds), 2),
            "max": round(max(seconds), 2),
        },
        "engine": info["ServerVersion"],
        "storage_driver": info["Driver"],
        "cpus": info["NCPU"],
    }
    print(json.dumps(line), flush=True)


def main() -> int:
    """Read the command line, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, default=20)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--shape", choices=[*SHAPES], action="append", help="only this one (may be given more than once)")
    options = parser.parse_args()
    if problem := engines.find_problem():
        print(f"bench.replicas: skipped: {problem}", file=sys.stderr)
        return 0
    try:
        for shape in options.shape or SHAPES:
            measure(shape, options.replicas, options.runs)
    except (StoryError, engines.EngineStartError) as error:
        print(f"bench.replicas: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
