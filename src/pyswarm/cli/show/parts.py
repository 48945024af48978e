"""Pieces that several families print."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.cli import units
from pyswarm.cli.columns import entry

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.timestamp_pb2 import Timestamp


def if_any(label: str, value: str) -> list[str]:
    """A summary line, or none when the value is empty."""
    return [entry(label, value)] if value else []


def sorted_map(values: Mapping[str, str]) -> list[tuple[str, str]]:
    """Its pairs by key."""
    return sorted(values.items())


def labels(values: Mapping[str, str]) -> list[str]:
    """The `Labels` block, or nothing without labels."""
    return ["Labels\t", *(entry(f"  {key}", value) for key, value in sorted_map(values))] if values else []


def age(moment: Timestamp, now: float) -> str:
    """`3 minutes ago`."""
    return units.relative_time(times.seconds_of(moment), now)


def absolute(moment: Timestamp) -> str:
    """RFC 3339."""
    return units.absolute_time(moment.seconds, moment.nanos)


def duration(span: Duration) -> str:
    """`1m30s`."""
    return units.format_duration(span.seconds * 10**9 + span.nanos)


def state_and_age(task: api.Task, now: float) -> str:
    """`RUNNING 3 minutes ago`."""
    state = api.TaskState.Name(task.status.state)
    return f"{state} {age(task.status.timestamp, now) if task.status.HasField('timestamp') else ''}"


def container(spec: api.ContainerSpec) -> Iterator[str]:
    """Image, command, arguments and environment, those that are there."""
    yield from if_any("  Image", spec.image)
    if spec.command:
        yield entry("  Command", units.quoted(" ".join(spec.command)))
    if spec.args:
        yield entry("  Args", f"[{', '.join(spec.args)}]")
    if spec.env:
        yield entry("  Env", f"[{', '.join(spec.env)}]")


def references(heading: str, rows: Iterable[tuple[str, str, api.FileTarget | None]]) -> Iterator[str]:
    """Secrets or configs: (kind of target, what is shown before the colon, file target)."""
    listed = [f"    [{kind}] {name}:{file.name if file else ''}" for kind, name, file in rows]
    if listed:
        yield heading
        yield from listed


def generic(resource: api.GenericResource) -> tuple[str, str]:
    """Kind and value of a generic resource."""
    if resource.WhichOneof("resource") == "named_resource_spec":
        return resource.named_resource_spec.kind, resource.named_resource_spec.value
    return resource.discrete_resource_spec.kind, str(resource.discrete_resource_spec.value)


def driver(label: str, value: api.Driver, indent: str) -> Iterator[str]:
    """A log driver with its options; an option without a value shows its name only."""
    yield entry(label, value.name)
    for key, text in sorted_map(value.options):
        yield entry(indent + key, text) if text else f"{indent}{key}\t"
