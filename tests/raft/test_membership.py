"""The members' table."""

from __future__ import annotations

import pytest

from pyswarm.api import v1 as api
from pyswarm.errors import InvalidArgument
from pyswarm.raft import commands
from pyswarm.raft.membership import Change, Membership, voters


def change(kind: int, raft_id: int, node: str = "", addr: str = "a") -> Change:
    """A change of one member."""
    member = api.RaftMember(raft_id=raft_id, node_id=node or f"n{raft_id}", addr=addr)
    return Change(kind=kind, member=member)  # type: ignore[arg-type]


def table(*ids: int) -> Membership:
    """A table with these members."""
    made = Membership()
    for i in ids:
        made.apply(change(Change.ADD, i))
    return made


def test_removed_ids_never_come_back() -> None:
    """A removed id is remembered, adding it again does nothing, and the snapshot carries both. [store 85]"""
    made = table(1, 2)
    made.apply(change(Change.REMOVE, 2))
    made.apply(change(Change.ADD, 2))
    made.apply(change(Change.REMOVE, 9))
    again = Membership(made.snapshot())
    assert set(again.members) == {1}
    assert again.removed == {2, 9}


def test_the_node_of_a_raft_id_never_changes() -> None:
    """An update with another node id is ignored, one with a new address is taken."""
    made = table(1)
    made.apply(change(Change.UPDATE, 1, node="someone else"))
    assert made.members[1].node_id == "n1"
    made.apply(change(Change.UPDATE, 1, addr="b"))
    assert made.members[1].addr == "b"


@pytest.mark.parametrize(
    ("kind", "raft_id", "text"),
    [
        (Change.ADD, 1, "membership: can't add node to cluster, node id is a duplicate"),
        (Change.ADD, 3, "membership: node was removed during cluster lifetime"),
        (Change.REMOVE, 3, "membership: node was removed during cluster lifetime"),
        (Change.REMOVE, 8, "membership: member not found in cluster list"),
        (Change.UPDATE, 8, "membership: member not found in cluster list"),
        (77, 8, "membership: ConfChange type should be either AddNode, RemoveNode or UpdateNode"),
    ],
)
def test_changes_are_checked_before_they_are_proposed(kind: int, raft_id: int, text: str) -> None:
    """The fixed texts, with the test for removed ids first. [store 85]"""
    made = table(1, 2)
    made.removed.add(3)
    with pytest.raises(InvalidArgument, match=text):
        made.check(change(kind, raft_id))


def test_garbage_is_no_change() -> None:
    """An entry that cannot be read is an error, never a guess. [store 85]"""
    with pytest.raises(commands.BadCommand, match="membership: cannot unmarshal configuration change"):
        commands.parse_membership(b"\x02abcdef")


def test_voters_are_those_after_the_last_change_in_the_log() -> None:
    """Two unapplied changes in the log count, in order, whatever the table says. [store 128]"""
    later = [commands.membership(change(Change.ADD, 3)), b"\x01", commands.membership(change(Change.REMOVE, 1))]
    assert set(voters(table(1, 2), later).members) == {2, 3}


def test_reset_leaves_one_and_burns_the_others() -> None:
    """After a forced new cluster all former ids are removed. [store 79]"""
    made = table(1, 2, 3)
    made.apply(change(Change.RESET, 2))
    assert set(made.members) == {2}
    assert made.removed == {1, 3}
