"""Between the library's dictionaries and our messages. Pure."""

from __future__ import annotations

from typing import Any

from pyswarm.raft.messages import Ack, Append, CampaignNow, GrantVote, Message, Nudge, RequestVote


class Unsayable(RuntimeError):
    """The library tried to send something that must not exist here, or was to be told something it has no word for."""


def from_library(message: dict[str, Any], term: int) -> Message:
    """What the library wants to send; `term` is the present term, with which answers are stamped. Raises Unsayable.

    Entries and snapshots are sent by `core` itself, in place of the library.
    """
    match message["type"]:
        case "request_vote":
            return RequestVote(message["term"], message["last_log_index"], message["last_log_term"])
        case "response_vote":
            return GrantVote(message["term"])
        case "next_node_idx":
            return Ack(term, message["next_node_idx"], bool(message["reset"]), bool(message["success"]))
        case "timeout_now":
            return CampaignNow(message["term"])
        case other:
            raise Unsayable(f"PySyncObj tried to send {other!r}")


def to_library(message: Message) -> dict[str, Any]:
    """A message in the library's words. Raises Unsayable for what it must never hear."""
    match message:
        case RequestVote():
            return {
                "type": "request_vote",
                "term": message.term,
                "last_log_index": message.last_index,
                "last_log_term": message.last_term,
            }
        case GrantVote():
            return {"type": "response_vote", "term": message.term}
        case Ack():
            return {"type": "next_node_idx", "next_node_idx": message.next_index, "reset": message.reset, "success": message.success}
        case CampaignNow():
            return {"type": "timeout_now", "term": message.term}
        case Append():
            return {
                "type": "append_entries",
                "term": message.term,
                "commit_index": message.commit,
                "prevLogIdx": message.prev_index,
                "prevLogTerm": message.prev_term,
                "entries": list(message.entries),
            }
        case Nudge():
            return {"type": "append_entries", "term": message.term, "commit_index": message.commit}
        case _:
            raise Unsayable(f"{type(message).__name__} is not for PySyncObj")
