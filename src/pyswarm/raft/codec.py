"""Messages to and from bytes: protobuf, nothing else, and nothing trusted on the way in."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from pyswarm.api.private import raft_pb2 as pb
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


class BadMessage(ValueError):
    """Bytes that are no message of this version."""


def encode(message: Message) -> pb.Envelope:
    """The envelope for a message."""
    match message:
        case RequestVote():
            return pb.Envelope(
                request_vote=pb.Request(
                    term=message.term, last_index=message.last_index, last_term=message.last_term, transfer=message.transfer
                )
            )
        case GrantVote():
            return pb.Envelope(grant_vote=pb.Grant(term=message.term))
        case Append():
            entries = [pb.LogEntry(command=command, term=term) for command, _, term in message.entries]
            return pb.Envelope(
                append=pb.Append(
                    term=message.term, commit=message.commit, prev_index=message.prev_index, prev_term=message.prev_term, entries=entries
                )
            )
        case Nudge():
            return pb.Envelope(nudge=pb.Nudge(term=message.term, commit=message.commit))
        case Piece():
            return pb.Envelope(piece=_encode_piece(message))
        case PieceReceived():
            return pb.Envelope(piece_received=pb.PieceReceived(term=message.term, transfer=message.transfer, count=message.count))
        case Ack():
            return pb.Envelope(ack=pb.Ack(term=message.term, next_index=message.next_index, reset=message.reset, success=message.success))
        case CampaignNow():
            return pb.Envelope(campaign_now=pb.Hint(term=message.term))
        case HigherTerm():
            return pb.Envelope(higher_term=pb.Hint(term=message.term))
        case PreVote():
            return pb.Envelope(pre_vote=pb.Request(term=message.term, last_index=message.last_index, last_term=message.last_term))
        case PreGrant():
            return pb.Envelope(pre_grant=pb.Grant(term=message.term))
        case Probe():
            return pb.Envelope(probe=pb.Round(term=message.term, number=message.number))
        case Echo():
            return pb.Envelope(echo=pb.Round(term=message.term, number=message.number))


def decode(envelope: pb.Envelope) -> Message:
    """The message in an envelope. Raises BadMessage for a greeting, an empty envelope, or a kind that is not known here."""
    match envelope.WhichOneof("content"):
        case "request_vote":
            vote = envelope.request_vote
            return RequestVote(vote.term, vote.last_index, vote.last_term, vote.transfer)
        case "grant_vote":
            return GrantVote(envelope.grant_vote.term)
        case "append":
            return _decode_append(envelope.append)
        case "nudge":
            return Nudge(envelope.nudge.term, envelope.nudge.commit)
        case "piece":
            return _decode_piece(envelope.piece)
        case "piece_received":
            progress = envelope.piece_received
            return PieceReceived(progress.term, progress.transfer, progress.count)
        case "ack":
            return Ack(envelope.ack.term, envelope.ack.next_index, envelope.ack.reset, envelope.ack.success)
        case "campaign_now":
            return CampaignNow(envelope.campaign_now.term)
        case "higher_term":
            return HigherTerm(envelope.higher_term.term)
        case "pre_vote":
            asked = envelope.pre_vote
            return PreVote(asked.term, asked.last_index, asked.last_term)
        case "pre_grant":
            return PreGrant(envelope.pre_grant.term)
        case "probe":
            return Probe(envelope.probe.term, envelope.probe.number)
        case "echo":
            return Echo(envelope.echo.term, envelope.echo.number)
        case other:
            raise BadMessage(f"no raft message: {other or 'empty envelope'}")


def parse(data: bytes) -> Message:
    """The message in serialised form. Raises BadMessage."""
    try:
        return decode(pb.Envelope.FromString(data))
    except DecodeError as exc:
        raise BadMessage("not a raft envelope") from exc


def _decode_append(append: pb.Append) -> Append:
    entries = tuple((e.command, append.prev_index + offset, e.term) for offset, e in enumerate(append.entries, 1))
    return Append(append.term, append.commit, append.prev_index, append.prev_term, entries)


def _encode_piece(piece: Piece) -> pb.Piece:
    return pb.Piece(
        term=piece.term,
        transfer=piece.transfer,
        number=piece.number,
        total=piece.total,
        index=piece.index,
        index_term=piece.index_term,
        digest=piece.digest,
        data=piece.data,
    )


def _decode_piece(piece: pb.Piece) -> Piece:
    if piece.number >= piece.total:
        raise BadMessage("a snapshot piece beyond the end")
    return Piece(piece.term, piece.transfer, piece.number, piece.total, piece.index, piece.index_term, piece.digest, piece.data)
