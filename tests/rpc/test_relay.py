"""Calls that arrive at a follower and run on the leader, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio
import pytest

from pyswarm.api import v1 as api
from pyswarm.api.swarmkit import dispatcher_pb2
from pyswarm.api.swarmkit.ca_pb2_grpc import CAStub
from pyswarm.api.swarmkit.control_pb2_grpc import ControlStub
from pyswarm.api.swarmkit.dispatcher_pb2_grpc import DispatcherStub
from pyswarm.api.swarmkit.logbroker_pb2_grpc import LogBrokerStub
from pyswarm.api.swarmkit.watch_pb2_grpc import WatchStub
from pyswarm.errors import FailedPrecondition, Unavailable
from pyswarm.raft.log import LostLeadership
from pyswarm.rpc import relay
from pyswarm.rpc.caller import MANAGER, WORKER, Caller
from pyswarm.rpc.forward import Line
from tests.rpc.house import House, Node, house, passing
from tests.rpc.pki import until
from tests.support.clock import VirtualClock

FORGED = (
    ("forwarded_cert", "true"),
    ("forwarded_cert_cn", "manager-9"),
    ("forwarded_cert_org", "cluster-1"),
    ("forwarded_cert_ou", MANAGER),
    ("remote_addr", "192.0.2.9:9"),
)


@pytest.fixture
async def pair() -> AsyncIterator[House]:
    """Two managers, of which `lead` leads."""
    async with house("lead", "follow") as built:
        yield built


@pytest.fixture
def lead(pair: House) -> Node:
    """The leader."""
    return pair.nodes["lead"]


@pytest.fixture
def follow(pair: House) -> Node:
    """The follower."""
    return pair.nodes["follow"]


# --- who calls


async def test_leader_sees_the_caller(pair: House, lead: Node, follow: Node) -> None:
    """A worker's call through a follower arrives with name, role and address, and the follower's name. [dispatcher 168] [ca 163]"""
    async with pair.dial(follow) as opened:
        await DispatcherStub(opened).Heartbeat(api.HeartbeatRequest(), timeout=10)
    (caller,) = lead.actor.callers
    assert (caller.node_id, caller.organization, caller.roles, caller.local) == ("worker-1", "cluster-1", (WORKER,), False)
    assert caller.remote_addr.startswith("127.0.0.1:")
    assert caller.forwarder is not None
    assert (caller.forwarder.node_id, caller.forwarder.roles) == ("follow", (MANAGER,))
    assert caller.remote_addr != caller.forwarder.remote_addr
    assert follow.actor.callers == []


async def test_nobody_through_a_follower(pair: House, lead: Node, follow: Node) -> None:
    """A caller without certificate stays one: refused where a role is needed, served where not. [dispatcher 169] [ca 162]"""
    async with pair.dial(follow, "") as opened:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await DispatcherStub(opened).Heartbeat(api.HeartbeatRequest(), timeout=10)
        answer = await CAStub(opened).GetRootCACertificate(api.GetRootCACertificateRequest(), timeout=10)
    assert failure.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert failure.value.details() == "Permission denied: missing information in forwarded request"
    assert answer.certificate == b"lead"
    (caller,) = lead.actor.callers
    assert (caller.node_id, caller.roles) == ("", ())
    assert caller.forwarder is not None
    assert caller.forwarder.node_id == "follow"


async def test_forged_identity_is_replaced(pair: House, lead: Node, follow: Node) -> None:
    """What a worker claims to be forwarding is not passed on by a follower, and refused by the leader. [dispatcher 170] [ca 161]"""
    async with pair.dial(follow) as opened:
        await DispatcherStub(opened).Heartbeat(api.HeartbeatRequest(), timeout=10, metadata=FORGED)
    assert lead.actor.callers[0].node_id == "worker-1"
    async with pair.dial(lead) as opened:
        with pytest.raises(grpc.aio.AioRpcError, match="unauthorized forwarder role"):
            await DispatcherStub(opened).Heartbeat(api.HeartbeatRequest(), timeout=10, metadata=FORGED)


async def test_removed_node_through_a_follower(pair: House, lead: Node, follow: Node) -> None:
    """A node whose certificate is no longer accepted does not get in by way of a follower either. [ca 167]"""
    lead.blacklist.add("worker-1")
    async with pair.dial(follow) as opened:
        with pytest.raises(grpc.aio.AioRpcError, match="node worker-1 was removed from swarm") as failure:
            await DispatcherStub(opened).Heartbeat(api.HeartbeatRequest(), timeout=10)
    assert failure.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_removed_follower_forwards_nothing(pair: House, lead: Node, follow: Node) -> None:
    """The leader takes no calls from a manager that was removed."""
    lead.blacklist.add("follow")
    async with pair.dial_socket(follow) as opened:
        with pytest.raises(grpc.aio.AioRpcError, match="node follow was removed from swarm"):
            await ControlStub(opened).ListNodes(api.ListNodesRequest(), timeout=10)


async def test_control_socket_of_a_follower(pair: House, lead: Node, follow: Node) -> None:
    """A call on the control socket reaches the leader as that follower's own, whatever it claims. [dispatcher 171] [ca 166]"""
    async with pair.dial_socket(follow) as opened:
        answer = await ControlStub(opened).ListNodes(api.ListNodesRequest(), timeout=10, metadata=FORGED)
    assert [node.id for node in answer.nodes] == ["lead"]
    (caller,) = lead.actor.callers
    assert (caller.node_id, caller.roles, caller.forwarder) == ("follow", (MANAGER,), None)


