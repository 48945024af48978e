"""The Engine API as coroutines: one method per request, answers as small values, errors with the texts users know."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from pyswarm.agent.executor.docker.http import ANSWER_TIMEOUT, Body, EngineError, Params, Request, Stream, Transport
from pyswarm.agent.executor.docker.state import Container, Listed, parse_container, parse_listed

PULL_SILENCE = 600.0
"""Seconds without a byte after which a pull counts as stuck."""


class Engine:
    """One engine at one address. Every method raises EngineError when the engine refuses and EngineUnavailable when it does not answer."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.address = transport.address

    def close(self) -> None:
        """Drop idle connections. Requests in progress end by themselves."""
        self._transport.close()

    def forget_version(self) -> None:
        """The engine went away and may come back as another one."""
        self._transport.forget_version()

    async def api_version(self) -> tuple[int, int]:
        """The version both sides speak."""
        return await self._transport.version()

    async def info(self) -> Mapping[str, Any]:
        """GET /info, for `describe`."""
        return dict(await self._transport.json(Request("GET", "/info")))

    async def plugins(self) -> Sequence[Mapping[str, Any]]:
        """GET /plugins, for `describe`."""
        return list(await self._transport.json(Request("GET", "/plugins")))

    async def inspect(self, name: str) -> Container | None:
        """A container as it is now, None when there is none of this name or id."""
        answer = await self._get_if_there(f"/containers/{quote(name)}/json")
        return None if answer is None else parse_container(answer)

    async def list_labelled(self, label: str) -> list[Listed]:
        """All containers, running or not, that carry `label` (`key=value`)."""
        params: Params = {"all": 1, "filters": json.dumps({"label": [label]})}
        return [parse_listed(entry) for entry in await self._transport.json(Request("GET", "/containers/json", params))]

    async def create(self, name: str, body: Body) -> None:
        """Create a container. 409: the name is taken; 404: no such image."""
        await self._post("/containers/create", body, {"name": name})

    async def start(self, name: str) -> None:
        """Start a created container; fine when it runs."""
        await self._post(f"/containers/{quote(name)}/start")

    async def stop(self, name: str, seconds: int) -> None:
        """Stop it with its stop signal, killing it after `seconds`; fine when it is stopped or gone."""
        request = Request("POST", f"/containers/{quote(name)}/stop", {"t": seconds}, silence=ANSWER_TIMEOUT + seconds)
        await self._unless(request, (404,), slow=True)

    async def kill(self, name: str) -> None:
        """SIGKILL; fine when it is stopped (409) or gone."""
        await self._unless(Request("POST", f"/containers/{quote(name)}/kill"), (404, 409))

    async def remove(self, name: str) -> None:
        """Delete it and its anonymous volumes, running or not; fine when it is gone or going (409)."""
        await self._unless(Request("DELETE", f"/containers/{quote(name)}", {"force": 1, "v": 1}), (404, 409))

    async def has_image(self, reference: str) -> bool:
        """Whether the image is on the node."""
        return await self._get_if_there(f"/images/{quote(reference)}/json") is not None

    async def pull(self, repository: str, tag: str, auth: str) -> Stream:
        """Begin a pull; its progress is a stream of JSON objects, an `error` key in one of them means that it failed."""
        params = {"fromImage": repository, "tag": tag}
        request = Request("POST", "/images/create", params, headers={"X-Registry-Auth": auth}, silence=PULL_SILENCE)
        return await self._transport.stream(request)

    async def create_network(self, body: Body) -> None:
        """Create a network. 409: the name is taken."""
        await self._post("/networks/create", body)

    async def network_labels(self, name: str) -> Mapping[str, str] | None:
        """The labels of a network, None when there is none of that name."""
        answer = await self._get_if_there(f"/networks/{quote(name)}")
        return None if answer is None else {str(key): str(value) for key, value in (answer.get("Labels") or {}).items()}

    async def connect(self, network: str, container: str, endpoint: Body) -> None:
        """Attach a container to a further network."""
        await self._post(f"/networks/{quote(network)}/connect", {"Container": container, "EndpointConfig": endpoint})

    async def remove_network(self, name: str) -> None:
        """Delete a network; fine when it is gone, in use or one of the engine's own (403)."""
        await self._unless(Request("DELETE", f"/networks/{quote(name)}"), (403, 404))

    async def create_volume(self, body: Body) -> None:
        """Create a volume; fine when it is there with the same driver."""
        await self._post("/volumes/create", body)

    async def events(self, filters: Mapping[str, Sequence[str]]) -> Stream:
        """All events the engine remembers and then those to come, one JSON object per line."""
        return await self._transport.stream(Request("GET", "/events", {"since": 0, "filters": json.dumps(filters)}, silence=None))

    async def logs(self, name: str, params: Params) -> Stream:
        """A container's output in the engine's framing (see `frames`)."""
        return await self._transport.stream(Request("GET", f"/containers/{quote(name)}/logs", params, silence=None))

    async def _post(self, path: str, body: Body | None = None, params: Params | None = None) -> None:
        await self._transport.json(Request("POST", path, params, body))

    async def _get_if_there(self, path: str) -> Mapping[str, Any] | None:
        try:
            return dict(await self._transport.json(Request("GET", path)))
        except EngineError as error:
            if error.status == 404:
                return None
            raise

    async def _unless(self, request: Request, fine: tuple[int, ...], *, slow: bool = False) -> None:
        """Make the request; answers with a status in `fine` say that there was nothing left to do."""
        try:
            await self._transport.json(request, slow=slow)
        except EngineError as error:
            if error.status not in fine:
                raise
