"""Plain service classes behind gRPC: statuses, streams, clean-up, limits."""

# ruff: noqa: SIM117 - one server, one client, one failure: a block each reads better
from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest
from structlog.testing import capture_logs

from pyswarm.api import v1 as api
from pyswarm.api.swarmkit import dispatcher_pb2
from pyswarm.api.swarmkit.ca_pb2_grpc import CAStub
from pyswarm.api.swarmkit.control_pb2_grpc import ControlStub
from pyswarm.api.swarmkit.dispatcher_pb2_grpc import DispatcherStub
from pyswarm.api.swarmkit.health_pb2_grpc import HealthStub
from pyswarm.api.swarmkit.logbroker_pb2_grpc import LogBrokerStub
from pyswarm.rpc import channel
from pyswarm.rpc.binder import bind
from pyswarm.rpc.caller import MANAGER, Caller
from pyswarm.telemetry import REGISTRY
from tests.rpc.pki import Authority, Toy, manager_security, remote_port, toy_services

DISPATCHER = dispatcher_pb2.DESCRIPTOR.services_by_name["Dispatcher"]


@pytest.fixture
def toy() -> Toy:
    """The implementation."""
    return Toy()


@pytest.fixture
async def manager(toy: Toy, tmp_path: Path) -> AsyncIterator[grpc.aio.Channel]:
    """A manager's channel to a port that serves `toy`."""
    authority = Authority()
    async with remote_port(manager_security(authority), toy_services(toy), tmp_path / "rpc") as server:
        async with channel.connect(server.address, authority.issue("manager-2", MANAGER)) as opened:
            yield opened


async def test_missing_method_is_unimplemented(manager: grpc.aio.Channel) -> None:
    """A method that the class does not have, unary or streamed, says so in a sentence."""
    with pytest.raises(grpc.aio.AioRpcError, match=r"Control\.GetNode is not implemented yet") as failure:
        await ControlStub(manager).GetNode(api.GetNodeRequest(), timeout=10)
    assert failure.value.code() is grpc.StatusCode.UNIMPLEMENTED
    with pytest.raises(grpc.aio.AioRpcError, match=r"Dispatcher\.Assignments is not implemented yet"):
        await DispatcherStub(manager).Assignments(api.AssignmentsRequest(), timeout=10).read()


async def test_authorization_comes_before_unimplemented(tmp_path: Path, toy: Toy) -> None:
    """Who may not call a method does not learn whether it exists."""
    authority = Authority()
    async with remote_port(manager_security(authority), toy_services(toy), tmp_path / "rpc") as server:
        async with channel.connect_anonymous(server.address, authority.root.bundle) as opened:
            with pytest.raises(grpc.aio.AioRpcError) as failure:
                await HealthStub(opened).Check(api.HealthCheckRequest(), timeout=10)
    assert failure.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_bug_is_internal_and_keeps_its_details(manager: grpc.aio.Channel) -> None:
    """An unexpected exception is logged with its traceback; the caller learns only that it happened."""
    with capture_logs() as logs, pytest.raises(grpc.aio.AioRpcError) as failure:
        await ControlStub(manager).ListNodes(api.ListNodesRequest(filters={"names": ["bug"]}), timeout=10)
    assert failure.value.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in (failure.value.details() or "")
    (entry,) = [entry for entry in logs if entry["event"] == "call failed"]
    assert isinstance(entry["exc_info"], ZeroDivisionError)


async def test_stopping_component_is_cancelled(manager: grpc.aio.Channel) -> None:
    """A call whose component is being stopped ends with CANCELLED."""
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await ControlStub(manager).ListNodes(api.ListNodesRequest(filters={"names": ["stop"]}), timeout=10)
    assert failure.value.code() is grpc.StatusCode.CANCELLED


async def test_streamed_answer_and_clean_up(manager: grpc.aio.Channel, toy: Toy) -> None:
    """Messages arrive in order, and the generator is closed when the client leaves."""
    stream = DispatcherStub(manager).Session(api.SessionRequest())
    assert [(await stream.read()).session_id for _ in range(2)] == ["manager-2", "second"]
    stream.cancel()
    await asyncio.wait_for(toy.cleaned_up.wait(), 10)


