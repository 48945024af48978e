"""What the TLS front costs: unary calls per second and latency through it, beside gRPC's own TLS and none. One JSON object a line.

    python -m bench.rpc [--seconds 2]

Server and clients share one process and one event loop, so only the columns can be compared, not the absolute figures with those of
separate machines.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import structlog

from pyswarm.api import v1 as api
from pyswarm.api.swarmkit import dispatcher_pb2
from pyswarm.api.swarmkit.dispatcher_pb2_grpc import DispatcherStub
from pyswarm.ca import credentials, csr
from pyswarm.ca.credentials import Credentials, SecurityConfig
from pyswarm.ca.root import RootCA
from pyswarm.clock import SystemClock
from pyswarm.rpc import channel
from pyswarm.rpc.binder import bind, handlers
from pyswarm.rpc.caller import MANAGER, WORKER, Caller
from pyswarm.rpc.server import RemoteServer


class Echo:
    """Answers heartbeats."""

    async def Heartbeat(self, request: api.HeartbeatRequest, caller: Caller) -> api.HeartbeatResponse:  # noqa: N802, ARG002
        """At once."""
        return api.HeartbeatResponse()


class OpenGate:
    """Asks nobody anything."""

    async def admit(self, method: object, context: object, refused_by: str | None = None) -> Caller:  # noqa: ARG002
        """Everybody is welcome."""
        return Caller()


class Alone:
    """Always leads."""

    is_leader = True
    changed = asyncio.Event()

    def leader(self) -> None:
        """Not asked."""

    def leader_line(self) -> None:
        """Nobody else leads."""

    def leaderless(self) -> bool:
        """Never."""
        return False


def issue(root: RootCA, node_id: str, role: str) -> Credentials:
    """Credentials of a node."""
    request, key = csr.generate()
    chain = root.sign_csr(request, node_id, role, "cluster", 7200.0, time.time())
    return credentials.build(root.bundle, chain, key, time.time())


@contextlib.asynccontextmanager
async def fronted(manager: Credentials) -> AsyncIterator[str]:
    """The remote port as managers serve it."""
    with tempfile.TemporaryDirectory() as directory:
        server = RemoteServer(
            services=[SERVICE],
            security=SecurityConfig(manager, SystemClock()),
            directory=Alone(),
            blacklist=tuple,
            inner_directory=Path(directory),
            clock=SystemClock(),
        )
        address = await server.listen("127.0.0.1:0")
        running = asyncio.create_task(server.run())
        try:
            yield address
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


@contextlib.asynccontextmanager
async def bare(secrets: grpc.ServerCredentials | None) -> AsyncIterator[str]:
    """gRPC's own server, with its own TLS or none."""
    server = grpc.aio.server(handlers=handlers([SERVICE], OpenGate()))
    port = server.add_secure_port("127.0.0.1:0", secrets) if secrets else server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(1.0)


async def load(opened: list[grpc.aio.Channel], each: int, seconds: float) -> dict[str, float]:
    """Closed loops, `each` per channel."""
    spans: list[float] = []
    end = time.perf_counter() + seconds

    async def loop(one: grpc.aio.Channel) -> None:
        stub = DispatcherStub(one)
        while (begin := time.perf_counter()) < end:
            await stub.Heartbeat(api.HeartbeatRequest(session_id="x" * 100), timeout=30)
            spans.append(time.perf_counter() - begin)

    await asyncio.gather(*(loop(one) for one in opened for _ in range(each)))
    return {"calls_per_second": round(len(spans) / seconds), "p50_ms": round(statistics.median(spans) * 1000, 2)}


async def main(seconds: float) -> None:
    """All configurations, one after the other."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    root = RootCA.create(now=time.time())
    manager, worker = issue(root, "manager", MANAGER), issue(root, "worker", WORKER)
    own_tls = grpc.ssl_server_credentials([(manager.key_pem, manager.cert_pem)], root.bundle, require_client_auth=True)
    for name, server in (("plain", bare(None)), ("grpc tls", bare(own_tls)), ("front", fronted(manager))):
        async with server as address:

            def dial(name: str = name, address: str = address) -> grpc.aio.Channel:
                if name == "plain":
                    return grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
                return channel.connect(address, worker)

            for connections, each in ((1, 1), (1, 32), (100, 1)):
                opened = [dial() for _ in range(connections)]
                begin = time.perf_counter()
                await asyncio.gather(*(DispatcherStub(one).Heartbeat(api.HeartbeatRequest(), timeout=30) for one in opened))
                first = time.perf_counter() - begin
                measured = await load(opened, each, seconds)
                shape = {"server": name, "connections": connections, "in_flight_each": each, "first_call_of_all_ms": round(first * 1000)}
                print(json.dumps({**shape, **measured}), flush=True)
                await asyncio.gather(*(one.close(None) for one in opened))


SERVICE = bind(dispatcher_pb2.DESCRIPTOR.services_by_name["Dispatcher"], Echo())

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of each measurement")
    asyncio.run(main(parser.parse_args().seconds))