async def test_control_on_the_remote_port_is_local(pair: House, follow: Node) -> None:
    """A follower's remote port answers Control itself, and says NotHere when another manager passed the call on."""
    async with pair.dial(follow, "manager-3", MANAGER) as opened:
        answer = await ControlStub(opened).ListNodes(api.ListNodesRequest(), timeout=10)
        assert [node.id for node in answer.nodes] == ["follow"]
        with pytest.raises(grpc.aio.AioRpcError, match="more than one redirect") as failure:
            await ControlStub(opened).ListNodes(api.ListNodesRequest(), timeout=10, metadata=(("redirect", "10.0.0.1:1"),))
    assert failure.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_watch_is_local(pair: House, follow: Node) -> None:
    """Watch is answered by the manager that was asked, which here does not have it."""
    async with pair.dial_socket(follow) as opened:
        with pytest.raises(grpc.aio.AioRpcError, match=r"Watch\.Watch is not implemented yet"):
            await WatchStub(opened).Watch(api.WatchRequest(), timeout=10).read()


# --- what comes back


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (Unavailable("the other thing is not there"), grpc.StatusCode.UNAVAILABLE, "the other thing is not there"),
        (FailedPrecondition("node is not down"), grpc.StatusCode.FAILED_PRECONDITION, "node is not down"),
        (ZeroDivisionError("secret"), grpc.StatusCode.INTERNAL, "internal error in Dispatcher.Heartbeat; the manager's log says more"),
        (LostLeadership(uncertain=True), grpc.StatusCode.UNKNOWN, "raft: failed to process the request: node lost leader status"),
    ],
)
async def test_errors_come_back_unchanged(
    pair: House, lead: Node, follow: Node, error: Exception, code: grpc.StatusCode, text: str
) -> None:
    """Code and message of the leader's refusal are the caller's."""
    lead.actor.errors.append(error)
    async with pair.dial(follow) as opened:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await DispatcherStub(opened).Heartbeat(api.HeartbeatRequest(), timeout=10)
    assert (failure.value.code(), failure.value.details()) == (code, text)
    assert len(lead.actor.callers) == 1


async def test_missing_method_is_the_leaders_answer(pair: House, follow: Node) -> None:
    """The follower need not know whether the leader has a method."""
    async with pair.dial_socket(follow) as opened:
        with pytest.raises(grpc.aio.AioRpcError, match=r"Control\.GetNode is not implemented yet"):
            await ControlStub(opened).GetNode(api.GetNodeRequest(), timeout=10)


