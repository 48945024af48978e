"""Requests to the Engine API over a real socket, answered by a small server in a thread."""

from __future__ import annotations

import asyncio
import json
import shutil
import socketserver
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from pyswarm.agent.executor import ExecutorError
from pyswarm.agent.executor.docker import DockerExecutor
from pyswarm.agent.executor.docker.engine import Engine
from pyswarm.agent.executor.docker.http import EngineError, EngineUnavailable, Transport

Answer = tuple[int, object]


class Server(socketserver.ThreadingUnixStreamServer):
    """Answers by `answers[method + path without version]`; remembers the request lines."""

    daemon_threads = True

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), Handler)
        self.address = f"unix://{path}"
        self.version = "1.41"
        self.answers: dict[str, Answer] = {}
        self.requests: list[str] = []
        self.more = threading.Event()


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Server

    def address_string(self) -> str:
        """Unix clients have none."""
        return "client"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the parent's name
        """Silence."""

    def handle_any(self) -> None:
        """Read the request, find the answer."""
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.requests.append(f"{self.command} {self.path}")
        if self.path == "/version":
            return self.answer(200, {"ApiVersion": self.server.version})
        path = "/" + self.path.partition("?")[0].split("/", 2)[2]
        if path == "/events":
            return self.stream()
        return self.answer(*self.server.answers.get(f"{self.command} {path}", (404, {"message": "page not found"})))

    do_GET = do_POST = do_DELETE = handle_any  # noqa: N815 - the parent's names

    def answer(self, status: int, content: object) -> None:
        """A whole answer."""
        body = b"" if status in {204, 304} else content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def stream(self) -> None:
        """One chunk, and a second one when told."""
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"4\r\none\n\r\n")
        self.server.more.wait(5)
        try:
            self.wfile.write(b"4\r\ntwo\n\r\n0\r\n\r\n")
        except OSError:
            self.close_connection = True


@pytest.fixture
def server() -> Iterator[Server]:
    """A running server on a short socket path."""
    directory = Path(tempfile.mkdtemp(prefix="psw-", dir="/tmp"))
    with Server(directory / "s") as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.more.set()
        running.shutdown()
        thread.join()
    shutil.rmtree(directory)


@pytest.fixture
async def engine(server: Server) -> AsyncIterator[Engine]:
    """A client of it."""
    engine = Engine(Transport(server.address))
    yield engine
    engine.close()


@pytest.mark.parametrize(("theirs", "agreed"), [("1.41", (1, 41)), ("1.44", (1, 44)), ("1.51", (1, 44))])
async def test_version(server: Server, engine: Engine, theirs: str, agreed: tuple[int, int]) -> None:
    """Both sides speak the lower of the two versions; the engine is asked once, and again when it may have changed."""
    server.version = theirs
    server.answers["GET /info"] = 200, {"Name": "x"}
    assert await engine.info() == {"Name": "x"}
    assert await engine.api_version() == agreed
    await engine.info()
    assert server.requests == ["GET /version", *["GET /v{}.{}/info".format(*agreed)] * 2]
    engine.forget_version()
    await engine.info()
    assert server.requests.count("GET /version") == 2


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ((400, {"message": "bad parameter"}), "Error response from daemon: bad parameter"),
        ((500, b"plain trouble\n"), "Error response from daemon: plain trouble"),
        ((500, {}), "Error response from daemon: Internal Server Error"),
    ],
)
async def test_errors(server: Server, engine: Engine, answer: Answer, text: str) -> None:
    """A refusal is the engine's message in the words users know, with its status."""
    server.answers["POST /containers/x/start"] = answer
    with pytest.raises(EngineError) as caught:
        await engine.start("x")
    assert str(caught.value) == text
    assert caught.value.status == answer[0]


