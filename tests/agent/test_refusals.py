"""Managers that want nothing of this node, or that this node wants nothing of."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import grpc
import grpc.aio
import pytest
import structlog

from pyswarm.agent import client
from pyswarm.agent.agent import Agent
from pyswarm.agent.client import RemovedNode, UntrustedManager
from pyswarm.agent.disk import InlineDisk
from pyswarm.ca.credentials import SecurityConfig
from pyswarm.errors import PermissionDenied, Unavailable
from tests.agent.fakes import FakeBroker, FakeExecutor, FakeManager, credentials, message, task
from tests.support.clock import VirtualClock, settle

GONE = RemovedNode("Permission denied: node n was removed from swarm")
STRANGER = UntrustedManager("the manager's certificate does not verify: self signed certificate in certificate chain")


def agent(path: Path, clock: VirtualClock, manager: FakeManager, *, joining: bool = False) -> Agent:
    """An agent with a fake manager."""
    return Agent(
        security=SecurityConfig(credentials(), clock),
        broker=FakeBroker(),
        executor=FakeExecutor(),
        database=path / "tasks.db",
        clock=clock,
        client=manager.client,
        rng=random.Random(1),
        disk=InlineDisk(),
        joining=joining,
    )


async def test_removed_node_asks_rarely(tmp_path: Path, clock: VirtualClock) -> None:
    """A removed node says so once for each attempt, of which there are about two a minute, and comes back should it be wanted again."""
    manager = FakeManager()
    manager.session_errors = [GONE] * 1000
    with structlog.testing.capture_logs() as logs:
        running = asyncio.create_task(agent(tmp_path, clock, manager).run())
        await clock.advance(600)
        assert 5 <= len(manager.requests) <= 40
        said = [entry for entry in logs if entry["log_level"] == "error"]
        assert len(said) == len(manager.requests)
        assert all("removed from the cluster" in entry["event"] for entry in said)
        manager.session_errors = []
        await clock.advance(61)
        assert manager.beats
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_removed_in_the_middle_of_reports(tmp_path: Path, clock: VirtualClock) -> None:
    """Reports refused because the node is removed are no fault of the tasks: the session ends, the reports are kept."""
    manager = FakeManager()
    running = asyncio.create_task(agent(tmp_path, clock, manager).run())
    await settle()
    manager.report_errors = [GONE]
    manager.session_errors = [GONE]
    manager.assigned[0].send(message(task("t")))
    await settle(200)
    await clock.advance(0.2)
    assert len(manager.requests) == 2
    await clock.advance(61)
    assert manager.states("t")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_stranger_at_the_join_address(tmp_path: Path, clock: VirtualClock) -> None:
    """Joining ends with the error when the first manager cannot be trusted, also after others that did not answer. [dispatcher 193]"""
    manager = FakeManager()
    manager.session_errors = [Unavailable("connection refused"), STRANGER]
    running = asyncio.create_task(agent(tmp_path, clock, manager, joining=True).run())
    await clock.advance(1)
    with pytest.raises(ExceptionGroup) as failure:
        await running
    assert failure.value.split(UntrustedManager)[1] is None


@pytest.mark.parametrize(("joining", "before"), [(False, []), (True, [None])])
async def test_stranger_later(tmp_path: Path, clock: VirtualClock, joining: bool, before: list[None]) -> None:
    """Without a join address, or after a session, a manager that cannot be trusted is one more that does not serve. [dispatcher 193]"""
    manager = FakeManager()
    manager.session_errors = [*before, STRANGER, STRANGER]
    running = asyncio.create_task(agent(tmp_path, clock, manager, joining=joining).run())
    await clock.advance(0.01)
    if before:
        manager.sessions[0].send(Unavailable("connection lost"))
    await clock.advance(10)
    assert len(manager.beats) >= 1
    assert len(manager.requests) == 3 + len(before)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize(
    ("code", "details", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, "Tls handshake failed: OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: self signed", UntrustedManager),
        (grpc.StatusCode.UNAVAILABLE, "UNAUTHENTICATED: Hostname Verification Check failed.", UntrustedManager),
        (grpc.StatusCode.UNAVAILABLE, "connection refused", Unavailable),
        (grpc.StatusCode.PERMISSION_DENIED, "Permission denied: node n was removed from swarm", RemovedNode),
        (grpc.StatusCode.PERMISSION_DENIED, "Permission denied: no peer info", PermissionDenied),
    ],
)
def test_statuses(code: grpc.StatusCode, details: str, kind: type[Exception]) -> None:
    """What a failed call means is read from its status, where gRPC has no other way to say it."""
    error = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details)
    assert type(client._error(error)) is kind
