"""The message filter, defect by defect."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pyswarm.raft.filter import DROP, Verdict, View, receive
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


class Log:
    """Entries first … as a list of terms."""

    def __init__(self, first: int, *terms: int) -> None:
        self.first = first
        self._terms = terms

    @property
    def last_index(self) -> int:
        """See LogView."""
        return self.first + len(self._terms) - 1

    def term_at(self, index: int) -> int | None:
        """See LogView."""
        return self._terms[index - self.first] if self.first <= index <= self.last_index else None


FOLLOWER = View(
    own_id=1, term=2, committed=4, leading=False, leader_id=2, leader_alive=True, campaigning=False, is_member=True, voters={2, 3, 4, 5},
    removed={9}, matched={}, votes=frozenset(), reached={2, 3, 4, 5}, log=Log(1, *[1] * 5, *[2] * 7),
)  # fmt: skip
"""Entries 1-5 of term 1, 6-12 of term 2; committed up to 4; member 2 leads."""
LEADER = replace(FOLLOWER, leading=True, leader_id=1, matched={2: 8, 3: 12, 4: 0, 5: 0})
CANDIDATE = replace(FOLLOWER, campaigning=True, leader_id=0, leader_alive=False)


def entries(first: int, *terms: int) -> tuple[tuple[bytes, int, int], ...]:
    """Entries from `first` on with the given terms."""
    return tuple((b"d", first + i, t) for i, t in enumerate(terms))


def test_votes_are_collected_not_counted() -> None:
    """A second delivery of a vote, and a vote of a stranger, of a removed member, or of another term, never counts (S1). [store 118]"""
    assert receive(CANDIDATE, 2, GrantVote(2)).deliver == GrantVote(2)
    assert receive(replace(CANDIDATE, votes={2}), 2, GrantVote(2)) == DROP
    assert receive(CANDIDATE, 77, GrantVote(2)) == DROP
    assert receive(CANDIDATE, 9, GrantVote(2)).deliver is None
    assert receive(CANDIDATE, 2, GrantVote(1)) == DROP
    assert receive(FOLLOWER, 2, GrantVote(2)) == DROP


def test_repeated_entries_truncate_nothing() -> None:
    """An old append whose entries are all here cuts nothing and acknowledges only what it covers (S2). [store 119]"""
    verdict = receive(FOLLOWER, 2, Append(2, 7, 5, 1, entries(6, 2, 2, 2)))
    assert verdict == Verdict(Nudge(2, 7), Ack(2, 9, success=True))


def test_a_repeated_append_that_covers_the_whole_log_is_a_heartbeat() -> None:
    """When the verified entries reach the log's end the library may answer itself, without entries to write again (S2). [store 119]"""
    verdict = receive(FOLLOWER, 2, Append(2, 12, 5, 1, entries(6, *[2] * 7)))
    assert verdict == Verdict(Append(2, 12, 12, 2))


def test_only_the_conflict_is_cut() -> None:
    """With a conflict at 9 the library gets entries from 9 on behind 8, nothing earlier (S2). [store 119]"""
    message = Append(3, 4, 5, 1, entries(6, 2, 2, 2, 3, 3))
    assert receive(FOLLOWER, 2, message).deliver == Append(3, 4, 8, 2, entries(9, 3, 3))


def test_growth_is_delivered_behind_the_end() -> None:
    """New entries go behind the last one that is here already."""
    message = Append(2, 4, 10, 2, entries(11, 2, 2, 2, 2))
    assert receive(FOLLOWER, 2, message).deliver == Append(2, 4, 12, 2, entries(13, 2, 2))


@pytest.mark.parametrize("index", [3, 4])
def test_a_conflict_below_commit_is_fatal(index: int) -> None:
    """A leader that contradicts a committed entry stops this process. [store 119]"""
    verdict = receive(FOLLOWER, 2, Append(3, 4, index - 1, 1, entries(index, 3)))
    assert "committed here" in verdict.fatal
    assert verdict.deliver is None


@pytest.mark.parametrize(("prev", "term"), [(30, 2), (12, 1), (8, 3)])
def test_a_mismatch_goes_back_to_the_commit_index_in_one_step(prev: int, term: int) -> None:
    """Missing or other predecessor: nothing changes, and the leader is told to continue behind what is committed. [store 135]"""
    verdict = receive(FOLLOWER, 2, Append(3, 20, prev, term, entries(prev + 1, 3)))
    assert verdict == Verdict(Nudge(3, 0), Ack(3, 5, reset=True))


