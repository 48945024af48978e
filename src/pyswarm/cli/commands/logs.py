"""`service logs` and `task logs` (spec/cli-and-executor, section 9)."""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from pyswarm import errors
from pyswarm.api import logs, times
from pyswarm.api import v1 as api
from pyswarm.cli import units
from pyswarm.cli.client import Client
from pyswarm.cli.flagset import BOOL, STRING, UINT, Flag, FlagError, Given
from pyswarm.cli.framework import Call
from pyswarm.cli.resolve import Names

PROMPT = "\N{HEAVY RIGHT-POINTING ANGLE QUOTATION MARK ORNAMENT} "
COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
"""ANSI foreground colours that can be read on dark and on light; red is for errors elsewhere."""

MOST_LINES = 2**31

AT_ONCE_SECONDS = 2.0
"""A stream that ends so soon, and without a line, never was one."""

AGAIN_SECONDS = 30.0
PAUSE_SECONDS = 0.5
"""How long, and how often, a broken stream is tried again."""

NOT_RUNNING, NO_LEADER = "broker is not running", "Make sure more than half of the managers are online."
"""How managers that do not lead answer, and those that know no leader."""

_STREAMS = {"stdout": api.LogStream.LOG_STREAM_STDOUT, "stderr": api.LogStream.LOG_STREAM_STDERR}

FLAGS = [
    Flag("follow", BOOL, "go on printing until interrupted, or until nothing is left that could write", "f"),
    Flag("since", STRING, "only what was written since then: 10m, 1h30m, or 2006-01-02T15:04:05Z", default="the beginning"),
    Flag("stream", STRING, "only this stream: stdout or stderr", default="both"),
    Flag("tail", UINT, "so many lines of what each task has written already", default="all"),
    Flag("timestamps", BOOL, "begin each line with the time it was written"),
]
MORE = """\
Lines of stdout and stderr go to stdout and stderr, each after its task and node; on a terminal every task has a colour of its own unless
NO_COLOR is set. What cannot be had, because a node is away, is named in one line on stderr; without --follow the status is 1 then."""


def show(call: Call, client: Client, selector: api.LogSelector) -> None:
    """Subscribe, and print what comes. What is followed is subscribed to anew where it broke off when another manager leads."""
    sys.stdout.flush()
    asked = options(call.given, call.now())
    printer = Printer(call.names(client), timestamps=call.given.truth("timestamps"))
    places, broke, began = logs.Places(), None, call.now()
    while True:
        before = places.copy()
        request = api.SubscribeLogsRequest(selector=selector, options=places.resumed(asked))
        try:
            for batch in client.stream(iter(client.logs.SubscribeLogs(request))):
                broke = None
                fresh = [message for message in batch.messages if before.passes(message)]
                for message in fresh:
                    places.remember(message)
                printer.print(fresh)
        except errors.SwarmError as error:
            worked = bool(places) or call.now() - began > AT_ONCE_SECONDS
            broke = broke or call.now()
            if not (asked.follow and worked and _passing(error)) or call.now() - broke > AGAIN_SECONDS:
                raise
            call.pause(PAUSE_SECONDS)
        else:
            return


def _passing(error: errors.SwarmError) -> bool:
    """Another manager begins to lead, or will soon."""
    return isinstance(error, errors.Cancelled | errors.Unavailable) or error.message.endswith((NOT_RUNNING, NO_LEADER))


def options(given: Given, now: float) -> api.LogSubscriptionOptions:
    """What the flags ask for. Raises FlagError."""
    made = api.LogSubscriptionOptions(follow=given.truth("follow"))
    if "tail" in given:
        made.tail = -min(given.number("tail"), MOST_LINES) - 1
    if given.text("since"):
        made.since.CopyFrom(_moment(given.text("since"), now))
    if "stream" in given:
        stream = _STREAMS.get(given.text("stream"))
        if stream is None:
            raise FlagError(f'invalid argument {units.quoted(given.text("stream"))} for "--stream" flag: it is stdout or stderr')
        made.streams.append(stream)
    return made


class Printer:
    """Writes lines as they come, without waiting for more."""

    def __init__(self, names: Names, *, timestamps: bool) -> None:
        self._names = names
        self._timestamps = timestamps
        self._coloured = {stream: stream.isatty() and not os.environ.get("NO_COLOR") for stream in (sys.stdout, sys.stderr)}

    def print(self, messages: Sequence[api.LogMessage]) -> None:
        """Each line to the stream it was written to, as the bytes it has."""
        for message in messages:
            stream = sys.stderr if message.stream == api.LogStream.LOG_STREAM_STDERR else sys.stdout
            absent = logs.missing_node(message)
            if absent:
                stream.buffer.write(logs.warning(self._names.node(absent)).encode())
            else:
                stream.buffer.write(self._before(message, coloured=self._coloured[stream]).encode() + message.data)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()

    def _before(self, message: api.LogMessage, *, coloured: bool) -> str:
        context = message.context
        who = f"{self._names.task(context.task_id)}@{self._names.node(context.node_id)}{PROMPT}"
        if coloured:
            who = f"\x1b[{COLOURS[zlib.crc32(context.task_id.encode()) % len(COLOURS)]}m{who}\x1b[0m"
        if not self._timestamps:
            return who
        return f"{units.absolute_time(message.timestamp.seconds, message.timestamp.nanos)} {who}"


def _moment(text: str, now: float) -> Timestamp:
    try:
        return times.timestamp(now - units.parse_duration(text) / 1e9)
    except ValueError:
        pass
    moment = Timestamp()
    try:
        moment.FromJsonString(text)
    except ValueError:
        raise FlagError(
            f'invalid argument {units.quoted(text)} for "--since" flag: neither a span like 10m nor a time like 2006-01-02T15:04:05Z'
        ) from None
    return moment
