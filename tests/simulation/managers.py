"""A simulated manager: the real `Manager` with everything in it; only sockets, TLS and files are not there.

`edge` puts the simulated network, disks and chance in place of the machine's for the length of a run. The life around the manager (joining,
what its node does when its role changes) is what `node.Node` does, in a few lines.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import grpc.aio
from pysyncobj import syncobj

from pyswarm.api import v1 as api
from pyswarm.api.swarmkit import ca_pb2_grpc
from pyswarm.ca.credentials import Credentials, SecurityConfig
from pyswarm.ca.keystore import KEK, KeyStore, _KeyFile
from pyswarm.ca.root import RootCA
from pyswarm.ca.update import initial_root
from pyswarm.errors import FailedPrecondition, SwarmError, Unavailable
from pyswarm.manager import manager as production
from pyswarm.manager.manager import Manager, ManagerConfig
from pyswarm.manager.store import Store
from pyswarm.raft import filter as screen
from pyswarm.raft import replica as replicas
from pyswarm.raft.node import RaftNode, RaftSettings
from pyswarm.rpc import channel, managers
from pyswarm.rpc.caller import MANAGER
from tests.simulation import csrs
from tests.simulation.disks import ManagerDisks, PowerCut
from tests.simulation.judge import Judge
from tests.simulation.network import Network
from tests.simulation.process import EPOCH, Process, SkewedClock
from tests.simulation.trace import Trace
from tests.simulation.wire import Channel, ControlServer, Port, RemoteServer, SeededRandom

ORGANIZATION = "cluster1"


@functools.cache
def root_ca() -> RootCA:
    """One root for all simulations: nothing depends on what is in it."""
    return RootCA.create(now=EPOCH)


@functools.cache
def founding_root() -> api.RootCA:
    """What the cluster object says about it."""
    return initial_root(root_ca())


def credentials(node_id: str, role: str) -> Credentials:
    """What a node shows; only the names in it count."""
    return Credentials(b"cert", b"key", b"root", node_id, ORGANIZATION if node_id else "", role, b"issuer", b"issuer key", 0.0, 1e12)


class MemoryKeyStore(KeyStore):
    """The key file in memory. It outlives its process."""

    def __init__(self) -> None:
        super().__init__(Path("/memory/certificates"))
        self._content = _KeyFile("EC PRIVATE KEY", b"key", KEK(b""), {})
        self.process: Process | None = None

    def _open(self) -> _KeyFile:
        return self._content

    def _save(self, content: _KeyFile) -> None:
        if self.process is None or not self.process.effect():
            raise PowerCut
        self._content = content
        self._adopt(content)


class Watched:
    """The store as the log's state machine; the judge sees what is applied."""

    def __init__(self, store: Store, manager: SimManager) -> None:
        self._store = store
        self._manager = manager
        self._judge = manager.judge
        self._name = manager.name
        self.capture = store.capture

    def apply(self, index: int, request: api.InternalRaftRequest, proposal: Any | None) -> None:
        """See StateMachine."""
        self._manager.check_duties()
        events: list[Any] = []
        undo = self._store.on_commit(lambda commit: events.extend(commit.events))
        try:
            self._store.apply(index, request, proposal)
        finally:
            undo()
        self._judge.applied(self._name, self._store, index, events)

    def prepare(self, snapshot: api.StoreSnapshot) -> Callable[[], None]:
        """See StateMachine."""
        restore = self._store.prepare(snapshot)

        def restored() -> None:
            restore()
            self._judge.restored(self._name, self._store)

        return restored


