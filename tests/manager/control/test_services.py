"""CreateService, GetService, RemoveService, and checks against other objects."""

from __future__ import annotations

import re

from pyswarm.api import v1 as api
from pyswarm.manager.changes import apply
from pyswarm.manager.control import ControlService
from pyswarm.manager.orchestrator.jobs import Jobs
from pyswarm.manager.orchestrator.orchestrator import ServiceKey
from pyswarm.manager.store import Store, copy_of
from tests.manager.control.support import AE, FP, IA, ME, NF, MembersLog, create, port, refused, service_spec, update, with_ports
from tests.support.clock import VirtualClock
from tests.support.loops import write

S = api.TaskState
HOST, UDP = api.PortConfig.HOST, api.PortConfig.UDP


def named(message: type[api.Secret | api.Config], object_id: str, name: str) -> api.Secret | api.Config:
    """A stored secret or config."""
    obj = message(id=object_id)
    obj.spec.annotations.name = name
    return obj


def using(spec: api.ServiceSpec, *secrets: tuple[str, str]) -> api.ServiceSpec:
    """The spec with references to these (id, name) secrets."""
    for object_id, name in secrets:
        spec.task.container.secrets.add(secret_id=object_id, secret_name=name, file=api.FileTarget(name=f"{object_id}.txt"))
    return spec


async def test_create_refuses_incomplete_specs(control: ControlService) -> None:
    """No spec, a spec with only a name, no name and no image are invalid. [control 35]"""
    with refused(IA, "invalid argument", exactly=True):
        await control.CreateService(api.CreateServiceRequest(), ME)
    only_name = api.ServiceSpec(annotations=api.Annotations(name="name"))
    for spec in (only_name, service_spec(name=""), service_spec(image=""), service_spec(name="a" * 64)):
        with refused(IA):
            await create(control, spec)


async def test_create_stores_the_spec_as_sent(control: ControlService, store: Store) -> None:
    """A new service has an id, spec version 0 and nothing else that the user did not send. [control 36]"""
    service = await create(control, service_spec())
    assert re.fullmatch(r"[0-9a-z]{25}", service.id)
    assert service.HasField("spec_version")
    assert service.spec_version.index == 0
    for absent in ("previous_spec", "update_status", "job_status", "endpoint"):
        assert not service.HasField(absent)
    assert service.spec == service_spec()
    assert service.meta.created_at == service.meta.updated_at
    assert store.services.get(service.id) == service


async def test_names_are_unique(control: ControlService) -> None:
    """A taken name is refused, also in another case. [control 37]"""
    await create(control, service_spec("name"))
    for name in ("name", "NAME"):
        with refused(AE, f"name conflicts with an existing object: service {name} already exists", exactly=True):
            await create(control, service_spec(name))


async def test_get(control: ControlService, log: MembersLog) -> None:
    """Get needs an id that exists, and waits for the log before it reads. [control 38]"""
    with refused(IA, "invalid argument", exactly=True):
        await control.GetService(api.GetServiceRequest(), ME)
    with refused(NF, "service invalid not found", exactly=True):
        await control.GetService(api.GetServiceRequest(service_id="invalid"), ME)
    service = await create(control, service_spec())
    before = log.barriers
    assert (await control.GetService(api.GetServiceRequest(service_id=service.id), ME)).service == service
    assert log.barriers == before + 1


async def test_get_with_defaults(control: ControlService) -> None:
    """On request a copy is completed; the stored spec stays minimal. [control 39]"""
    service = await create(control, service_spec())
    got = (await control.GetService(api.GetServiceRequest(service_id=service.id, insert_defaults=True), ME)).service.spec
    assert got.task.container.stop_grace_period.seconds == 10
    assert got.task.container.HasField("pull_options")
    assert got.task.container.HasField("dns_config")
    assert (got.task.restart.condition, got.task.restart.delay.seconds) == (api.RestartPolicy.ANY, 5)
    for config in (got.update, got.rollback):
        assert (config.parallelism, config.monitor.seconds) == (1, 5)
        assert (config.failure_action, config.order) == (api.UpdateConfig.PAUSE, api.UpdateConfig.STOP_FIRST)
    assert (await control.GetService(api.GetServiceRequest(service_id=service.id), ME)).service.spec == service_spec()


async def test_defaults_of_present_but_empty_parts(control: ControlService) -> None:
    """A present restart policy or update config keeps its zeros; only the times are filled in. [control 40]"""
    spec = service_spec()
    spec.task.restart.SetInParent()
    spec.update.SetInParent()
    service = await create(control, spec)
    got = (await control.GetService(api.GetServiceRequest(service_id=service.id, insert_defaults=True), ME)).service.spec
    assert (got.task.restart.condition, got.task.restart.delay.seconds) == (api.RestartPolicy.NONE, 5)
    assert (got.update.parallelism, got.update.monitor.seconds) == (0, 5)


