"""The process: it has an identity, always runs an agent, and runs a manager for as long as its certificate says so.

Nothing here knows about tasks, gRPC or files other than by name; it starts the parts, stops them when the role changes, and carries news
from the agent's session to the certificate (spec/dispatcher-agent-node, section 26).

A stop leaves tasks running: the next life of the daemon adopts them. (The reference destroys them, as if every stop were a leave.)
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import structlog
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from pyswarm.agent.client import UntrustedManager
from pyswarm.agent.executor import Executor
from pyswarm.api import v1 as api
from pyswarm.ca import bootstrap
from pyswarm.ca.bootstrap import Bootstrapped
from pyswarm.ca.client import Client
from pyswarm.ca.connect import GrpcConnector
from pyswarm.ca.credentials import Credentials, SecurityConfig
from pyswarm.ca.keystore import KeyStore
from pyswarm.ca.renewal import Renewer
from pyswarm.ca.root import RootCA
from pyswarm.ca.validate import CertificateError
from pyswarm.clock import Clock
from pyswarm.errors import SwarmError
from pyswarm.garbage import look_again
from pyswarm.node_join import StartError, distrust, explain, refuse_other_cluster, warn_of_address
from pyswarm.node_state import Settings, StateDirectory
from pyswarm.rpc.caller import MANAGER, WORKER
from pyswarm.rpc.remotes import DEFAULT_WEIGHT, ConnectionBroker, NoRemotes, PersistentRemotes, RemotePeer

log = structlog.get_logger(__name__)

ROLE_CHANGE_SECONDS = 16.0
"""How long a manager that was removed from the log is given to learn that it was demoted."""

_ROLES = {api.NodeRole.WORKER: WORKER, api.NodeRole.MANAGER: MANAGER}


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """How a node is started. `settings` are remembered for the next start, the rest is not."""

    state_dir: Path
    settings: Settings = field(default_factory=Settings)
    join_addr: str = ""
    join_token: str = field(default="", repr=False)
    availability: api.NodeSpec.Availability.ValueType = api.NodeSpec.Availability.ACTIVE
    autolock: bool = False
    unlock_key: bytes = field(default=b"", repr=False)
    force_new_cluster: bool = False


class ManagerLike(Protocol):
    """What the node needs of `manager.manager.Manager`."""

    ready: asyncio.Event

    async def run(self) -> None:
        """Until cancelled, or until this manager was removed from the log."""
        ...

    def metrics(self) -> Iterable[Metric]:
        """The present state in numbers."""
        ...


class AgentLike(Protocol):
    """What the node needs of `agent.agent.Agent`."""

    ready: asyncio.Event

    async def run(self) -> None:
        """Until cancelled."""
        ...


class News(Protocol):
    """`agent.agent.NodeChange`: what a session said about this node."""

    @property
    def node(self) -> api.Node | None:
        """The node object, if it changed."""
        ...

    @property
    def root_pem(self) -> bytes:
        """The cluster's trusted bundle, empty when there is no news of it."""
        ...


@dataclass(frozen=True, slots=True)
class ManagerParts:
    """What a manager is made from."""

    config: NodeConfig
    join: bool
    """Others keep the log already: with nothing on disk ask them for membership."""
    security: SecurityConfig
    keystore: KeyStore
    signing_root: Callable[[], Awaitable[RootCA]]
    """The root for a cluster that turns out not to exist yet."""
    clock: Clock
    other_manager: Callable[[], str]
    """The address of another manager, maybe a different one each time. Raises SwarmError when none is known."""
    renew: Callable[[], None]
    """Asks for a new certificate soon."""


@dataclass(frozen=True, slots=True)
class AgentParts:
    """What an agent is made from."""

    config: NodeConfig
    security: SecurityConfig
    broker: ConnectionBroker
    executor: Executor
    database: Path
    clock: Clock
    on_change: Callable[[News], Awaitable[None]]


def make_manager(parts: ManagerParts) -> ManagerLike:
    """The real manager."""
    from pyswarm.csi.plugins import Plugins, parse_all
    from pyswarm.manager.manager import Manager, ManagerConfig

    settings = parts.config.settings
    config = ManagerConfig(
        state_dir=parts.config.state_dir,
        listen_remote=settings.listen_remote_api,
        advertise_remote=settings.advertise_remote_api,
        control_socket=Path(settings.listen_control_api),
        availability=parts.config.availability,
        autolock=parts.config.autolock,
        unlock_key=parts.config.unlock_key,
        heartbeat_tick=settings.heartbeat_tick,
        election_tick=settings.election_tick,
        force_new_cluster=parts.config.force_new_cluster,
        join=parts.join,
    )
    plugins = Plugins(parse_all(settings.csi_plugins.splitlines()))
    return Manager(
        config, parts.security, parts.keystore, parts.signing_root, parts.clock, parts.other_manager, renew=parts.renew, plugins=plugins
    )


