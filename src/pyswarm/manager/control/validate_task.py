"""Is a service's task spec one that can run? (spec/control-api, sections 6.1 to 6.5). Pure; the order of the checks is observable."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pyswarm.agent.executor import ExecutorError
from pyswarm.agent.executor.templates import expanded_container
from pyswarm.api import v1 as api
from pyswarm.errors import InvalidArgument, Unimplemented
from pyswarm.manager import constraints
from pyswarm.manager.control.durations import nanoseconds
from pyswarm.manager.control.image import is_reference
from pyswarm.manager.control.names import quote

_MIN_NANO_CPUS = 1_000_000
_MIN_MEMORY_BYTES = 4 * 1024 * 1024
_MILLISECOND = 1_000_000
_RESERVED_KINDS = frozenset({"container", "attachment"})
_MIN_KIND_LENGTH = 3


def check_task(task: api.TaskSpec) -> None:
    """Everything about the task of a service. Raises InvalidArgument, Unimplemented, and Unknown for constraints and durations."""
    check_resources(task.resources.limits)
    check_resources(task.resources.reservations)
    check_restart(task.restart)
    constraints.check(task.placement.constraints)
    runtime = task.WhichOneof("runtime")
    if runtime == "container":
        check_references("secret", secret_uses(task.container))
        check_references("config", config_uses(task.container))
        check_credential_spec(task.container)
        check_container(task.container)
    elif runtime == "generic":
        check_generic(task.generic)
    elif runtime is None:
        raise InvalidArgument("TaskSpec: missing runtime")
    else:
        raise Unimplemented("RuntimeSpec: unimplemented runtime in service spec")


def check_resources(wanted: api.Resources) -> None:
    """Amounts that a node can give. Raises InvalidArgument.

    Unlike the reference this refuses named generic resources too: the scheduler could never satisfy them (section 22, 8).
    """
    if wanted.nano_cpus and wanted.nano_cpus < _MIN_NANO_CPUS:
        value = repr(wanted.nano_cpus / 1e9).removesuffix(".0")
        raise InvalidArgument(f"invalid cpu value {value}: Must be at least 0.001")
    if wanted.memory_bytes and wanted.memory_bytes < _MIN_MEMORY_BYTES:
        raise InvalidArgument(f"invalid memory value {wanted.memory_bytes}: Must be at least 4MiB")
    for resource in wanted.generic:
        which = resource.WhichOneof("resource")
        if which != "discrete_resource_spec":
            raise InvalidArgument(f"invalid argument for resource {resource.named_resource_spec.kind}")
        if resource.discrete_resource_spec.value < 0:
            raise InvalidArgument(f"cannot ask for negative resource {resource.discrete_resource_spec.kind}")


def check_restart(policy: api.RestartPolicy) -> None:
    """Raises InvalidArgument for negative times."""
    if nanoseconds(policy.delay) < 0:
        raise InvalidArgument("TaskSpec: restart-delay cannot be negative")
    if nanoseconds(policy.window) < 0:
        raise InvalidArgument("TaskSpec: restart-window cannot be negative")


@dataclass(frozen=True, slots=True)
class Use:
    """A reference to a secret or config: what it points to and where it puts it. `target` is `file`, `runtime` or None (not given)."""

    object_id: str
    name: str
    target: str | None
    file: str


def secret_uses(container: api.ContainerSpec) -> list[Use]:
    """The secrets a container asks for."""
    return [Use(r.secret_id, r.secret_name, r.WhichOneof("target"), r.file.name) for r in container.secrets]


def config_uses(container: api.ContainerSpec) -> list[Use]:
    """The configs a container asks for."""
    return [Use(r.config_id, r.config_name, r.WhichOneof("target"), r.file.name) for r in container.configs]


def check_references(word: str, uses: Iterable[Use]) -> None:
    """References are complete and do not share a file. `word` is `secret` or `config`. Raises InvalidArgument."""
    files: dict[str, str] = {}
    for use in uses:
        if not use.object_id or not use.name:
            raise InvalidArgument(f"malformed {word} reference")
        if use.target is None:
            raise InvalidArgument(f"malformed {word} reference, no target provided")
        if use.target != "file":
            continue
        if not use.file:
            raise InvalidArgument(f"malformed file {word} reference, invalid target file name provided")
        if use.file in files:
            raise InvalidArgument(f"{word} references '{files[use.file]}' and '{use.name}' have a conflicting target: '{use.file}'")
        files[use.file] = use.name


def check_credential_spec(container: api.ContainerSpec) -> None:
    """A credential spec kept in a config needs that config as runtime target. Raises InvalidArgument."""
    wanted = container.privileges.credential_spec.config
    if wanted and not any(r.config_id == wanted and r.WhichOneof("target") == "runtime" for r in container.configs):
        raise InvalidArgument(f"CredentialSpec references config '{wanted}', but that config isn't in config references with RuntimeTarget")


def check_container(container: api.ContainerSpec) -> None:
    """Templates, image, mounts and health check. Raises InvalidArgument."""
    container = expanded(container)
    if not container.image:
        raise InvalidArgument("ContainerSpec: image reference must be provided")
    if not is_reference(container.image):
        raise InvalidArgument(f"ContainerSpec: {quote(container.image)} is not a valid repository/tag")
    targets: set[str] = set()
    for mount in container.mounts:
        if mount.target in targets:
            raise InvalidArgument(f"ContainerSpec: duplicate mount point: {mount.target}")
        targets.add(mount.target)
    check_health(container.healthcheck)


def expanded(container: api.ContainerSpec) -> api.ContainerSpec:
    """What the templates would become for some task of a service without labels. Raises InvalidArgument with the template's error."""
    if not any("{{" in text for text in templated(container)):
        return container
    task = api.Task(
        spec=api.TaskSpec(container=container),
        annotations=api.Annotations(name="taskname"),
        service_id="serviceid",
        service_annotations=api.Annotations(name="servicename"),
        slot=1,
        node_id="nodeid",
    )
    node = api.NodeDescription(hostname="nodeHostname", platform=api.Platform(os="os", architecture="architecture"))
    try:
        return expanded_container(task, node)
    except ExecutorError as error:
        raise InvalidArgument(str(error)) from error


