"""What passes for a line of output and is none."""

from __future__ import annotations

from pyswarm.api import v1 as api

MISSING = "pyswarm.missing-node"
"""Key of the attribute that tells a note of what is missing from a line of output; the value is the node id."""


def missing(node_id: str) -> api.LogMessage:
    """The note, for someone who follows, that a node is away; readable for clients that take it for a line."""
    return api.LogMessage(
        context=api.LogContext(node_id=node_id),
        stream=api.LogStream.LOG_STREAM_STDERR,
        data=warning(node_id).encode(),
        attrs=[api.LogAttr(key=MISSING, value=node_id)],
    )


def missing_node(message: api.LogMessage) -> str:
    """The node that such a note is about; empty for a line of output."""
    return next((attr.value for attr in message.attrs if attr.key == MISSING), "")


def warning(node: str) -> str:
    """The note's text, about a node of this id or name."""
    return f"warning: node {node} is not available; what its tasks write is missing\n"
