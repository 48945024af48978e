"""Requests to the Engine API, carried by the `docker` package, which blocks: so every one of them runs in a thread (`threads`)."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import requests
import urllib3
from docker import APIClient
from docker.errors import DockerException
from docker.transport import UnixHTTPAdapter

from pyswarm.agent.executor import ExecutorError, TemporaryError
from pyswarm.agent.executor.docker.threads import Threads
from pyswarm.agent.executor.docker.unix import UnixAdapter

NEWEST_API = (1, 44)
"""The newest Engine API this client is written for; with an older engine it speaks the engine's."""

CONNECT_TIMEOUT = 10.0
ANSWER_TIMEOUT = 120.0

THREADS = 16
LONG_THREADS = 1024
"""Stops, pulls and streams wait most of the time; the limit only guards against running away."""

Body = Mapping[str, object]
Params = Mapping[str, str | int]


class EngineError(ExecutorError):
    """The engine refused a request. `status` is the HTTP status, the text `Error response from daemon: <its message>`."""

    def __init__(self, status: int, message: str, prefix: str = "") -> None:
        super().__init__(f"{prefix}Error response from daemon: {message}")
        self.status = status
        self.message = message


class EngineUnavailable(TemporaryError):
    """The engine did not answer."""


class Stream:
    """An answer without end: events, logs, pull progress. Close it when done; closing ends a read in progress.

    One thread at a time touches the response, the one that reads if there is one: closing under its feet would give the connection to the
    next request while the reader still takes it apart. So `close` only breaks the connection then, and the reader cleans up.
    """

    def __init__(self, response: requests.Response, threads: Threads, unavailable: Callable[[Exception], EngineUnavailable]) -> None:
        self._response = response
        self._threads = threads
        self._unavailable = unavailable
        self._chunks: Iterator[bytes] = response.raw.stream(65536, decode_content=True)
        self._lock = threading.Lock()
        self._reading = False
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether this side ended it."""
        return self._closed

    async def read(self) -> bytes:
        """The next bytes, empty at the end. Raises EngineUnavailable when the connection breaks."""
        return await self._threads.run(self._read)

    def _read(self) -> bytes:
        with self._lock:
            if self._closed:
                return b""
            self._reading = True
        try:
            return next(self._chunks, b"")
        except (OSError, urllib3.exceptions.HTTPError) as error:
            if self._closed:
                return b""
            raise self._unavailable(error) from error
        finally:
            with self._lock:
                self._reading = False
                if self._closed:
                    self._response.close()

    def close(self) -> None:
        """Break the connection. Fine when already closed."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if not self._reading:
                self._response.close()
                return
            with contextlib.suppress(OSError, ValueError, RuntimeError):  # When the stream ended by itself just now.
                self._response.raw.shutdown()


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `silence`: seconds without a byte after which it counts as unanswered, None for never; `versioned`: below `/v1.x`."""

    method: str
    path: str
    params: Params | None = None
    body: Body | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    silence: float | None = ANSWER_TIMEOUT
    versioned: bool = True


class Transport:
    """Carries requests to the engine at one address. Connects lazily and agrees on the API version at first contact.

    Raises ExecutorError for an address that is none. Must be made on the event loop.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._threads = Threads("docker-engine", THREADS)
        self._waiting = Threads("docker-engine-wait", LONG_THREADS)
        self._version: tuple[int, int] | None = None
        try:
            self._client = APIClient(base_url=address, version="1.24", timeout=int(ANSWER_TIMEOUT), max_pool_size=THREADS)
        except (DockerException, ValueError) as error:
            raise ExecutorError(f"{address} is not the address of a Docker Engine: {error}") from error
        adapter = self._client.get_adapter(self._client.base_url)
        if isinstance(adapter, UnixHTTPAdapter):
            self._client.mount(self._client.base_url, UnixAdapter(adapter.socket_path, max_pool_size=THREADS))
        self._client.trust_env = False  # Proxy settings of the environment are for pulling, and that the engine does.

    def close(self) -> None:
        """Drop idle connections. Requests in progress end by themselves."""
        self._client.close()

    def forget_version(self) -> None:
        """Agree on the API version anew at the next request: the engine went away and may come back as another one."""
        self._version = None

    async def version(self) -> tuple[int, int]:
        """The API version both sides speak."""
        return await self._threads.run(self._negotiated)

    async def json(self, request: Request, *, slow: bool = False) -> Any:
        """The decoded answer, an empty mapping when there is none. `slow` requests do not take the place of quick ones.

        Raises EngineError, EngineUnavailable.
        """

        def call() -> Any:
            with self._send(request, stream=False) as response:
                return self._decoded(response)

        return await (self._waiting if slow else self._threads).run(call)

    async def stream(self, request: Request) -> Stream:
        """The answer as it comes. Raises EngineError, EngineUnavailable."""
        response = await self._waiting.run(lambda: self._send(request, stream=True), requests.Response.close)
        return Stream(response, self._waiting, self._unavailable)

    def _negotiated(self) -> tuple[int, int]:
        """Runs in a thread, as all below. Asks the engine once for its newest version and takes the lower one."""
        version = self._version
        if version is None:
            with self._send(Request("GET", "/version", versioned=False), stream=False) as response:
                answer = self._decoded(response)
            major, _, minor = str(answer.get("ApiVersion", "1.24")).partition(".")
            version = self._version = min(NEWEST_API, (int(major), int(minor)))
        return version

    def _send(self, request: Request, *, stream: bool) -> requests.Response:
        prefix = "/v{}.{}".format(*self._negotiated()) if request.versioned else ""
        headers = dict(request.headers)
        if stream:
            headers["Connection"] = "close"  # Breaking it must never hit a later request on the same connection.
        try:
            response = self._client.request(
                request.method,
                f"{self._client.base_url}{prefix}{request.path}",
                params=request.params,
                json=request.body,
                headers=headers,
                timeout=(CONNECT_TIMEOUT, request.silence),
                stream=stream,
            )
        except requests.RequestException as error:
            raise self._unavailable(error) from error
        if response.status_code < 400:
            return response
        with response:
            raise EngineError(response.status_code, _message(response))

    def _decoded(self, response: requests.Response) -> Any:
        if not response.content:
            return {}
        try:
            return response.json()
        except requests.JSONDecodeError as error:
            raise ExecutorError(f"the answer of the Docker Engine at {self.address} is not JSON") from error

    def _unavailable(self, error: Exception) -> EngineUnavailable:
        if isinstance(error, requests.ReadTimeout | urllib3.exceptions.ReadTimeoutError):
            return EngineUnavailable(f"the Docker daemon at {self.address} did not answer in time")
        return EngineUnavailable(f"Cannot connect to the Docker daemon at {self.address}. Is the docker daemon running?")


def _message(response: requests.Response) -> str:
    """The `message` of an error answer, or its text when it is not the usual JSON."""
    try:
        answer = response.json()
    except requests.JSONDecodeError:
        return response.text.strip() or response.reason
    return str(answer.get("message", response.reason)) if isinstance(answer, dict) else str(answer)
