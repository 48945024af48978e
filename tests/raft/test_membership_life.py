"""Several managers over time: who leads, who votes, who comes, goes, moves and is cut off; over a real network on the loopback."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import grpc.aio
import pytest
import structlog.testing

from pyswarm.api import v1 as api
from pyswarm.api.private import raft_pb2
from pyswarm.errors import FailedPrecondition
from pyswarm.raft import commands, links
from pyswarm.raft.disk import DirectoryDisk
from pyswarm.raft.journal import Journal
from pyswarm.raft.links import Refused, probe
from pyswarm.raft.log import Dropped, LostLeadership, ProposalError
from pyswarm.raft.membership import Change
from pyswarm.raft.vault import Vault
from tests.raft.cluster import Box, Cluster, cluster, until
from tests.raft.nodes import KEY, Recorder, create, new_node, running


def term_of(box: Box) -> int:
    """The term a member is in."""
    assert box.node._replica is not None
    return box.node._replica.core.term


def followers(made: Cluster, leader: Box) -> list[Box]:
    """The others that run."""
    return [b for b in made.boxes if b is not leader and b.running]


async def all_reachable(leader: Box) -> None:
    """Wait until the leader hears from everybody."""
    await until(lambda: all(m.reachable for m in leader.node.members()))


def snapshots(box: Box) -> list[str]:
    """The names of a member's snapshots."""
    return sorted(path.name for path in (box.directory / "snap-pyswarm").glob("*.snap"))


# --- losses


async def test_a_stopped_follower(tmp_path: Path) -> None:
    """The leader goes on leading in the same term, and what it writes reaches the one that is left. [store 65]"""
    async with cluster(tmp_path, 3) as three:
        leader = await three.leader()
        await all_reachable(leader)
        stopped, stays = followers(three, leader)
        term = term_of(leader)
        await stopped.stop()
        for i in range(5):
            await three.write(f"n{i}")
        await three.equal([leader, stays])
        assert (await three.leader(), term_of(leader)) == (leader, term)


async def test_a_follower_writes_nothing(tmp_path: Path) -> None:
    """While the leader is gone a proposal on a follower is refused for certain, and leaves no trace on anybody. [store 66]"""
    async with cluster(tmp_path, 3) as three:
        await three.write("first")
        await three.equal()
        leader = await three.leader()
        await leader.stop()
        left = followers(three, leader)
        for box in left:
            with pytest.raises(LostLeadership) as refused:
                await box.node.propose(create("never"))
            assert not refused.value.uncertain
        await three.write("second")
        await three.equal(left)
        assert [b.machine.names for b in left] == [["first", "second"]] * 2


async def test_a_leader_cut_off_with_a_write_under_way(tmp_path: Path) -> None:
    """It steps down within two election times, says so before the write fails, and in the end the write is everywhere or nowhere.

    [store 86, 87]
    """
    async with cluster(tmp_path, 3) as three:
        old = await three.leader()
        await all_reachable(old)
        told: list[object] = []
        old.node.on_leadership(told.append)
        three.roads.part(old, *followers(three, old))
        with pytest.raises(LostLeadership) as lost:
            async with asyncio.timeout(2 * 10 * three.boxes[0].settings.tick + 1):
                await old.node.propose(create("under way"))
        told.append("failed")
        assert lost.value.uncertain
        assert told == [True, False, "failed"]
        await until(lambda: any(b.node.is_leader for b in followers(three, old)))
        new = next(b for b in followers(three, old) if b.node.is_leader)
        await new.node.propose(create("meanwhile"))
        three.acknowledged.append("meanwhile")
        with pytest.raises(ProposalError):
            await old.node.read_barrier()
        three.roads.cut.clear()
        await three.write("after")
        await three.equal()
        assert len({"under way" in b.machine.names for b in three.boxes}) == 1
        assert told == [True, False, "failed"]


