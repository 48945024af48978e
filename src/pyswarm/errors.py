"""Errors that are part of the API: one type per gRPC status (design rule 8).

Raise them where the problem is known, with a message that names the object and the remedy; `rpc/` turns them into statuses and back.
Nothing here imports gRPC, so deciding code may raise them too.
"""

from __future__ import annotations

import enum


class Code(enum.IntEnum):
    """gRPC status codes."""

    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


class SwarmError(Exception):
    """Base of all errors with a status. `message` is what the caller of an RPC reads."""

    code = Code.UNKNOWN

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Unknown(SwarmError):
    """Errors that travel as plain text, as the reference sends them (spec/control-api, section 3)."""


class Cancelled(SwarmError):
    """The caller went away or the component is stopping."""

    code = Code.CANCELLED


class InvalidArgument(SwarmError):
    """The request itself is wrong."""

    code = Code.INVALID_ARGUMENT


class DeadlineExceeded(SwarmError):
    """It took longer than the caller allowed."""

    code = Code.DEADLINE_EXCEEDED


class NotFound(SwarmError):
    """A named object is not there."""

    code = Code.NOT_FOUND


class AlreadyExists(SwarmError):
    """An object with this name or id is there already."""

    code = Code.ALREADY_EXISTS


class PermissionDenied(SwarmError):
    """The caller may not do this."""

    code = Code.PERMISSION_DENIED


class ResourceExhausted(SwarmError):
    """A limit was reached."""

    code = Code.RESOURCE_EXHAUSTED


class FailedPrecondition(SwarmError):
    """The object is not in a state that allows this."""

    code = Code.FAILED_PRECONDITION


class Aborted(SwarmError):
    """The component is not running here, or gave way to another change."""

    code = Code.ABORTED


class Unimplemented(SwarmError):
    """Not there yet, or never will be."""

    code = Code.UNIMPLEMENTED


class Internal(SwarmError):
    """Stored state contradicts itself."""

    code = Code.INTERNAL


class Unavailable(SwarmError):
    """Try again later or elsewhere."""

    code = Code.UNAVAILABLE
