"""From the flags of `service create` and `service update` to a spec (spec/cli-and-executor, section 8). Pure.

A flag that is not given changes nothing. That includes the log driver and the update settings, which SwarmKit's command line touches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableSequence

from google.protobuf.duration_pb2 import Duration

from pyswarm import errors
from pyswarm.api import v1 as api
from pyswarm.api.jobs import is_job
from pyswarm.cli import flags
from pyswarm.cli.flagset import FlagError, Given

_ORDERS = {"stop-first": api.UpdateConfig.UpdateOrder.STOP_FIRST, "start-first": api.UpdateConfig.UpdateOrder.START_FIRST}
_PAUSE, _CONTINUE = api.UpdateConfig.FailureAction.PAUSE, api.UpdateConfig.FailureAction.CONTINUE
_ROLLBACK_ACTIONS = {"pause": _PAUSE, "continue": _CONTINUE}
_UPDATE_ACTIONS = {**_ROLLBACK_ACTIONS, "rollback": api.UpdateConfig.FailureAction.ROLLBACK}
_CONDITIONS = {
    "any": api.RestartPolicy.RestartCondition.ANY,
    "failure": api.RestartPolicy.RestartCondition.ON_FAILURE,
    "none": api.RestartPolicy.RestartCondition.NONE,
}
_UPDATE_FLAGS = ("update-parallelism", "update-delay", "update-on-failure", "update-order")
_PARALLELISM_WHEN_UNSET = 1
"""What a manager takes for missing update or rollback settings. Setting another of them must not change this one."""
_RESOLUTIONS = {"vip": api.EndpointSpec.ResolutionMode.VIP, "dnsrr": api.EndpointSpec.ResolutionMode.DNSRR}
_MODES = {"replicated": "replicated", "global": "global", "replicated-job": "replicated_job", "global-job": "global_job"}
_PLACES = {
    "replicas": "replicated or replicated-job",
    "replicas-max-per-node": "replicated or replicated-job",
    "max-concurrent": "replicated-job",
}
"""Flags that only some modes have."""
_MOUNTS: tuple[tuple[str, Callable[[str], api.Mount]], ...] = (
    ("bind", flags.bind),
    ("volume", flags.volume),
    ("cluster-volume", flags.cluster_volume),
    ("tmpfs", flags.tmpfs),
    ("npipe", flags.npipe),
)


def blank() -> api.ServiceSpec:
    """What `create` starts from: one replica of an empty container that is always restarted, updated all at once.

    The update settings are spelled out (parallelism 0) because a manager takes their absence for one task at a time, while SwarmKit's
    README promises all at once.
    """
    return api.ServiceSpec(
        replicated=api.ReplicatedService(replicas=1),
        task=api.TaskSpec(
            container=api.ContainerSpec(),
            restart=api.RestartPolicy(condition=api.RestartPolicy.RestartCondition.ANY),
        ),
        update=api.UpdateConfig(parallelism=0),
    )


def build(spec: api.ServiceSpec, given: Given) -> None:
    """Write the given flags into `spec`. Names to look up (network, secrets, configs) are not its business: see below.

    Raises FlagError for a value that cannot be read, InvalidArgument for one that does not fit the service.
    """
    if given.truth("force"):
        spec.task.force_update += 1
    if "name" in given:
        spec.annotations.name = given.text("name")
    if "label" in given:
        labels = flags.labels(given.texts("label"))
        spec.annotations.labels.clear()
        spec.annotations.labels.update(labels)
    _mode(spec, given)
    _container(spec, given)
    _resources(spec.task, given)
    _endpoint(spec, given)
    _restart(spec.task, given)
    _update_settings(spec, given)
    if "constraint" in given:
        spec.task.placement.constraints[:] = given.texts("constraint")
    for name, read in _MOUNTS:
        _only_containers(spec, given, name).mounts.extend(read(text) for text in given.texts(name))
    driver = flags.log_driver(given)
    if driver is not None:
        spec.task.log_driver.CopyFrom(driver)
    elif "log-driver" in given:
        spec.task.ClearField("log_driver")


def check(given: Given) -> None:
    """Raise FlagError if a flag's value cannot be read, before anyone is asked anything."""
    spec = blank()
    if "max-concurrent" in given and "mode" not in given:
        _set_mode(spec, "replicated_job", 1)  # whether the service is one is not known yet
    build(spec, given)
    for name in ("secret", "add-secret", "rm-secret"):
        flags.references(given.texts(name), "secret")
    for name in ("add-config", "rm-config"):
        flags.references(given.texts(name), "config")


def set_network(spec: api.ServiceSpec, network_id: str) -> None:
    """The tasks' networks are exactly this one."""
    del spec.task.networks[:]
    spec.task.networks.add(target=network_id)


