"""What a daemon counts and times while it works, under the names that the reference's dashboards know; served by `cli/metrics.py`.

One registry for the process. Whoever does the work observes it here; what can be read off the present state instead (tasks by state, who
leads) is not counted along the way but taken when it is asked for (`manager/census.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, PlatformCollector, ProcessCollector, disable_created_metrics

disable_created_metrics()  # type: ignore[no-untyped-call]

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)

_SHORT = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_LONG = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)

RAFT_TRANSACTION = Histogram(
    "swarm_raft_transaction_latency_seconds", "From proposing an entry of the log until it is applied.", registry=REGISTRY, buckets=_SHORT
)
RAFT_SNAPSHOT = Histogram(
    "swarm_raft_snapshot_latency_seconds", "Taking a snapshot: making it and writing it.", registry=REGISTRY, buckets=_LONG
)
STORE_WRITE = Histogram(
    "swarm_store_write_tx_latency_seconds", "A write of the store, with its wait for others.", registry=REGISTRY, buckets=_SHORT
)
SCHEDULING_DELAY = Histogram(
    "swarm_dispatcher_scheduling_delay_seconds", "From a task's creation until it runs.", registry=REGISTRY, buckets=_LONG
)

_CALL = ("grpc_type", "grpc_service", "grpc_method")
_STARTED = Counter("grpc_server_started", "Calls that began.", _CALL, registry=REGISTRY)
_HANDLED = Counter("grpc_server_handled", "Calls that ended, by status.", (*_CALL, "grpc_code"), registry=REGISTRY)
_HANDLING = Histogram("grpc_server_handling_seconds", "How long calls took.", _CALL, registry=REGISTRY, buckets=_SHORT)


@contextlib.contextmanager
def timing(histogram: Histogram) -> Iterator[None]:
    """Observe how long the block takes, unless it fails."""
    begun = time.perf_counter()
    yield
    histogram.observe(time.perf_counter() - begun)


class Calls:
    """The counters of one RPC."""

    def __init__(self, kind: str, service: str, method: str) -> None:
        """`kind`: unary, server_stream, client_stream or bidi_stream."""
        self._labels = (kind, service, method)
        self._started = _STARTED.labels(*self._labels)
        self._seconds = _HANDLING.labels(*self._labels)
        self._handled: dict[str, Counter] = {}

    @contextlib.contextmanager
    def one(self, code: Callable[[], str]) -> Iterator[None]:
        """Around a call; `code` gives its status when it has ended, unless its client left before."""
        begun, left = time.perf_counter(), False
        self._started.inc()
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            left = True
            raise
        finally:
            self._seconds.observe(time.perf_counter() - begun)
            self._ended("Canceled" if left else code()).inc()

    def _ended(self, code: str) -> Counter:
        if code not in self._handled:
            self._handled[code] = _HANDLED.labels(*self._labels, code)
        return self._handled[code]