class SimManager:
    """A manager with its disks, through any number of lives. Serves at its address while a process runs."""

    def __init__(
        self,
        name: str,
        network: Network,
        chance: random.Random,
        trace: Trace,
        judge: Judge,
        settings: RaftSettings,
        *,
        founds: bool,
        snapshot_interval: int = 0,
    ) -> None:
        self.name = name
        self.address = f"{name}:4242"
        self.node_id = name if founds else ""
        self.founds = founds
        self.network = network
        self.chance = chance
        self.disks = ManagerDisks()
        self.keystore = MemoryKeyStore()
        self.process: Process | None = None
        self.clock = SkewedClock(network.loop)
        self.manager: Manager | None = None
        self.others: Callable[[], list[str]] = list
        self.demoted = False
        """It ended because it is no manager any more."""
        self.gone = False
        self.on_duty = False
        self.settings = settings
        self.snapshot_interval = snapshot_interval
        self._trace = trace
        self.judge = judge

    @property
    def raft(self) -> RaftNode | None:
        """The log of the present life."""
        return self.manager.raft if self.manager is not None and self.alive else None

    @property
    def alive(self) -> bool:
        """Whether a process runs."""
        return self.process is not None and self.process.alive

    @property
    def store(self) -> Store:
        """The store of the present or last life."""
        assert self.manager is not None
        return self.manager.store

    @property
    def leads(self) -> bool:
        """Whether it says so."""
        return self.raft is not None and self.raft.is_leader

    @property
    def term(self) -> int:
        """The term of its log."""
        replica = self.raft._replica if self.raft is not None else None
        return replica._core.term if replica is not None else 0

    # --- lives

    def start(self) -> None:
        """A new process on the disks as they are."""
        process = Process(self.network.loop, self.name, self._trace, self.address, self)
        process.at_death = self._on_death
        self.process = self.keystore.process = process
        self.manager = None
        self.demoted = self.on_duty = False
        self._trace(self.name, "starts")
        process.start(self._live(process))

    def _on_death(self) -> None:
        self._trace(self.name, "is gone")
        if self.process is not None:
            self.network.died(self.process)

    async def stopped(self) -> None:
        """Wait until the process of this life has ended, and judge how it ended; the disks then are as the next one finds them."""
        process = self.process
        if process is None:
            return
        await asyncio.wait([process.ended])
        failure = process.failure
        while isinstance(failure, BaseExceptionGroup):
            failure = failure.exceptions[0]
        if failure is not None and not _is_power_cut(failure) and not _is_refusal(failure):
            self.judge.violation(f"manager {self.name} ended with {type(failure).__name__}: {failure}", failure)
        if failure is not None:
            self._trace(self.name, "ended with %s", failure)
        self.disks.crash(self.chance)
        if self.demoted:
            self.founds = False
            self.disks, content = ManagerDisks(), self.keystore._content
            self.keystore = MemoryKeyStore()
            self.keystore._content = _KeyFile(content.label, content.der, content.kek, {})
        self.process = None

    async def _live(self, process: Process) -> None:
        while not self.node_id:
            await self._enrol(process)
        security = SecurityConfig(credentials(self.node_id, MANAGER), self.clock)
        config = ManagerConfig(
            state_dir=Path("/memory"),
            listen_remote=self.address,
            control_socket=Path(f"/memory/{self.name}.sock"),
            availability=api.NodeSpec.Availability.DRAIN,
            heartbeat_tick=self.settings.heartbeat_tick,
            election_tick=self.settings.election_tick,
            join=not (self.founds and self.disks.never_used),
        )
        self.manager = Manager(config, security, self.keystore, _signing_root, self.clock, self._other)
        self.manager._lead = functools.partial(self._do_duties, self.manager._lead)  # type: ignore[method-assign]
        self.manager.raft.on_leadership(self._on_leadership)
        await self.manager.run()
        self._trace(self.name, "was removed from the log")
        self.demoted = True

    async def _do_duties(self, duties: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.on_duty = True
        try:
            await duties()
        finally:
            self.on_duty = False

    def check_duties(self) -> None:
        """An entry is about to be applied. Called where another leader's work becomes visible to this manager."""
        if self.on_duty and not self.leads and self.alive:
            self.judge.violation(f"{self.name} does a leader's duties without leading")

    def _on_leadership(self, leads: bool) -> None:
        raft = self.raft
        if not leads or raft is None:
            self._trace(self.name, "leads no more")
            return
        self._trace(self.name, "leads in term %s from entry %s", self.term, raft.applied_index)
        self.judge.leads(self.name, self.store, self.term, raft.applied_index)

    def _other(self) -> str:
        others = self.others()
        if not others:
            raise Unavailable("no other manager is known")
        return self.chance.choice(others)

    async def _enrol(self, process: Process) -> None:
        """Get a certificate with the token for managers, once; tried again when it does not work out."""
        await asyncio.sleep(self.chance.uniform(0.1, 1))
        self.node_id = await enrol(self.network, process, self._other(), founding_root().join_tokens.manager, hash_of(self.name))
        if self.node_id:
            self._trace(self.name, "is node %s", self.node_id[:6])


async def enrol(network: Network, process: Process, address: str, token: str, number: int) -> str:
    """A node id for whoever brings a token; empty when that failed."""
    opened: Any = Channel(network, process, address, None)
    stub: Any = ca_pb2_grpc.NodeCAStub(opened)  # type: ignore[no-untyped-call,unused-ignore]
    availability = api.NodeSpec.Availability
    drained = availability.DRAIN if token == founding_root().join_tokens.manager else availability.ACTIVE
    try:
        wanted = api.IssueNodeCertificateRequest(csr=csrs.request(number), token=token, availability=drained)
        issued = await stub.IssueNodeCertificate(wanted, timeout=5)
        status = await stub.NodeCertificateStatus(api.NodeCertificateStatusRequest(node_id=issued.node_id), timeout=5)
    except grpc.aio.AioRpcError:
        return ""
    finally:
        await opened.close()
    return str(issued.node_id) if status.status.state == api.IssuanceStatus.ISSUED else ""


def hash_of(name: str) -> int:
    """A small number for a name, the same in every process."""
    return int("".join(c for c in name if c.isdigit()) or 0)


async def _signing_root() -> RootCA:
    return root_ca()


# --- the machine, as far as it is simulated


@contextlib.contextmanager
def edge(network: Callable[[], Network], tick: float, look: float, chance: random.Random) -> Iterator[None]:
    """Put simulated parts in place of the machine's for the length of a `with` block."""

    def process() -> Process:
        found = network().loop.group_of.get()
        assert isinstance(found, Process)
        return found

    def owner() -> SimManager:
        found = process().owner
        assert isinstance(found, SimManager)
        return found

    def connect(addr: str, shown: Credentials, *_names: str, **_options: Any) -> Channel:
        return Channel(network(), process(), addr, shown)

    def raft_node(*, machine: Store, settings: RaftSettings, config: Callable[[], api.RaftConfig], **parts: Any) -> RaftNode:
        mine = owner()
        often = api.RaftConfig(snapshot_interval=mine.snapshot_interval, log_entries_for_slow_followers=5)
        directories = process()
        own = RaftSettings(tick, settings.heartbeat_tick, settings.election_tick)
        return RaftNode(
            machine=Watched(machine, mine),
            settings=own,
            config=(lambda: often) if mine.snapshot_interval else config,
            open_directory=lambda _: mine.disks.boot(directories),
            **parts,
        )

    def remote(**parts: Any) -> RemoteServer:
        return RemoteServer(port=Port(network(), owner().address, process()), **parts)

    def control(**parts: Any) -> ControlServer:
        return ControlServer(port=Port(network(), f"control {owner().address}", process()), **parts)

    SeededRandom.source = chance
    random.seed(chance.getrandbits(64))
    with contextlib.ExitStack() as stack:
        for target, name, value in (
            (channel, "connect", connect),
            (production, "RaftNode", raft_node),
            (production, "RemoteServer", remote),
            (production, "ControlServer", control),
            (production, "initial_root", lambda _: founding_root()),
            (managers, "_LOOK_SECONDS", look),
            (random, "Random", SeededRandom),
            (random, "SystemRandom", SeededRandom),
            (syncobj, "monotonicTime", syncobj.monotonicTime),  # the last one to set it would live as long as the process
        ):
            stack.enter_context(mock.patch.object(target, name, value))
        yield


__all__ = ["SimManager", "SwarmError", "edge", "founding_root", "replicas", "screen"]


def _is_refusal(failure: BaseException) -> bool:
    """The others would not have it: a daemon ends with that, and is started again."""
    return isinstance(failure, FailedPrecondition) and "can't initialize raft node" in failure.message


def _is_power_cut(failure: BaseException) -> bool:
    seen: BaseException | None = failure
    while seen is not None:
        if isinstance(seen, PowerCut):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