def test_entries_inside_the_own_snapshot_are_skipped() -> None:
    """An append that begins before the first visible entry continues behind it, or is a mismatch when it ends before."""
    view = replace(FOLLOWER, committed=22, log=Log(20, 2, 2, 2, 2))
    assert receive(view, 2, Append(2, 22, 15, 1, entries(16, *[2] * 9))).deliver == Append(2, 22, 23, 2, entries(24, 2))
    assert receive(view, 2, Append(2, 22, 15, 1, entries(16, 2))) == Verdict(Nudge(2, 0), Ack(2, 23, reset=True))


def test_a_sign_of_life_never_moves_the_commit_index() -> None:
    """Without entries to verify, the leader's commit index says nothing about the own log (S3). [store 120]"""
    assert receive(FOLLOWER, 2, Nudge(2, 500)).deliver == Nudge(2, 4)
    assert receive(FOLLOWER, 2, Nudge(2, 3)).deliver == Nudge(2, 3)


@pytest.mark.parametrize(
    ("sender", "answer"),
    [
        (2, Ack(1, 10, success=True)),
        (2, Ack(3, 10, success=True)),
        (2, Ack(2, 14, success=True)),
        (77, Ack(2, 10, success=True)),
    ],
)
def test_acknowledgements_that_prove_nothing_are_ignored(sender: int, answer: Ack) -> None:
    """Of another term, beyond the log, or from somebody who is sent nothing (S4). [store 121]"""
    assert receive(LEADER, sender, answer) == DROP


def test_good_acknowledgements_count_only_on_a_leader() -> None:
    """The same answer means nothing to a follower."""
    good = Ack(2, 10, success=True)
    assert receive(LEADER, 2, good).deliver == good
    assert receive(FOLLOWER, 2, good) == DROP


def test_a_late_reset_never_goes_below_what_was_acknowledged() -> None:
    """A reset at or below the match index continues behind the match. [store 121]"""
    assert receive(LEADER, 3, Ack(2, 5, reset=True)).deliver == Ack(2, 13, reset=True)
    assert receive(LEADER, 2, Ack(2, 11, reset=True)).deliver == Ack(2, 11, reset=True)


@pytest.mark.parametrize("message", [Append(1, 0, 1, 1), Nudge(1, 9), Piece(1, 1, 0, 1, 50, 1, b"", b"")])
def test_a_stale_leader_is_told_the_higher_term(message: Message) -> None:
    """Messages of an older term change nothing here and get the present term back. [store 137]"""
    assert receive(FOLLOWER, 3, message) == Verdict(reply=HigherTerm(2))


def test_a_higher_term_makes_step_down_without_a_vote() -> None:
    """It becomes a vote request that can never be granted; from strangers, or when not higher, nothing."""
    assert receive(LEADER, 3, HigherTerm(7)).deliver == RequestVote(7, 0, -1)
    assert receive(LEADER, 3, HigherTerm(2)) == DROP
    assert receive(LEADER, 77, HigherTerm(7)) == DROP


def test_a_live_leader_is_not_voted_away() -> None:
    """While a leader lives, votes are refused unless the leader itself asked for the election. [store 88]"""
    request = RequestVote(9, 99, 9)
    assert receive(FOLLOWER, 3, request) == DROP
    assert receive(LEADER, 3, request) == DROP
    assert receive(FOLLOWER, 3, replace(request, transfer=True)).deliver is not None
    assert receive(replace(FOLLOWER, leader_alive=False), 3, request).deliver == request


def test_strangers_do_not_campaign() -> None:
    """A vote request of an unknown id is ignored. [store 89]"""
    assert receive(CANDIDATE, 77, RequestVote(9, 99, 9)) == DROP


@pytest.mark.parametrize("request_", [RequestVote(9, 99, 9), RequestVote(9, 99, 9, transfer=True), PreVote(9, 99, 9)])
def test_who_cannot_be_reached_gets_no_vote(request_: Message) -> None:
    """Whose own service does not answer this member is not voted for, not even on the leader's word. [store 89]"""
    assert receive(CANDIDATE, 3, request_) != DROP
    assert receive(replace(CANDIDATE, reached={2, 4, 5}), 3, request_) == DROP


@pytest.mark.parametrize("message", [RequestVote(9, 99, 9), Append(9, 0, 1, 1), Ack(2, 3), GrantVote(2), HigherTerm(9)])
def test_a_removed_member_is_not_listened_to(message: Message) -> None:
    """Whatever it sends changes nothing. [store 90]"""
    assert receive(LEADER, 9, message) == DROP


