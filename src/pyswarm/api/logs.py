"""How far a log was read, so that it can be read on after a break; and what passes for a line of output and is none.

A log is read in order. So per task the time of the newest line and the number of lines with that time say exactly where it broke off.
"""

from __future__ import annotations

from dataclasses import dataclass

from pyswarm.api import v1 as api

_NANO = 1_000_000_000

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


@dataclass(slots=True)
class Place:
    """Where one task's log broke off: nanoseconds of the newest line, and how many lines have that time."""

    at: int
    lines: int


class Places:
    """How far the logs of some tasks were read. Lines without a time are not remembered."""

    def __init__(self) -> None:
        self._by_task: dict[str, Place] = {}

    def __bool__(self) -> bool:
        return bool(self._by_task)

    def remember(self, message: api.LogMessage) -> None:
        """A line was read."""
        at, task_id = _time(message), message.context.task_id
        place = self._by_task.get(task_id)
        if at and (place is None or at > place.at):
            self._by_task[task_id] = Place(at, 1)
        elif place is not None and at == place.at:
            place.lines += 1

    def forget(self, task_id: str) -> None:
        """The task's log will not be read again."""
        self._by_task.pop(task_id, None)

    def copy(self) -> Places:
        """As it is now; to `passes` what comes when the logs are read again."""
        made = Places()
        made._by_task = {task_id: Place(place.at, place.lines) for task_id, place in self._by_task.items()}
        return made

    def passes(self, message: api.LogMessage) -> bool:
        """Whether the line was not read before. Asked about each line, in order, once."""
        at, task_id = _time(message), message.context.task_id
        place = self._by_task.get(task_id)
        if place is None or not at:
            return True
        if at == place.at:
            place.lines -= 1
            return place.lines < 0
        if at < place.at:
            return False
        del self._by_task[task_id]
        return True

    def resumed(self, options: api.LogSubscriptionOptions) -> api.LogSubscriptionOptions:
        """Options to read on with. Whole logs are read again and skipped; a tail was counted from an end that has moved since."""
        made = api.LogSubscriptionOptions()
        made.CopyFrom(options)
        if made.tail and self._by_task:
            made.tail = 0
            made.since.seconds, made.since.nanos = divmod(min(place.at for place in self._by_task.values()), _NANO)
        return made


def _time(message: api.LogMessage) -> int:
    return message.timestamp.seconds * _NANO + message.timestamp.nanos