async def test_streamed_answer(pair: House, lead: Node, follow: Node) -> None:
    """Messages come one by one, then the leader's error."""
    lead.actor.errors.append(FailedPrecondition("enough"))
    async with pair.dial(follow) as opened:
        stream = DispatcherStub(opened).Session(api.SessionRequest(), timeout=10)
        assert [(await stream.read()).session_id for _ in range(2)] == ["one", "two"]
        with pytest.raises(grpc.aio.AioRpcError, match="enough") as failure:
            await stream.read()
    assert failure.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_streamed_request(pair: House, lead: Node, follow: Node) -> None:
    """All messages arrive in order; an error in between ends the call with it."""
    lead.actor.reading.set()
    messages = [api.PublishLogsMessage(subscription_id=str(n)) for n in range(20)]
    async with pair.dial(follow) as opened:
        assert await LogBrokerStub(opened).PublishLogs(iter(messages), timeout=10) == api.PublishLogsResponse()
        assert lead.actor.received == [str(n) for n in range(20)]
        lead.actor.errors.append(FailedPrecondition("full"))
        with pytest.raises(grpc.aio.AioRpcError, match="full") as failure:
            await LogBrokerStub(opened).PublishLogs(iter(messages), timeout=10)
    assert failure.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_streamed_both_ways(pair: House, lead: Node, follow: Node) -> None:
    """A conversation: each answer comes before the next question, and ends when the questions do."""
    async with pair.dial_socket(follow) as opened:
        talk = opened.stream_stream("/tests.LogBroker/Talk", api.HeartbeatRequest.SerializeToString, api.HeartbeatRequest.FromString)(
            timeout=10
        )
        for n in range(3):
            await talk.write(api.HeartbeatRequest(session_id=str(n)))
            assert (await talk.read()).session_id == f"lead: {n}"
        await talk.done_writing()
        assert await talk.read() is grpc.aio.EOF
    assert lead.actor.callers[0].node_id == "follow"


async def test_big_answers(pair: House, lead: Node, follow: Node) -> None:
    """The limit on what a server receives is not one on what it relays."""
    lead.actor.name = "x" * 6 * 1024 * 1024
    async with pair.dial_socket(follow) as opened:
        answer = await ControlStub(opened).ListNodes(api.ListNodesRequest(), timeout=20)
    assert len(answer.nodes[0].id) == 6 * 1024 * 1024


# --- pace and end


async def test_slow_reader_slows_the_leader(pair: House, lead: Node, follow: Node) -> None:
    """A caller that does not read stops the leader from producing, through both legs; nothing piles up in between."""
    async with pair.dial(follow) as opened:
        stream = DispatcherStub(opened).Session(api.SessionRequest(session_id="big"))
        await stream.read()
        last = -1
        async with asyncio.timeout(20):
            while lead.actor.produced != last:
                last = lead.actor.produced
                await asyncio.sleep(0.3)
        assert last < 500, "more than 50 MB on the way"  # two legs of TLS and HTTP/2, each with the kernel's buffers: some 30
        before = last
        for _ in range(before + 20):
            await stream.read()
        assert lead.actor.produced > before
        stream.cancel()
        await asyncio.wait_for(lead.actor.ended.wait(), 10)


async def test_slow_leader_slows_the_writer(pair: House, lead: Node, follow: Node) -> None:
    """A leader that does not read stops the caller from writing."""
    sent = 0

    async def endless() -> AsyncIterator[api.PublishLogsMessage]:
        nonlocal sent
        while sent < 600:
            yield api.PublishLogsMessage(subscription_id="x" * 100_000)
            sent += 1

    async with pair.dial(follow) as opened:
        call = LogBrokerStub(opened).PublishLogs(endless())
        await asyncio.wait_for(lead.actor.started.wait(), 10)
        last = -1
        async with asyncio.timeout(20):
            while sent != last:
                last = sent
                await asyncio.sleep(0.3)
        assert last < 500, "more than 50 MB on the way"  # two legs of TLS and HTTP/2, each with the kernel's buffers: some 30
        lead.actor.reading.set()
        await asyncio.wait_for(call, 20)
        assert len(lead.actor.received) == 600


