"""Messages as bytes."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyswarm.api import defaults
from pyswarm.api.private import raft_pb2
from pyswarm.raft import codec
from pyswarm.raft.messages import (
    Ack,
    Append,
    CampaignNow,
    Echo,
    GrantVote,
    HigherTerm,
    Message,
    Nudge,
    Piece,
    PieceReceived,
    PreGrant,
    PreVote,
    Probe,
    RequestVote,
)

numbers = st.integers(0, 2**64 - 1)
small = st.integers(0, 2**40)


def appends() -> st.SearchStrategy[Append]:
    """Appends with consecutive entries."""
    contents = st.lists(st.tuples(st.binary(max_size=50), numbers), max_size=5)
    return st.builds(
        lambda term, commit, prev, prev_term, items: Append(
            term, commit, prev, prev_term, tuple((c, prev + i, t) for i, (c, t) in enumerate(items, 1))
        ),
        numbers, numbers, small, numbers, contents,
    )  # fmt: skip


messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(RequestVote, numbers, numbers, numbers, st.booleans()),
    st.builds(GrantVote, numbers),
    appends(),
    st.builds(Nudge, numbers, numbers),
    st.builds(lambda n, more, d: Piece(1, 2, n, n + more, 3, 4, d, d), small, st.integers(1, 9), st.binary(max_size=40)),
    st.builds(PieceReceived, numbers, numbers, numbers),
    st.builds(Ack, numbers, numbers, st.booleans(), st.booleans()),
    st.builds(CampaignNow, numbers),
    st.builds(HigherTerm, numbers),
    st.builds(PreVote, numbers, numbers, numbers),
    st.builds(PreGrant, numbers),
    st.builds(Probe, numbers, numbers),
    st.builds(Echo, numbers, numbers),
)


@given(messages)
def test_every_message_survives_the_wire(message: Message) -> None:
    """Encoding and decoding give the same value."""
    assert codec.parse(codec.encode(message).SerializeToString()) == message


@pytest.mark.parametrize("size", [65_535, 65_536, 131_071, 131_072, defaults.MAX_TRANSACTION_BYTES - 1])
def test_entries_of_any_size_travel_in_one_message(size: int) -> None:
    """The sizes at which the library's own cutting goes wrong are nothing special here, and stay below gRPC's limit. [store 134]"""
    message = Append(1, 1, 1, 1, ((b"x" * size, 2, 1), (b"y" * size, 3, 1)))
    data = codec.encode(message).SerializeToString()
    assert len(data) < 4 << 20
    assert codec.parse(data) == message


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xff\xff",
        pickle.dumps({"type": "append_entries"}),
        raft_pb2.Envelope(hello=raft_pb2.Hello(cluster_id="c")).SerializeToString(),
        raft_pb2.Envelope(piece=raft_pb2.Piece(number=3, total=3)).SerializeToString(),
    ],
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    """Garbage, pickles, greetings in the wrong place, and impossible pieces raise one kind of error. [store 139]"""
    with pytest.raises(codec.BadMessage):
        codec.parse(data)
