"""Metrics over HTTP."""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading
from collections.abc import AsyncIterator

import pytest
from prometheus_client.core import GaugeMetricFamily

from pyswarm.cli.metrics import MetricsServer
from pyswarm.errors import Unavailable


@pytest.fixture
async def server() -> AsyncIterator[MetricsServer]:
    """One that shows on which thread it was asked."""

    def present() -> list[GaugeMetricFamily]:
        return [GaugeMetricFamily("asked_on_the_loop", "", value=float(threading.current_thread() is threading.main_thread()))]

    made = MetricsServer("127.0.0.1", 0, present)
    yield made
    await asyncio.to_thread(made.close)


async def get(port: int, path: str) -> tuple[int, str]:
    """Status and body."""

    def ask() -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    return await asyncio.to_thread(ask)


async def test_only_metrics(server: MetricsServer) -> None:
    """/metrics has what is counted and what the node says of itself; nothing else is there. [cli 98]"""
    status, body = await get(server.port, "/metrics")
    assert status == 200
    assert "asked_on_the_loop 1.0" in body
    assert "process_resident_memory_bytes" in body
    assert "swarm_raft_transaction_latency_seconds_bucket" in body
    for path in ("/", "/metrics/x", "/favicon.ico"):
        assert (await get(server.port, path))[0] == 404


async def test_an_address_in_use() -> None:
    """An address that another program has is refused by name. [cli 98]"""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(Unavailable, match=f"failed to listen on metrics address 127.0.0.1:{port}: Address already in use"):
            MetricsServer("127.0.0.1", port, list)


async def test_nothing_stays_behind(server: MetricsServer) -> None:
    """Two servers follow each other at one address, and none is asked after its end."""
    second = MetricsServer("127.0.0.1", 0, lambda: [GaugeMetricFamily("second", "", value=1.0)])
    assert "second 1.0" in (await get(server.port, "/metrics"))[1]
    port = second.port
    await asyncio.to_thread(second.close)
    assert "second 1.0" not in (await get(server.port, "/metrics"))[1]
    third = MetricsServer("127.0.0.1", port, list)
    await asyncio.to_thread(third.close)
