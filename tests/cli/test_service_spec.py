"""From flags to a service's spec."""

from __future__ import annotations

import pytest

from pyswarm import errors
from pyswarm.api import v1 as api
from pyswarm.cli import service_flags, service_spec
from pyswarm.cli.flagset import FlagError, parse

Failure = api.UpdateConfig.FailureAction


def built(*words: str, spec: api.ServiceSpec | None = None) -> api.ServiceSpec:
    """`spec` (default: what create starts from) after these flags."""
    result = api.ServiceSpec()
    result.CopyFrom(spec if spec is not None else service_spec.blank())
    flags = {flag.name: flag for flag in [*service_flags.CREATE, *service_flags.UPDATE]}
    given = parse(words, flags.values()).given
    service_spec.build(result, given)
    service_spec.remove_references(result, given)
    service_spec.capabilities(result, given)
    return result


def complaint(*words: str) -> str:
    """The usage error that these flags are."""
    with pytest.raises(FlagError) as caught:
        built(*words)
    return str(caught.value)


def test_minimal() -> None:
    """One replica, always restarted, updated all at once, nothing else. [cli 46]"""
    spec = built("--name", "redis", "--image", "redis:3.0.5")
    assert spec.replicated.replicas == 1
    assert spec.task.restart == api.RestartPolicy(condition=api.RestartPolicy.RestartCondition.ANY)
    assert spec.HasField("update")
    assert spec.update == api.UpdateConfig(parallelism=0)
    assert not any(spec.HasField(field) for field in ("rollback", "endpoint"))
    assert not any(spec.task.HasField(field) for field in ("placement", "resources", "log_driver"))


def test_mode() -> None:
    """Global, replicated, or one of the jobs; anything else is refused. [cli 47]"""
    assert built("--mode", "global").WhichOneof("mode") == "global"
    assert built("--mode", "replicated").WhichOneof("mode") == "replicated"
    assert complaint("--mode", "weird") == '--mode must be replicated, global, replicated-job or global-job, not "weird"'
    for name in ("replicas", "replicas-max-per-node"):
        for mode in ("global", "global-job"):
            expected = f"--{name} can only be specified in --mode replicated or replicated-job"
            assert complaint("--mode", mode, f"--{name}", "2") == expected
    for mode in ("replicated", "global", "global-job"):
        expected = "--max-concurrent can only be specified in --mode replicated-job"
        assert complaint("--mode", mode, "--max-concurrent", "2") == expected


def test_jobs() -> None:
    """A job has completions instead of replicas, as many at once as there are unless told, and no update settings."""
    assert built("--mode", "replicated-job").replicated_job == api.ReplicatedJob(max_concurrent=1, total_completions=1)
    sums = built("--mode", "replicated-job", "--replicas", "9", "--replicas-max-per-node", "2")
    assert sums.replicated_job == api.ReplicatedJob(max_concurrent=9, total_completions=9)
    assert (sums.HasField("update"), sums.task.placement.max_replicas) == (False, 2)
    assert built("--max-concurrent", "3", "--replicas", "12", spec=sums).replicated_job == api.ReplicatedJob(
        max_concurrent=3, total_completions=12
    )
    assert built("--env", "A=1", spec=sums).replicated_job == sums.replicated_job
    everywhere = built("--mode", "global-job")
    assert (everywhere.WhichOneof("mode"), everywhere.HasField("update")) == ("global_job", False)
    for spec in (sums, everywhere):
        with pytest.raises(errors.InvalidArgument, match="--update-delay: a job has no update settings"):
            built("--update-delay", "1s", spec=spec)
    with pytest.raises(errors.InvalidArgument, match="--max-concurrent can only be specified in --mode replicated-job"):
        built("--max-concurrent", "3", spec=everywhere)


def test_checks_do_not_know_the_service() -> None:
    """Before the service is known, a flag that only jobs have is fine by itself, and still must be readable."""
    service_spec.check(parse(("--max-concurrent", "3", "--replicas", "2"), service_flags.UPDATE).given)
    with pytest.raises(FlagError, match="max-concurrent"):
        parse(("--max-concurrent", "-3"), service_flags.UPDATE)


def test_replicas_of_a_global_service() -> None:
    """A global service cannot be scaled by an update."""
    with pytest.raises(errors.InvalidArgument, match="--replicas can only be specified in --mode replicated"):
        built("--replicas", "3", spec=built("--mode", "global"))


def test_container_fields() -> None:
    """Lists replace, booleans take false, init is unset unless given."""
    spec = built(
        *("--image", "b", "--command", "sh", "--args", "-c,exit 3", "--env", "A=1,B=2", "--env", "C=x=y"),
        *("--hostname", "{{.Node.ID}}", "--tty", "--open-stdin", "--init=false", "--oom-score-adj", "-500"),
    )
    container = spec.task.container
    assert (list(container.command), list(container.args), list(container.env)) == (["sh"], ["-c", "exit 3"], ["A=1", "B=2", "C=x=y"])
    assert (container.tty, container.open_stdin, container.oom_score_adj) == (True, True, -500)
    assert container.HasField("init")
    assert not container.init.value
    assert not built().task.container.HasField("init")
    after = built("--env", "C=3", "--args", "", "--tty=false", spec=spec).task.container
    assert (list(after.env), list(after.args), after.tty, after.open_stdin) == (["C=3"], [], False, True)