async def test_remove(control: ControlService, store: Store) -> None:
    """Remove deletes at once; the second time the service is not found. [control 38]"""
    with refused(IA, "invalid argument", exactly=True):
        await control.RemoveService(api.RemoveServiceRequest(), ME)
    service = await create(control, service_spec())
    await control.RemoveService(api.RemoveServiceRequest(service_id=service.id), ME)
    assert store.services.get(service.id) is None
    with refused(NF, f"service {service.id} not found", exactly=True):
        await control.RemoveService(api.RemoveServiceRequest(service_id=service.id), ME)


async def test_ingress_ports_are_exclusive(control: ControlService) -> None:
    """An ingress port belongs to one service; unpublished ports to nobody. [control 28; scheduling 95]"""
    first = await create(control, with_ports(service_spec("a"), port(9000)))
    with refused(IA, f"port '9000' is already in use by service 'a' ({first.id}) as an ingress port", exactly=True):
        await create(control, with_ports(service_spec("b"), port(9000)))
    await create(control, with_ports(service_spec("c"), port(target=9000)))
    await create(control, with_ports(service_spec("d"), port(target=9000), port(target=9001)))


async def test_ports_that_do_not_conflict(control: ControlService) -> None:
    """Other protocols, and host ports among themselves, never conflict. [control 29; scheduling 95]"""
    await create(control, with_ports(service_spec("a"), port(9100)))
    await create(control, with_ports(service_spec("b"), port(9100, protocol=UDP)))
    await create(control, with_ports(service_spec("c"), port(9101, mode=HOST)))
    await create(control, with_ports(service_spec("d"), port(9101, mode=HOST)))


async def test_host_and_ingress_conflict(control: ControlService) -> None:
    """A host port and an ingress port of the same number conflict, in either order. [control 30; scheduling 95]"""
    await create(control, with_ports(service_spec("a"), port(9102, mode=HOST)))
    with refused(IA, "as a host-published port"):
        await create(control, with_ports(service_spec("b"), port(9102)))
    await create(control, with_ports(service_spec("c"), port(9103)))
    with refused(IA, "as an ingress port"):
        await create(control, with_ports(service_spec("d"), port(9103, mode=HOST)))


async def test_allocated_ports_conflict(control: ControlService, store: Store) -> None:
    """A port that another service was given, without having asked for it, is taken. [control 31]"""
    other = api.Service(id="other", spec=service_spec("other"), endpoint=api.Endpoint(ports=[port(30000)]))
    write(store, other)
    with refused(IA, "port '30000' is already in use by service 'other' (other) as an ingress port", exactly=True):
        await create(control, with_ports(service_spec("b"), port(30000)))


async def test_updates_and_ports(control: ControlService) -> None:
    """A service does not conflict with itself, but with others. [control 32]"""
    await create(control, with_ports(service_spec("name2"), port(9000)))
    service = await create(control, with_ports(service_spec("name3"), port(9002)))
    service = await update(control, service)
    with refused(IA, "as an ingress port"):
        await update(control, service, with_ports(service_spec("name3"), port(9000)))
    await update(control, service, with_ports(service_spec("name3"), port(9001)))


async def test_ingress_ports_need_the_ingress_network(control: ControlService, store: Store) -> None:
    """Without ingress network only host ports can be had, on create and update. [control 33]"""
    store.networks.drop("ingress-id")
    with refused(FP, "service needs ingress network, but no ingress network is present", exactly=True):
        await create(control, with_ports(service_spec("a"), port()))
    service = await create(control, with_ports(service_spec("a"), port(80, mode=HOST)))
    with refused(FP, "service needs ingress network, but no ingress network is present", exactly=True):
        await update(control, service, with_ports(service_spec("a"), port()))


async def test_ingress_network_is_not_for_services(control: ControlService, store: Store) -> None:
    """No service joins an ingress network by itself; unknown networks pass. [control 34]"""
    legacy = api.Network(id="old")
    legacy.spec.annotations.CopyFrom(api.Annotations(name="ingress", labels={"com.docker.swarm.internal": ""}))
    service = await create(control, service_spec())
    for network in ("ingress-id", "old"):
        if network == "old":
            write(store, legacy)
        spec = service_spec()
        spec.task.networks.add(target=network)
        with refused(IA, 'Service cannot be explicitly attached to the ingress network "ingress"', exactly=True):
            await create(control, spec)
        with refused(IA, "explicitly attached"):
            await update(control, service, spec)
    spec.task.networks[0].target = "unknown"
    await update(control, service, spec)


