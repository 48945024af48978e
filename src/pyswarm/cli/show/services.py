"""Services: the list and the summary."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from pyswarm.api import v1 as api
from pyswarm.api.jobs import is_current, is_job
from pyswarm.api.tasks import is_runnable
from pyswarm.cli import columns, units
from pyswarm.cli.columns import entry
from pyswarm.cli.show import parts

S = api.TaskState


def by_service(tasks: Iterable[api.Task], nodes: Iterable[api.Node]) -> dict[str, list[api.Task]]:
    """Tasks per service ID, without those that run on nodes that are down: nobody knows about these."""
    up = {node.id for node in nodes if node.status.state != api.NodeStatus.State.DOWN}
    found: dict[str, list[api.Task]] = {}
    for task in tasks:
        if task.status.state != S.RUNNING or task.node_id in up:
            found.setdefault(task.service_id, []).append(task)
    return found


def replicas(service: api.Service, tasks: Iterable[api.Task]) -> str:
    """How many of them run: `3/6`, `global`, or for a job also what its present iteration has completed, `1/2 (3/9 completed)`."""
    spec, job = service.spec, is_job(service.spec)
    counted = [task for task in tasks if not job or is_current(service, task)]
    running = sum(task.status.state == S.RUNNING for task in counted)
    if not job:
        return f"{running}/{spec.replicated.replicas}" if spec.HasField("replicated") else spec.WhichOneof("mode") or ""
    completed = sum(task.status.state == S.COMPLETE for task in counted)
    wanted = sum(is_runnable(task) for task in counted)
    total = completed + wanted
    if spec.HasField("replicated_job"):
        wanted, total = spec.replicated_job.max_concurrent, spec.replicated_job.total_completions
    return f"{running}/{wanted} ({completed}/{total} completed)"


def listing(services: Iterable[api.Service], tasks: Mapping[str, Sequence[api.Task]]) -> str:
    """`service ls`; `tasks` by service ID."""
    rows = [
        (
            service.id,
            service.spec.annotations.name,
            service.spec.task.container.image,
            replicas(service, tasks.get(service.id, ())),
        )
        for service in services
    ]
    return columns.table(columns.LIST, ["ID", "Name", "Image", "Replicas"], rows)


def summary(service: api.Service, tasks: Iterable[api.Task], now: float) -> str:
    """`service inspect`, without the task table."""
    task = service.spec.task
    spec = task.container
    lines = [
        *parts.if_any("ID", service.id),
        *parts.if_any("Name", service.spec.annotations.name),
        *parts.labels(service.spec.annotations.labels),
        *parts.if_any("Replicas", replicas(service, tasks)),
        *_update_status(service, now),
        "Template\t",
        " Container\t",
        *parts.container(spec),
        *parts.if_any("  Constraints", ", ".join(task.placement.constraints)),
        *_resources(task),
        *_networks(task),
        *_ports(service),
        *_mounts(spec),
        *parts.references("  Secrets:", (_secret(ref) for ref in spec.secrets)),
        *parts.references("  Configs:", (_config(ref) for ref in spec.configs)),
        *(parts.driver("  LogDriver", task.log_driver, "    ") if task.HasField("log_driver") else []),
    ]
    return columns.SUMMARY.text(lines)


def _update_status(service: api.Service, now: float) -> Iterator[str]:
    if not service.HasField("update_status"):
        return
    status = service.update_status
    yield "Update Status\t"
    yield entry(" State", api.UpdateStatus.UpdateState.Name(status.state))
    if status.HasField("started_at"):
        yield entry(" Started", parts.age(status.started_at, now))
    if status.state == api.UpdateStatus.UpdateState.COMPLETED and status.HasField("completed_at"):
        yield entry(" Completed", parts.age(status.completed_at, now))
    yield entry(" Message", status.message)


def _resources(task: api.TaskSpec) -> Iterator[str]:
    if not task.HasField("resources"):
        return
    yield "  Resources\t"
    if task.resources.HasField("reservations"):
        yield "    Reservations:\t"
        yield from _amounts(task.resources.reservations)
    if task.resources.HasField("limits"):
        yield "    Limits:\t"
        yield from _amounts(task.resources.limits)


def _amounts(resources: api.Resources) -> Iterator[str]:
    if resources.nano_cpus:
        yield entry("      CPU", units.format_cpus(resources.nano_cpus))
    if resources.memory_bytes:
        yield entry("      Memory", units.format_memory(resources.memory_bytes))
    if resources.generic:
        yield "      Generic Resources\t"
        for resource in resources.generic:
            kind, value = parts.generic(resource)
            yield entry(f"        {kind}", value)


def _networks(task: api.TaskSpec) -> Iterator[str]:
    if task.networks:
        yield "  Networks: " + " ".join(network.target for network in task.networks)


def _ports(service: api.Service) -> Iterator[str]:
    if not service.endpoint.ports:
        return
    yield ""
    yield "Ports:"
    for port in service.endpoint.ports:
        yield f"    - Name\t= {port.name}"
        yield f"      Protocol\t= {api.PortConfig.Protocol.Name(port.protocol)}"
        yield f"      Port\t= {port.target_port}"
        yield f"      SwarmPort\t= {port.published_port}"


def _mounts(spec: api.ContainerSpec) -> Iterator[str]:
    if spec.mounts:
        yield "  Mounts:"
    for mount in spec.mounts:
        yield f"    - target = {mount.target}"
        yield f"      source = {mount.source}"
        yield f"      readonly = {str(mount.readonly).lower()}"
        yield f"      type = {api.Mount.Type.Name(mount.type).lower()}"


def _secret(reference: api.SecretReference) -> tuple[str, str, api.FileTarget | None]:
    name = f"{reference.secret_name}@{reference.secret_id}"
    return ("FILE", name, reference.file) if reference.HasField("file") else ("", name, None)


def _config(reference: api.ConfigReference) -> tuple[str, str, api.FileTarget | None]:
    name = f"{reference.config_name}@{reference.config_id}"
    return ("FILE", name, reference.file) if reference.HasField("file") else ("", name, None)