def test_resources() -> None:
    """Each resource value is set alone, the others stay."""
    first = built("--memory-limit", "64m", "--cpu-reservation", ".1", "--generic-resources", "gpu=1")
    assert not first.task.resources.limits.nano_cpus
    second = built("--cpu-limit", "0.5", "--generic-resources", "fpga=2", spec=first).task.resources
    assert (second.limits.memory_bytes, second.limits.nano_cpus, second.reservations.nano_cpus) == (64 << 20, 5 * 10**8, 10**8)
    assert [one.discrete_resource_spec.kind for one in second.reservations.generic] == ["fpga"]
    assert not built("--memory-limit", "1g").task.resources.HasField("reservations")


def test_publishing() -> None:
    """The port flags together say what all ports are; how the name is resolved stays."""
    first = built("--ports", "web:80:8080", "--publish", "9090:90,53/udp", "--endpoint-mode", "dnsrr")
    host, ingress = api.PortConfig.PublishMode.HOST, api.PortConfig.PublishMode.INGRESS
    assert [(p.publish_mode, p.published_port) for p in first.endpoint.ports] == [(host, 8080), (ingress, 9090), (ingress, 0)]
    assert first.endpoint.mode == api.EndpointSpec.ResolutionMode.DNSRR
    second = built("--publish", "90", spec=first)
    assert [p.target_port for p in second.endpoint.ports] == [90]
    assert second.endpoint.mode == api.EndpointSpec.ResolutionMode.DNSRR
    assert not built("--publish", "", spec=second).endpoint.ports
    assert built("--endpoint-mode", "vip", spec=second).endpoint.mode == api.EndpointSpec.ResolutionMode.VIP


def test_replacing_and_appending() -> None:
    """Labels, constraints, ports and ulimits replace; mounts are added in a fixed order. [cli 53] [cli 62]"""
    first = built(
        *("--label", "a=1", "--constraint", "node.role==worker", "--ports", "web:80", "--ulimit", "nofile=10"),
        *("--npipe", "a:b", "--tmpfs", "/t", "--volume", "/v1", "--bind", "/etc:/host"),
    )
    assert [mount.target for mount in first.task.container.mounts] == ["/host", "/v1", "/t", "b"]
    second = built(
        *("--label", "b=2", "--constraint", "node.hostname==n", "--ports", "api:90:9090", "--ulimit", "core=-1", "--volume", "/v2"),
        spec=first,
    )
    assert dict(second.annotations.labels) == {"b": "2"}
    assert list(second.task.placement.constraints) == ["node.hostname==n"]
    assert [port.name for port in second.endpoint.ports] == ["api"]
    assert [ulimit.name for ulimit in second.task.container.ulimits] == ["core"]
    assert [mount.target for mount in second.task.container.mounts] == ["/host", "/v1", "/t", "b", "/v2"]
    assert not built("--label", "", "--constraint", "", spec=second).annotations.labels


def test_an_omitted_flag_changes_nothing() -> None:
    """Whatever else an update changes, log driver, update settings, restart policy and networks stay. [cli 61]"""
    spec = built("--log-driver", "json-file", "--log-opt", "max-size=1m", "--update-parallelism", "2", "--update-delay", "10s")
    spec.task.networks.add(target="net")
    spec.task.container.healthcheck.retries = 3
    changed = built("--env", "C=3", spec=spec)
    spec.task.container.env.append("C=3")
    assert changed == spec


def test_log_driver() -> None:
    """A driver replaces the one before with its options; an empty one removes it; options alone are refused. [cli 60]"""
    spec = built("--log-driver", "json-file", "--log-opt", "max-size=1m")
    assert built("--log-driver", "syslog", spec=spec).task.log_driver == api.Driver(name="syslog")
    assert not built("--log-driver", "", spec=spec).task.HasField("log_driver")
    assert complaint("--log-opt", "a=b").startswith("--log-opt needs --log-driver")


def test_update_settings_on_create() -> None:
    """One update flag leaves all at once as it is. [cli 57]"""
    update = built("--update-delay", "3s").update
    assert (update.parallelism, update.delay.seconds) == (0, 3)
    full = built("--update-parallelism", "2", "--update-on-failure", "rollback", "--update-order", "start-first").update
    assert (full.parallelism, full.failure_action, full.order) == (2, Failure.ROLLBACK, api.UpdateConfig.UpdateOrder.START_FIRST)


