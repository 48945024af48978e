"""The composition root: what a manager consists of, in which order it starts, and what runs only while it leads.

Always: the log, the store behind it, both servers, health. While leading: the loops, the dispatcher, the signer. Nothing here decides
anything; it only puts together (spec/dispatcher-agent-node, sections 13 and 14).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
from google.protobuf.descriptor import FileDescriptor
from prometheus_client import Metric

from pyswarm.api import v1 as api
from pyswarm.api.private import raft_pb2 as private_pb2
from pyswarm.api.private import why_pb2
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
from pyswarm.ca.autolock import Autolock
from pyswarm.ca.credentials import SecurityConfig
from pyswarm.ca.keystore import KeyStore
from pyswarm.ca.root import RootCA
from pyswarm.ca.server import CAService
from pyswarm.ca.signer import Signer
from pyswarm.ca.update import initial_root
from pyswarm.clock import Clock
from pyswarm.csi.plugins import Plugins
from pyswarm.errors import SwarmError
from pyswarm.manager import genesis
from pyswarm.manager.allocator import Allocator, Deallocator
from pyswarm.manager.census import census, scheduling_delays
from pyswarm.manager.control.control_service import ControlService
from pyswarm.manager.csi import VolumeManager, VolumeRelease
from pyswarm.manager.datakeys import DataKeyChange, data_keys
from pyswarm.manager.dispatcher.service import DispatcherService
from pyswarm.manager.evictions import Evictions
from pyswarm.manager.expulsion import Expulsion
from pyswarm.manager.health import HealthService
from pyswarm.manager.joining import Joiner
from pyswarm.manager.keymanager import KeyManager
from pyswarm.manager.leadership import FIRST_RETRY, Leadership, supervise
from pyswarm.manager.logbroker import LogBrokerService
from pyswarm.manager.loop import Driver
from pyswarm.manager.orchestrator.constraintenforcer import ConstraintEnforcer
from pyswarm.manager.orchestrator.global_ import Global
from pyswarm.manager.orchestrator.jobs import Jobs
from pyswarm.manager.orchestrator.reaper import Reaper
from pyswarm.manager.orchestrator.replicated import Replicated
from pyswarm.manager.orchestrator.volumeenforcer import VolumeEnforcer
from pyswarm.manager.raftservices import RAFT_HEALTH, RaftMembershipService, RaftService, health_probe
from pyswarm.manager.resourceapi import ResourceService
from pyswarm.manager.rolemanager import RoleManager
from pyswarm.manager.scheduler.scheduler import Scheduler
from pyswarm.manager.store import Commit, Store, View
from pyswarm.manager.watch import WatchService
from pyswarm.manager.why.service import WhyService
from pyswarm.raft.log import ProposalError
from pyswarm.raft.node import RaftNode, RaftSettings
from pyswarm.rpc import channel, reach
from pyswarm.rpc.binder import Service, bind
from pyswarm.rpc.managers import Managers
from pyswarm.rpc.server import ControlServer, RemoteServer
from pyswarm.telemetry import SCHEDULING_DELAY

log = structlog.get_logger(__name__)

HEARTBEAT_TICK = 1
ELECTION_TICK = 10
LEADER_POLL_SECONDS = 0.05
JOINED_SECONDS = 10.0
"""A leader that died meanwhile forgot who was about to join: after so long it is asked again."""

ADDRESS_SECONDS = 1.0
"""How long the members' table is given to show this manager's present address."""


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
    join: bool = False
    """The log is kept by others already: with nothing on disk this manager asks them for membership instead of founding a cluster."""


class Manager:
    """One manager. `await run()` until cancelled; `ready` is set once it serves, knows a leader, and has the cluster object."""

    def __init__(
        self,
        config: ManagerConfig,
        security: SecurityConfig,
        keystore: KeyStore,
        signing_root: Callable[[], Awaitable[RootCA]],
        clock: Clock,
        other_manager: Callable[[], str],
        *,
        renew: Callable[[], None] = lambda: None,
        plugins: Plugins | None = None,
    ) -> None:
        """`signing_root` gives the root for the cluster object; asked only when this manager leads and finds none.

        `other_manager` gives the address of a manager that is not this one, maybe another each time; it raises SwarmError for none.
        `renew` asks for another certificate, with another key, because this one's key could be read on disk until now.
        `plugins` are the storage plugins of this machine.
        """
        self.ready = asyncio.Event()
        self.store = Store(clock)
        self._config = config
        self._security = security
        self._keystore = keystore
        self._signing_root = signing_root
        self._renew = renew
        self._plugins = plugins or Plugins()
        self._clock = clock
        me = security.current
        keys = data_keys(keystore)
        self.raft = RaftNode(
            node_id=me.node_id,
            cluster_id=me.organization,
            directory=config.state_dir / "raft",
            machine=self.store,
            data_key=keys.pending or keys.current,
            old_keys=[keys.current] if keys.pending else [],
            clock=clock,
            settings=RaftSettings(heartbeat_tick=config.heartbeat_tick, election_tick=config.election_tick),
            config=self._raft_config,
            connect=lambda addr: channel.connect(addr, security.current, options=channel.KEEPALIVE),
            force_new_cluster=config.force_new_cluster,
        )
        self.store.attach(self.raft)
        self._data_keys = DataKeyChange(keystore, self.raft.rekey, clock)
        self._removed = asyncio.Event()
        self._joiner = Joiner(security, other_manager, self._own_address, clock)
        self._health = HealthService(RAFT_HEALTH, "ControlAPI")
        self._signer = Signer(self.store, clock)
        # Only spreads heartbeats and retries over time.
        self._dispatcher = DispatcherService(self.store, self.raft, clock, node_id=me.node_id, rng=random.Random())  # noqa: S311
        self._logs = LogBrokerService(self.store, clock)
        self._watch = WatchService(self.store, self.raft)
        self._allocator: Allocator | None = None
        self._managers = Managers(self.raft, security, clock)
        services = self._services()
        transport = private_pb2.DESCRIPTOR.services_by_name["RaftTransport"]
        self._remote = RemoteServer(
            services=[*services, bind(transport, self.raft.transport)],
            security=security,
            directory=self._managers,
            blacklist=self._blacklist,
            inner_directory=config.state_dir / "run",
            clock=clock,
        )
        self._control = ControlServer(
            services=services, security=security, directory=self._managers, remote_addr=self._address_for_log, clock=clock
        )

    async def run(self) -> None:
        """Serve until cancelled, then hand leadership over and stop in the reverse order; or return once the others removed this member.

        Raises what makes a manager impossible: addresses taken, log unusable, membership refused.
        """
        undo = self.raft.on_removed(self._removed.set)
        serving = asyncio.create_task(self._serve(), name="manager serving")
        removed = asyncio.create_task(self._removed.wait(), name="manager removed")
        try:
            await asyncio.wait((serving, removed), return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                await serving
            log.info("this manager was removed from the log")
        except asyncio.CancelledError:
            if not serving.done():
                await self.raft.hand_over()
            raise
        finally:
            undo()
            for task in (serving, removed):
                task.cancel()
            await asyncio.gather(serving, removed, return_exceptions=True)

    def metrics(self) -> Iterator[Metric]:
        """The present state in numbers."""
        return census(self.store, leads=self.raft.is_leader)

    async def _serve(self) -> None:
        undo = Expulsion(self.store, self._remote).start()
        try:
            await self._remote.listen(self._config.listen_remote)
            await self._control.listen(self._config.control_socket)
            self._health.set_serving(RAFT_HEALTH)
            async with asyncio.TaskGroup() as group:
                # Before anything of the log: the leader looks at the port of who wants to join.
                group.create_task(self._remote.run(), name="remote API")
                await self._enter()
                group.create_task(self.raft.run(), name="raft")
                group.create_task(self.store.run(), name="store")
                group.create_task(self._managers.run(), name="managers")
                await self.raft.started()
                leadership = Leadership(self.raft, self._lead)
                self.raft.duties_ended = leadership.ended
                group.create_task(leadership.run(), name="leadership")
                group.create_task(Autolock(self.store, self._keystore, self._clock, self._on_locked).run(), name="autolock")
                group.create_task(self._data_keys.run(), name="data keys")
                group.create_task(self._watch.run(), name="watch API")
                group.create_task(self._control.run(), name="control API")
                group.create_task(self._stay_member(), name="membership")
                group.create_task(self._become_ready(), name="readiness")
                self._health.set_serving("ControlAPI")
        finally:
            undo()
            await self._remote.close()
            await self._control.close()

    async def _enter(self) -> None:
        """Whatever comes before the log runs: ask for membership where there is no log yet, and say where this manager is."""
        own = self._own_address()
        known = await self.raft.has_state()
        if self._config.join and not known:
            self.raft.adopt(await self._joiner.join())
            known = True
        # Once others told this manager where they see it, "everywhere" is no correction of that.
        self.raft.advertise("" if known and reach.is_wildcard(own) else own)

    async def _stay_member(self) -> None:
        """See to it that the log knows this member, under its present address."""
        while not await self._is_known_as_it_is():
            if self.raft.is_leader:
                self.raft.advertise(self._address_for_log())
                continue
            try:
                await self._joiner.ask()
            except SwarmError as error:
                log.warning("the log does not know this manager as it is yet", error=error.message)
        log.info("member of the log", raft_id=f"{self.raft.raft_id:x}", addr=self._address_in_log())

    async def _is_known_as_it_is(self) -> bool:
        """Whether it is so within ten seconds as a member, and a second more for the address."""
        try:
            async with asyncio.timeout(JOINED_SECONDS):
                await self.raft.joined()
        except TimeoutError:
            return False
        if self._address_in_log() != self._address_for_log():
            await self._clock.sleep(ADDRESS_SECONDS)
        return self._address_in_log() == self._address_for_log()

    def _address_in_log(self) -> str:
        return next((member.addr for member in self.raft.members() if member.raft_id == self.raft.raft_id), "")

    def _address_for_log(self) -> str:
        """This manager's own address; one that only says "everywhere" leaves the host to what the log knows from others."""
        own, known = self._own_address(), self._address_in_log()
        if not known or not reach.is_wildcard(own):
            return own
        return f"{known.rpartition(':')[0]}:{own.rpartition(':')[2]}"

    async def _become_ready(self) -> None:
        while self.raft.leader() is None or genesis.cluster_of(self.store) is None:
            await self._clock.sleep(LEADER_POLL_SECONDS)
        self.ready.set()

    def _services(self) -> list[Service]:
        """Every service of the contract and our own; what has no implementation yet answers UNIMPLEMENTED."""
        ca_service = CAService(self.store, self._signer)
        membership = RaftMembershipService(self.raft, self._security.current.node_id, health_probe(self._security))
        nothing = object()
        implementations: dict[FileDescriptor, dict[str, object]] = {
            ca_pb2.DESCRIPTOR: {"CA": ca_service, "NodeCA": ca_service},
            control_pb2.DESCRIPTOR: {"Control": ControlService(self.store, self.raft, self._clock, shortage=self._shortage)},
            dispatcher_pb2.DESCRIPTOR: {"Dispatcher": self._dispatcher},
            health_pb2.DESCRIPTOR: {"Health": self._health},
            logbroker_pb2.DESCRIPTOR: {"Logs": self._logs, "LogBroker": self._logs},
            raft_pb2.DESCRIPTOR: {"RaftMembership": membership, "Raft": RaftService(self.raft)},
            resource_pb2.DESCRIPTOR: {"ResourceAllocator": ResourceService(self.store)},
            watch_pb2.DESCRIPTOR: {"Watch": self._watch},
            why_pb2.DESCRIPTOR: {"Why": WhyService(self.store, self.raft, self._clock)},
        }
        return [
            bind(descriptor, found.get(name, nothing))
            for file, found in implementations.items()
            for name, descriptor in file.services_by_name.items()
        ]

    async def _lead(self) -> None:
        """The duties of the leader, until cancelled."""
        store, clock = self.store, self._clock
        await self._ensure_genesis()
        self._allocator = Allocator()
        drivers: list[Driver[Any]] = [
            Driver(self._allocator, store, clock),
            Driver(Deallocator(), store, clock),
            Driver(Scheduler(), store, clock),
            Driver(ConstraintEnforcer(), store, clock),
            Driver(VolumeEnforcer(), store, clock),
            Driver(VolumeRelease(), store, clock),
            Driver(Reaper(), store, clock),
            Driver(Replicated(), store, clock),
            Driver(Global(), store, clock),
            Driver(Jobs(), store, clock),
            Driver(RoleManager(self._is_member), store, clock),
        ]
        components: dict[str, Callable[[], Awaitable[None]]] = {
            "key manager": KeyManager(store, clock).run,
            "dispatcher": self._dispatcher.run,
            "log broker": self._logs.run,
            "signer": self._signer.run,
            "cluster volumes": VolumeManager(store, self._plugins, clock).run,
            "evictions": Evictions(store, self.raft, self._security.current.node_id, clock).run,
        }
        components |= {driver.name: driver.run for driver in drivers}
        undo = store.on_commit(_observe_delays)
        try:
            await supervise(components, clock)
        finally:
            undo()
            self._allocator = None

    def _shortage(self, view: View, obj: api.Network | api.Service) -> str:
        """What the allocator lacks for an object; it exists only while this manager leads, as all who write do."""
        return self._allocator.shortage(view, obj) if self._allocator is not None else ""

    async def _ensure_genesis(self) -> None:
        founding = await self._founding()
        while True:
            try:
                await self.store.update(lambda tx: genesis.ensure(tx, founding))
                return
            except ProposalError as error:
                # When leadership ended, so does this; otherwise it is only being tried to hand it over.
                log.warning("beginning of leadership not committed yet", error=error.message)
            await self._clock.sleep(FIRST_RETRY)

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
        """The key file was readable until now: the keys in it are replaced."""
        self._data_keys.look()
        self._renew()

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


def _observe_delays(commit: Commit) -> None:
    for seconds in scheduling_delays(commit):
        SCHEDULING_DELAY.observe(seconds)
