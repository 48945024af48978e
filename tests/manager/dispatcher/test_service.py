"""Sessions, heartbeats and node states through the service, on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.clock import Timer
from pyswarm.errors import Aborted, Cancelled, InvalidArgument, NotFound, Unavailable, Unknown
from pyswarm.manager.dispatcher import Config
from pyswarm.manager.dispatcher.nodestate import NEVER_BACK, NEW_LEADER, SILENT
from pyswarm.manager.store import Commit, Store
from pyswarm.raft.log import Member
from tests.manager.dispatcher.support import Harness, S, change, cluster, create, leading, node, task
from tests.support.clock import VirtualClock, settle
from tests.support.log import MemoryLog

N = api.NodeStatus
STEADY = Config(epsilon=0.0)


async def test_first_message(d: Harness) -> None:
    """The first message has a session id, the node READY, the managers with weight 10, keys and root. [dispatcher 7, 19, 20]"""
    reader, session = await d.register()
    message = reader.messages[0]
    assert len(session) == 25
    assert message.node == d.node()
    assert message.node.status == N(state=N.READY, addr="10.1.2.3")
    assert message.managers == [api.WeightedPeer(peer=api.Peer(node_id="node-1", addr="127.0.0.1:4242"), weight=10)]
    assert [key.key for key in message.network_bootstrap_keys] == [b"k"]
    assert message.RootCA == b"root"


async def test_registration_does_not_wait_for_a_batch(d: Harness) -> None:
    """Each registration has its own write: no time has to pass until it returns. [dispatcher 21, 24]"""
    before = d.clock.now()
    await d.register()
    assert d.clock.now() == before


async def test_rate_limit(d: Harness) -> None:
    """The fifth registration of a new node in a row is refused, eight seconds later one succeeds. [dispatcher 10, 11]"""
    for _ in range(4):
        await d.register()
    with pytest.raises(Unavailable):
        await d.register()
    await d.clock.advance(8.1)
    await d.register()


async def test_unknown_node_object(d: Harness) -> None:
    """A node without object cannot register, and leaves no entry. [dispatcher 15]"""
    with pytest.raises(Unknown, match=r"^node not found$"):
        await d.register("stranger")
    with pytest.raises(NotFound):
        await d.heartbeat("", "stranger")


async def test_resume_keeps_the_session(d: Harness) -> None:
    """The present id resumes: same id, new description, first stream still open, nothing counted. [dispatcher 16]"""
    first, session = await d.register(description=api.NodeDescription(hostname="a"))
    for number in range(10):
        second, again = await d.register(session_id=session, description=api.NodeDescription(hostname=f"b{number}"))
        assert again == session
    assert d.node().description.hostname == "b9"
    assert not first.ended
    assert second.messages[-1].node.description.hostname == "b9"
    assert first.messages[-1].node.description.hostname == "b9"


async def test_resume_does_not_renew_the_grace(d: Harness) -> None:
    """Only heartbeats keep a session alive. [dispatcher trap 5]"""
    _, session = await d.register()
    await d.clock.advance(13)
    await d.register(session_id=session)
    await d.clock.advance(4)
    assert d.node().status.state == N.DOWN


async def test_wrong_id_registers_anew(d: Harness) -> None:
    """A wrong id gives a new session; the old one is invalid and its streams end. [dispatcher 17, 74]"""
    first, old = await d.register()
    assigned = d.assignments(old)
    await settle()
    _, new = await d.register(session_id="wrong")
    assert new not in (old, "wrong")
    with pytest.raises(InvalidArgument, match="session invalid"):
        await d.heartbeat(old)
    assert isinstance(first.error, InvalidArgument)
    assert isinstance(assigned.error, InvalidArgument)


async def test_description_is_kept_without_a_new_one(d: Harness) -> None:
    """A request without description leaves the stored one. [dispatcher 18]"""
    await d.register(description=api.NodeDescription(hostname="a"))
    await d.register()
    assert d.node().description.hostname == "a"


async def test_heartbeat_answers_a_period(d: Harness) -> None:
    """The right session gets a period within the jitter; a missing one INVALID_ARGUMENT. [dispatcher 25]"""
    _, session = await d.register()
    for _ in range(50):
        assert 4.5 <= await d.heartbeat(session) < 5.5
    with pytest.raises(InvalidArgument):
        await d.heartbeat("")


async def test_heartbeat_never_waits_for_the_store(d: Harness) -> None:
    """A heartbeat is answered without giving way to anything else, let alone to a write."""
    _, session = await d.register()
    call = d.service.Heartbeat(api.HeartbeatRequest(session_id=session), d.caller())
    with pytest.raises(StopIteration):
        call.send(None)


async def test_silence_and_return(store: Store, raft: MemoryLog, clock: VirtualClock) -> None:
    """A silent node is DOWN after three periods; its stream says so and ends; registering makes it READY. [dispatcher 5, 27, 30]"""
    await create(store, cluster(0.1))
    async with leading(store, raft, clock, STEADY) as d:
        await create(store, node())
        reader, session = await d.register()
        assigned = d.assignments(session)
        await clock.advance(0.29)
        assert d.node().status.state == N.READY
        await clock.advance(0.2)
        assert d.node().status == N(state=N.DOWN, message=SILENT, addr="10.1.2.3")
        assert reader.messages[-1].node.status.state == N.DOWN
        assert isinstance(reader.error, NotFound)
        assert isinstance(assigned.error, NotFound)
        with pytest.raises(NotFound, match="node not registered"):
            await d.heartbeat(session)
        await d.register()
        assert d.node().status.state == N.READY


async def test_heartbeats_keep_ready_without_writes(d: Harness) -> None:
    """A node that beats stays READY though its stream is closed, and nothing is written. [dispatcher 28, 31]"""
    reader, session = await d.register()
    await reader.close()
    commits: list[Commit] = []
    d.store.on_commit(commits.append)
    for _ in range(20):
        await d.clock.advance(4.5)
        await d.heartbeat(session)
    assert d.node().status.state == N.READY
    assert commits == []


async def test_period_of_the_cluster_is_followed(store: Store, raft: MemoryLog, clock: VirtualClock) -> None:
    """A changed period holds from the next heartbeat on. [dispatcher 29]"""
    await create(store, cluster(5.0), node("old", N.DOWN))
    async with leading(store, raft, clock, STEADY) as d:
        await create(store, node())
        _, session = await d.register()
        await change(store, cluster(), edit=lambda c: c.spec.dispatcher.heartbeat_period.CopyFrom(times.duration(1.0)))
        await clock.advance(4.0)
        assert d.node().status.state == N.READY
        assert await d.heartbeat(session) == 1.0
        await clock.advance(2.9)
        assert d.node().status.state == N.READY
        await clock.advance(0.3)
        assert d.node().status.state == N.DOWN


async def test_leader_change(store: Store, raft: MemoryLog, clock: VirtualClock) -> None:
    """READY and DISCONNECTED become UNKNOWN, DOWN stays; who registers is READY, who does not is DOWN later. [dispatcher 26, 32-34]"""
    await create(store, cluster(0.1), node("a", N.READY), node("b", N.DISCONNECTED), node("c", N.DOWN))
    async with leading(store, raft, clock, STEADY) as d:
        assert d.node("a").status == N(state=N.UNKNOWN, message=NEW_LEADER)
        assert d.node("b").status == N(state=N.UNKNOWN, message=NEW_LEADER)
        assert d.node("c").status == N(state=N.DOWN)
        with pytest.raises(InvalidArgument, match="session invalid"):
            await d.heartbeat("", "a")
        await clock.advance(0.4)
        _, session = await d.register("a")
        for _ in range(6):
            await clock.advance(0.1)
            await d.heartbeat(session, "a")
        assert d.node("a").status.state == N.READY
        assert d.node("b").status == N(state=N.DOWN, message=NEVER_BACK)


async def test_expected_node_registers_three_times(store: Store, raft: MemoryLog, clock: VirtualClock) -> None:
    """A node of an earlier leader fails at the fourth registration in a row. [dispatcher 9]"""
    await create(store, cluster(), node())
    async with leading(store, raft, clock) as d:
        for _ in range(3):
            await d.register()
        with pytest.raises(Unavailable):
            await d.register()


async def test_deleted_node_expires_quietly(d: Harness) -> None:
    """The expiry of a node whose object is gone raises nothing and forgets the node. [dispatcher 40]"""
    reader, session = await d.register()
    await d.store.update(lambda tx: tx.nodes.delete("n1"))
    await d.clock.advance(20)
    with pytest.raises(NotFound):
        await d.heartbeat(session)
    assert isinstance(reader.error, NotFound)


async def test_registration_during_the_down_write(store: Store, raft: MemoryLog, clock: VirtualClock) -> None:
    """A node that registers at the moment its old grace ends stays READY. [dispatcher 39]"""
    await create(store, cluster(1.0))
    async with leading(store, raft, clock, STEADY) as d:
        await create(store, node())
        await d.register()
        for _ in range(20):
            await clock.advance(3.0)
            reader = d.session()
            await clock.advance(0.15)
            assert reader.error is None
            assert d.node().status.state == N.READY
            await clock.advance(8.1 - 0.15 - 3.0)
            await d.register()


class StallingClock(VirtualClock):
    """A clock whose next sleeper oversleeps: the process was stopped meanwhile."""

    stall = 0.0

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Call back later than asked, once."""

        def late() -> None:
            if self.stall:
                self._now, self.stall = self._now + self.stall, 0.0
            callback()

        return super().call_later(seconds, late)


