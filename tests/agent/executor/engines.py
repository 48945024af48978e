"""An engine that follows a script, for the Docker controller's tests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from pyswarm.agent.executor.docker.http import EngineError, EngineUnavailable
from pyswarm.agent.executor.docker.state import Container, Listed

NAME = "web.1.task"
DOWN = EngineUnavailable("Cannot connect to the Docker daemon at unix:///fake. Is the docker daemon running?")


class ScriptedStream:
    """A stream fed by the test."""

    def __init__(self, *chunks: bytes, ends: bool = True) -> None:
        self._chunks: asyncio.Queue[bytes] = asyncio.Queue()
        for chunk in chunks:
            self._chunks.put_nowait(chunk)
        if ends:
            self._chunks.put_nowait(b"")
        self.closed = False

    def feed(self, chunk: bytes) -> None:
        """More bytes; none end it."""
        self._chunks.put_nowait(chunk)

    async def read(self) -> bytes:
        """The next chunk."""
        return await self._chunks.get()

    def close(self) -> None:
        """Ends it."""
        if not self.closed:
            self.closed = True
            self._chunks.put_nowait(b"")


class ScriptedEngine:
    """One container at most. `failures` holds errors by method, raised one per call; `calls` all calls made; `gates` hold calls up."""

    address = "unix:///fake"

    def __init__(self) -> None:
        self.container: Container | None = None
        self.images = {"busybox"}
        self.version = (1, 41)
        self.networks: dict[str, Mapping[str, str]] = {}
        self.failures: dict[str, list[Exception]] = {}
        self.gates: dict[str, asyncio.Event] = {}
        self.calls: list[tuple[object, ...]] = []
        self.event_streams: list[ScriptedStream] = []
        self.pulls: list[ScriptedStream] = []
        self.log = ScriptedStream()

    def count(self, method: str) -> int:
        """How often a method was called."""
        return sum(call[0] == method for call in self.calls)

    def became(self, action: str = "", **changes: object) -> None:
        """The container changed; with an action its event goes out."""
        if self.container is not None:
            self.container = replace(self.container, **changes)  # type: ignore[arg-type]
        if action:
            self.emit(action)

    def emit(self, action: str, name: str = NAME) -> None:
        """An event on the open stream."""
        event = {"Type": "container", "Action": action, "Actor": {"Attributes": {"name": name}}}
        for stream in self.event_streams[-1:]:
            stream.feed(json.dumps(event).encode() + b"\n")

    async def _call(self, *call: object) -> None:
        self.calls.append(call)
        method = str(call[0])
        if method in self.gates:
            await self.gates[method].wait()
        if self.failures.get(method):
            raise self.failures[method].pop(0)
        await asyncio.sleep(0)

    def forget_version(self) -> None:
        """Nothing to forget."""

    async def api_version(self) -> tuple[int, int]:
        """As set."""
        return self.version

    async def inspect(self, name: str) -> Container | None:
        """The container."""
        await self._call("inspect", name)
        return self.container

    async def list_labelled(self, label: str) -> list[Listed]:
        """None."""
        await self._call("list", label)
        return []

    async def create(self, name: str, body: Mapping[str, object]) -> None:
        """Makes it."""
        await self._call("create", name)
        if self.container is not None:
            raise EngineError(409, f'Conflict. The name "/{name}" is already in use')
        if str(body["Image"]) not in self.images:
            raise EngineError(404, f"No such image: {body['Image']}")
        self.container = Container(id="c" * 64, status="created")

    async def start(self, name: str) -> None:
        """Starts it."""
        await self._call("start", name)
        self.became("start", status="running", pid=7)

    async def stop(self, name: str, seconds: int) -> None:
        """Stops it."""
        await self._call("stop", name, seconds)
        if self.container is not None and self.container.status == "running":
            self.became(status="exited", exit_code=143, pid=0)

    async def kill(self, name: str) -> None:
        """Kills it."""
        await self._call("kill", name)
        self.became(status="exited", exit_code=137, pid=0)

    async def remove(self, name: str) -> None:
        """Removes it."""
        await self._call("remove", name)
        self.container = None

    async def has_image(self, reference: str) -> bool:
        """By name."""
        await self._call("has_image", reference)
        return reference in self.images

    async def pull(self, repository: str, tag: str, auth: str) -> ScriptedStream:
        """The next scripted pull."""
        await self._call("pull", repository, tag, auth)
        return self.pulls.pop(0)

    async def create_network(self, body: Mapping[str, object]) -> None:
        """Makes a network."""
        await self._call("create_network", body["Name"])
        if body["Name"] in self.networks:
            raise EngineError(409, f"network with name {body['Name']} already exists")
        self.networks[str(body["Name"])] = dict(body["Labels"])  # type: ignore[call-overload]

    async def network_labels(self, name: str) -> Mapping[str, str] | None:
        """Its labels."""
        await self._call("network_labels", name)
        return self.networks.get(name)

    async def connect(self, network: str, container: str, endpoint: Mapping[str, object]) -> None:
        """Joins a network."""
        await self._call("connect", network, container)

    async def remove_network(self, name: str) -> None:
        """Removes a network."""
        await self._call("remove_network", name)
        del self.networks[name]

    async def create_volume(self, body: Mapping[str, object]) -> None:
        """Makes a volume."""
        await self._call("create_volume", body["Name"])

    async def events(self, filters: Mapping[str, Sequence[str]]) -> ScriptedStream:
        """A new event stream."""
        await self._call("events")
        self.event_streams.append(ScriptedStream(ends=False))
        return self.event_streams[-1]

    async def logs(self, name: str, params: Mapping[str, str | int]) -> ScriptedStream:
        """The log."""
        await self._call("logs", name, dict(params))
        return self.log