async def test_a_follower_cut_off_disturbs_nobody(tmp_path: Path) -> None:
    """However long it waits, it counts no term up; back again, it follows the leader that there always was. [store 88, 137]"""
    async with cluster(tmp_path, 3) as three:
        leader = await three.leader()
        await all_reachable(leader)
        away, stays = followers(three, leader)
        term = term_of(leader)
        three.roads.part(away, leader, stays)
        await until(lambda: away.node.leader() is None)
        await three.write("without")
        three.roads.cut.clear()
        await three.equal()
        assert (term_of(leader), leader.node.is_leader) == (term, True)
        await until(lambda: away.node.leader() is not None)
        assert term_of(away) == term


async def test_who_cannot_be_reached_does_not_win(tmp_path: Path) -> None:
    """It can talk to the others and hears nothing from them: no vote is given to it, also when the leader is gone. [store 89]"""
    async with cluster(tmp_path, 4) as four:
        leader = await four.leader()
        await all_reachable(leader)
        deaf, *others = followers(four, leader)
        for box in (leader, *others):
            four.roads.block(box, deaf)
        await until(lambda: deaf.node.leader() is None)
        await four.write("one")
        term = term_of(leader)
        await leader.stop()
        # the two that are left are no majority of four, and a third vote could only come from who hears nothing
        asked = term_of(deaf)
        await until(lambda: all(b.node.leader() is None for b in others))
        assert not deaf.node.is_leader
        assert (term_of(deaf), [term_of(b) for b in others]) == (asked, [term, term])
        four.roads.cut.clear()
        await four.write("two")
        await four.equal()


async def test_a_port_closed_for_a_while(tmp_path: Path) -> None:
    """A second member whose server stops right after it joined is found again at the same port, and gets the writes. [store 80]"""
    async with cluster(tmp_path, 2) as two:
        second = two.boxes[1]
        await second.close_port()
        await until(lambda: not two.boxes[0].node.is_leader)
        await second.listen()
        await two.write("after")
        await two.equal()


@pytest.mark.parametrize("together", [True, False])
async def test_all_stop_and_start(tmp_path: Path, together: bool) -> None:
    """At the same moment, or a tick apart: the same data, and a new write reaches all. [store 77]"""
    async with cluster(tmp_path, 3) as three:
        for i in range(10):
            await three.write(f"n{i}")
        await three.stop()
        if together:
            await asyncio.gather(*(box.start() for box in three.boxes))
        else:
            for box in three.boxes:
                await box.start()
                await until(lambda box=box: box.node._replica.traffic.silent_ticks > 0)  # type: ignore[misc]
        await three.write("new")
        await three.equal()


# --- coming and going


async def test_the_leader_leaves(tmp_path: Path) -> None:
    """Asked to remove itself it hands over and says so; the new leader does it, both that stay list two, and writes work. [store 70]"""
    async with cluster(tmp_path, 3) as three:
        old = await three.leader()
        await all_reachable(old)
        raft_id = old.node.raft_id
        with pytest.raises(LostLeadership) as handed_over:
            await old.node.remove(raft_id)
        assert not handed_over.value.uncertain
        new = await three.leader()
        assert new is not old
        await all_reachable(new)
        await new.node.remove(raft_id)
        await until(lambda: old.removed == 1)
        await three.write("without")
        stay = [b for b in three.boxes if b is not old]
        await three.equal(stay)
        assert [{m.raft_id for m in b.node.members()} for b in stay] == [{b.node.raft_id for b in stay}] * 2


async def test_an_emptied_directory_founds_nothing_in_others(tmp_path: Path) -> None:
    """Started without being told to join, the node is alone by itself; the others' words are not for it, nor its for them. [store 78]"""
    async with cluster(tmp_path, 3) as three:
        await three.write("one")
        leader = await three.leader()
        wiped = followers(three, leader)[0]
        old = wiped.node.raft_id
        term = term_of(leader)
        await wiped.stop()
        shutil.rmtree(wiped.directory)
        with structlog.testing.capture_logs() as logs:
            await wiped.start()
            await until(lambda: any("lives there" in entry.get("reason", "") for entry in logs))
        await three.write("two")
        await three.equal([b for b in three.boxes if b is not wiped])
        assert (leader.node.is_leader, term_of(leader)) == (True, term)
        assert old in {m.raft_id for m in leader.node.members()}
        assert "two" not in wiped.machine.names


