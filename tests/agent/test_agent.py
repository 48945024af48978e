"""The whole agent against a fake manager, on virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pyswarm.agent.agent import Agent, NodeChange
from pyswarm.agent.disk import InlineDisk
from pyswarm.agent.executor import ExecutorError
from pyswarm.api import v1 as api
from pyswarm.ca.credentials import SecurityConfig
from pyswarm.errors import Aborted, NotFound, Unavailable, Unknown
from pyswarm.rpc.remotes import RemotePeer
from tests.agent.fakes import FakeBroker, FakeClient, FakeExecutor, FakeManager, S, credentials, message, task
from tests.support.clock import VirtualClock, settle


class Node:
    """An agent and its surroundings."""

    def __init__(self, path: Path, clock: VirtualClock) -> None:
        self.clock = clock
        self.security = SecurityConfig(credentials(), clock)
        self.broker = FakeBroker()
        self.executor = FakeExecutor()
        self.manager = FakeManager()
        self.changes: list[NodeChange] = []
        self.agent = Agent(
            security=self.security,
            broker=self.broker,
            executor=self.executor,
            database=path,
            clock=clock,
            hostname="me",
            on_change=self._on_change,
            client=self.manager.client,
            rng=random.Random(1),
            disk=InlineDisk(),
        )

    async def _on_change(self, change: NodeChange) -> None:
        self.changes.append(change)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Node]:
        """Run the agent for the length of a `with` block."""
        running = asyncio.create_task(self.agent.run())
        await settle()
        try:
            yield self
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def say(self, **fields: object) -> None:
        """The manager sends a session message."""
        said = api.SessionMessage(session_id="s1", **fields)  # type: ignore[arg-type]
        self.manager.sessions[-1].send(said)
        await settle()

    @property
    def open_sessions(self) -> int:
        """Session streams that both sides keep."""
        return sum(not stream.closed for stream in self.manager.sessions)


@pytest.fixture
def node(tmp_path: Path, clock: VirtualClock) -> Node:
    """A node that is not running yet."""
    return Node(tmp_path / "tasks.db", clock)


def peer(node_id: str, addr: str) -> api.WeightedPeer:
    """A manager with the usual weight."""
    return api.WeightedPeer(peer=api.Peer(node_id=node_id, addr=addr), weight=10)


async def test_start(node: Node) -> None:
    """One session, established without a failure; the description tells host name and TLS facts; heartbeats begin. [dispatcher 105]"""
    async with node.running():
        assert node.agent.ready.is_set()
        (request,) = node.manager.requests
        assert request.session_id == ""
        assert request.description.hostname == "me"
        assert request.description.tls_info == api.NodeTLSInfo(
            trust_root=b"root", cert_issuer_subject=b"issuer", cert_issuer_public_key=b"key-of-issuer"
        )
        assert node.manager.beats == ["s1"]
        assert node.manager.closed == []


async def test_wrong_order_of_calls(node: Node) -> None:
    """Leaving before the start and starting twice are errors. [dispatcher 95]"""
    with pytest.raises(Unknown, match=r"^agent: not started$"):
        await node.agent.leave()
    async with node.running():
        with pytest.raises(Unknown, match=r"^agent: already started$"):
            await node.agent.run()


async def test_heartbeats(node: Node) -> None:
    """The next heartbeat comes the answered period later; a failing one rebuilds the session with the old id. [dispatcher 107]"""
    node.manager.period = 1.0
    async with node.running():
        await node.clock.advance(0.9)
        assert len(node.manager.beats) == 1
        await node.clock.advance(0.2)
        assert len(node.manager.beats) == 2
        node.manager.heartbeat_error = NotFound("node not registered")
        await node.clock.advance(1.0)
        node.manager.heartbeat_error = None
        await node.clock.advance(1.0)
        assert [r.session_id for r in node.manager.requests[:2]] == ["", "s1"]
        assert node.manager.closed[0] is False
        assert node.open_sessions == 1


async def test_silent_manager_times_out(node: Node) -> None:
    """A manager that does not answer within five seconds is left, and tried again with growing delays. [dispatcher 103]"""
    node.manager.silent = True
    async with node.running():
        assert not node.agent.ready.is_set()
        await node.clock.advance(4.9)
        assert node.manager.closed == []
        await node.clock.advance(0.2)
        assert node.manager.closed == [False]
        await node.clock.advance(30)
        assert 4 <= len(node.manager.requests) <= 7
        node.manager.silent = False
        await node.clock.advance(14)
        assert node.agent.ready.is_set()
        assert node.open_sessions == 1


async def test_lost_heartbeat_answer(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """A manager that accepts the session but never answers a heartbeat is left after five seconds."""
    async with node.running():

        async def hang(_client: object, _request: api.HeartbeatRequest) -> api.HeartbeatResponse:
            await asyncio.Event().wait()
            raise AssertionError

        monkeypatch.setattr(FakeClient, "heartbeat", hang)
        await node.clock.advance(9.9)
        assert len(node.manager.requests) == 1
        await node.clock.advance(0.3)
        assert len(node.manager.requests) == 2


@pytest.mark.parametrize("error", [Aborted("node must disconnect"), Unavailable("connection lost"), None])
async def test_session_stream_ends(node: Node, error: Exception | None) -> None:
    """However the session stream ends, a new session follows within 100 ms, with the old id. [dispatcher 103]"""
    async with node.running():
        node.manager.sessions[0].send(error)
        await node.clock.advance(0.1)
        assert [r.session_id for r in node.manager.requests] == ["", "s1"]
        assert node.open_sessions == 1
        assert node.manager.closed == [False]


async def test_sessions_that_end_at_once_slow_down(node: Node) -> None:
    """A manager that drops every session right away is not asked in a tight loop."""
    async with node.running():
        for _ in range(200):
            node.manager.sessions[-1].send(Unavailable("go away"))
            await node.clock.advance(0.1)
        assert len(node.manager.requests) < 15


async def test_assignments_reach_the_executor_and_statuses_return(node: Node) -> None:
    """A task runs, its states are reported, and a new session hears them again. [dispatcher 113]"""
    async with node.running():
        node.manager.assigned[0].send(message(task("t")))
        await settle(200)
        assert node.executor.engine.running == {"t"}
        assert node.manager.states("t")[-1] == S.RUNNING
        node.manager.reports.clear()
        node.manager.session_ids = lambda _: "other"
        node.manager.sessions[0].send(Aborted("node must disconnect"))
        await node.clock.advance(0.1)
        assert node.manager.states("t") == [S.RUNNING]


async def test_gap_in_the_assignments(node: Node) -> None:
    """A message that does not follow is dropped, the stream opened anew once, and all goes on. [dispatcher 110, trap 31]"""
    async with node.running():
        first = node.manager.assigned[0]
        first.send(message(task("a")))
        first.send(message(task("b"), complete=False, applies_to="1", results_in="2"))
        first.send(message(task("c"), complete=False, applies_to="7", results_in="8"))
        await settle(200)
        assert node.executor.engine.running == {"a", "b"}
        assert first.closed
        second = node.manager.assigned[1]
        second.send(message(task("a"), task("c")))
        second.send(message(task("d"), complete=False, applies_to="1", results_in="2"))
        await settle(300)
        assert node.executor.engine.running == {"a", "c", "d"}
        assert len(node.manager.assigned) == 2
        assert len(node.manager.sessions) == 1


async def test_assignments_that_begin_incrementally(node: Node) -> None:
    """A manager that never sends a complete message gets a new session, not an endless loop."""
    async with node.running():
        node.manager.assigned[0].send(message(task("a"), complete=False, applies_to="5", results_in="6"))
        await settle()
        assert node.manager.closed == [False]
        assert node.executor.engine.running == set()


async def test_old_manager(node: Node) -> None:
    """Without Assignments the agent uses Tasks. [dispatcher 108]"""
    node.manager.has_assignments = False
    async with node.running():
        node.manager.listed[0].send(api.TasksMessage(tasks=[task("a"), task("b")]))
        await settle(200)
        node.manager.listed[0].send(api.TasksMessage(tasks=[task("b")]))
        await settle(200)
        assert node.executor.engine.running == {"b"}
        assert len(node.manager.sessions) == 1


async def test_session_messages(node: Node) -> None:
    """Node, root and keys go where they belong, once; managers become remotes; the session stays. [dispatcher 96-99, 111]"""
    async with node.running():
        keys = [api.EncryptionKey(subsystem="s", lamport_time=n) for n in (1, 2)]
        three = [peer(f"m{n}", f"10.0.0.{n}:4242") for n in (1, 2, 3)]
        for _ in range(2):
            await node.say(node=api.Node(id="n1"), RootCA=b"root", managers=three, network_bootstrap_keys=keys)
        assert node.changes == [NodeChange(api.Node(id="n1"), b"")]
        assert node.executor.configured == [api.Node(id="n1")]
        assert node.executor.keys == [[1, 2]]
        assert set(node.broker.remotes.weights()) == {RemotePeer(f"m{n}", f"10.0.0.{n}:4242") for n in (1, 2, 3)}
        await node.say(managers=[peer("m2", "10.0.0.2:4242"), peer("m4", "")], RootCA=b"new")
        assert set(node.broker.remotes.weights()) == {RemotePeer("m2", "10.0.0.2:4242")}
        assert node.changes[1:] == [NodeChange(None, b"new")]
        assert len(node.manager.requests) == 1


async def test_slow_node_does_not_delay_heartbeats(node: Node) -> None:
    """While the node is busy with a change, sessions go on and further changes are merged. [dispatcher trap 39]"""
    gate = asyncio.Event()
    seen: list[NodeChange] = []

    async def slow(change: NodeChange) -> None:
        seen.append(change)
        await gate.wait()

    node.agent._on_change = slow
    async with node.running():
        await node.say(node=api.Node(id="n1"))
        await node.say(node=api.Node(id="n1", role=api.NodeRole.MANAGER))
        await node.say(RootCA=b"new")
        await node.clock.advance(20)
        assert len(node.manager.beats) >= 4
        gate.set()
        await settle()
        assert seen == [NodeChange(api.Node(id="n1"), b""), NodeChange(api.Node(id="n1", role=api.NodeRole.MANAGER), b"new")]


async def test_new_description_resumes_without_a_gap(node: Node) -> None:
    """A changed description: a new connection with the old id, then the old one is closed, in peace. [dispatcher 100]"""
    async with node.running():
        node.manager.assigned[0].send(message(task("t")))
        await settle(200)
        node.executor.description = api.NodeDescription(hostname="ignored", resources=api.Resources(nano_cpus=1))
        await node.clock.advance(19.9)
        assert len(node.manager.requests) == 1
        await node.clock.advance(0.2)
        assert len(node.manager.requests) == 2
        second = node.manager.requests[1]
        assert (second.session_id, second.description.hostname, second.description.resources.nano_cpus) == ("s1", "me", 1)
        assert node.manager.closed == [True]
        assert node.open_sessions == 1
        assert node.executor.did("t") == ["prepare", "start", "wait"]
        await node.clock.advance(60)
        assert len(node.manager.requests) == 2


async def test_new_certificate_moves_the_session(node: Node) -> None:
    """A renewed certificate: resumed at once on a new connection; the same one again: nothing. [dispatcher 101]"""
    async with node.running():
        node.security._publish(credentials())
        await node.clock.advance(1)
        assert len(node.manager.requests) == 1
        node.security._publish(credentials(cert=b"renewed", issuer=b"issuer2"))
        await settle()
        assert len(node.manager.requests) == 2
        assert node.manager.requests[1].session_id == "s1"
        assert node.manager.requests[1].description.tls_info.cert_issuer_subject == b"issuer2"
        assert node.manager.closed == [True]


async def test_failing_renewal_keeps_the_old_session(node: Node) -> None:
    """As long as the new connection cannot be made the old one serves: tasks still arrive, and it is tried again."""
    async with node.running():
        node.manager.session_errors = [Unavailable("no"), Unavailable("no")]
        node.security._publish(credentials(cert=b"renewed"))
        await settle()
        assert len(node.manager.requests) == 2
        node.manager.assigned[0].send(message(task("t")))
        await settle(200)
        assert node.executor.engine.running == {"t"}
        await node.clock.advance(2)
        assert len(node.manager.requests) == 4
        assert node.manager.closed == [False, False, True]
        assert node.open_sessions == 1


async def test_session_lost_during_a_failing_renewal(node: Node) -> None:
    """When both the old and the new connection are gone, it goes on as after any loss."""
    async with node.running():
        node.manager.session_errors = [Unavailable("no"), None]
        node.security._publish(credentials(cert=b"renewed"))
        await settle()
        node.manager.sessions[0].send(Unavailable("lost"))
        await node.clock.advance(0.5)
        assert node.open_sessions == 1
        assert node.manager.beats[-1] == "s1"


async def test_executor_that_cannot_describe(node: Node) -> None:
    """Without a description there is no session yet; a later failure to describe disturbs none."""
    node.executor.description_error = ExecutorError("engine away")
    async with node.running():
        await node.clock.advance(1)
        assert node.manager.requests == []
        node.executor.description_error = None
        await node.clock.advance(10)
        assert len(node.manager.requests) == 1
        node.executor.description_error = ExecutorError("engine away")
        await node.clock.advance(60)
        assert len(node.manager.requests) == 1


async def test_leave(node: Node) -> None:
    """Leaving removes the tasks and ignores later assignments. [dispatcher 112]"""
    async with node.running():
        node.manager.assigned[0].send(message(task("t")))
        await settle(200)
        leaving = asyncio.create_task(node.agent.leave())
        await settle(200)
        assert leaving.done()
        assert node.executor.did("t")[-2:] == ["remove", "close"]
        node.manager.assigned[0].send(message(task("u")))
        await settle(200)
        assert node.executor.did("u") == []


async def test_stop_leaves_tasks_running(node: Node) -> None:
    """The end of the agent stops no task and leaves no session open. [dispatcher 95, 197]"""
    async with node.running():
        node.manager.assigned[0].send(message(task("t")))
        await settle(200)
    assert node.executor.engine.running == {"t"}
    assert node.open_sessions == 0


async def test_fault_in_a_loop_costs_a_session_only(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected exception is logged and cured by a new session."""
    async with node.running():

        def broken(_message: object) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(node.agent, "on_assignments", broken)
        node.manager.assigned[0].send(message(task("t")))
        await settle()
        monkeypatch.undo()
        await node.clock.advance(0.2)
        assert node.open_sessions == 1
