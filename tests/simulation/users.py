"""Users of the simulated cluster: they create, change and remove services all along, and remember every answer.

The history of each service name is checked at the end: there must be an order of all calls that explains every answer, those of calls with
unknown outcome left open. So no acknowledged write may be lost, none applied twice, and no read may be stale.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import grpc

from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.api.jobs import is_job
from pyswarm.api.swarmkit import control_pb2_grpc
from pyswarm.ca.connect import from_rpc
from pyswarm.errors import AlreadyExists, Code, FailedPrecondition, NotFound, SwarmError
from tests.simulation.network import Network
from tests.simulation.process import Process
from tests.simulation.trace import Trace
from tests.simulation.wire import Channel, RpcError
from tests.support.linear import FOREVER, Call, explain

TAG = "tag"
CALL_SECONDS = 8.0
GOOD, FLAKY, BAD, SLOW = "good", "flaky", "bad", "slow"
ZONES = ("a", "b")
_IN_DOUBT = frozenset({Code.CANCELLED, Code.ABORTED, Code.DEADLINE_EXCEEDED})
_TRANSPORT = frozenset({grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})


class Known(NamedTuple):
    """A service as its user sees it: `tag` names the write that made its spec, `before` the one that made the previous spec.

    `sid` is empty while the answer that would tell it is missing. `moody`: it may roll back by itself.
    """

    sid: str
    tag: str
    before: str
    moody: bool


class Created(NamedTuple):
    """CreateService; an empty id when the answer is missing."""

    sid: str
    tag: str
    moody: bool


class Taken(NamedTuple):
    """CreateService found the name taken."""


class Updated(NamedTuple):
    """UpdateService of a spec that was read before."""

    sid: str
    old: str
    tag: str
    moody: bool


class Removed(NamedTuple):
    """RemoveService."""

    sid: str


class Missing(NamedTuple):
    """A call found no such service."""

    sid: str


class Saw(NamedTuple):
    """What a read found: nothing, or an id and a tag."""

    sid: str
    tag: str


def step(state: Known | None, what: Any) -> Iterable[Known | None]:
    """The model of one service name, for `explain`."""
    if state is not None and state.moody and state.before:
        yield from _step(Known(state.sid, state.before, state.tag, True), what)
    yield from _step(state, what)


def _step(state: Known | None, what: Any) -> Iterable[Known | None]:
    match what:
        case Created():
            if state is None:
                yield Known(what.sid, what.tag, "", what.moody)
        case Saw("", ""):
            if state is None:
                yield None
        case Missing():
            if state is None or state.sid != what.sid:
                yield state
        case _ if state is None:
            return
        case Taken():
            yield state
        case Saw():
            if state.tag == what.tag and state.sid in {"", what.sid}:
                yield state._replace(sid=what.sid)
        case Updated():
            if state.tag == what.old and state.sid in {"", what.sid}:
                yield Known(what.sid, what.tag, what.old, what.moody)
        case Removed():
            if state.sid in {"", what.sid}:
                yield None


class Histories:
    """All calls of all users, by service name."""

    def __init__(self) -> None:
        self.calls: dict[str, list[Call]] = {}

    def add(self, name: str, begin: float, end: float, what: Any) -> None:
        """A call that had an answer, or (FOREVER) may have happened."""
        self.calls.setdefault(name, []).append(Call(begin, end, what))

    def unexplained(self) -> str:
        """The first history that cannot be; empty when all can."""
        for name, calls in self.calls.items():
            if explain(calls, None, step) is None:
                lines = [f"  {c.begin:9.3f} to {c.end:9.3f}  {c.what}" for c in sorted(calls, key=lambda c: c.begin)]
                return "\n".join([f"no order of the calls explains what users of {name} saw:", *lines])
        return ""


class User:
    """One user at one place in the network."""

    def __init__(
        self,
        name: str,
        network: Network,
        chance: random.Random,
        trace: Trace,
        histories: Histories,
        managers: Callable[[], list[str]],
        services: int,
    ) -> None:
        self.name = name
        self.pause = chance.choice((0.5, 2.0, 6.0))
        self.only_looks = False
        self.jobs = 0.0
        self._network = network
        self._chance = chance
        self._trace = trace
        self._histories = histories
        self._managers = managers
        self._names = [f"s{n}" for n in range(services)]
        self._ports = {name: 8000 + n for n, name in enumerate(self._names)}
        self._count = 0
        self._channel: Channel | None = None
        self._stub: Any = None
        self.process = Process(network.loop, name, trace)

    # --- calls

    async def call(self, method: str, request: Any) -> Any:
        """One call, with a deadline, on a channel to some manager's control socket that is kept while it works. Raises SwarmError."""
        if self._stub is None:
            address = self._chance.choice(self._managers())
            self._channel = Channel(self._network, self.process, f"control {address}", None)
            self._stub = control_pb2_grpc.ControlStub(self._channel)  # type: ignore[no-untyped-call,unused-ignore]
        try:
            return await getattr(self._stub, method)(request, timeout=CALL_SECONDS)
        except RpcError as failed:
            error = from_rpc(failed)
            error.uncertain = failed.uncertain or error.code in _IN_DOUBT  # type: ignore[attr-defined]
            if failed.code() in _TRANSPORT:
                await self._drop()
            raise error from None

    async def _drop(self) -> None:
        if self._channel is not None:
            await self._channel.close()
        self._channel = self._stub = None

    async def _write(self, name: str, method: str, request: Any, uncertain: Any, done: Any) -> Any:
        """A write that is remembered: `uncertain` is what may have happened, `done(answer)` what did. None when it failed."""
        begin = self._network.loop.time()
        self._trace(self.name, f"{method} {name}: %s", uncertain)
        try:
            answer = await self.call(method, request)
        except asyncio.CancelledError:
            self._histories.add(name, begin, FOREVER, uncertain)
            raise
        except SwarmError as error:
            self._trace(self.name, f"{method} {name} failed: %s", error)
            if getattr(error, "uncertain", False):
                self._histories.add(name, begin, FOREVER, uncertain)
            elif isinstance(error, AlreadyExists):
                self._histories.add(name, begin, self._network.loop.time(), Taken())
            elif isinstance(error, NotFound):
                self._histories.add(name, begin, self._network.loop.time(), Missing(uncertain.sid))
            return None
        what = done(answer)
        self._trace(self.name, f"{method} {name} done: %s", what)
        self._histories.add(name, begin, self._network.loop.time(), what)
        return answer

    async def read(self, name: str) -> api.Service | None:
        """The service as the cluster has it now. Raises SwarmError."""
        begin = self._network.loop.time()
        request = api.ListServicesRequest(filters=api.ListServicesRequest.Filters(names=[name]))
        answer = await self.call("ListServices", request)
        found: api.Service | None = next(iter(answer.services), None)
        seen = Saw(found.id, tag_of(found.spec)) if found is not None else Saw("", "")
        self._trace(self.name, f"{name} is %s", seen)
        self._histories.add(name, begin, self._network.loop.time(), seen)
        return found

    async def create(self, name: str, spec: api.ServiceSpec) -> None:
        """CreateService."""
        tag, moody = tag_of(spec), is_moody(spec)
        request = api.CreateServiceRequest(spec=spec)
        await self._write(name, "CreateService", request, Created("", tag, moody), lambda a: Created(a.service.id, tag, moody))

    async def update(self, found: api.Service, spec: api.ServiceSpec) -> bool:
        """UpdateService of what was read; whether it was acknowledged."""
        request = api.UpdateServiceRequest(service_id=found.id, service_version=found.meta.version, spec=spec)
        what = Updated(found.id, tag_of(found.spec), tag_of(spec), is_moody(spec))
        return await self._write(found.spec.annotations.name, "UpdateService", request, what, lambda _: what) is not None

    async def roll_back(self, found: api.Service) -> None:
        """UpdateService to the previous spec."""
        request = api.UpdateServiceRequest(
            service_id=found.id, service_version=found.meta.version, spec=found.spec, rollback=api.UpdateServiceRequest.PREVIOUS
        )
        what = Updated(found.id, tag_of(found.spec), tag_of(found.previous_spec), is_moody(found.previous_spec))
        await self._write(found.spec.annotations.name, "UpdateService", request, what, lambda _: what)

    async def remove(self, found: api.Service) -> None:
        """RemoveService."""
        request = api.RemoveServiceRequest(service_id=found.id)
        await self._write(found.spec.annotations.name, "RemoveService", request, Removed(found.id), lambda _: Removed(found.id))

    # --- a user's day

    async def run(self) -> None:
        """Do something again and again, until cancelled."""
        while True:
            await asyncio.sleep(self._chance.expovariate(1 / self.pause))
            try:
                await self.act()
            except SwarmError as error:
                self._trace(self.name, "gives up: %s", error)

    async def act(self) -> None:
        """One thing to one service, or to a node."""
        if self.only_looks:
            await self.read(self._chance.choice(self._names))
            return
        if self._chance.random() < 0.12:
            await self.change_node()
            return
        name = self._chance.choice(self._names)
        found = await self.read(name)
        draw = self._chance.random()
        if found is None:
            await self.create(name, self.new_spec(name))
        elif draw < 0.35:
            await self.update(found, self.scaled(found.spec))
        elif draw < 0.7:
            await self.update(found, self.new_spec(name, found.spec))
        elif draw < 0.78 and found.HasField("previous_spec"):
            await self.roll_back(found)
        elif draw < 0.9:
            await self.remove(found)

    async def change_node(self) -> None:
        """Drain, pause or activate one."""
        listed = (await self.call("ListNodes", api.ListNodesRequest())).nodes
        # A manager that was demoted is a node without an agent here: it is left as it is.
        nodes = [n for n in listed if n.role == api.NodeRole.WORKER and n.description.hostname]
        if nodes:
            kinds = api.NodeSpec.Availability
            wanted = self._chance.choice((kinds.ACTIVE, kinds.ACTIVE, kinds.PAUSE, kinds.DRAIN))
            node = self._chance.choice(sorted(nodes, key=lambda n: n.description.hostname))
            if self._chance.random() < 0.4:
                node.spec.annotations.labels["zone"] = self._chance.choice(ZONES)
                wanted = node.spec.availability
            await self.set_availability(node, wanted)

    async def set_availability(self, node: api.Node, wanted: api.NodeSpec.Availability.ValueType) -> bool:
        """UpdateNode, with the spec as it is but for the availability. Whether it was acknowledged."""
        request = api.UpdateNodeRequest(node_id=node.id, node_version=node.meta.version, spec=node.spec)
        request.spec.availability = wanted
        zone = node.spec.annotations.labels.get("zone", "-")
        self._trace(self.name, f"{api.NodeSpec.Availability.Name(wanted)} for {node.description.hostname}, zone {zone}")
        try:
            await self.call("UpdateNode", request)
        except FailedPrecondition:
            return False
        except SwarmError as error:
            self._trace(self.name, "UpdateNode failed: %s", error)
            return False
        return True

    async def set_role(self, node_id: str, role: api.NodeRole.ValueType) -> None:
        """UpdateNode with another role. Raises SwarmError."""
        node = (await self.call("GetNode", api.GetNodeRequest(node_id=node_id))).node
        request = api.UpdateNodeRequest(node_id=node.id, node_version=node.meta.version, spec=node.spec)
        request.spec.desired_role = role
        self._trace(self.name, f"{api.NodeRole.Name(role)} for {node_id[:6]}")
        try:
            await self.call("UpdateNode", request)
        except SwarmError as error:
            self._trace(self.name, "UpdateNode failed: %s", error)
            raise

    async def remove_node(self, node_id: str) -> None:
        """RemoveNode by force; fine if it is gone. Raises SwarmError."""
        self._trace(self.name, "RemoveNode %s", node_id[:6])
        try:
            await self.call("RemoveNode", api.RemoveNodeRequest(node_id=node_id, force=True))
        except NotFound:
            return

    # --- specs

    def _tag(self) -> str:
        self._count += 1
        return f"{self.name}-{self._count}"

    def scaled(self, old: api.ServiceSpec) -> api.ServiceSpec:
        """The same with another number of replicas."""
        spec = api.ServiceSpec()
        spec.CopyFrom(old)
        spec.annotations.labels[TAG] = self._tag()
        if spec.WhichOneof("mode") == "replicated":
            spec.replicated.replicas = self._chance.choice((0, 1, 1, 2, 3, 5, 8))
        elif spec.WhichOneof("mode") == "replicated_job":
            self._counts(spec, (0, 1, 2, 3))
        return spec

    def new_spec(self, name: str, old: api.ServiceSpec | None = None) -> api.ServiceSpec:
        """Any spec that makes sense, or does not; the mode of a service stays."""
        chance = self._chance
        spec = api.ServiceSpec(annotations=api.Annotations(name=name, labels={TAG: self._tag()}))
        mode = (old.WhichOneof("mode") if old is not None else None) or self._mode()
        getattr(spec, mode).SetInParent()
        if mode == "replicated":
            spec.replicated.replicas = chance.choice((1, 1, 2, 3, 5))
        elif mode == "replicated_job":
            self._counts(spec, (1, 2, 3))
        task = spec.task
        task.container.image = f"{chance.choice((GOOD, GOOD, GOOD, FLAKY, SLOW, BAD))}:{self._count}"
        if chance.random() < 0.3:
            task.container.stop_grace_period.CopyFrom(times.duration(chance.choice((0.1, 2.0, 10.0))))
        if chance.random() < 0.4:
            task.resources.reservations.nano_cpus = chance.choice((250_000_000, 1_000_000_000, 3_000_000_000))
        if chance.random() < 0.2:
            task.resources.reservations.memory_bytes = chance.choice((1 << 28, 3 << 30))
        if chance.random() < 0.15:
            spec.endpoint.ports.add(target_port=80, published_port=self._ports[name], publish_mode=api.PortConfig.HOST)
        task.restart.condition = api.RestartPolicy.ANY
        task.restart.delay.CopyFrom(times.duration(chance.choice((0.0, 0.5, 3.0))))
        if chance.random() < 0.1:
            task.restart.condition = chance.choice((api.RestartPolicy.ON_FAILURE, api.RestartPolicy.NONE))
        if chance.random() < 0.1:
            task.restart.max_attempts = 2
        if chance.random() < 0.2:
            task.placement.constraints.append(f"node.labels.zone {chance.choice(('==', '!='))} {chance.choice(ZONES)}")
        if chance.random() < 0.15:
            task.placement.max_replicas = chance.choice((1, 2))
        for config in (spec.rollback,) if is_job(spec) else (spec.update, spec.rollback):
            self._update_config(config)
        if not is_job(spec) and chance.random() < 0.3:
            spec.update.failure_action = api.UpdateConfig.ROLLBACK
        return spec

    def _mode(self) -> str:
        if self.jobs and self._chance.random() < self.jobs:
            return self._chance.choice(("replicated_job", "replicated_job", "global_job"))
        return self._chance.choice(("replicated", "replicated", "replicated", "global"))

    def _counts(self, spec: api.ServiceSpec, at_once: Sequence[int]) -> None:
        spec.replicated_job.max_concurrent = self._chance.choice(at_once)
        spec.replicated_job.total_completions = self._chance.choice((0, 1, 3, 6, 12))

    def _update_config(self, config: api.UpdateConfig) -> None:
        chance = self._chance
        config.parallelism = chance.choice((0, 1, 1, 2))
        config.delay.CopyFrom(times.duration(chance.choice((0.0, 0.0, 1.0))))
        config.monitor.CopyFrom(times.duration(chance.choice((0.5, 2.0))))
        config.order = chance.choice((api.UpdateConfig.STOP_FIRST, api.UpdateConfig.STOP_FIRST, api.UpdateConfig.START_FIRST))
        config.failure_action = chance.choice((api.UpdateConfig.PAUSE, api.UpdateConfig.CONTINUE))
        config.max_failure_ratio = chance.choice((0.0, 0.3))

    def last_spec(self, name: str, old: api.ServiceSpec, most: int) -> api.ServiceSpec:
        """A spec that a healthy cluster can fulfil."""
        spec = api.ServiceSpec(annotations=api.Annotations(name=name, labels={TAG: self._tag()}))
        spec.task.container.image = f"{GOOD}:last-{self._count}"
        spec.task.restart.condition = api.RestartPolicy.ANY
        spec.task.restart.delay.CopyFrom(times.duration(0.5))
        ported = self._chance.random() < 0.3
        mode = old.WhichOneof("mode") or "replicated"
        getattr(spec, mode).SetInParent()
        if mode == "replicated":
            spec.replicated.replicas = self._chance.randint(0, 1 if ported else most)
        elif mode == "replicated_job":
            self._counts(spec, (1,) if ported else (1, 2, 3))
        if ported:
            spec.endpoint.ports.add(target_port=80, published_port=self._ports[name], publish_mode=api.PortConfig.HOST)
        for config in (spec.rollback,) if is_job(spec) else (spec.update, spec.rollback):
            self._update_config(config)
            config.failure_action = api.UpdateConfig.CONTINUE
            if ported:
                config.order = api.UpdateConfig.STOP_FIRST
        return spec


def tag_of(spec: api.ServiceSpec) -> str:
    """Which write made it."""
    return spec.annotations.labels.get(TAG, "")


def is_moody(spec: api.ServiceSpec) -> bool:
    """Whether a failed update may take it back."""
    return spec.update.failure_action == api.UpdateConfig.ROLLBACK
