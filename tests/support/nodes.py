"""Real nodes in one process: managers and workers over real sockets on loopback, with tasks that only pretend to run."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from pyswarm.agent.agent import Agent
from pyswarm.agent.executor.fake import FakeExecutor, FakeHost
from pyswarm.agent.executor.fake import default_description as description
from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.api.swarmkit.control_pb2_grpc import ControlStub
from pyswarm.ca.keystore import KeyStore
from pyswarm.cli import client
from pyswarm.clock import Clock, SystemClock
from pyswarm.manager.manager import Manager
from pyswarm.manager.store import Store, by
from pyswarm.node import AgentParts, ManagerParts, Node, NodeConfig, make_agent, make_manager
from pyswarm.node_state import Settings

HEARTBEAT = 1.0
PATIENCE = 20.0


async def until(condition: Callable[[], object], what: str = "", seconds: float = PATIENCE) -> None:
    """Poll until `condition` gives something true: sockets and threads are at work."""
    try:
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 - sockets signal nobody
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"waited {seconds:g} s in vain until {what or 'it happened'}") from None


class LiveNode:
    """A node, what it is made of, and the containers that outlive it."""

    def __init__(self, directory: Path, name: str, clock: Clock) -> None:
        self.name = name
        self.clock = clock
        self.host = FakeHost()
        self.state = directory / name
        self.force_new_cluster = False
        self.settings = Settings(hostname=name, listen_control_api=str(directory / f"{name}.sock"), listen_remote_api="127.0.0.1:0")
        self.node: Node
        self.agent: Agent
        self.manager: Manager
        self.task: asyncio.Task[None]

    async def start(self, join_addr: str = "", join_token: str = "") -> None:
        """Start it and wait until it is ready. Raises what it failed with."""
        await self.begin(join_addr, join_token)
        ready = asyncio.ensure_future(self.node.ready.wait())
        await asyncio.wait([self.task, ready], return_when=asyncio.FIRST_COMPLETED, timeout=PATIENCE)
        ready.cancel()
        if self.task.done():
            await self.task
        assert self.node.ready.is_set(), f"{self.name} did not become ready"

    async def begin(self, join_addr: str = "", join_token: str = "") -> None:
        """Start it only."""
        executor = FakeExecutor(self.clock, host=self.host, description=description())
        config = NodeConfig(self.state, self.settings, join_addr, join_token, force_new_cluster=self.force_new_cluster)
        self.node = Node(config, cast("Any", executor), self.clock, manager=self._manager, agent=self._agent)
        self.task = asyncio.create_task(self.node.run(), name=self.name)

    async def stop(self) -> None:
        """Stop it in good order; raises what it failed with before."""
        self.node.stop()
        await self.task

    def _manager(self, parts: ManagerParts) -> Manager:
        self.manager = cast("Manager", make_manager(parts))
        return self.manager

    def _agent(self, parts: AgentParts) -> Agent:
        self.agent = cast("Agent", make_agent(parts))
        return self.agent

    @property
    def id(self) -> str:
        """The node's id, once it has one."""
        return self.node.node_id

    @property
    def state_files(self) -> KeyStore:
        """Its key and certificate on disk."""
        return KeyStore(self.state / "certificates")

    @property
    def security(self) -> Any:
        """Its live credentials."""
        return self.node._identity.security

    @property
    def renewer(self) -> Any:
        """What renews its certificate."""
        return self.node._renewer

    @property
    def session(self) -> str:
        """The agent's present session, empty before the first."""
        return self.agent._keeper._session_id


class LiveCluster:
    """A founder and whoever joins it. All end with the context of `live_cluster`."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        self.directory = directory
        self.clock = clock
        self.nodes: list[LiveNode] = []
        self.founder = self.make("founder")

    def make(self, name: str, clock: Clock | None = None) -> LiveNode:
        """A node that is stopped at the end."""
        made = LiveNode(self.directory, name, clock or self.clock)
        self.nodes.append(made)
        return made

    async def found(self) -> None:
        """Start the founder, with a short heartbeat period."""
        await self.founder.start()
        self.founder.settings = replace(self.founder.settings, listen_remote_api=self.address)

        def hasten(tx: Any) -> None:
            cluster = api.Cluster()
            cluster.CopyFrom(self.cluster)
            cluster.spec.dispatcher.heartbeat_period.CopyFrom(times.duration(HEARTBEAT))
            tx.clusters.update(cluster)

        await self.store.update(hasten)
        await until(lambda: self.state(self.founder) == api.NodeStatus.READY)

    async def join(self, name: str, clock: Clock | None = None) -> LiveNode:
        """A worker that is ready."""
        worker = self.make(name, clock)
        await worker.start(self.address, self.cluster.root_ca.join_tokens.worker)
        return worker

    async def run_service(self, name: str, replicas: int) -> dict[str, str]:
        """A service made through the control socket; node id by task id, once all run."""
        spec = api.ServiceSpec()
        spec.annotations.name = name
        spec.task.container.image = "image"
        spec.replicated.replicas = replicas
        await self.control(lambda control: control.CreateService(api.CreateServiceRequest(spec=spec)))
        await until(lambda: len(self.running(name)) == replicas, f"{replicas} tasks of {name} run")
        return self.running(name)

    def running(self, service: str) -> dict[str, str]:
        """Node id by task id, of the tasks that run and shall."""
        wanted = api.TaskState.RUNNING
        return {
            task.id: task.node_id
            for task in self.store.tasks
            if task.service_annotations.name == service and task.status.state == task.desired_state == wanted
        }

    async def control(self, ask: Callable[[ControlStub], Any]) -> Any:
        """One call as pyswarmctl makes it: a new connection to the control socket, its certificate pinned."""

        def call() -> Any:
            with client.connect(self.founder.settings.listen_control_api) as opened:
                return ask(opened.control)

        return await asyncio.to_thread(call)

    @property
    def store(self) -> Store:
        """The founder's."""
        return self.founder.manager.store

    @property
    def cluster(self) -> api.Cluster:
        """The cluster object."""
        return self.store.clusters.find(by.name("default"))[0]

    @property
    def address(self) -> str:
        """Where to join."""
        return self.founder.manager._remote.address

    def state(self, node: LiveNode) -> int:
        """A node's state as stored."""
        found = self.store.nodes.get(node.id)
        return -1 if found is None else found.status.state


@contextlib.asynccontextmanager
async def live_cluster(directory: Path, clock: Clock | None = None) -> AsyncIterator[LiveCluster]:
    """A founded cluster; `directory` must have a name short enough for sockets."""
    made = LiveCluster(directory, clock or SystemClock())
    try:
        await made.found()
        yield made
    finally:
        for node in reversed(made.nodes):
            if hasattr(node, "node"):
                node.node.stop()
                await asyncio.gather(node.task, return_exceptions=True)
