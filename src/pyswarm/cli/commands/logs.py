"""`service logs` (spec/cli-and-executor, section 9)."""

from __future__ import annotations

import sys

from pyswarm.api import v1 as api
from pyswarm.cli import resolve
from pyswarm.cli.framework import Call

PROMPT = "\N{HEAVY RIGHT-POINTING ANGLE QUOTATION MARK ORNAMENT} "


def run(call: Call) -> None:
    """One subscription for all services; every message goes to the stream it was written to, after its task and node."""
    sys.stdout.flush()
    with call.connect() as client:
        ids = [resolve.service(client, text).id for text in call.arguments]
        names = call.names(client)
        request = api.SubscribeLogsRequest(
            selector=api.LogSelector(service_ids=ids),
            options=api.LogSubscriptionOptions(follow=call.given.truth("follow")),
        )
        for batch in client.stream(iter(client.logs.SubscribeLogs(request))):
            for message in batch.messages:
                out = sys.stderr.buffer if message.stream == api.LogStream.LOG_STREAM_STDERR else sys.stdout.buffer
                where = f"{names.task(message.context.task_id)}@{names.node(message.context.node_id)}{PROMPT}"
                out.write(where.encode() + message.data)
                out.flush()