@pytest.mark.parametrize("kind", ["unary", "answers", "requests", "both"])
async def test_caller_cancels(pair: House, lead: Node, follow: Node, kind: str) -> None:
    """When the caller leaves, the leader's method ends too, whatever is streamed."""
    lead.actor.hang = True
    async with pair.dial_socket(follow) as opened:
        call: grpc.aio.Call
        if kind == "unary":
            call = DispatcherStub(opened).Heartbeat(api.HeartbeatRequest())
        elif kind == "answers":
            call = DispatcherStub(opened).Session(api.SessionRequest())
        elif kind == "requests":
            call = LogBrokerStub(opened).PublishLogs()
        else:
            call = opened.stream_stream("/tests.LogBroker/Talk")()
        await until(lambda: bool(lead.actor.callers))
        call.cancel()
        await asyncio.wait_for(lead.actor.ended.wait(), 10)


async def test_deadline_is_passed_on(pair: House, lead: Node, follow: Node) -> None:
    """The caller's deadline ends the call on both legs."""
    lead.actor.hang = True
    async with pair.dial(follow) as opened:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await DispatcherStub(opened).Heartbeat(api.HeartbeatRequest(), timeout=0.5)
        assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await asyncio.wait_for(lead.actor.ended.wait(), 10)


async def test_leader_cancels(pair: House, lead: Node, follow: Node) -> None:
    """A leader's component that stops ends its calls with CANCELLED, and so does the follower."""
    lead.actor.errors.append(asyncio.CancelledError())
    async with pair.dial(follow) as opened:
        with pytest.raises(grpc.aio.AioRpcError, match="the component that served the call is stopping") as failure:
            await DispatcherStub(opened).Heartbeat(api.HeartbeatRequest(), timeout=10)
    assert failure.value.code() is grpc.StatusCode.CANCELLED


class Swallowing:
    """A connection whose calls answer a cancellation with an error, as grpcio's do when the leader ends them at that moment."""

    def __init__(self) -> None:
        self.called = asyncio.Event()

    def unary_unary(self, _path: str) -> Callable[..., Any]:
        """As grpcio's."""

        async def call() -> bytes:
            self.called.set()
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata()) from None
            return b""

        return lambda *_, **__: asyncio.ensure_future(call())


async def test_caller_leaves_as_the_leader_does() -> None:
    """A relay whose caller has gone ends as cancelled, though the leader ended the call at the same moment: nobody tries again for it."""
    channel: Any = Swallowing()
    passage = relay.Passage(Line("lead", "127.0.0.1:1", channel), ())
    method = dispatcher_pb2.DESCRIPTOR.services_by_name["Dispatcher"].methods_by_name["Heartbeat"]
    task = asyncio.create_task(relay.unary_unary(passage, method, b"", None))
    await channel.called.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()


# --- when leaders change


async def test_stream_ends_when_another_leads() -> None:
    """A stream to a leader that hangs ends with an error, half a second after another manager leads; so does a unary call."""
    clock = VirtualClock()
    async with house("lead", "follow", "next", clock=clock) as three:
        lead, follow = three.nodes["lead"], three.nodes["follow"]
        lead.actor.hang = True
        async with three.dial(follow) as opened:
            stub = DispatcherStub(opened)
            stream = stub.Session(api.SessionRequest())
            ask = asyncio.create_task(_first(stream))
            await passing(clock, ask, 0.05)
            unary = asyncio.ensure_future(_result(stub.Heartbeat(api.HeartbeatRequest())))
            await until(lambda: lead.actor.started.is_set())
            rest = asyncio.ensure_future(_rest(stream))
            follow.view.elect("")
            await clock.advance(30)
            assert not rest.done(), "a leader that is only out of sight may still answer"
            follow.view.elect("next")
            went_by = await passing(clock, rest, 0.05)
            for failure in (await rest, await unary):
                assert isinstance(failure, grpc.aio.AioRpcError)
                assert failure.code() is grpc.StatusCode.UNAVAILABLE
                assert "whether the call took effect is not known" in (failure.details() or "")
            assert 0.4 <= went_by <= 0.9
            await asyncio.wait_for(lead.actor.ended.wait(), 10)
            three.nodes["next"].view.elect("next")
            again = asyncio.create_task(_result(stub.Heartbeat(api.HeartbeatRequest())))
            await passing(clock, again, 0.05)
            assert await again == api.HeartbeatResponse()
        assert len(three.nodes["next"].actor.callers) == 1


