"""The composition root: what a manager consists of, in which order it starts, and what runs only while it leads.

Always: the log, the store behind it, both servers, health. While leading: the loops, the dispatcher, the signer. Nothing here decides
anything; it only puts together (spec/dispatcher-agent-node, sections 13 and 14).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
from google.protobuf.descriptor import FileDescriptor

from pyswarm.api import v1 as api
from pyswarm.api.swarmkit import (
    ca_pb2,
    control_pb2,
    dispatcher_pb2,
    health_pb2,
    logbroker_pb2,
    raft_pb2,
    resource_pb2,
    watch_pb2,
)
from pyswarm.ca import dek
from pyswarm.ca.autolock import Autolock
from pyswarm.ca.credentials import SecurityConfig
from pyswarm.ca.keystore import KeyStore
from pyswarm.ca.root import RootCA
from pyswarm.ca.server import CAService
from pyswarm.ca.signer import Signer
from pyswarm.ca.update import initial_root
from pyswarm.clock import Clock
from pyswarm.errors import FailedPrecondition, Unimplemented
from pyswarm.manager import genesis
from pyswarm.manager.allocator import Allocator
from pyswarm.manager.control.control_service import ControlService
from pyswarm.manager.dispatcher.service import DispatcherService
from pyswarm.manager.expulsion import Expulsion
from pyswarm.manager.health import HealthService
from pyswarm.manager.keymanager import KeyManager
from pyswarm.manager.leadership import Leadership, supervise
from pyswarm.manager.loop import Driver
from pyswarm.manager.orchestrator.constraintenforcer import ConstraintEnforcer
from pyswarm.manager.orchestrator.global_ import Global
from pyswarm.manager.orchestrator.reaper import Reaper
from pyswarm.manager.orchestrator.replicated import Replicated
from pyswarm.manager.rolemanager import RoleManager
from pyswarm.manager.scheduler.scheduler import Scheduler
from pyswarm.manager.store import Store
from pyswarm.raft.node import RaftNode, RaftSettings
from pyswarm.rpc.binder import Service, bind
from pyswarm.rpc.managers import Managers
from pyswarm.rpc.server import ControlServer, RemoteServer

log = structlog.get_logger(__name__)

HEARTBEAT_TICK = 1
ELECTION_TICK = 10


@dataclass(frozen=True, slots=True)
class ManagerConfig:
    """What a manager is told when it starts."""

    state_dir: Path
    listen_remote: str
    control_socket: Path
    advertise_remote: str = ""
    availability: api.NodeSpec.Availability.ValueType = api.NodeSpec.Availability.ACTIVE
    autolock: bool = False
    unlock_key: bytes = field(default=b"", repr=False)
    heartbeat_tick: int = HEARTBEAT_TICK
    election_tick: int = ELECTION_TICK
    force_new_cluster: bool = False
    join_addr: str = ""


class Manager:
    """One manager. `await run()` until cancelled; `ready` is set once it leads, serves, and its cluster object exists."""

    def __init__(
        self,
        config: ManagerConfig,
        security: SecurityConfig,
        keystore: KeyStore,
        signing_root: Callable[[], Awaitable[RootCA]],
        clock: Clock,
        *,
        renew: Callable[[], None] = lambda: None,
    ) -> None:
        """`signing_root` gives the root for the cluster object; asked only when this manager leads and finds none. `renew` asks for
        another certificate, with another key, because this one's key could be read on disk until now.
        """
        self.ready = asyncio.Event()
        self.store = Store(clock)
        self._config = config
        self._security = security
        self._keystore = keystore
        self._signing_root = signing_root
        self._renew = renew
        self._clock = clock
        me = security.current
        self.raft = RaftNode(
            node_id=me.node_id,
            cluster_id=me.organization,
            directory=config.state_dir / "raft",
            machine=self.store,
            data_key=data_key(keystore),
            clock=clock,
            settings=RaftSettings(heartbeat_tick=config.heartbeat_tick, election_tick=config.election_tick),
            config=self._raft_config,
        )
        self.store.attach(self.raft)
        self._health = HealthService("Raft", "ControlAPI")
        self._signer = Signer(self.store, clock)
        # Only spreads heartbeats and retries over time.
        self._dispatcher = DispatcherService(self.store, self.raft, clock, node_id=me.node_id, rng=random.Random())  # noqa: S311
        self._managers = Managers(self.raft, security, clock)
        services = self._services()
        self._remote = RemoteServer(
            services=services,
            security=security,
            directory=self._managers,
            blacklist=self._blacklist,
            inner_directory=config.state_dir / "run",
            clock=clock,
        )
        self._control = ControlServer(
            services=services, security=security, directory=self._managers, remote_addr=self._own_address, clock=clock
        )

    async def run(self) -> None:
        """Serve until cancelled, then stop in the reverse order. Raises what makes a manager impossible: addresses taken, log unusable."""
        if self._config.join_addr and not (self._config.state_dir / "raft").exists():
            raise Unimplemented("joining a cluster as a second manager is not supported yet; join with the worker token")
        undo = Expulsion(self.store, self._remote).start()
        try:
            await self._remote.listen(self._config.listen_remote)
            self.raft.advertise(self._own_address())
            await self._control.listen(self._config.control_socket)
            async with asyncio.TaskGroup() as group:
                group.create_task(self.raft.run(), name="raft")
                group.create_task(self.store.run(), name="store")
                group.create_task(self._managers.run(), name="managers")
                await self.raft.started()
                group.create_task(Leadership(self.raft, self._lead).run(), name="leadership")
                group.create_task(Autolock(self.store, self._keystore, self._clock, self._on_locked).run(), name="autolock")
                group.create_task(self._remote.run(), name="remote API")
                group.create_task(self._control.run(), name="control API")
                self._health.set_serving("Raft")
                self._health.set_serving("ControlAPI")
        finally:
            undo()
            await self._remote.close()
            await self._control.close()

    def _services(self) -> list[Service]:
        """Every service of the contract; what has no implementation yet answers UNIMPLEMENTED."""
        ca_service = CAService(self.store, self._signer, several_managers=False)
        nothing = object()
        implementations: dict[FileDescriptor, dict[str, object]] = {
            ca_pb2.DESCRIPTOR: {"CA": ca_service, "NodeCA": ca_service},
            control_pb2.DESCRIPTOR: {"Control": ControlService(self.store, self.raft, self._clock)},
            dispatcher_pb2.DESCRIPTOR: {"Dispatcher": self._dispatcher},
            health_pb2.DESCRIPTOR: {"Health": self._health},
            logbroker_pb2.DESCRIPTOR: {},
            raft_pb2.DESCRIPTOR: {},
            resource_pb2.DESCRIPTOR: {},
            watch_pb2.DESCRIPTOR: {},
        }
        return [
            bind(descriptor, found.get(name, nothing))
            for file, found in implementations.items()
            for name, descriptor in file.services_by_name.items()
        ]

    async def _lead(self) -> None:
        """The duties of the leader, until cancelled."""
        founding = await self._founding()
        await self.store.update(lambda tx: genesis.ensure(tx, founding))
        self.ready.set()
        store, clock = self.store, self._clock
        drivers: list[Driver[Any]] = [
            Driver(Allocator(), store, clock),
            Driver(Scheduler(), store, clock),
            Driver(ConstraintEnforcer(), store, clock),
            Driver(Reaper(), store, clock),
            Driver(Replicated(), store, clock),
            Driver(Global(), store, clock),
            Driver(RoleManager(self._is_member), store, clock),
        ]
        components: dict[str, Callable[[], Awaitable[None]]] = {
            "key manager": KeyManager(store, clock).run,
            "dispatcher": self._dispatcher.run,
            "signer": self._signer.run,
        }
        components |= {driver.name: driver.run for driver in drivers}
        await supervise(components, clock)

    async def _founding(self) -> genesis.Founding:
        root = await self._signing_root() if genesis.cluster_of(self.store) is None else None
        me = self._security.current
        return genesis.Founding(
            cluster_id=me.organization,
            node_id=me.node_id,
            root_ca=initial_root(root) if root is not None else None,
            availability=self._config.availability,
            heartbeat_tick=self._config.heartbeat_tick,
            election_tick=self._config.election_tick,
            autolock=self._config.autolock,
            unlock_key=self._keystore.kek,
        )

    def _on_locked(self) -> None:
        """The key file was readable until now. The data key stays: rotating it comes with several managers."""
        self._renew()
        log.warning("managers are locked now; the log's data key was readable before and is not rotated yet")

    def _raft_config(self) -> api.RaftConfig:
        cluster = genesis.cluster_of(self.store)
        return cluster.spec.raft if cluster is not None else genesis.default_raft_config()

    def _blacklist(self) -> Mapping[str, api.BlacklistedCertificate]:
        cluster = genesis.cluster_of(self.store)
        return cluster.blacklisted_certificates if cluster is not None else {}

    def _is_member(self, node_id: str) -> bool:
        return any(member.node_id == node_id for member in self.raft.members())

    def _own_address(self) -> str:
        return self._config.advertise_remote or self._remote.address


def data_key(keystore: KeyStore) -> bytes:
    """The key of this manager's log, made at the first start. Raises FailedPrecondition while a rotation of it is unfinished."""
    keys = keystore.update_data_keys(lambda known: known or dek.DataKeys(current=dek.new_key()))
    if keys is None:
        raise FailedPrecondition(f"no data key in {keystore.directory}")
    return keys.current