async def test_a_stalled_manager_does_not_blame_its_nodes() -> None:
    """When the manager itself was held up, heartbeats that arrive right after count."""
    from tests.support.log import running_store

    clock = StallingClock()
    async with running_store(clock) as store:
        await create(store, cluster(5.0))
        async with leading(store, MemoryLog(store), clock, STEADY) as d:
            await create(store, node())
            _, session = await d.register()
            clock.stall = 30.0
            await clock.advance(16.0)
            await d.heartbeat(session)
            await clock.advance(14.0)
            assert d.node().status.state == N.READY


async def test_session_messages_follow_the_cluster(d: Harness) -> None:
    """New keys, a new root, or any cluster update: one message each, the rest unchanged. [dispatcher 41, 43, 44]"""
    reader, _ = await d.register()
    await change(d.store, cluster(), edit=lambda c: c.network_bootstrap_keys.add(key=b"k2"))
    await settle()
    assert [k.key for k in reader.messages[1].network_bootstrap_keys] == [b"k", b"k2"]
    assert reader.messages[1].managers == reader.messages[0].managers
    await change(d.store, cluster(), edit=lambda c: setattr(c.root_ca, "ca_cert", b"new"))
    await settle()
    assert reader.messages[2].RootCA == b"new"
    await change(d.store, cluster(), edit=lambda c: setattr(c.spec.orchestration, "task_history_retention_limit", 9))
    await settle()
    assert len(reader.messages) == 4


