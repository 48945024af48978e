"""How managers come and go: what the leader checks before the log is asked."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pyswarm.api import v1 as api
from pyswarm.errors import FailedPrecondition, InvalidArgument, NotFound, Unknown
from pyswarm.manager.raftservices import RaftMembershipService, RaftService, reachable_address
from pyswarm.raft.log import Joined, Member
from pyswarm.rpc.caller import MANAGER, Caller

JOINER = Caller("node-2", "cluster", (MANAGER,), "127.0.0.9:50000")


class Table:
    """A members' table that does as it is told."""

    def __init__(self, *members: Member, leading: bool = True) -> None:
        self.is_leader = leading
        self.asked: list[tuple[str, str]] = []
        self.removed: list[int] = []
        self.own = ""
        self._members = members

    def members(self) -> Sequence[Member]:
        """As given."""
        return self._members

    async def join(self, node_id: str, addr: str) -> Joined:
        """Note who asks."""
        self.asked.append((node_id, addr))
        return Joined(7, [*self._members, Member(7, node_id, addr)], [3])

    async def remove(self, raft_id: int) -> None:
        """Note whom."""
        self.removed.append(raft_id)

    def advertise(self, addr: str) -> None:
        """Note where."""
        self.own = addr


def service(table: Table, *, healthy: bool = True) -> tuple[RaftMembershipService, list[str]]:
    """The service on node-1, and the addresses it looked at."""
    looked: list[str] = []

    async def probe(addr: str) -> None:
        looked.append(addr)
        if not healthy:
            raise Unknown("could not connect to prospective new cluster member using its advertised address: nobody there")

    return RaftMembershipService(table, "node-1", probe), looked


@pytest.mark.parametrize(
    ("addr", "seen", "result"),
    [
        ("10.0.0.2:4242", "10.9.9.9:1", "10.0.0.2:4242"),
        ("manager-2:4242", "10.9.9.9:1", "manager-2:4242"),
        ("0.0.0.0:4242", "10.9.9.9:1", "10.9.9.9:4242"),
        (":4242", "10.9.9.9:1", "10.9.9.9:4242"),
        ("[::]:4242", "[fe80::1]:1", "[fe80::1]:4242"),
        ("0.0.0.0:4242", "[::ffff:10.9.9.9]:1", "10.9.9.9:4242"),
    ],
)
def test_address_of_a_joiner(addr: str, seen: str, result: str) -> None:
    """Its own word, but for the part that says nothing: that is where it calls from. [store 74]"""
    assert reachable_address(addr, seen) == result


@pytest.mark.parametrize("addr", ["", "somewhere", "10.0.0.2", "10.0.0.2:x", "10.0.0.2:70000"])
async def test_no_address(addr: str) -> None:
    """What is no host and port is refused before anybody is dialled."""
    members, looked = service(Table(Member(1, "node-1", "127.0.0.1:4242", leader=True)))
    with pytest.raises(InvalidArgument, match=f"^invalid address {addr} in raft join request$"):
        await members.Join(api.JoinRequest(addr=addr), JOINER)
    assert not looked


async def test_join() -> None:
    """The joiner is looked at where it says it is, then the log takes it in; the answer says who else is and was there."""
    table = Table(Member(1, "node-1", "127.0.0.1:4242", leader=True))
    members, looked = service(table)
    answer = await members.Join(api.JoinRequest(addr="0.0.0.0:4343"), JOINER)
    assert looked == ["127.0.0.9:4343"]
    assert table.asked == [("node-2", "127.0.0.9:4343")]
    assert answer.raft_id == 7
    assert [(m.raft_id, m.node_id, m.addr) for m in answer.members] == [(1, "node-1", "127.0.0.1:4242"), (7, "node-2", "127.0.0.9:4343")]
    assert list(answer.removed_members) == [3]


async def test_founder_without_address() -> None:
    """A founder that is in the table as "everywhere" takes the address that the first joiner reaches it at."""
    table = Table(Member(1, "node-1", "0.0.0.0:4242", leader=True))
    members, _ = service(table)
    await members.Join(api.JoinRequest(addr="127.0.0.9:4343"), JOINER)
    assert table.own == "127.0.0.1:4242"
    assert table.asked == [("node-2", "127.0.0.9:4343")]


async def test_join_refused() -> None:
    """Not by a manager that is none yet, not by a follower, and not when nobody healthy is at the address. [store 75]"""
    request = api.JoinRequest(addr="127.0.0.9:4343")
    with pytest.raises(FailedPrecondition, match=r"^raft: node is not yet part of a raft cluster$"):
        await service(Table())[0].Join(request, JOINER)
    follower = Table(Member(1, "node-1", "127.0.0.1:4242"), leading=False)
    with pytest.raises(FailedPrecondition, match=r"^raft: failed to process the request: node lost leader status$"):
        await service(follower)[0].Join(request, JOINER)
    leader = Table(Member(1, "node-1", "127.0.0.1:4242", leader=True))
    with pytest.raises(Unknown, match=r"^could not connect to prospective new cluster member using its advertised address"):
        await service(leader, healthy=False)[0].Join(request, JOINER)
    assert not leader.asked


async def test_leave() -> None:
    """A member goes by its raft id, which has to be given."""
    table = Table(Member(1, "node-1", "127.0.0.1:4242", leader=True))
    members, _ = service(table)
    with pytest.raises(InvalidArgument, match=r"^no node information provided$"):
        await members.Leave(api.LeaveRequest(), JOINER)
    await members.Leave(api.LeaveRequest(node=api.RaftMember(raft_id=9)), JOINER)
    assert table.removed == [9]


async def test_resolve_address() -> None:
    """Any manager knows where a member is, or says that there is none of that id. [store 84]"""
    raft = RaftService(Table(Member(1, "node-1", "127.0.0.1:4242"), leading=False))
    answer = await raft.ResolveAddress(api.ResolveAddressRequest(raft_id=1), JOINER)
    assert answer.addr == "127.0.0.1:4242"
    with pytest.raises(NotFound, match=r"^member ff not found$"):
        await raft.ResolveAddress(api.ResolveAddressRequest(raft_id=255), JOINER)
    with pytest.raises(FailedPrecondition, match="not yet part"):
        await RaftService(Table()).ResolveAddress(api.ResolveAddressRequest(raft_id=1), JOINER)