def add_secrets(spec: api.ServiceSpec, wanted: Iterable[tuple[str, str]], ids: Mapping[str, str]) -> None:
    """Append references (name, target) to secrets; `ids` maps the names that exist. Raises NotFound."""
    for name, target in wanted:
        if name not in ids:
            raise errors.NotFound(f"secret not found: {name}")
        file = flags.file_target(target)
        spec.task.container.secrets.append(api.SecretReference(secret_id=ids[name], secret_name=name, file=file))


def add_configs(spec: api.ServiceSpec, wanted: Iterable[tuple[str, str]], ids: Mapping[str, str]) -> None:
    """Append references (name, target) to configs; `ids` maps the names that exist. Raises NotFound."""
    for name, target in wanted:
        if name not in ids:
            raise errors.NotFound(f"config not found: {name}")
        file = flags.file_target(target)
        spec.task.container.configs.append(api.ConfigReference(config_id=ids[name], config_name=name, file=file))


def remove_references(spec: api.ServiceSpec, given: Given) -> None:
    """--rm-secret and --rm-config: drop every reference of these names, whatever its target."""
    container = spec.task.container
    if "rm-secret" in given:
        names = {name for name, _ in flags.references(given.texts("rm-secret"), "secret")}
        secrets = [reference for reference in container.secrets if reference.secret_name not in names]
        del container.secrets[:]
        container.secrets.extend(secrets)
    if "rm-config" in given:
        names = {name for name, _ in flags.references(given.texts("rm-config"), "config")}
        configs = [reference for reference in container.configs if reference.config_name not in names]
        del container.configs[:]
        container.configs.extend(configs)


def capabilities(spec: api.ServiceSpec, given: Given) -> None:
    """--add-capability and --rm-capability: each name moves from one list to the other."""
    container = spec.task.container
    for name in given.texts("add-capability"):
        _move(name, container.capability_drop, container.capability_add)
    for name in given.texts("rm-capability"):
        _move(name, container.capability_add, container.capability_drop)


def differs(old: api.ServiceSpec, new: api.ServiceSpec) -> bool:
    """Whether anything changed, by what would be sent."""
    return old.SerializeToString(deterministic=True) != new.SerializeToString(deterministic=True)


def _mode(spec: api.ServiceSpec, given: Given) -> None:
    if "mode" in given:
        mode = flags.choice("mode", given.text("mode"), _MODES)
        for name in _misplaced(mode, given):
            raise FlagError(f"--{name} can only be specified in --mode {_PLACES[name]}")
        _set_mode(spec, mode, given.number("replicas", 1))
    for name in _misplaced(spec.WhichOneof("mode"), given):
        raise errors.InvalidArgument(f"--{name} can only be specified in --mode {_PLACES[name]}")
    if "replicas" in given and spec.HasField("replicated"):
        spec.replicated.replicas = given.number("replicas")
    elif "replicas" in given:
        spec.replicated_job.total_completions = given.number("replicas")
    if "max-concurrent" in given:
        spec.replicated_job.max_concurrent = given.number("max-concurrent")
    if "replicas-max-per-node" in given:
        spec.task.placement.max_replicas = given.number("replicas-max-per-node")


def _misplaced(mode: str | None, given: Given) -> list[str]:
    """Flags that say nothing about a service of this mode."""
    places = {name: {_MODES[word] for word in words.split(" or ")} for name, words in _PLACES.items()}
    return [name for name, modes in places.items() if name in given and mode not in modes]


def _set_mode(spec: api.ServiceSpec, mode: str, count: int) -> None:
    """A new service's mode. Jobs have no update settings; all tasks of a replicated one may run at once unless a flag says otherwise."""
    getattr(spec, mode).SetInParent()
    if mode == "replicated_job":
        spec.replicated_job.CopyFrom(api.ReplicatedJob(max_concurrent=count, total_completions=count))
    if is_job(spec):
        spec.ClearField("update")


def _container(spec: api.ServiceSpec, given: Given) -> None:
    for name in ("image", "hostname"):
        if name in given:
            setattr(_only_containers(spec, given, name), name, given.text(name))
    for name in ("command", "args", "env"):
        if name in given:
            getattr(_only_containers(spec, given, name), name)[:] = given.texts(name)
    for name in ("tty", "open-stdin"):
        if name in given:
            setattr(_only_containers(spec, given, name), name.replace("-", "_"), given.truth(name))
    if "init" in given:
        _only_containers(spec, given, "init").init.value = given.truth("init")
    if "oom-score-adj" in given:
        _only_containers(spec, given, "oom-score-adj").oom_score_adj = given.number("oom-score-adj")
    if "ulimit" in given:
        container = _only_containers(spec, given, "ulimit")
        ulimits = [flags.ulimit(text) for text in given.texts("ulimit")]
        del container.ulimits[:]
        container.ulimits.extend(ulimits)


