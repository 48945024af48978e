"""`--listen-metrics`: Prometheus' text over HTTP at /metrics, and nothing else.

The server has threads of its own, so that a slow client is nobody's concern; what the node itself has to say is asked on the event loop,
which owns it.
"""

from __future__ import annotations

import asyncio
import socket
import socketserver
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import Metric, make_wsgi_app
from prometheus_client.registry import Collector

from pyswarm.errors import Unavailable
from pyswarm.telemetry import REGISTRY

PATH = "/metrics"
ANSWER_SECONDS = 10.0
"""A node that is too busy to say how it is for so long fails the request."""

CLIENT_SECONDS = 10.0


class MetricsServer:
    """Listens from its making on. Raises Unavailable when the address cannot be had."""

    def __init__(self, host: str, port: int, present: Callable[[], Iterable[Metric]]) -> None:
        """`present` is called on the event loop that makes this server, for each request."""
        self._source = _OnLoop(asyncio.get_running_loop(), present)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        server = type("Server", (_Server,), {"address_family": family})
        try:
            self._server: WSGIServer = make_server(host, port, _app(make_wsgi_app(REGISTRY)), server, _Handler)
        except OSError as error:
            raise Unavailable(f"failed to listen on metrics address {host}:{port}: {error.strerror or error}") from error
        REGISTRY.register(self._source)
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens, also when any port would do."""
        return int(self._server.server_port)

    def close(self) -> None:
        """Listen no longer. Takes half a second at most; not for the event loop."""
        REGISTRY.unregister(self._source)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False


class _Handler(WSGIRequestHandler):
    timeout = CLIENT_SECONDS

    def log_message(self, *_args: Any) -> None:
        """Not worth a line."""


def _app(metrics: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    def serve(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] != PATH:
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"only /metrics is served here\n"]
        return metrics(environ, start_response)

    return serve


class _OnLoop(Collector):
    """Asks on the event loop, from another thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, present: Callable[[], Iterable[Metric]]) -> None:
        self._loop = loop
        self._present = present

    def describe(self) -> Iterator[Metric]:
        """What comes is known only by asking, which registering must not do."""
        return iter(())

    def collect(self) -> list[Metric]:
        """See Collector."""

        async def ask() -> list[Metric]:
            return list(self._present())

        return asyncio.run_coroutine_threadsafe(ask(), self._loop).result(ANSWER_SECONDS)