async def test_leader_that_is_killed(pair: House, lead: Node, follow: Node) -> None:
    """A connection that breaks in the middle of a call: the outcome is said to be unknown, and the call is made only once."""
    lead.actor.hang = True
    async with pair.dial_socket(follow) as opened:
        call = asyncio.create_task(_result(ControlStub(opened).ListNodes(api.ListNodesRequest())))
        await asyncio.wait_for(lead.actor.started.wait(), 10)
        lead.remote.disconnect("follow")
        failure = await asyncio.wait_for(call, 10)
    assert isinstance(failure, grpc.aio.AioRpcError)
    assert failure.code() is grpc.StatusCode.UNAVAILABLE
    assert "whether the call took effect is not known" in (failure.details() or "")
    assert len(lead.actor.callers) == 1


async def test_call_waits_for_the_leaders_port() -> None:
    """While the leader cannot be reached yet, calls wait and are then made."""
    async with house("lead", "follow") as built:
        follow = built.nodes["follow"]
        late = await built.add("late", announce=False)
        follow.view.addresses["late"] = "127.0.0.1:1"
        late.view.elect("late")
        follow.view.elect("late")
        async with built.dial_socket(follow) as opened:
            call = asyncio.create_task(_result(ControlStub(opened).ListNodes(api.ListNodesRequest(), timeout=20)))
            await asyncio.sleep(0.3)
            assert not call.done()
            # The member's address changes to where it really is.
            follow.view.addresses["late"] = late.remote.address
            follow.view.tell()
            answer = await call
        assert isinstance(answer, api.ListNodesResponse)
        assert [node.id for node in answer.nodes] == ["late"]


async def test_refused_call_is_made_once_more() -> None:
    """A manager that knows another leader refuses with proof; the follower waits for news and asks the new one, once. [dispatcher 167]"""
    clock = VirtualClock()
    async with house("old", "follow", "new", clock=clock) as three:
        old, follow, new = (three.nodes[name] for name in ("old", "follow", "new"))
        old.view.elect("new")
        new.view.elect("new")
        async with three.dial(follow) as opened:
            call = asyncio.create_task(_result(DispatcherStub(opened).Heartbeat(api.HeartbeatRequest())))
            await asyncio.sleep(0.2)
            await clock.advance(0.3)
            await asyncio.sleep(0.2)
            assert not call.done()
            follow.view.elect("new")
            await passing(clock, call, 0.05)
            assert await call == api.HeartbeatResponse()
        assert (old.actor.callers, len(new.actor.callers)) == ([], 1)
        assert new.actor.callers[0].node_id == "worker-1"


async def test_redirect_loop_is_refused() -> None:
    """Two managers that each take the other for the leader refuse each other's calls, and the caller hears it. [dispatcher 167] [ca 165]"""
    clock = VirtualClock()
    async with house("a", "b", clock=clock) as two:
        two.nodes["a"].view.elect("b")
        async with two.dial(two.nodes["b"]) as opened:
            call = asyncio.create_task(_result(DispatcherStub(opened).Heartbeat(api.HeartbeatRequest())))
            went_by = await passing(clock, call, 0.05)
            failure = await call
        assert isinstance(failure, grpc.aio.AioRpcError)
        assert failure.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (failure.details() or "").startswith("more than one redirect to leader from: [127.0.0.1:")
        assert 1.9 < went_by < 9
        assert two.nodes["a"].actor.callers == two.nodes["b"].actor.callers == []


async def test_follower_that_becomes_leader_runs_it() -> None:
    """After a refusal the call may run right here, as this manager's own if it came from the control socket."""
    clock = VirtualClock()
    async with house("old", "new", clock=clock) as two:
        old, new = two.nodes["old"], two.nodes["new"]
        old.view.elect("new")
        async with two.dial_socket(new) as opened:
            call = asyncio.create_task(_result(ControlStub(opened).ListNodes(api.ListNodesRequest())))
            await asyncio.sleep(0.2)
            new.view.elect("new")
            await passing(clock, call, 0.05)
            await call
        assert new.actor.callers == [Caller("new", "cluster-1", (MANAGER,), new.remote.address, local=True)]