async def test_a_word_for_somebody_else(tmp_path: Path) -> None:
    """A stream for another raft id is refused, whoever opens it. [store 90]"""
    async with cluster(tmp_path, 2) as two:
        one, other = two.boxes
        resident = one.node._resident
        assert one.node._connect is not None
        assert await probe(one.node._connect, other.addr, resident.greeting(0), 5) == other.node.raft_id
        call = one.node._connect(other.addr)
        try:
            with pytest.raises((Refused, grpc.aio.AioRpcError), match=f"member {4711:x} is not here"):
                await _talk_to(call, resident.greeting(4711))
        finally:
            await call.close(None)


async def _talk_to(channel: grpc.aio.Channel, hello: raft_pb2.Hello) -> None:
    call = links._talk_on(channel)
    await links._greet(call, hello, None)
    await call.read()
    await links._raise_end(call)


async def test_everybody_knows_whose_raft_id_it_is(tmp_path: Path) -> None:
    """Every member's list has raft id and node id of all; an id that never was is in none. [store 84]"""
    async with cluster(tmp_path, 3) as three:
        await three.equal()
        wanted = {b.node.raft_id: b.name for b in three.boxes}
        await until(lambda: all({m.raft_id: m.node_id for m in b.node.members()} == wanted for b in three.boxes))


async def test_a_joiner_that_dies_while_it_learns(tmp_path: Path) -> None:
    """The only member goes on committing; when the joiner is back it becomes a voter. [store 130]"""
    async with cluster(tmp_path, 1) as one:
        leader = await one.leader()
        box = one.add()
        await box.open()
        joined = await leader.node.join(box.name, box.addr)
        await box.close_port()
        for i in range(20):
            await one.write(f"n{i}")
        assert [m.raft_id for m in leader.node.members()] == [leader.node.raft_id]
        await box.listen()
        await box.begin(joined)
        async with asyncio.timeout(10):
            await box.node.joined()
        await one.write("two")
        await one.equal()
        assert len(leader.node.members()) == 2


async def test_a_leader_that_joined_meanwhile(tmp_path: Path) -> None:
    """A member that was away knows no address of the present leader: it is reached where it calls from. [store 98]"""
    async with cluster(tmp_path, 3) as five:
        await five.equal()
        first = await five.leader()
        away, stays = followers(five, first)
        await away.stop()
        for _ in range(2):
            await five.join(five.add())
        await first.stop()
        if (leader := await five.leader()) is stays:
            await until(lambda: sum(m.reachable for m in leader.node.members()) == 3)
            await leader.node.transfer_leadership()
        newest = await five.leader()
        assert newest in five.boxes[3:]
        # the one it knows cannot be asked: only those call that it has never heard of
        five.roads.part(away, stays)
        await five.write("by the newest")
        await away.start()
        await five.equal()
        assert newest.node.is_leader
        assert newest.node.raft_id in {m.raft_id for m in away.node.members()}


async def test_moving_while_it_leads(tmp_path: Path) -> None:
    """The table follows at once, the others' next words go to the new address, and who restarts later knows it. [store 72, 99]"""
    async with cluster(tmp_path, 3) as three:
        leader = await three.leader()
        await all_reachable(leader)
        before = leader.addr
        await leader.close_port()
        leader.port = 0
        await leader.listen()
        leader.node.advertise(leader.addr)
        raft_id = leader.node.raft_id
        for box in three.boxes:
            await until(lambda box=box: any(m.addr == leader.addr for m in box.node.members()))  # type: ignore[misc]
            assert before not in {m.addr for m in box.node.members()}
        late = followers(three, leader)[0]
        await late.stop()
        await late.start()
        await three.write("after")
        await three.equal()
        assert next(m.addr for m in late.node.members() if m.raft_id == raft_id) == leader.addr


async def test_two_changes_at_a_time(tmp_path: Path) -> None:
    """Two removals asked for together follow one another, and both happen. [store 127]"""
    async with cluster(tmp_path, 5) as five:
        leader = await five.leader()
        await all_reachable(leader)
        gone = [b.node.raft_id for b in followers(five, leader)[:2]]
        await asyncio.gather(*(leader.node.remove(raft_id) for raft_id in gone))
        assert not set(gone) & {m.raft_id for m in leader.node.members()}
        await five.write("three are left")
        assert leader.node._replica is not None
        assert len(leader.node._replica.core.voters) == 2