async def test_missing_secrets(control: ControlService, store: Store) -> None:
    """References must exist under the given name; all that do not are listed. [control 41]"""
    write(store, named(api.Secret, "s1", "secret1"), named(api.Config, "c1", "config1"))
    with refused(IA, "secret not found: 404", exactly=True):
        await create(control, using(service_spec(), ("404", "404")))
    with refused(IA, "secrets not found: a, b", exactly=True):
        await create(control, using(service_spec(), ("a", "a"), ("s1", "secret1"), ("b", "b")))
    with refused(IA, "secret not found: other", exactly=True):
        await create(control, using(service_spec(), ("s1", "other")))
    spec = using(service_spec(), ("s1", "secret1"))
    spec.task.container.configs.add(config_id="c1", config_name="nope", file=api.FileTarget(name="f"))
    with refused(IA, "config not found: nope", exactly=True):
        await create(control, spec)
    spec.task.container.configs[0].config_name = "config1"
    await create(control, spec)


async def test_update_to_conflicting_secrets(control: ControlService, store: Store) -> None:
    """A refused update changes nothing. [control 45]"""
    write(store, named(api.Secret, "s1", "secret1"), named(api.Secret, "s2", "secret2"))
    service = await create(control, service_spec())
    spec = using(service_spec(), ("s1", "secret1"), ("s2", "secret2"))
    spec.task.container.secrets[1].file.name = "s1.txt"
    with refused(IA, "conflicting target"):
        await update(control, service, spec)
    assert store.services.get(service.id) == service


async def test_jobs_start_with_iteration_zero(control: ControlService, clock: VirtualClock) -> None:
    """A new job has iteration 0, executed now. [control 59; orchestration 177]"""
    replicated, per_node = service_spec("a"), service_spec("b")
    replicated.replicated_job.CopyFrom(api.ReplicatedJob(max_concurrent=3, total_completions=9))
    per_node.global_job.SetInParent()
    for spec in (replicated, per_node):
        service = await create(control, spec)
        assert service.job_status.HasField("job_iteration")
        assert service.job_status.job_iteration.index == 0
        assert service.job_status.last_execution.seconds == int(clock.now())


async def test_jobs_are_for_the_orchestrator(today: ControlService, store: Store, clock: VirtualClock) -> None:
    """What this version's manager accepts as a job is made into tasks, which are listed as to be completed. [orchestration 122]"""
    spec = service_spec()
    spec.replicated_job.CopyFrom(api.ReplicatedJob(max_concurrent=3, total_completions=5))
    service = await create(today, spec)
    decision = Jobs().decide(store, ServiceKey(service.id), clock.now())
    await store.update(lambda tx: apply(tx, decision.changes))
    listed = (await today.ListTasks(api.ListTasksRequest(), ME)).tasks
    assert [(t.slot, t.desired_state) for t in sorted(listed, key=lambda t: t.slot)] == [(n, S.COMPLETE) for n in range(3)]


async def test_defaults_of_jobs(control: ControlService) -> None:
    """A job completed with defaults has no update config, so it can be sent back."""
    spec = service_spec()
    spec.global_job.SetInParent()
    service = await create(control, spec)
    request = api.GetServiceRequest(service_id=service.id, insert_defaults=True)
    full = (await control.GetService(request, ME)).service
    assert (full.spec.HasField("update"), full.spec.HasField("rollback")) == (False, True)
    assert (await update(control, full, full.spec)).job_status.job_iteration.index == 1


async def test_jobs_are_not_rolled_back_step_by_step(control: ControlService) -> None:
    """Going back to the previous spec runs the job again; there is no update status that would never end."""
    spec = service_spec()
    spec.global_job.SetInParent()
    changed = copy_of(spec)
    changed.task.container.image = "other"
    service = await update(control, await create(control, spec), changed)
    request = api.UpdateServiceRequest(
        service_id=service.id, service_version=service.meta.version, spec=changed, rollback=api.UpdateServiceRequest.PREVIOUS
    )
    back = (await control.UpdateService(request, ME)).service
    assert (back.spec.task.container.image, back.job_status.job_iteration.index) == (spec.task.container.image, 2)
    assert not back.HasField("update_status")


async def test_jobs_run_again_on_update(control: ControlService, clock: VirtualClock) -> None:
    """Every update of a job is a new iteration. [control 60; orchestration 177]"""
    spec = service_spec()
    spec.global_job.SetInParent()
    service = await create(control, spec)
    await clock.advance(10)
    spec.task.force_update += 1
    service = await update(control, service, spec)
    assert service.job_status.job_iteration.index == 1
    assert service.job_status.last_execution.seconds == int(clock.now())
    spec.annotations.labels["x"] = "y"
    assert (await update(control, service, spec)).job_status.job_iteration.index == 2
