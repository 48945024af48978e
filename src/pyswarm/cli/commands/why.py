"""`task why`: what keeps a task, or a service's tasks, from where they should be."""

from __future__ import annotations

from pyswarm import errors
from pyswarm.api import v1 as api
from pyswarm.api.private import why_pb2 as pb
from pyswarm.cli import resolve
from pyswarm.cli.client import Client
from pyswarm.cli.flagset import STRING, Flag, FlagError
from pyswarm.cli.framework import Call
from pyswarm.cli.show import why

OUTPUT = Flag("output", STRING, "what to print: text or json", "o", default="text")
_FORMATS = ("text", "json")


def run(call: Call) -> None:
    """Sentences, one to a line; or the answer as it is."""
    output = call.given.text("output") or "text"
    if output not in _FORMATS:
        raise FlagError(f"--output is {' or '.join(_FORMATS)}, not {output}")
    with call.connect() as client:
        answer = _ask(client, _request(client, call.argument), call.argument)
        if output == "json":
            from google.protobuf.json_format import MessageToJson

            call.show(MessageToJson(answer, preserving_proto_field_name=True) + "\n")
        else:
            call.show("".join(f"{line}\n" for line in why.lines(answer, call.names(client), call.now())))


def _ask(client: Client, request: pb.ExplainRequest, what: str) -> pb.ExplainResponse:
    try:
        return client.ask(client.why.Explain, request)
    except errors.Unimplemented:
        raise errors.Unimplemented(
            f"the manager at {client.socket} explains no tasks: it is not pyswarm, or an older one; "
            f"'pyswarmctl task inspect {what}' shows a task's last error"
        ) from None


def _request(client: Client, text: str) -> pb.ExplainRequest:
    """What is meant: a task's ID, a service, a place of one (`web.1`, `agent.node-2`), a task's full name or the beginning of its ID."""
    if _is_task(client, text):
        return pb.ExplainRequest(task_id=text)
    named = resolve.service_named(client, text)
    if named is not None:
        return pb.ExplainRequest(service_id=named.id)
    name, dot, place = text.rpartition(".")
    owner = resolve.service_named(client, name) if dot and name else None
    if owner is not None:
        return _place(client, owner, place)
    return _by_prefix(client, text)


def _is_task(client: Client, text: str) -> bool:
    try:
        client.ask(client.control.GetTask, api.GetTaskRequest(task_id=text))
    except errors.NotFound:
        return False
    return True


def _place(client: Client, service: api.Service, place: str) -> pb.ExplainRequest:
    if service.spec.WhichOneof("mode") in {"global", "global_job"}:
        return pb.ExplainRequest(service_id=service.id, node_id=resolve.node(client, place).id)
    if not place.isdecimal() or len(place) > 18:
        raise resolve.not_found("task", f"{service.spec.annotations.name}.{place}")
    return pb.ExplainRequest(service_id=service.id, slot=int(place))


def _by_prefix(client: Client, text: str) -> pb.ExplainRequest:
    """Both kinds have IDs of the same form, so the beginning of one may mean either."""
    try:
        task = resolve.task(client, text)
    except errors.NotFound:
        try:
            return pb.ExplainRequest(service_id=resolve.service(client, text).id)
        except errors.NotFound:
            raise errors.NotFound(
                f"no task or service {text} found; 'pyswarmctl task ls -a' and 'pyswarmctl service ls' show what there is"
            ) from None
    return pb.ExplainRequest(task_id=task.id)