async def test_a_change_that_leadership_does_not_survive(tmp_path: Path) -> None:
    """Who asked for it hears that its end is not known; in the end all agree on whether it happened. [store 127]"""
    async with cluster(tmp_path, 3) as three:
        old = await three.leader()
        await all_reachable(old)
        victim, other = followers(three, old)
        three.roads.part(old, victim, other)
        with pytest.raises(LostLeadership) as lost:
            await old.node.remove(victim.node.raft_id)
        assert lost.value.uncertain
        three.roads.cut.clear()
        await three.write("after")
        await until(lambda: len({tuple(m.raft_id for m in b.node.members()) for b in (old, other)}) == 1)
        assert (victim.node.raft_id in {m.raft_id for m in old.node.members()}) == (victim.removed == 0)


async def test_no_proposals_while_leadership_is_on_its_way(tmp_path: Path) -> None:
    """They are refused for certain, and taken again when nobody took over. [store 91]"""
    async with cluster(tmp_path, 2) as two:
        leader = await two.leader()
        await all_reachable(leader)
        replica = leader.node._replica
        assert replica is not None
        replica.changes.hand_over()
        with pytest.raises(Dropped, match="raft proposal dropped"):
            await leader.node.propose(create("not now"))
        leader.node._wake.set()
        await two.write("later")
        await two.equal()
        assert "not now" not in leader.machine.names


# --- snapshots


async def test_snapshots_on_all_members(tmp_path: Path) -> None:
    """At the interval each has exactly one; a joiner gets one too, and knows all; later each has exactly one other. [store 100]"""
    async with cluster(tmp_path, 3, api.RaftConfig(snapshot_interval=30)) as three:
        for i in range(10):
            await three.write(f"n{i}")
        await three.equal()
        assert [snapshots(b) for b in three.boxes] == [[], [], []]
        for i in range(30):
            await three.write(f"m{i}")
        await until(lambda: all(len(snapshots(b)) == 1 for b in three.boxes))
        first = {b.name: snapshots(b) for b in three.boxes}
        await three.join(three.add())
        await until(lambda: len(snapshots(three.boxes[-1])) == 1)
        assert len(three.boxes[-1].node.members()) == 4
        for i in range(30):
            await three.write(f"o{i}")
        await until(lambda: all(len(snapshots(b)) == 1 and snapshots(b) != first.get(b.name) for b in three.boxes))
        await three.equal()


async def test_a_large_snapshot(tmp_path: Path) -> None:
    """One of several megabytes arrives whole, in pieces; what is written meanwhile follows. [store 94, 95]"""
    async with cluster(tmp_path, 2, api.RaftConfig(snapshot_interval=40)) as two:
        for i in range(45):
            await two.write(f"{i}-" + "x" * 150_000)
        await until(lambda: all(snapshots(b) for b in two.boxes))
        joining = asyncio.create_task(two.join(two.add()))
        for i in range(5):
            await two.write(f"meanwhile-{i}")
        await joining
        await two.equal()
        assert two.boxes[-1].machine.restored == 1


async def test_away_over_snapshots_and_joins(tmp_path: Path) -> None:
    """Back again it knows five members and all data, from a snapshot; and once more after another restart. [store 101]"""
    async with cluster(tmp_path, 3, api.RaftConfig(snapshot_interval=10, log_entries_for_slow_followers=2)) as five:
        leader = await five.leader()
        away = followers(five, leader)[0]
        await away.stop()
        for i in range(15):
            await five.write(f"n{i}")
        await five.join(five.add())
        await five.write("between")
        await five.join(five.add())
        await until(lambda: bool(snapshots(five.boxes[-1])))
        for _ in range(2):
            await away.start()
            await five.equal()
            assert away.machine.restored == 1
            await until(lambda: len(away.node.members()) == 5)
            await five.write(f"new-{len(five.acknowledged)}")
            await five.equal()
            await away.stop()