def _endpoint(spec: api.ServiceSpec, given: Given) -> None:
    """Either kind of port flag says what all ports are."""
    if given.any("ports", "publish"):
        ports = [flags.port(text) for text in given.texts("ports")]
        spec.endpoint.CopyFrom(api.EndpointSpec(ports=[*ports, *map(flags.ingress_port, given.texts("publish"))], mode=spec.endpoint.mode))
    if "endpoint-mode" in given:
        spec.endpoint.mode = flags.choice("endpoint-mode", given.text("endpoint-mode"), _RESOLUTIONS)


def _only_containers(spec: api.ServiceSpec, given: Given, name: str) -> api.ContainerSpec:
    """The container to edit. A service that runs something else has none, and must not be turned into a container by a flag."""
    if name in given and spec.task.WhichOneof("runtime") not in {None, "container"}:
        raise errors.InvalidArgument(f"--{name}: the service does not run containers")
    return spec.task.container if name in given or spec.task.HasField("container") else api.ContainerSpec()


def _resources(task: api.TaskSpec, given: Given) -> None:
    for kind in ("reservation", "limit"):
        if given.any(f"memory-{kind}", f"cpu-{kind}"):
            resources = task.resources.reservations if kind == "reservation" else task.resources.limits
            if f"memory-{kind}" in given:
                resources.memory_bytes = flags.memory(given.text(f"memory-{kind}"))
            if f"cpu-{kind}" in given:
                resources.nano_cpus = flags.cpus(given.text(f"cpu-{kind}"))
            resources.SetInParent()
    if "generic-resources" in given:
        generic = flags.generic_reservation(given.text("generic-resources"))
        del task.resources.reservations.generic[:]
        task.resources.reservations.generic.extend(generic)


def _restart(task: api.TaskSpec, given: Given) -> None:
    if not given.any("restart-condition", "restart-delay", "restart-max-attempts", "restart-window"):
        return
    if not task.HasField("restart"):
        # No policy means "always"; a policy without a condition would mean "never".
        task.restart.condition = api.RestartPolicy.RestartCondition.ANY
    if "restart-condition" in given:
        text = given.text("restart-condition")
        task.restart.condition = flags.choice("restart-condition", text, _CONDITIONS, f"invalid restart condition: {text}")
    if "restart-delay" in given:
        task.restart.delay.CopyFrom(_duration(given.text("restart-delay")))
    if "restart-max-attempts" in given:
        task.restart.max_attempts = given.number("restart-max-attempts")
    if "restart-window" in given:
        task.restart.window.CopyFrom(_duration(given.text("restart-window")))


def _update_settings(spec: api.ServiceSpec, given: Given) -> None:
    if given.any(*_UPDATE_FLAGS):
        if is_job(spec):
            name = next(name for name in _UPDATE_FLAGS if name in given)
            raise errors.InvalidArgument(f"--{name}: a job has no update settings, since an update runs it again from the start")
        if not spec.HasField("update"):
            spec.update.parallelism = _PARALLELISM_WHEN_UNSET
        _update_config(spec.update, "update", _UPDATE_ACTIONS, given)
    if given.any("rollback-parallelism", "rollback-delay", "rollback-on-failure", "rollback-order"):
        if not spec.HasField("rollback"):
            spec.rollback.parallelism = _PARALLELISM_WHEN_UNSET
        _update_config(spec.rollback, "rollback", _ROLLBACK_ACTIONS, given)


def _update_config(
    config: api.UpdateConfig, kind: str, actions: Mapping[str, api.UpdateConfig.FailureAction.ValueType], given: Given
) -> None:
    config.SetInParent()
    if f"{kind}-parallelism" in given:
        config.parallelism = given.number(f"{kind}-parallelism")
    if f"{kind}-delay" in given:
        config.delay.CopyFrom(_duration(given.text(f"{kind}-delay")))
    name = f"{kind}-on-failure"
    more = " (or rollback)" if "rollback" in actions else ""
    if name in given:
        config.failure_action = flags.choice(name, given.text(name), actions, f"--{name} value must be pause or continue" + more)
    name = f"{kind}-order"
    if name in given:
        config.order = flags.choice(name, given.text(name), _ORDERS, f"--{name} value must be stop-first or start-first")


def _duration(text: str) -> Duration:
    message = Duration()
    message.FromNanoseconds(flags.duration(text))
    return message


def _move(name: str, source: MutableSequence[str], target: MutableSequence[str]) -> None:
    if name in source:
        source.remove(name)
    if name not in target:
        target.append(name)
