"""What can be asked of running managers: whether they stand together, and whether all of them hold the same."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING

import grpc.aio
from tools.cluster import Cluster, StoryError

from pyswarm.api import v1 as api
from pyswarm.api.swarmkit.control_pb2_grpc import ControlStub
from pyswarm.errors import Unavailable
from pyswarm.rpc.channel import connect_unverified

if TYPE_CHECKING:
    from pyswarm.api.swarmkit.control_pb2_grpc import ControlAsyncStub

CALL_SECONDS = 5.0
TOGETHER_SECONDS = 60.0


@contextlib.asynccontextmanager
async def connection(socket: pathlib.Path) -> AsyncIterator[ControlAsyncStub]:
    """A stub on a manager's socket. Raises Unavailable, OSError."""
    async with await connect_unverified(f"unix:{socket}") as channel:
        yield ControlStub(channel)


async def together(cluster: Cluster, names: Sequence[str]) -> str:
    """Wait until these managers, and no others, answer and reach each other; the leader's name. Raises StoryError."""
    deadline = time.monotonic() + TOGETHER_SECONDS
    seen: object = "nothing"
    while time.monotonic() < deadline:
        cluster.check_alive()
        try:
            views = seen = await asyncio.gather(*(_standing(cluster, name) for name in names))
        except (grpc.aio.AioRpcError, Unavailable, OSError) as error:
            seen = error
        else:
            if all(view == views[0] and view.keys() == set(names) for view in views) and any(views[0].values()):
                return next(name for name, leads in views[0].items() if leads)
        await asyncio.sleep(0.1)
    raise StoryError(f"{', '.join(names)} did not come together within {TOGETHER_SECONDS:.0f} s; the last that was seen: {seen}")


async def _standing(cluster: Cluster, name: str) -> dict[str, bool]:
    """Which managers are reached, and which of them leads, as one of them says."""
    async with connection(cluster.socket_of(name)) as stub:
        nodes = (await stub.ListNodes(api.ListNodesRequest(), timeout=CALL_SECONDS)).nodes
    return {
        n.description.hostname: n.manager_status.leader for n in nodes if n.manager_status.reachability == api.RaftMemberStatus.REACHABLE
    }


Seen = Callable[[api.StoreSnapshot, float], object]


async def same_everywhere(cluster: Cluster, names: Sequence[str], seen: Seen = lambda _store, _begun: None) -> api.StoreSnapshot:
    """What every one of these managers holds, asked of each while it leads: leaders are told to stop until all have led.

    `seen` gets each answer, and the moment before it was asked for. Raises StoryError when two managers differ.
    """
    found: dict[str, api.StoreSnapshot] = {}
    while True:
        leader = await together(cluster, names)
        begun = time.monotonic()
        async with connection(cluster.socket_of(leader)) as stub:
            found[leader] = await contents(stub)
        seen(found[leader], begun)
        first = next(iter(found))
        if found[leader] != found[first]:
            raise StoryError(f"{first} and {leader} differ:\n{_difference(found[first], found[leader])}")
        if found.keys() == set(names):
            return found[first]
        await asyncio.to_thread(cluster.terminate, leader)
        await asyncio.to_thread(cluster.start, leader)


async def contents(stub: ControlAsyncStub) -> api.StoreSnapshot:
    """What a leader's store holds and nobody changes by itself, in the order of ids."""
    store = api.StoreSnapshot()
    store.configs.extend((await stub.ListConfigs(api.ListConfigsRequest(), timeout=CALL_SECONDS)).configs)
    store.secrets.extend((await stub.ListSecrets(api.ListSecretsRequest(), timeout=CALL_SECONDS)).secrets)
    store.services.extend((await stub.ListServices(api.ListServicesRequest(), timeout=CALL_SECONDS)).services)
    store.networks.extend((await stub.ListNetworks(api.ListNetworksRequest(), timeout=CALL_SECONDS)).networks)
    store.clusters.extend((await stub.ListClusters(api.ListClustersRequest(), timeout=CALL_SECONDS)).clusters)
    for node in (await stub.ListNodes(api.ListNodesRequest(), timeout=CALL_SECONDS)).nodes:
        store.nodes.add(id=node.id, spec=node.spec, role=node.role, certificate=node.certificate)
    for plural in ("configs", "secrets", "services", "networks", "clusters", "nodes"):
        getattr(store, plural).sort(key=lambda o: o.id)
    return store


def _difference(one: api.StoreSnapshot, other: api.StoreSnapshot) -> str:
    ours, theirs = str(one).splitlines(), str(other).splitlines()
    return "\n".join(f"- {a}\n+ {b}" for a, b in zip(ours, theirs, strict=False) if a != b)[:4000] or "one holds more than the other"