async def test_statuses_that_are_fine(server: Server, engine: Engine) -> None:
    """What is already so counts as done, by status and not by text. [cli 126]"""
    container = "/containers/x"
    server.answers[f"POST {container}/stop"] = 304, {}
    server.answers[f"POST {container}/kill"] = 409, {"message": "Cannot kill container: x is not running"}
    server.answers["DELETE /networks/bridge"] = 403, {"message": "bridge is a pre-defined network and cannot be removed"}
    await engine.stop("x", 3)
    await engine.kill("x")
    await engine.remove("x")
    await engine.remove_network("bridge")
    assert server.requests[1:] == [
        "POST /v1.41/containers/x/stop?t=3",
        "POST /v1.41/containers/x/kill",
        "DELETE /v1.41/containers/x?force=1&v=1",
        "DELETE /v1.41/networks/bridge",
    ]
    assert await engine.inspect("x") is None
    assert await engine.network_labels("x") is None
    assert not await engine.has_image("a/b:c")


async def test_stream(server: Server, engine: Engine) -> None:
    """A stream is read as it comes, to its end."""
    stream = await engine.events({})
    assert await stream.read() == b"one\n"
    server.more.set()
    assert await stream.read() == b"two\n"
    assert await stream.read() == b""
    stream.close()
    stream.close()


async def test_closing_ends_a_read(server: Server, engine: Engine) -> None:
    """Closing a stream ends the read that waits on it at once."""
    stream = await engine.events({})
    await stream.read()
    reading = asyncio.create_task(stream.read())
    await asyncio.sleep(0.05)
    assert not reading.done()
    stream.close()
    assert await asyncio.wait_for(reading, 5) == b""
    assert await stream.read() == b""


async def test_breaking_streams_disturbs_nobody(server: Server, engine: Engine) -> None:
    """Closing streams in the middle of a read never breaks the requests beside them."""
    server.answers["GET /info"] = 200, {"Name": "x"}

    async def break_streams() -> None:
        for _ in range(20):
            stream = await engine.events({})
            await stream.read()
            reading = asyncio.create_task(stream.read())
            await asyncio.sleep(0.001)
            stream.close()
            assert await reading == b""

    async def ask() -> None:
        for _ in range(60):
            assert await engine.info() == {"Name": "x"}

    await asyncio.gather(*(break_streams() for _ in range(3)), *(ask() for _ in range(3)))


async def test_nobody_there(tmp_path: Path) -> None:
    """An engine that is away is passing trouble with the familiar text."""
    engine = Engine(Transport(f"unix://{tmp_path}/none.sock"))
    with pytest.raises(EngineUnavailable) as caught:
        await engine.info()
    assert str(caught.value) == f"Cannot connect to the Docker daemon at unix://{tmp_path}/none.sock. Is the docker daemon running?"
    engine.close()


async def test_not_an_address() -> None:
    """An address that is none is refused with its text."""
    with pytest.raises(ExecutorError, match="nonsense://x is not the address of a Docker Engine"):
        Transport("nonsense://x")


@pytest.mark.parametrize("plugins", [(200, []), (500, {"message": "no plugins today"})])
async def test_description_survives_the_plugin_list(server: Server, plugins: Answer) -> None:
    """A failing plugin list only leaves the managed plugins out; the operator's hostname wins. [cli 102]"""
    server.answers["GET /info"] = 200, {"Name": "x", "NCPU": 1}
    server.answers["GET /plugins"] = plugins
    executor = DockerExecutor(server.address, lambda: "node", hostname="mine")
    await executor.check()
    node = await executor.describe()
    assert (node.hostname, node.resources.nano_cpus) == ("mine", 10**9)
    await executor.close()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [((500, {"message": "starting"}), "starting"), ((200, b"<html>"), "is not JSON"), ((403, {"message": "no"}), "no")],
)
async def test_check_of_something_else(server: Server, answer: Answer, reason: str) -> None:
    """Whatever keeps an engine from answering is in the one line the operator gets."""
    server.answers["GET /info"] = answer
    executor = DockerExecutor(server.address, lambda: "node")
    with pytest.raises(ExecutorError) as caught:
        await executor.check()
    assert reason in str(caught.value)
    assert "--executor process" in str(caught.value)
    await executor.close()