def templated(container: api.ContainerSpec) -> Iterator[str]:
    """Every text of a container spec that is a template (section 21.1)."""
    for entry in container.env:
        yield entry.partition("=")[2]
    yield container.hostname
    for mount in container.mounts:
        yield mount.source
        yield mount.target
        if mount.HasField("volume_options"):
            yield from mount.volume_options.labels.values()
            yield from mount.volume_options.driver_config.options.values()


def check_health(health: api.HealthConfig) -> None:
    """Raises InvalidArgument for spans under a millisecond and negative retries."""
    spans = (
        ("Interval", health.interval),
        ("Timeout", health.timeout),
        ("StartPeriod", health.start_period),
        ("StartInterval", health.start_interval),
    )
    for name, span in spans:
        length = nanoseconds(span)
        if length and length < _MILLISECOND:
            raise InvalidArgument(f"ContainerSpec: {name} in HealthConfig cannot be less than 1ms")
    if health.retries < 0:
        raise InvalidArgument("ContainerSpec: Retries in HealthConfig cannot be negative")


def check_generic(runtime: api.GenericRuntimeSpec) -> None:
    """A runtime that an executor may know by its kind. Raises InvalidArgument."""
    kind = quote(runtime.kind)
    if len(runtime.kind.encode()) < _MIN_KIND_LENGTH:
        raise InvalidArgument(f"Generic runtime: Invalid name {kind}")
    if runtime.kind.lower() in _RESERVED_KINDS:
        raise InvalidArgument(f"Generic runtime: {kind} is a reserved name")
    if not runtime.HasField("payload"):
        raise InvalidArgument("Generic runtime is missing payload")
    if not runtime.payload.type_url:
        raise InvalidArgument("Generic runtime is missing payload type")
    if not runtime.payload.value:
        raise InvalidArgument("Generic runtime has an empty payload")