async def test_leader_not_yet_caught_up_is_waited_for(pair: House, lead: Node, follow: Node) -> None:
    """A leader that cannot act yet lets calls wait, passed on or not, instead of refusing them."""
    lead.view.sure = False
    async with pair.dial_socket(follow) as opened:
        call = asyncio.create_task(_result(ControlStub(opened).ListNodes(api.ListNodesRequest(), timeout=10)))
        await asyncio.sleep(0.3)
        assert not call.done()
        lead.view.sure = True
        lead.view.tell()
        assert isinstance(await call, api.ListNodesResponse)


async def test_entry_that_was_never_logged_is_tried_again() -> None:
    """A Control call whose one entry certainly was not logged is made once more, by the follower or by the former leader itself."""
    clock = VirtualClock()
    async with house("lead", "follow", clock=clock) as two:
        lead = two.nodes["lead"]
        for node in two.nodes.values():
            lead.actor.errors.append(LostLeadership())
            async with two.dial_socket(node) as opened:
                call = asyncio.create_task(_result(ControlStub(opened).ListNodes(api.ListNodesRequest())))
                await passing(clock, call, 0.1)
                assert isinstance(await call, api.ListNodesResponse)
        assert len(lead.actor.callers) == 4


async def test_former_leader_passes_on_what_it_could_not_do() -> None:
    """A call that began here and lost its leader before its entry was logged goes to the new leader."""
    async with house("old", "new") as two:
        old, new = two.nodes["old"], two.nodes["new"]
        old.actor.errors.append(LostLeadership())
        async with two.dial_socket(old) as opened:
            call = asyncio.create_task(_result(ControlStub(opened).ListNodes(api.ListNodesRequest(), timeout=10)))
            await asyncio.wait_for(old.actor.started.wait(), 10)
            two.elect("new")
            answer = await call
        assert isinstance(answer, api.ListNodesResponse)
        assert [node.id for node in answer.nodes] == ["new"]
        assert new.actor.callers[0].node_id == "old"


@pytest.mark.parametrize("uncertain", [True, False])
async def test_uncertain_calls_are_not_repeated(pair: House, lead: Node, follow: Node, uncertain: bool) -> None:
    """An entry that may yet commit, or the later one of several, is the caller's to judge; the text is the log's own."""
    for node in (lead, follow):
        lead.actor.callers.clear()
        lead.actor.errors.append(LostLeadership(uncertain=uncertain))
        async with pair.dial_socket(node) as opened:
            stub = ControlStub(opened)
            call = stub.ListNodes(api.ListNodesRequest(), timeout=10) if uncertain else stub.RemoveNode(api.RemoveNodeRequest(), timeout=10)
            with pytest.raises(grpc.aio.AioRpcError, match="node lost leader status") as failure:
                await call
        assert failure.value.code() is grpc.StatusCode.UNKNOWN
        assert len(lead.actor.callers) == 1


async def test_streams_are_not_repeated() -> None:
    """A stream that was refused ends with the refusal; whoever opened it opens another."""
    async with house("old", "follow", "new") as three:
        three.nodes["old"].view.elect("new")
        async with three.dial(three.nodes["follow"]) as opened:
            with pytest.raises(grpc.aio.AioRpcError, match="more than one redirect") as failure:
                await DispatcherStub(opened).Session(api.SessionRequest(), timeout=10).read()
        assert failure.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def _first(stream: grpc.aio.UnaryStreamCall[api.SessionRequest, api.SessionMessage]) -> None:
    await stream.read()
    await stream.read()


async def _rest(stream: grpc.aio.UnaryStreamCall[api.SessionRequest, api.SessionMessage]) -> object:
    try:
        return await stream.read()
    except grpc.aio.AioRpcError as error:
        return error


async def _result(call: grpc.aio.UnaryUnaryCall[object, object]) -> object:
    """The answer, or the error as a value."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        return error