def test_update_settings_on_update() -> None:
    """Each flag changes its own value; a message that is missing is made with what its absence means."""
    spec = built("--update-parallelism", "3", "--update-on-failure", "continue")
    update = built("--update-delay", "500ms", spec=spec).update
    assert (update.parallelism, update.failure_action, update.delay.nanos) == (3, Failure.CONTINUE, 500_000_000)
    spec.ClearField("update")
    assert built("--update-delay", "1s", spec=spec).update.parallelism == 1
    assert built("--rollback-delay", "2s", spec=spec).rollback.parallelism == 1
    assert built("--rollback-parallelism", "0", spec=spec).rollback == api.UpdateConfig(parallelism=0)
    assert not built("--image", "x", spec=spec).HasField("update")


def test_restart_policy() -> None:
    """Each flag changes its own value; a missing policy means always and stays so."""
    policy = built("--restart-condition", "failure", "--restart-delay", "1m30s", "--restart-max-attempts", "2").task.restart
    assert (policy.condition, policy.delay.seconds, policy.max_attempts) == (api.RestartPolicy.RestartCondition.ON_FAILURE, 90, 2)
    bare = built()
    bare.task.ClearField("restart")
    assert built("--restart-window", "1h", spec=bare).task.restart.condition == api.RestartPolicy.RestartCondition.ANY


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--update-delay", "10"), 'time: missing unit in duration "10"'),
        (("--rollback-delay", "x"), 'time: invalid duration "x"'),
        (("--restart-delay", "x"), 'time: invalid duration "x"'),
        (("--update-on-failure", "x"), "--update-on-failure value must be pause or continue (or rollback)"),
        (("--update-order", "x"), "--update-order value must be stop-first or start-first"),
        (("--rollback-on-failure", "rollback"), "--rollback-on-failure value must be pause or continue"),
        (("--rollback-order", "x"), "--rollback-order value must be stop-first or start-first"),
        (("--restart-condition", "x"), "invalid restart condition: x"),
        (("--memory-limit", "abc"), "invalid size: 'abc'"),
        (("--cpu-limit", "abc"), "invalid cpu: abc"),
        (("--label", "x"), "malformed label: x"),
    ],
)
def test_complaints(words: tuple[str, ...], reason: str) -> None:
    """Each bad value has its sentence. [cli 56]"""
    assert complaint(*words) == reason


def test_force() -> None:
    """--force counts up, --force=false changes nothing. [cli 66]"""
    spec = built("--force")
    assert spec.task.force_update == 1
    assert built("--force", spec=spec).task.force_update == 2
    assert not service_spec.differs(spec, built("--force=false", spec=spec))


def test_capabilities() -> None:
    """A capability is on one list only; the same again changes nothing. [cli 64]"""
    first = built("--add-capability", "CAP_NET_ADMIN,CAP_CHOWN")
    second = built("--rm-capability", "CAP_CHOWN", spec=first)
    container = second.task.container
    assert (list(container.capability_add), list(container.capability_drop)) == (["CAP_NET_ADMIN"], ["CAP_CHOWN"])
    assert not service_spec.differs(second, built("--rm-capability", "CAP_CHOWN", spec=second))
    third = built("--add-capability", "CAP_CHOWN", spec=second).task.container
    assert (list(third.capability_add), list(third.capability_drop)) == (["CAP_NET_ADMIN", "CAP_CHOWN"], [])


def test_references() -> None:
    """References carry ID, name, target and mode; removing goes by name and takes every target. [cli 55] [cli 65]"""
    spec = service_spec.blank()
    service_spec.add_secrets(spec, [("pw", "pw"), ("pw2", "renamed"), ("pw2", "again")], {"pw": "1", "pw2": "2"})
    service_spec.add_configs(spec, [("cfg", "/etc/cfg")], {"cfg": "3"})
    file = api.FileTarget(name="renamed", uid="0", gid="0", mode=0o444)
    assert spec.task.container.secrets[1] == api.SecretReference(secret_id="2", secret_name="pw2", file=file)
    after = built("--rm-secret", "pw2", "--rm-config", "cfg", spec=spec).task.container
    assert [reference.secret_name for reference in after.secrets] == ["pw"]
    assert not after.configs
    with pytest.raises(errors.NotFound, match="secret not found: PW"):
        service_spec.add_secrets(spec, [("PW", "x")], {"pw": "1"})
    with pytest.raises(errors.NotFound, match="config not found: nope"):
        service_spec.add_configs(spec, [("nope", "x")], {})


def test_not_a_container() -> None:
    """No flag turns a service with another runtime into one with a container."""
    spec = api.ServiceSpec()
    spec.replicated.replicas = 1
    spec.task.generic.kind = "plugin"
    with pytest.raises(errors.InvalidArgument, match="--image: the service does not run containers"):
        built("--image", "x", spec=spec)
    assert built("--replicas", "2", spec=spec).task.WhichOneof("runtime") == "generic"


def test_empty_and_unset_lists_are_the_same() -> None:
    """Removing a secret from a service without secrets is no change."""
    spec = built("--image", "x")
    assert not service_spec.differs(spec, built("--rm-secret", "pw", spec=spec))