async def test_a_long_divergence(tmp_path: Path) -> None:
    """Hundreds of entries that nobody else has are replaced when their writer is back, in far less time than one round trip each.

    [store 135]
    """
    async with cluster(tmp_path, 3) as three:
        old = await three.leader()
        await all_reachable(old)
        three.roads.part(old, *followers(three, old))
        lost = [asyncio.create_task(old.node.propose(create(f"lost-{i}"))) for i in range(1000)]
        await until(lambda: any(b.node.is_leader for b in followers(three, old)))
        await asyncio.gather(*lost, return_exceptions=True)
        assert all(isinstance(task.exception(), LostLeadership) for task in lost)
        for i in range(100):
            await three.write(f"n{i}")
        three.roads.cut.clear()
        await three.equal()
        assert not [name for name in old.machine.names if name.startswith("lost")]


async def test_old_log_files_go_and_everything_is_there(tmp_path: Path) -> None:
    """Behind snapshots whole log files are deleted on every member; after a restart of all, the data is complete. [store 103]"""
    async with cluster(tmp_path, 3, api.RaftConfig(snapshot_interval=20)) as three:
        for i in range(64):
            box = await three.leader()
            await box.node.propose(create(f"n{i}", size=100_000))
            three.acknowledged.append(f"n{i}")
        await three.equal()
        for box in three.boxes:
            await until(lambda box=box: all("-0000000000000001.wal" not in p.name for p in (box.directory / "wal-pyswarm").iterdir()))  # type: ignore[misc]
        await three.stop()
        for box in three.boxes:
            await box.start()
        await three.write("writable")
        await three.equal()


async def test_who_speaks_another_protocol_does_not_join(tmp_path: Path) -> None:
    """A manager that serves no log of this kind, as SwarmKit's, would be a voter that never answers: refused. [store 141]"""
    async with cluster(tmp_path, 1) as one:
        leader = await one.leader()
        strange = grpc.aio.server()
        port = strange.add_insecure_port("127.0.0.1:0")
        await strange.start()
        try:
            with pytest.raises(FailedPrecondition, match="could not connect to prospective new cluster member"):
                await leader.node.join("strange", f"127.0.0.1:{port}")
        finally:
            await strange.stop(None)
        assert len(leader.node.members()) == 1
        await one.write("fine")


async def test_a_member_that_came_and_went_in_the_log(tmp_path: Path) -> None:
    """Restarted with both changes unapplied, nobody calls it or waits for its vote, not even between the two. [store 128, 129]"""
    called: list[str] = []

    def connect(addr: str) -> grpc.aio.Channel:
        called.append(addr)
        return grpc.aio.insecure_channel(addr)

    node = new_node(tmp_path, Recorder(), connect=connect)
    async with running(node):
        await node.propose(create("one"))
    log = DirectoryDisk(tmp_path / "wal-pyswarm")
    journal = Journal.open_existing(log, Vault("cluster-1", "node-1", (KEY,)))
    assert journal is not None
    member = api.RaftMember(raft_id=7, node_id="node-7", addr="127.0.0.1:1")
    for kind in (Change.ADD, Change.REMOVE):
        journal.add(commands.membership(Change(kind=kind, member=member)), journal.last_index + 1, journal.getCurrentTerm())
    journal.close()
    again = new_node(tmp_path, Recorder(), connect=connect)
    async with running(again):
        await again.propose(create("two"))
        assert [m.raft_id for m in again.members()] == [again.raft_id]
        assert again._replica is not None
        assert 7 in again._replica.membership.removed
    assert not called


async def test_who_may_join_is_asked_on_the_leader_only(tmp_path: Path) -> None:
    """A follower refuses: whoever calls must be passed on. [store 75]"""
    async with cluster(tmp_path, 2) as two:
        follower = followers(two, await two.leader())[0]
        joiner = two.add()
        await joiner.open()
        with pytest.raises(LostLeadership):
            await follower.node.join(joiner.name, joiner.addr)
        stopped = two.add()
        await stopped.open()
        with pytest.raises(FailedPrecondition, match="not yet part of a raft cluster"):
            await stopped.node.join(joiner.name, joiner.addr)
        assert len(follower.node.members()) == 2
