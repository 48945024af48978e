"""Users of a cluster under faults: they work through any manager's control socket, on objects that all of them share, and remember it.

The objects are configs: nothing but the log and the store is moved by them. A config has a name, an id that is never used again, and a
label that each write sets to something that no other write does. An update names the version it rests on, so the history of a name is
that of a register with compare-and-set, created and removed again and again; see `step`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import grpc
import grpc.aio

from pyswarm.api import v1 as api
from pyswarm.api.swarmkit.control_pb2_grpc import ControlStub
from pyswarm.errors import Unavailable
from pyswarm.rpc.channel import connect_unverified
from tests.support.linear import FOREVER, Call, explain

if TYPE_CHECKING:
    from pyswarm.api.swarmkit.control_pb2_grpc import ControlAsyncStub

Answer = TypeVar("Answer")
LABEL = "value"
CALL_SECONDS = 5.0
PAUSE_SECONDS = 0.06
HURRY_SECONDS = 0.4


class Known(NamedTuple):
    """A config; the id is empty while no answer has told it."""

    id: str
    value: str


class Created(NamedTuple):
    """A config was made; the id is empty when the answer is missing."""

    id: str
    value: str


class Taken(NamedTuple):
    """A config was not made, because there is one of that name."""


class Updated(NamedTuple):
    """A config whose value was `old` got another."""

    id: str
    old: str
    value: str


class Outrun(NamedTuple):
    """An update was refused, because the value is not `old` any more."""

    id: str
    old: str


class Removed(NamedTuple):
    """A config was removed."""

    id: str


class Missing(NamedTuple):
    """An update or removal was refused, because there is no such config."""

    id: str


class Saw(NamedTuple):
    """A read found this value; or, with an empty id, nothing."""

    id: str
    value: str


What = Created | Taken | Updated | Outrun | Removed | Missing | Saw


def step(state: Known | None, what: What) -> Iterable[Known | None]:
    """The model of one name, for `explain`: in which states it may be after a call that ended so; none if it cannot have."""
    if state is None:
        match what:
            case Created(made, value):
                yield Known(made, value)
            case Saw("", "") | Missing():
                yield None
        return
    if isinstance(what, Taken):
        yield state
        return
    same = state.id in {"", what.id}
    match what:
        case Saw(found, value) if same and found and value == state.value:
            yield state._replace(id=found)
        case Updated(known, old, value) if same and old == state.value:
            yield Known(known, value)
        case Outrun(known, old) if same and old != state.value:
            yield state._replace(id=known)
        case Removed() if same:
            yield None
        case Missing() if state.id != what.id:
            yield state


@dataclass(slots=True)
class Memory:
    """What all users did and were told."""

    calls: dict[str, list[Call]] = field(default_factory=dict)
    acknowledged: list[float] = field(default_factory=list)
    """When writes were answered, in order."""
    uncertain: int = 0
    reads: int = 0
    refused: int = 0
    versions: dict[tuple[str, str], int] = field(default_factory=dict)
    latest: dict[str, api.Config] = field(default_factory=dict)
    """What anybody saw last, by name."""
    oddities: list[str] = field(default_factory=list)
    """What no user should ever be told."""

    def add(self, name: str, begin: float, end: float, what: What) -> None:
        """A call that was answered; or (FOREVER) may or may not have happened."""
        self.calls.setdefault(name, []).append(Call(begin, end, what))
        if isinstance(what, Saw):
            self.reads += 1
        elif isinstance(what, Taken | Outrun | Missing):
            self.refused += 1
        elif end == FOREVER:
            self.uncertain += 1
        else:
            self.acknowledged.append(end)

    def note(self, config: api.Config) -> None:
        """One value is written once: whoever sees it sees the same version."""
        key, version = (config.id, config.spec.annotations.labels[LABEL]), config.meta.version.index
        if self.versions.setdefault(key, version) != version:
            self.oddities.append(f"config {key[0]} has value {key[1]} in version {version} and in {self.versions[key]}")
        name = config.spec.annotations.name
        if name not in self.latest or self.latest[name].meta.version.index < version:
            self.latest[name] = config

    def unexplained(self) -> str:
        """The first history that cannot be; empty when all can."""
        for name, calls in self.calls.items():
            if explain(calls, None, step) is None:
                ordered = sorted(calls, key=lambda call: call.begin)
                lines = [f"  {call.begin:9.3f} to {call.end:9.3f}  {call.what}" for call in ordered]
                return "\n".join([f"no order of the calls explains what users of config {name} were told:", *lines])
        return ""

    def longest_gap(self, begin: float, end: float) -> float:
        """The longest time without an acknowledged write within these moments, in seconds."""
        times = [begin, *(moment for moment in self.acknowledged if begin < moment < end), end]
        return max(after - before for before, after in itertools.pairwise(times))


class Outcome(NamedTuple):
    """What an error says about a write."""

    certain: bool
    refused: type[Taken | Outrun | Missing] | None = None


_UNCERTAIN = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED})
_CERTAIN_WORDS = ("does not have a leader", "the call was not made", "more than one redirect", "raft proposal dropped")
_UNCERTAIN_WORDS = ("node lost leader status", "node is stopped")


def outcome(code: grpc.StatusCode, text: str) -> Outcome | None:
    """What a failed write has come to; None for an error that nobody foresaw."""
    if code is grpc.StatusCode.ALREADY_EXISTS:
        return Outcome(certain=True, refused=Taken)
    if code is grpc.StatusCode.NOT_FOUND:
        return Outcome(certain=True, refused=Missing)
    if "update out of sequence" in text:
        return Outcome(certain=True, refused=Outrun)
    if any(words in text for words in _CERTAIN_WORDS):
        return Outcome(certain=True)
    # The text is the same whether the entry may still commit or was never made.
    if code in _UNCERTAIN or any(words in text for words in _UNCERTAIN_WORDS):
        return Outcome(certain=False)
    return None


class Failed(Exception):
    """A call had no answer that says anything; the next one goes to another manager."""


class User:
    """One user. `sockets` are those of the managers it may ask; `names` gives the configs that are worked on at present."""

    def __init__(
        self, name: str, sockets: Sequence[str], names: Callable[[], Sequence[str]], memory: Memory, chance: random.Random
    ) -> None:
        self.name = name
        self._sockets = sockets
        self._names = names
        self._memory = memory
        self._chance = chance
        self._count = 0
        self._seen: dict[str, api.Config] = {}
        self._channel: grpc.aio.Channel | None = None

    # --- calls

    async def _stub(self) -> ControlAsyncStub:
        """A connection that works, or did. Raises Failed."""
        if self._channel is None:
            try:
                self._channel = await connect_unverified(f"unix:{self._chance.choice(self._sockets)}")
            except (Unavailable, OSError) as error:
                raise Failed from error
        return ControlStub(self._channel)

    async def close(self) -> None:
        """Let go of the connection."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close(None)

    async def _disappointed(self) -> None:
        """A call failed: try another manager."""
        await self.close()

    async def read(self, name: str) -> api.Config | None:
        """The config as the cluster has it. Raises Failed."""
        stub = await self._stub()
        begin = time.monotonic()
        request = api.ListConfigsRequest(filters=api.ListConfigsRequest.Filters(names=[name]))
        try:
            answer = await stub.ListConfigs(request, timeout=CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            if outcome(error.code(), error.details() or "") is None:
                self._memory.oddities.append(f"{self.name} read {name}: {error.code().name}: {error.details()}")
            await self._disappointed()
            raise Failed from error
        found: api.Config | None = next(iter(answer.configs), None)
        if found is None:
            self._memory.add(name, begin, time.monotonic(), Saw("", ""))
            return None
        self._memory.add(name, begin, time.monotonic(), Saw(found.id, found.spec.annotations.labels[LABEL]))
        self._memory.note(found)
        return found

    async def _write(self, name: str, wanted: What, call: Callable[[ControlAsyncStub], Any], done: Callable[[Any], What]) -> Any:
        """A write that is remembered: `wanted` is what may have happened, `done(answer)` what did. None when refused. Raises Failed."""
        stub = await self._stub()
        begin = time.monotonic()
        try:
            answer = await call(stub)
        except asyncio.CancelledError:
            self._memory.add(name, begin, FOREVER, wanted)
            raise
        except grpc.aio.AioRpcError as error:
            meaning = outcome(error.code(), error.details() or "")
            if meaning is not None and meaning.refused is not None:
                self._memory.add(name, begin, time.monotonic(), _refusal(meaning.refused, wanted))
                return None
            if meaning is None:
                self._memory.oddities.append(f"{self.name} wrote {name}: {error.code().name}: {error.details()}")
            if meaning is None or not meaning.certain:
                self._memory.add(name, begin, FOREVER, wanted)
            await self._disappointed()
            raise Failed from error
        self._memory.add(name, begin, time.monotonic(), done(answer))
        return answer

    async def create(self, name: str) -> api.Config | None:
        """CreateConfig. None when refused. Raises Failed."""
        spec = api.ConfigSpec(annotations=api.Annotations(name=name, labels={LABEL: (value := self._value())}), data=b"x")
        request = api.CreateConfigRequest(spec=spec)
        answer = await self._write(
            name,
            Created("", value),
            lambda stub: stub.CreateConfig(request, timeout=CALL_SECONDS),
            lambda answer: Created(answer.config.id, value),
        )
        return self._told(answer)

    async def update(self, old: api.Config) -> api.Config | None:
        """UpdateConfig of what was seen. None when refused. Raises Failed."""
        request = api.UpdateConfigRequest(config_id=old.id, config_version=old.meta.version, spec=old.spec)
        request.spec.annotations.labels[LABEL] = value = self._value()
        wanted = Updated(old.id, old.spec.annotations.labels[LABEL], value)
        name = old.spec.annotations.name
        return self._told(await self._write(name, wanted, lambda stub: stub.UpdateConfig(request, timeout=CALL_SECONDS), lambda _: wanted))

    async def remove(self, old: api.Config) -> None:
        """RemoveConfig. Raises Failed."""
        wanted, request = Removed(old.id), api.RemoveConfigRequest(config_id=old.id)
        name = old.spec.annotations.name
        await self._write(name, wanted, lambda stub: stub.RemoveConfig(request, timeout=CALL_SECONDS), lambda _: wanted)

    def _told(self, answer: Any) -> api.Config | None:
        if answer is None:
            return None
        config: api.Config = answer.config
        self._memory.note(config)
        return config

    def _value(self) -> str:
        self._count += 1
        return f"{self.name}-{self._count}"

    # --- a user's day

    async def run(self) -> None:
        """One thing after the other, until cancelled."""
        try:
            while True:
                await asyncio.sleep(self._chance.expovariate(1 / PAUSE_SECONDS))
                with contextlib.suppress(Failed):
                    await self.act()
        finally:
            await self.close()

    async def act(self) -> None:
        """One thing to one config: often to what was seen long ago. Raises Failed."""
        name = self._chance.choice(self._names())
        old = self._seen.pop(name, None) or await self.read(name)
        draw = self._chance.random()
        if old is None:
            new = await self.create(name)
        elif draw < 0.9:
            new = await self.update(old)
        else:
            await self.remove(old)
            return
        if new is not None and draw < 0.6:
            self._seen[name] = new


class Impatient(User):
    """Stays with one manager, and asks on without waiting for its answers.

    So there are calls at a manager that is paused that began after others had been answered elsewhere: what it tells when it wakes up must
    not be what it knew before. Updates rest on what anybody has seen.
    """

    async def run(self) -> None:
        """Until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    await asyncio.sleep(HURRY_SECONDS)
                    if self._channel is None:
                        with contextlib.suppress(Failed):
                            await self._stub()
                    else:
                        group.create_task(self._ask())
        finally:
            await self.close()

    async def _disappointed(self) -> None:
        """The connection mends itself, and other calls run on it."""

    async def _ask(self) -> None:
        with contextlib.suppress(Failed):
            await self.act()

    async def act(self) -> None:
        """A read, or an update of what somebody saw. Raises Failed."""
        name = self._chance.choice(self._names())
        known = self._memory.latest.get(name)
        if known is None or self._chance.random() < 0.5:
            await self.read(name)
        else:
            await self.update(known)


def _refusal(kind: type[Taken | Outrun | Missing], wanted: What) -> What:
    match wanted:
        case Updated(known, old, _) if kind is Outrun:
            return Outrun(known, old)
        case Updated(known, _, _) | Removed(known) if kind is Missing:
            return Missing(known)
    return Taken()