async def test_session_messages_follow_the_members(d: Harness, raft: MemoryLog) -> None:
    """A new manager is told to everybody. [dispatcher 42]"""
    reader, _ = await d.register()
    leadership = d.service._leadership
    assert leadership is not None
    leadership._on_members([*raft.members(), Member(2, "node-2", "127.0.0.1:4343")])
    await settle()
    assert [m.peer.node_id for m in reader.messages[-1].managers] == ["node-1", "node-2"]


async def test_managers_are_told_with_usable_addresses(d: Harness) -> None:
    """A manager that listens everywhere is told under the address at which the node reached it, or Docker Engines lose it."""
    leadership = d.service._leadership
    assert leadership is not None
    manager = leadership._node_id
    leadership._on_members([Member(1, manager, "0.0.0.0:4242"), Member(2, "node-2", "0.0.0.0:4343")])
    message = leadership.session_message("session", api.Node(), "127.0.0.1:50000")
    assert [m.peer.addr for m in message.managers] == ["127.0.0.1:4242", "0.0.0.0:4343"]


async def test_session_messages_follow_the_node(d: Harness) -> None:
    """Three updates of the own node give three messages in order; other nodes' give none. [dispatcher 45, 47]"""
    reader, _ = await d.register()
    await create(d.store, node("n2"))
    for value in "abc":
        await change(d.store, node(), edit=lambda n, v=value: setattr(n.spec.annotations, "name", v))
    await settle()
    assert [m.node.spec.annotations.name for m in reader.messages[1:]] == ["a", "b", "c"]


