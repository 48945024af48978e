"""Service specs: what is refused, in which order, with which text."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration

from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.errors import Unknown
from pyswarm.manager.control.validate_service import check_service
from pyswarm.manager.control.validate_task import check_generic, check_health, check_resources, check_restart, templated
from tests.manager.control.support import IA, UI, UNK, port, refused, service_spec, with_ports

HOST, UDP = api.PortConfig.HOST, api.PortConfig.UDP


def check_with(change: Callable[[api.ServiceSpec], object]) -> None:
    """Check a good spec after one change."""
    spec = service_spec()
    change(spec)
    check_service(spec)


def test_memory_has_a_floor() -> None:
    """Memory is 0 (any) or at least 4 MiB. [control 6]"""
    for bad in (1, 4194303, -1):
        with refused(IA, f"invalid memory value {bad}: Must be at least 4MiB", exactly=True):
            check_resources(api.Resources(memory_bytes=bad))
    for good in (0, 4194304, 4294967296):
        check_resources(api.Resources(memory_bytes=good))


def test_cpus_have_a_floor() -> None:
    """CPU is 0 (any) or at least a thousandth. [control 7]"""
    for bad, shown in ((42, "4.2e-08"), (999_999, "0.000999999"), (-1_000_000_000, "-1")):
        with refused(IA, f"invalid cpu value {shown}: Must be at least 0.001", exactly=True):
            check_resources(api.Resources(nano_cpus=bad))
    for good in (0, 1_000_000, 1_000_000_000):
        check_resources(api.Resources(nano_cpus=good))


def test_limits_and_reservations_are_checked() -> None:
    """Both halves of the resource requirements are validated. [control 6]"""
    for half in ("limits", "reservations"):
        with refused(IA, "invalid memory value 1"):
            check_with(lambda s, half=half: setattr(getattr(s.task.resources, half), "memory_bytes", 1))  # type: ignore[misc]


def test_named_generic_resources_are_refused() -> None:
    """A reservation of a named resource can never be met, so it is refused, unlike in the reference. [control 14]"""
    named = api.GenericResource(named_resource_spec=api.NamedGenericResource(kind="gpu", value="red"))
    with refused(IA, "invalid argument for resource gpu", exactly=True):
        check_resources(api.Resources(generic=[named]))
    negative = api.GenericResource(discrete_resource_spec=api.DiscreteGenericResource(kind="gpu", value=-1))
    with refused(IA, "cannot ask for negative resource gpu", exactly=True):
        check_resources(api.Resources(generic=[negative]))
    check_resources(api.Resources(generic=[api.GenericResource(discrete_resource_spec=api.DiscreteGenericResource(kind="gpu", value=2))]))


def test_restart_times() -> None:
    """Restart delay and window are not negative. [control 8]"""
    with refused(IA, "TaskSpec: restart-delay cannot be negative", exactly=True):
        check_restart(api.RestartPolicy(delay=times.duration(-1)))
    with refused(IA, "TaskSpec: restart-window cannot be negative", exactly=True):
        check_restart(api.RestartPolicy(delay=times.duration(20), window=times.duration(-4)))
    check_restart(api.RestartPolicy(delay=times.duration(10), window=times.duration(1)))


@pytest.mark.parametrize("seconds", [-1, -1000])
def test_update_times(seconds: int) -> None:
    """Update delay and monitor are not negative. [control 9]"""
    with refused(IA, "TaskSpec: update-delay cannot be negative", exactly=True):
        check_with(lambda s: s.update.delay.CopyFrom(times.duration(seconds)))
    with refused(IA, "TaskSpec: update-monitor cannot be negative", exactly=True):
        check_with(lambda s: s.update.monitor.CopyFrom(times.duration(seconds)))


def test_update_ratio() -> None:
    """The failure ratio lies between 0 and 1; not a number is none. [control 9]"""
    for bad in (-0.1, 1.1, float("nan")):
        with refused(IA, "TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1", exactly=True):
            check_with(lambda s, bad=bad: setattr(s.update, "max_failure_ratio", bad))  # type: ignore[misc]
    for good in (0, 0.5, 1):
        check_with(lambda s, good=good: setattr(s.update, "max_failure_ratio", good))  # type: ignore[misc]
    check_with(lambda s: s.update.CopyFrom(api.UpdateConfig(delay=times.duration(1), monitor=times.duration(1))))


def test_rollback_config_is_not_judged() -> None:
    """A negative rollback delay is stored, as peers do. [control 10]"""
    check_with(lambda s: s.rollback.delay.CopyFrom(times.duration(-1)))


@pytest.mark.parametrize(
    "expression",
    ["", " ", "nodeabc", "node ~ abc", "1node==a2", "no de== node1", "no*de==node1", "==node1", "node==", "node== ", "no$de==node1"],
)
def test_constraints_refused(expression: str) -> None:
    """A constraint that does not parse is refused with code UNKNOWN. [control 11]"""
    with pytest.raises(Unknown):
        check_with(lambda s: s.task.placement.constraints.append(expression))


def test_constraints_that_match_nothing_are_refused() -> None:
    """Unknown keys and malformed addresses would silently reject every node. [control 12]"""
    check_with(lambda s: s.task.placement.constraints.extend(["node.labels.zone == a b", "node.ip!=10.0.0.0/8", "NODE.role==manager"]))
    with refused(IA, "node.foo"):
        check_with(lambda s: s.task.placement.constraints.append("node.foo==bar"))
    with refused(IA, "node.ip"):
        check_with(lambda s: s.task.placement.constraints.append("node.ip==10.0.0.300"))


def test_constraint_before_image() -> None:
    """Constraints are judged before the container. [control 13]"""
    spec = service_spec(image="###")
    spec.task.placement.constraints.append("nodeabc")
    with refused(UNK, "constraint expected one operator from ==, !=", exactly=True):
        check_service(spec)


def test_counts_that_were_negative() -> None:
    """A negative number cast to unsigned is refused, and so is a missing mode. [control 15]"""
    huge = 2**64 - 4
    with refused(IA, "Number of replicas must be non-negative", exactly=True):
        check_with(lambda s: setattr(s.replicated, "replicas", huge))
    with refused(IA, "Maximum concurrent jobs must not be negative", exactly=True):
        check_with(lambda s: setattr(s.replicated_job, "max_concurrent", huge))
    with refused(IA, "Total completed jobs must not be negative", exactly=True):
        check_with(lambda s: setattr(s.replicated_job, "total_completions", huge))
    with refused(IA, "Unrecognized service mode", exactly=True):
        check_with(lambda s: s.ClearField("replicated"))


def test_modes_accepted() -> None:
    """All four modes are valid specs, those without fields too. [control 16]"""
    check_with(lambda s: s.replicated.CopyFrom(api.ReplicatedService(replicas=2)))
    check_with(lambda s: getattr(s, "global").SetInParent())
    check_with(lambda s: s.replicated_job.CopyFrom(api.ReplicatedJob(max_concurrent=3, total_completions=9)))
    check_with(lambda s: s.global_job.SetInParent())


@pytest.mark.parametrize("mode", ["replicated_job", "global_job"])
def test_jobs_have_no_update(mode: str) -> None:
    """A present update config, even an empty one, is refused for jobs. [control 17]"""
    spec = service_spec()
    getattr(spec, mode).SetInParent()
    check_service(spec)
    spec.update.SetInParent()
    with refused(IA, "Jobs may not have an update config", exactly=True):
        check_service(spec)


def test_runtimes() -> None:
    """A runtime is needed, and attachments are none that users may ask for. [control 18]"""
    with refused(IA, "TaskSpec: missing runtime", exactly=True):
        check_with(lambda s: s.task.ClearField("container"))
    with refused(UI, "RuntimeSpec: unimplemented runtime in service spec", exactly=True):
        check_with(lambda s: s.task.attachment.SetInParent())


def test_images() -> None:
    """A container needs a valid image. [control 19]"""
    with refused(IA, "ContainerSpec: image reference must be provided", exactly=True):
        check_service(service_spec(image=""))
    with refused(IA, 'ContainerSpec: "busybox###" is not a valid repository/tag', exactly=True):
        check_service(service_spec(image="busybox###"))


def test_generic_runtimes() -> None:
    """A generic runtime has a kind of three letters that is not taken, and a typed payload. [control 20]"""
    payload = Any(type_url="x", value=b"1")
    check_generic(api.GenericRuntimeSpec(kind="custom", payload=payload))
    for kind, text in (
        ("", 'Generic runtime: Invalid name ""'),
        ("c", 'Generic runtime: Invalid name "c"'),
        ("Container", 'Generic runtime: "Container" is a reserved name'),
        ("attachment", 'Generic runtime: "attachment" is a reserved name'),
    ):
        with refused(IA, text, exactly=True):
            check_generic(api.GenericRuntimeSpec(kind=kind, payload=payload))
    with refused(IA, "Generic runtime is missing payload", exactly=True):
        check_generic(api.GenericRuntimeSpec(kind="custom"))
    with refused(IA, "Generic runtime is missing payload type", exactly=True):
        check_generic(api.GenericRuntimeSpec(kind="custom", payload=Any(value=b"1")))
    with refused(IA, "Generic runtime has an empty payload", exactly=True):
        check_generic(api.GenericRuntimeSpec(kind="custom", payload=Any(type_url="x")))


def test_mount_targets() -> None:
    """Two mounts share no target; targets are compared as they are written. [control 21]"""
    with refused(IA, "ContainerSpec: duplicate mount point: /foo", exactly=True):
        check_with(lambda s: s.task.container.mounts.extend([api.Mount(target="/foo"), api.Mount(target="/foo")]))
    check_with(lambda s: s.task.container.mounts.extend([api.Mount(target="/foo"), api.Mount(target="/foo/"), api.Mount(target="/data")]))


def test_expanded_mount_targets() -> None:
    """Targets are compared as they would be for the first task. [control 22]"""
    with refused(IA, "ContainerSpec: duplicate mount point: /a-1", exactly=True):
        check_with(lambda s: s.task.container.mounts.extend([api.Mount(target="/a-{{.Task.Slot}}"), api.Mount(target="/a-1")]))


def test_templates() -> None:
    """Templates must expand for some task; the spec itself keeps them. [control 24]"""
    for text in ("expanding hostname failed", "can't evaluate field Nothing"):
        with refused(IA, text):
            check_with(lambda s: setattr(s.task.container, "hostname", "{{.Nothing.here}}"))
    spec = service_spec()
    spec.task.container.hostname = "{{.Service.Name}}-{{.Task.Slot}}"
    before = spec.SerializeToString(deterministic=True)
    check_service(spec)
    assert spec.SerializeToString(deterministic=True) == before


def test_templates_and_labels() -> None:
    """There are no labels to expand with, so a label is only to be had through index. [control 25]"""
    spec = service_spec()
    spec.annotations.labels["foo"] = "1"
    spec.task.container.env.append("A={{.Service.Labels.foo}}")
    with refused(IA, 'map has no entry for key "foo"'):
        check_service(spec)
    spec.task.container.env[0] = 'A={{index .Service.Labels "foo"}}'
    check_service(spec)


def test_where_templates_are() -> None:
    """Values of env, mounts and hostname are templates; names, keys and everything else are literal. [control 142]"""
    container = api.ContainerSpec(image="i", hostname="h", env=["{{A}}=b={{c", "{{X}}"], args=["{{"])
    mount = container.mounts.add(source="s", target="t")
    mount.volume_options.labels["{{k"] = "l"
    mount.volume_options.driver_config.options["{{k"] = "o"
    assert list(templated(container)) == ["b={{c", "", "h", "s", "t", "l", "o"]


@pytest.mark.parametrize(
    ("field", "name"),
    [("interval", "Interval"), ("timeout", "Timeout"), ("start_period", "StartPeriod"), ("start_interval", "StartInterval")],
)
def test_health_spans(field: str, name: str) -> None:
    """Health check spans are 0 or at least a millisecond. [control 23]"""
    for bad in (Duration(seconds=-1), Duration(nanos=999_999)):
        with refused(IA, f"ContainerSpec: {name} in HealthConfig cannot be less than 1ms", exactly=True):
            check_health(api.HealthConfig(**{field: bad}))  # type: ignore[arg-type]
    for good in (Duration(), Duration(nanos=1_000_000), Duration(seconds=1)):
        check_health(api.HealthConfig(**{field: good}))  # type: ignore[arg-type]


def test_health_retries() -> None:
    """Health check retries are not negative. [control 23]"""
    with refused(IA, "ContainerSpec: Retries in HealthConfig cannot be negative", exactly=True):
        check_health(api.HealthConfig(retries=-1))


def test_dnsrr_and_ingress() -> None:
    """DNS round robin has no ingress ports, published or not; host ports are fine. [control 26; scheduling 95]"""
    spec = with_ports(service_spec(), port())
    spec.endpoint.mode = api.EndpointSpec.DNSRR
    with refused(IA, "EndpointSpec: port published with ingress mode can't be used with dnsrr mode", exactly=True):
        check_service(spec)
    spec.endpoint.ports[0].publish_mode = HOST
    check_service(spec)


def test_ports_within_a_spec() -> None:
    """A published port appears once per protocol, whatever the publish modes. [control 27; scheduling 95]"""
    check_service(with_ports(service_spec(), port(8001), port(8000)))
    check_service(with_ports(service_spec(), port(8002), port(8002, protocol=UDP)))
    check_service(with_ports(service_spec(), port(), port(), port()))
    for twice in ((port(8001), port(8001)), (port(8003, mode=HOST), port(8003))):
        with refused(IA, "EndpointSpec: duplicate published ports provided", exactly=True):
            check_service(with_ports(service_spec(), *twice))
    with refused(IA, "EndpointSpec: port 65536 is out of range"):
        check_service(with_ports(service_spec(), port(65536)))


def secret(object_id: str = "id", name: str = "name", file: str = "f") -> api.SecretReference:
    """A reference to a secret with a file target."""
    return api.SecretReference(secret_id=object_id, secret_name=name, file=api.FileTarget(name=file))


def config(object_id: str = "id", name: str = "name", file: str = "f") -> api.ConfigReference:
    """A reference to a config with a file target."""
    return api.ConfigReference(config_id=object_id, config_name=name, file=api.FileTarget(name=file))


def check_uses(*uses: api.SecretReference | api.ConfigReference) -> None:
    """Check a spec with these references."""
    container = service_spec().task.container
    for use in uses:
        (container.secrets if isinstance(use, api.SecretReference) else container.configs).append(use)  # type: ignore[arg-type]
    check_with(lambda s: s.task.container.CopyFrom(container))


def test_conflicting_targets() -> None:
    """Two references do not share a file, not even to the same secret; one secret may have two files. [control 42]"""
    with refused(IA, "secret references 's1' and 's2' have a conflicting target: 'secret2.txt'", exactly=True):
        check_uses(secret(name="s1", file="secret2.txt"), secret(name="s2", file="secret2.txt"))
    with refused(IA, "config references 'c' and 'c' have a conflicting target: 'f'", exactly=True):
        check_uses(config(name="c"), config(name="c"))
    check_uses(secret(file="a"), secret(file="b"))


def test_malformed_references() -> None:
    """A reference has id, name, target and file name. [control 43]"""
    for word, kind in (("secret", secret), ("config", config)):
        for bad in (kind(object_id=""), kind(name="")):
            with refused(IA, f"malformed {word} reference", exactly=True):
                check_uses(bad)
        with refused(IA, f"malformed file {word} reference, invalid target file name provided", exactly=True):
            check_uses(kind(file=""))
        bare = kind()
        bare.ClearField("file")
        with refused(IA, f"malformed {word} reference, no target provided", exactly=True):
            check_uses(bare)


@pytest.mark.parametrize(
    "file",
    ["file.txt", ".file.txt", "_file-txt_.txt", "../secretfile.txt", "../../secretfile.txt", "file../.txt", "subdir/file.txt", "/file.txt"],
)
def test_target_names_are_free(file: str) -> None:
    """Any file name is a target, for secrets and configs alike, even for both at once. [control 44, 46]"""
    check_uses(secret(file=file), config(file=file))


def test_credential_spec_config() -> None:
    """A credential spec from a config needs that config with a runtime target. [control 47]"""
    spec = service_spec()
    spec.task.container.privileges.credential_spec.config = "id"
    spec.task.container.configs.append(config())
    with refused(IA, "CredentialSpec references config 'id', but that config isn't in config references with RuntimeTarget", exactly=True):
        check_service(spec)
    spec.task.container.configs.append(api.ConfigReference(config_id="id", config_name="name", runtime=api.RuntimeTarget()))
    check_service(spec)


def test_malformed_duration_in_a_spec() -> None:
    """A span that is none travels as UNKNOWN with a text that says duration. [control 8]"""
    with refused(UNK, "duration:"):
        check_with(lambda s: s.task.restart.delay.CopyFrom(Duration(seconds=1, nanos=-1)))