def test_handing_over_is_for_the_leader_and_members() -> None:
    """Only the present leader may ask for an election, and only a member stands."""
    assert receive(FOLLOWER, 2, CampaignNow(2)).deliver == CampaignNow(2)
    assert receive(FOLLOWER, 3, CampaignNow(2)) == DROP
    assert receive(FOLLOWER, 2, CampaignNow(1)) == DROP
    assert receive(replace(FOLLOWER, is_member=False), 2, CampaignNow(2)) == DROP


@pytest.mark.parametrize("kind", [b"\x00pickle", b"\x03pickle", b""])
def test_pickles_never_enter_the_log(kind: bytes) -> None:
    """Entries of the library's own pickled types are refused whole. [store 139]"""
    verdict = receive(FOLLOWER, 2, Append(2, 4, 12, 2, ((kind, 13, 2),)))
    assert verdict.deliver is None
    assert verdict.alarm


@pytest.mark.parametrize("bad", [entries(14, 2), entries(13, 3), ((b"d", 13, 2), (b"d", 15, 2))])
def test_impossible_entries_are_refused(bad: tuple[tuple[bytes, int, int], ...]) -> None:
    """Gaps, and entries newer than their leader, are no raft."""
    assert receive(FOLLOWER, 2, Append(2, 4, 12, 2, bad)).alarm


def test_a_second_leader_in_the_own_term_is_an_alarm() -> None:
    """A leader never gives way to one of its own term."""
    verdict = receive(LEADER, 3, Append(2, 4, 12, 2))
    assert verdict.alarm
    assert verdict.deliver is None


def test_progress_of_a_transfer_counts_in_its_term_only() -> None:
    """Progress messages keep a busy follower counted, in the term they belong to. [store 130]"""
    assert receive(LEADER, 2, PieceReceived(2, 5, 1)).deliver == PieceReceived(2, 5, 1)
    assert receive(LEADER, 2, PieceReceived(1, 5, 1)) == DROP
    assert receive(LEADER, 77, PieceReceived(2, 5, 1)) == DROP


def test_a_question_before_an_election_is_answered_as_the_election_would_be() -> None:
    """Yes only to a voter whose log is not behind, and only without a live leader; nothing is delivered, whatever the answer."""
    alone = replace(FOLLOWER, leader_alive=False)
    assert receive(alone, 3, PreVote(3, 12, 2)) == Verdict(reply=PreGrant(3))
    assert receive(alone, 3, PreVote(3, 11, 2)) == DROP
    assert receive(alone, 3, PreVote(3, 40, 1)) == DROP
    assert receive(alone, 77, PreVote(3, 12, 2)) == DROP
    assert receive(FOLLOWER, 3, PreVote(3, 12, 2)) == DROP
    assert receive(LEADER, 3, PreVote(3, 12, 2)) == DROP
    assert receive(alone, 3, PreVote(2, 12, 2)) == Verdict(reply=HigherTerm(2))


def test_answers_to_the_question_count_for_the_next_term_only() -> None:
    """A promise for another term, of a stranger, or to a leader is worth nothing."""
    assert receive(FOLLOWER, 3, PreGrant(3)).deliver == PreGrant(3)
    assert receive(FOLLOWER, 3, PreGrant(2)) == DROP
    assert receive(FOLLOWER, 77, PreGrant(3)) == DROP
    assert receive(LEADER, 3, PreGrant(3)) == DROP


def test_only_the_leaders_own_term_is_echoed() -> None:
    """Whoever knows a newer term says so; whoever does not know the leader's yet says nothing: it could still vote against it."""
    assert receive(FOLLOWER, 2, Probe(2, 7)) == Verdict(reply=Echo(2, 7))
    assert receive(FOLLOWER, 2, Probe(1, 7)) == Verdict(reply=HigherTerm(2))
    assert receive(FOLLOWER, 2, Probe(3, 7)) == DROP
    assert receive(FOLLOWER, 9, Probe(2, 7)) == DROP
    assert "second leader" in receive(LEADER, 2, Probe(2, 7)).alarm


def test_echoes_count_from_voters_of_this_term() -> None:
    """An echo of another term, of a learner, of a stranger or of a removed member proves nothing."""
    assert receive(LEADER, 3, Echo(2, 7)).deliver == Echo(2, 7)
    assert receive(LEADER, 3, Echo(1, 7)) == DROP
    assert receive(LEADER, 77, Echo(2, 7)) == DROP
    assert receive(replace(LEADER, matched={77: 12}), 77, Echo(2, 7)) == DROP
    assert receive(LEADER, 9, Echo(2, 7)).deliver is None
    assert receive(FOLLOWER, 3, Echo(2, 7)) == DROP
