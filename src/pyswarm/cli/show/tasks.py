"""Tasks: the list, the table inside other summaries, the summary."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.api.tasks import is_runnable
from pyswarm.cli import columns
from pyswarm.cli.columns import entry
from pyswarm.cli.show import parts

Name = Callable[[str], str]
"""From an ID to what is shown for it."""

S = api.TaskState


def wanted(tasks: Iterable[api.Task], *, all_tasks: bool) -> list[api.Task]:
    """Those that are meant to run, or all."""
    return [task for task in tasks if all_tasks or is_runnable(task)]


def listing(tasks: Iterable[api.Task], service: Name, node: Name, now: float) -> str:
    """`task ls`."""
    rows = [
        (
            task.id,
            f"{service(task.service_id)}.{task.slot}",
            S.Name(task.desired_state),
            parts.state_and_age(task, now),
            node(task.node_id),
        )
        for task in tasks
    ]
    return columns.table(columns.LIST, ["ID", "Service", "Desired State", "Last State", "Node"], rows)


def table(tasks: Sequence[api.Task], node: Name, now: float, *, all_tasks: bool) -> str:
    """The task table: by slot, the newest of a slot first."""
    ordered = sorted(tasks, key=lambda task: (task.slot, -times.seconds_of(task.meta.created_at)))
    rows = [
        (
            task.id,
            task.service_annotations.name,
            str(task.slot),
            task.spec.container.image,
            S.Name(task.desired_state),
            parts.state_and_age(task, now),
            node(task.node_id),
        )
        for task in wanted(ordered, all_tasks=all_tasks)
    ]
    return columns.table(columns.TASKS, ["Task ID", "Service", "Slot", "Image", "Desired State", "Last State", "Node"], rows)


def summary(task: api.Task, service: str, node: str) -> str:
    """`task inspect`, without the table of its slot."""
    spec = task.spec.container
    lines = [
        entry("ID", task.id),
        entry("Slot", str(task.slot)),
        entry("Service", service),
        *_status(task),
        entry("Node", node),
        "Spec\t",
        *parts.container(spec),
        *parts.references("  Secrets:", ((_target(ref), ref.secret_name, _file(ref)) for ref in spec.secrets)),
        *parts.references("  Configs:", ((_target(ref), ref.config_name, _file(ref)) for ref in spec.configs)),
    ]
    return columns.SUMMARY.text(lines)


def _status(task: api.Task) -> Iterator[str]:
    status = task.status
    yield "Status\t"
    yield entry("  Desired State", S.Name(task.desired_state))
    yield entry("  Last State", S.Name(status.state))
    if status.HasField("timestamp"):
        yield entry("  Timestamp", parts.absolute(status.timestamp))
    yield from parts.if_any("  Message", status.message)
    yield from parts.if_any("  Error", status.err)
    if status.HasField("container"):
        yield from parts.if_any("  ContainerID", status.container.container_id)
        if status.container.pid:
            yield entry("  Pid", str(status.container.pid))
        if status.state > S.RUNNING:
            yield entry("  ExitCode", str(status.container.exit_code))
    if status.port_status.ports:
        yield entry("Ports", ", ".join(_port(port) for port in status.port_status.ports))


def _port(port: api.PortConfig) -> str:
    return f"0.0.0.0:{port.published_port}->{port.target_port}/{api.PortConfig.Protocol.Name(port.protocol).lower()}"


def _file(reference: api.SecretReference | api.ConfigReference) -> api.FileTarget | None:
    return reference.file if reference.HasField("file") else None


def _target(reference: api.SecretReference | api.ConfigReference) -> str:
    return "FILE" if reference.HasField("file") else ""