async def test_streamed_request(manager: grpc.aio.Channel) -> None:
    """A streamed request arrives as an iterator; an error raised while reading it becomes the call's status."""
    stub = LogBrokerStub(manager)
    good = iter([api.PublishLogsMessage(subscription_id="a")])
    assert isinstance(await stub.PublishLogs(good, timeout=10), api.PublishLogsResponse)
    with pytest.raises(grpc.aio.AioRpcError, match="closed by b") as failure:
        await stub.PublishLogs(iter([api.PublishLogsMessage(subscription_id="b", close=True)]), timeout=10)
    assert failure.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_garbage_is_an_invalid_argument(manager: grpc.aio.Channel) -> None:
    """A request that does not parse, alone or in a stream, is the caller's fault and said to be."""
    for call in (
        manager.unary_unary("/docker.swarmkit.v1.Dispatcher/Heartbeat")(b"\xff", timeout=10),
        manager.stream_unary("/docker.swarmkit.v1.LogBroker/PublishLogs")(iter([b"\xff"]), timeout=10),
    ):
        with pytest.raises(grpc.aio.AioRpcError, match=r"the request is not a docker\.swarmkit\.v1\.") as failure:
            await call
        assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_received_messages_are_limited(manager: grpc.aio.Channel) -> None:
    """More than 4 MiB in one message is refused; answers may be larger. [control 160]"""
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await DispatcherStub(manager).Heartbeat(api.HeartbeatRequest(session_id="x" * 5 * 1024 * 1024), timeout=10)
    assert failure.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    answer = await ControlStub(manager).ListNodes(api.ListNodesRequest(filters={"names": ["big"]}), timeout=20)
    assert len(answer.nodes) == 10


async def test_insecure_method_sees_who_calls(manager: grpc.aio.Channel) -> None:
    """A method open to all still learns the identity of a caller who showed one. [ca 183]"""
    answer = await CAStub(manager).GetRootCACertificate(api.GetRootCACertificateRequest(), timeout=10)
    assert answer.certificate == b"manager-2|swarm-manager"


def test_wrong_kind_of_method_is_refused_at_once() -> None:
    """Streamed and unary methods cannot be mixed up silently."""

    class Streams:
        async def Heartbeat(self, request: api.HeartbeatRequest, caller: Caller) -> AsyncIterator[int]:  # noqa: N802
            yield 1

    class DoesNotStream:
        async def Session(self, request: api.SessionRequest, caller: Caller) -> None:  # noqa: N802
            """Not a generator."""

    with pytest.raises(TypeError, match=r"Streams\.Heartbeat must be a coroutine function"):
        bind(DISPATCHER, Streams())
    with pytest.raises(TypeError, match=r"DoesNotStream\.Session must be an async generator"):
        bind(DISPATCHER, DoesNotStream())


def handled(kind: str, service: str, method: str, code: str) -> float:
    """How many calls ended so, in this process."""
    labels = {"grpc_type": kind, "grpc_service": f"docker.swarmkit.v1.{service}", "grpc_method": method, "grpc_code": code}
    return REGISTRY.get_sample_value("grpc_server_handled_total", labels) or 0.0


async def test_calls_are_counted(manager: grpc.aio.Channel, toy: Toy) -> None:
    """Each call is counted under the status it ended with, streams and calls that their client gave up included."""
    unimplemented = ("unary", "Control", "GetNode", "Unimplemented")
    answered = ("unary", "Dispatcher", "Heartbeat", "OK")
    left = ("server_stream", "Dispatcher", "Session", "Canceled")
    before = [handled(*what) for what in (unimplemented, answered, left)]
    await DispatcherStub(manager).Heartbeat(api.HeartbeatRequest(), timeout=10)
    with pytest.raises(grpc.aio.AioRpcError):
        await ControlStub(manager).GetNode(api.GetNodeRequest(), timeout=10)
    call = DispatcherStub(manager).Session(api.SessionRequest(), timeout=10)
    await call.read()
    call.cancel()
    async with asyncio.timeout(10):
        await toy.cleaned_up.wait()
        while handled(*left) == before[2]:  # noqa: ASYNC110 - the count comes a moment after the clean-up
            await asyncio.sleep(0.001)
    assert [handled(*what) for what in (unimplemented, answered, left)] == [count + 1 for count in before]