async def test_slow_client_misses_only_old_messages(d: Harness) -> None:
    """A session stream that nobody reads keeps a bounded backlog ending in the newest state."""
    stream = d.service.Session(api.SessionRequest(), d.caller())
    await anext(stream)
    for value in range(200):
        await change(d.store, node(), edit=lambda n, v=value: setattr(n.spec.annotations, "name", str(v)))
    names = [(await anext(stream)).node.spec.annotations.name for _ in range(64)]
    assert names[-1] == "199"
    await stream.aclose()


async def test_leadership_lost(store: Store, raft: MemoryLog, clock: VirtualClock) -> None:
    """One last message, then the codes that send agents elsewhere; the node stays READY in the store. [dispatcher 23, 46]"""
    await create(store, cluster())
    async with leading(store, raft, clock) as d:
        await create(store, node())
        reader, session = await d.register()
        assigned, tasks = d.assignments(session), d.tasks(session)
        await settle()
    assert len(reader.messages) == 2
    assert isinstance(reader.error, Aborted)
    assert str(reader.error) == "node must disconnect"
    for stream in (assigned, tasks):
        assert isinstance(stream.error, Cancelled)
        assert str(stream.error) == "context canceled"
    assert d.node().status.state == N.READY
    with pytest.raises(Aborted, match=r"^dispatcher is stopped$"):
        await d.heartbeat(session)
    with pytest.raises(Aborted, match=r"^dispatcher is stopped$"):
        await d.register()


async def test_running_twice(d: Harness) -> None:
    """A dispatcher runs once at a time. [dispatcher 23]"""
    with pytest.raises(Unknown, match=r"^dispatcher is already running$"):
        await d.service.run()


async def test_lost_while_a_registration_waits(store: Store, raft: MemoryLog, clock: VirtualClock) -> None:
    """A registration whose write hangs returns promptly when leadership ends. [dispatcher 22]"""
    await create(store, cluster())
    async with leading(store, raft, clock) as d:
        await create(store, node())
        hang = asyncio.Event()
        log = store._log
        assert isinstance(log, MemoryLog)
        original = log.propose

        async def hanging(*args: object) -> int:
            await hang.wait()
            return await original(*args)  # type: ignore[arg-type]

        log.propose = hanging  # type: ignore[assignment, method-assign]
        reader = d.session()
        await settle()
        assert not reader.ended
    assert isinstance(reader.error, Aborted)
    log.propose = original  # type: ignore[method-assign]
    hang.set()
    await settle()


async def test_every_term_starts_afresh(store: Store, raft: MemoryLog, clock: VirtualClock) -> None:
    """A session of an earlier term is unknown to the next one."""
    await create(store, cluster(), node("n1", N.READY), task("t", S.RUNNING))
    async with leading(store, raft, clock) as d:
        _, session = await d.register()
    async with leading(store, raft, clock) as d:
        with pytest.raises(InvalidArgument):
            await d.heartbeat(session)
        _, again = await d.register(session_id=session)
        assert again != session