def make_agent(parts: AgentParts) -> AgentLike:
    """The real agent."""
    from pyswarm.agent.agent import Agent
    from pyswarm.csi.plugins import Plugins, parse_all

    return Agent(
        security=parts.security,
        broker=parts.broker,
        executor=parts.executor,
        database=parts.database,
        clock=parts.clock,
        hostname=parts.config.settings.hostname or None,
        on_change=parts.on_change,
        joining=bool(parts.config.join_addr),
        plugins=Plugins(parse_all(parts.config.settings.csi_plugins.splitlines())),
    )


class Node:
    """One node of a cluster. `await run()` until `stop()` or an error; `ready` is set once it takes part."""

    def __init__(
        self,
        config: NodeConfig,
        executor: Executor,
        clock: Clock,
        *,
        manager: Callable[[ManagerParts], ManagerLike] = make_manager,
        agent: Callable[[AgentParts], AgentLike] = make_agent,
    ) -> None:
        """`manager` and `agent` are there for tests."""
        self.ready = asyncio.Event()
        self._config = config
        self._executor = executor
        self._clock = clock
        self._make_manager = manager
        self._make_agent = agent
        self._directory = StateDirectory(config.state_dir)
        self._remotes = PersistentRemotes(self._directory.remotes)
        self._broker = ConnectionBroker(self._remotes, lambda: self._identity.security.current)
        self._client = Client(GrpcConnector(self._broker).connect, clock)
        self._stopping = asyncio.Event()
        self._manager_up = asyncio.Event()
        # Known once run() has an identity.
        self._identity: Bootstrapped
        self._renewer: Renewer
        self._role: _RoleWatch
        self._founding_root: RootCA | None = None
        self._is_first = False
        self._desired_role = ""
        self._manager: ManagerLike | None = None
        self.node_id = ""

    def stop(self) -> None:
        """Let `run()` end in good order; tasks go on running. May be called at any time and more than once."""
        self._stopping.set()

    def metrics(self) -> Iterator[Metric]:
        """This node in numbers, and the manager's, while there is one."""
        manager = self._manager
        yield GaugeMetricFamily("swarm_node_manager", "1 if this node is a manager, else 0.", value=float(manager is not None))
        if self.node_id:
            info = GaugeMetricFamily("swarm_node_info", "Which node of which cluster this is.", labels=["swarm_id", "node_id"])
            info.add_metric([self._identity.security.current.organization, self.node_id], 1.0)
            yield info
        if manager is not None:
            yield from manager.metrics()

    async def run(self) -> None:
        """Take part in the cluster until `stop()`. Raises SwarmError with one line for the operator when that is impossible."""
        if self._config.force_new_cluster and self._directory.log_is_empty():
            raise StartError(
                f"--force-new-cluster goes on with what a manager has kept, and {self._config.state_dir} holds no manager's log; "
                "use the state directory of a manager, or leave the flag out"
            )
        with self._directory.locked():
            try:
                await first_of(self._live(), self._stopping.wait())
            except (SwarmError, OSError):
                await asyncio.to_thread(self._undo_founding)
                raise
            finally:
                self.ready.clear()
                await self._executor.close()
        log.info("node stopped", node=self.node_id)

    async def _live(self) -> None:
        self._identity = await self._identify()
        security = self._identity.security
        if self._config.force_new_cluster and not security.current.is_manager:
            raise StartError(
                f"--force-new-cluster: node {security.current.node_id} in {self._config.state_dir} is a worker; "
                "use the state directory of a manager, or leave the flag out"
            )
        self.node_id = security.current.node_id
        self._desired_role = security.current.role
        self._founding_root = self._identity.root if self._identity.root.signer else None
        self._role = _RoleWatch(security.current.role)
        self._renewer = Renewer(security, self._identity.keystore, self._client, self._clock)
        undo = security.subscribe(self._on_credentials)
        log.info("node starting", node=self.node_id, role=security.current.role, cluster=security.current.organization)
        if security.current.is_manager:
            warn_of_address(self._config.settings.listen_remote_api, self._config.settings.advertise_remote_api)
        elif self._directory.load_settings() is None:
            # A worker may have to wait long until it is ready, over restarts too.
            self._directory.save_settings(self._config.settings)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._renewer.run(), name="renewal")
                group.create_task(self._manage(), name="manager")
                group.create_task(self._work(), name="agent")
        finally:
            undo()

    # Identity

    async def _identify(self) -> Bootstrapped:
        """Credentials from the disk, from the cluster to join, or of a new cluster. Leaves nothing behind when the first start fails."""
        config, directory = self._config, self._directory
        is_first = self._is_first = not directory.certificates.exists()
        try:
            self._seed_remotes()
            if config.join_addr:
                await refuse_other_cluster(directory.certificates, config.join_addr, config.join_token, self._connect)
            options = bootstrap.Options(
                config.join_addr, config.join_token, config.availability, config.autolock, config.unlock_key, config.force_new_cluster
            )
            log_is_empty = directory.log_is_empty()
            if config.force_new_cluster:
                await asyncio.to_thread(self._replace_expired)
            identity = await bootstrap.bootstrap(directory.certificates, options, self._client, self._clock, log_is_empty=log_is_empty)
        except BaseException as error:
            if is_first:
                await asyncio.to_thread(directory.forget_identity)
            if isinstance(error, SwarmError):
                raise explain(error, config.join_addr) from error
            raise
        return identity

    def _replace_expired(self) -> None:
        """An expired certificate is renewed before anything is served: nobody would talk to this manager, not even its own agent."""
        from pyswarm.manager.recertify import has_expired, recertify

        keys = KeyStore(self._directory.certificates, self._config.unlock_key)
        if has_expired(keys, self._clock.now()):
            recertify(self._config.state_dir, keys, self._clock)
            log.info("certificate had expired and was renewed with the CA key in the log", directory=str(self._directory.certificates))

    def _undo_founding(self) -> None:
        """The first start of a founder failed (its port was taken, say): leave nothing that nobody knows of and that no one can use."""
        if self._is_first and self._founding_root is not None:
            self._directory.forget_identity()
            self._directory.forget_log()

    async def _connect(self, dial: Any) -> Any:
        return await GrpcConnector(self._broker).connect(dial)

    def _seed_remotes(self) -> None:
        if self._config.join_addr:
            self._remotes.observe(RemotePeer("", self._config.join_addr), DEFAULT_WEIGHT)
            return
        if not self._config.force_new_cluster:
            try:
                self._remotes.load()
            except ValueError as error:
                raise StartError(str(error)) from error

    # Manager

    async def _manage(self) -> None:
        """Run a manager whenever the certificate says so."""
        while True:
            await self._role.until(MANAGER)
            removed = await self._manage_once()
            if removed or self._role.role == WORKER:
                log.info("no manager any more", node=self.node_id)
                await asyncio.to_thread(self._forget_manager)
            if removed and not await self._demoted():
                await self._demoted()

    async def _manage_once(self) -> bool:
        """One life of a manager. Returns whether it ended because the log's members removed it; otherwise the role was lost."""
        identity = self._identity
        parts = ManagerParts(
            self._config,
            self._founding_root is None and self._directory.log_is_empty(),
            identity.security,
            identity.keystore,
            identity.signing_root,
            self._clock,
            self._other_manager,
            self._renewer.force,
        )
        removed = False

        async def live(manager: ManagerLike) -> None:
            nonlocal removed
            await manager.run()
            removed = True

        try:
            manager = self._manager = self._make_manager(parts)
            await first_of(live(manager), self._attend(manager), self._role.until(WORKER))
        except (SwarmError, OSError) as error:
            raise StartError(f"manager stopped: {error}") from error
        finally:
            self._manager = None
            self._manager_up.clear()
            self._broker.set_local(None)
            look_again()
        return removed

    async def _demoted(self) -> bool:
        """Ask the cluster what this node is now, and wait a while for the role to follow; whether it did."""
        self._renewer.force()
        await first_of(self._role.until(WORKER), self._clock.sleep(ROLE_CHANGE_SECONDS))
        return self._role.role == WORKER

    async def _attend(self, manager: ManagerLike) -> None:
        """Once the manager serves, the agent and the CA client use its socket."""
        await manager.ready.wait()
        # The cluster object exists, so the root key is safe in the log and needed here no longer.
        await self._identity.committed()
        self._founding_root = None
        # Once only: should this manager be demoted and promoted again, it joins what the cluster is by then.
        self._config = dataclasses.replace(self._config, force_new_cluster=False)
        self._broker.set_local(Path(self._config.settings.listen_control_api))
        self._manager_up.set()
        await asyncio.Event().wait()

    def _other_manager(self) -> str:
        """The address to join at, if there was one and the manager there is not known to be this one; later any other known manager."""
        try:
            return self._remotes.select(self.node_id).addr
        except NoRemotes:
            if not self._config.join_addr:
                raise
            return self._config.join_addr

    def _forget_manager(self) -> None:
        self._directory.forget_log()
        self._identity.keystore.update_data_keys(lambda _: None)

    # Agent

    async def _work(self) -> None:
        """Run the agent, from the moment there is a manager to talk to."""
        await self._somebody_to_talk_to()
        await asyncio.to_thread(self._directory.tasks.parent.mkdir, mode=0o700, exist_ok=True)
        agent = self._make_agent(
            AgentParts(
                self._config,
                self._identity.security,
                self._broker,
                self._executor,
                self._directory.tasks,
                self._clock,
                self._on_change,
            )
        )
        try:
            await first_of(agent.run(), self._announce(agent))
        except UntrustedManager as error:
            raise distrust(error, self._config.join_addr, self._directory.certificates) from error
        raise StartError("the agent ended by itself; start the daemon again")

    async def _somebody_to_talk_to(self) -> None:
        """A manager waits for itself: its own address is among the remotes, but nobody answers there yet."""
        while not self._manager_up.is_set():
            if self._role.role == MANAGER:
                await first_of(self._manager_up.wait(), self._role.until(WORKER))
            else:
                await first_of(self._manager_up.wait(), self._remotes.wait())
                return

    async def _announce(self, agent: AgentLike) -> None:
        """Say once that the node takes part; what it was started with works, so the next start may use it again."""
        started_as_manager = self._role.role == MANAGER
        await agent.ready.wait()
        if started_as_manager:
            await first_of(self._manager_up.wait(), self._role.until(WORKER))
        self._directory.save_settings(self._config.settings)
        self.ready.set()
        log.info("node is ready", node=self.node_id)
        await asyncio.Event().wait()

    # News

    def _on_credentials(self, credentials: Credentials) -> None:
        self._role.set(credentials.role)

    async def _on_change(self, news: News) -> None:
        """The dispatcher said something about this node."""
        if news.node is not None:
            self._follow_role(news.node)
        if news.root_pem and news.root_pem != self._identity.security.current.root_pem:
            await self._follow_root(news.root_pem)

    def _follow_role(self, node: api.Node) -> None:
        wanted = _ROLES[node.spec.desired_role]
        if wanted != self._desired_role:
            log.info("another role is wanted", node=self.node_id, role=wanted)
            self._desired_role = wanted
            self._renewer.expect_role(wanted)
            self._renewer.force()
        elif node.certificate.status.state == api.IssuanceStatus.ROTATE:
            self._renewer.force()

    async def _follow_root(self, root_pem: bytes) -> None:
        try:
            self._identity.security.replace_root(root_pem)
            await asyncio.to_thread(self._identity.keystore.write_root, root_pem)
        except (CertificateError, OSError) as error:
            log.error("new root certificate not taken over", node=self.node_id, error=str(error))
        else:
            log.info("trusting a new root certificate", node=self.node_id)


class _RoleWatch:
    """The node's present role, and waiting for another."""

    def __init__(self, role: str) -> None:
        self.role = role
        self._is = {MANAGER: asyncio.Event(), WORKER: asyncio.Event()}
        self._is[role].set()

    def set(self, role: str) -> None:
        self.role = role
        for name, event in self._is.items():
            if name == role:
                event.set()
            else:
                event.clear()

    async def until(self, role: str) -> None:
        await self._is[role].wait()


async def first_of(*waits: Coroutine[Any, Any, Any]) -> None:
    """Run all, return (or raise) with the first that ends; the others are cancelled and have ended by then."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        ended = [task for task in tasks if task.done()]
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for task, result in zip(tasks, results, strict=True):
        if isinstance(result, BaseException) and not (isinstance(result, asyncio.CancelledError) and task not in ended):
            raise _first(result) if isinstance(result, BaseExceptionGroup) else result


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The failure that began it."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
