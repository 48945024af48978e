"""UpdateService and rollback."""

from __future__ import annotations

from pyswarm.api import v1 as api
from pyswarm.manager.control import ControlService
from pyswarm.manager.store import Store, copy_of
from tests.manager.control.support import FP, IA, ME, NF, UI, UNK, create, port, refused, service_spec, update, with_ports
from tests.support.clock import VirtualClock
from tests.support.loops import write


async def test_update_needs_id_version_and_spec(control: ControlService) -> None:
    """Missing parts are invalid, unknown services not found. [control 48; orchestration 178]"""
    spec, zero = service_spec(), api.Version()
    for request in (
        api.UpdateServiceRequest(),
        api.UpdateServiceRequest(service_id="x", spec=spec),
        api.UpdateServiceRequest(service_version=zero, spec=spec),
        api.UpdateServiceRequest(service_id="x", service_version=zero),
    ):
        with refused(IA, "invalid argument", exactly=True):
            await control.UpdateService(request, ME)
    with refused(NF, "service x not found", exactly=True):
        await control.UpdateService(api.UpdateServiceRequest(service_id="x", service_version=zero, spec=spec), ME)


async def test_update_replaces_the_spec(control: ControlService) -> None:
    """The new spec is stored beside the old one; the spec version is the version that was sent. [control 49, 51]"""
    service = await create(control, service_spec())
    changed = await update(control, service, service_spec(replicas=42))
    assert changed.spec.replicated.replicas == 42
    assert changed.spec_version == service.meta.version
    assert changed.meta.version.index > service.meta.version.index
    assert changed.previous_spec == service.spec
    assert changed.previous_spec_version == service.spec_version
    assert not changed.HasField("update_status")


async def test_stale_versions_are_refused(control: ControlService, store: Store) -> None:
    """An update made from an older version is out of sequence and changes nothing. [control 50; orchestration 178]"""
    service = await create(control, service_spec())
    changed = await update(control, service, service_spec(replicas=2))
    with refused(UNK, "update out of sequence", exactly=True):
        await update(control, service, service_spec(replicas=3))
    with refused(UNK, "update out of sequence", exactly=True):
        await update(control, service, service_spec(replicas=3), version=changed.meta.version.index + 5)
    assert store.services.get(service.id) == changed


async def test_mode_and_name_are_fixed(control: ControlService) -> None:
    """Neither mode nor name (nor its case) can change, which is found out before the version is looked at.

    [control 51, 52; orchestration 178]
    """
    service = await create(control, service_spec())
    other_mode = service_spec()
    getattr(other_mode, "global").SetInParent()
    with refused(UI, "service mode change is not allowed", exactly=True):
        await update(control, service, other_mode)
    for name in ("other", "Name"):
        with refused(UI, "renaming services is not supported", exactly=True):
            await update(control, service, service_spec(name), version=99)


async def test_deprecated_networks(control: ControlService) -> None:
    """Service-level networks can only be moved to the task, not changed. [control 53]"""
    spec = service_spec()
    spec.networks.add(target="net20")
    service = await create(control, spec)
    changed = copy_of(spec)
    changed.networks[0].target = "net30"
    with refused(UI, "networks must be migrated to TaskSpec before being changed", exactly=True):
        await update(control, service, changed)
    moved = service_spec()
    moved.task.networks.add(target="net20")
    service = await update(control, service, moved)
    moved.task.networks[0].target = "net30"
    await update(control, service, moved)


async def test_rollback_toggles(control: ControlService, clock: VirtualClock) -> None:
    """Rolling back swaps the specs and their versions and starts a rollback; a second time swaps again. [control 54]"""
    first = await create(control, service_spec(image="one"))
    second = await update(control, first, service_spec(image="two"))
    back = await update(control, second, back=True)
    assert (back.spec, back.previous_spec) == (first.spec, second.spec)
    assert (back.spec_version, back.previous_spec_version) == (second.previous_spec_version, second.spec_version)
    assert back.update_status.state == api.UpdateStatus.ROLLBACK_STARTED
    assert back.update_status.message == "manually requested rollback"
    assert back.update_status.started_at.seconds == int(clock.now())
    assert not back.update_status.HasField("completed_at")
    again = await update(control, back, back=True)
    assert again.spec == second.spec


async def test_rollback_needs_something_to_go_back_to(control: ControlService) -> None:
    """A service never updated cannot roll back; the request's own spec must be valid all the same. [control 55; orchestration 102]"""
    service = await create(control, service_spec())
    with refused(FP, f"service {service.id} does not have a previous spec", exactly=True):
        await update(control, service, back=True)
    service = await update(control, service)
    with refused(IA):
        await update(control, service, service_spec(image=""), back=True)


async def test_rollback_checks_the_previous_spec(control: ControlService, store: Store) -> None:
    """A previous spec whose secret is gone or whose port is taken does not come back. [control 55]"""
    secret = api.Secret(id="s1")
    secret.spec.annotations.name = "secret1"
    write(store, secret)
    spec = with_ports(service_spec("a"), port(8000))
    spec.task.container.secrets.add(secret_id="s1", secret_name="secret1", file=api.FileTarget(name="f"))
    service = await update(control, await create(control, spec), service_spec("a"))
    store.secrets.drop("s1")
    with refused(IA, "secret not found: secret1", exactly=True):
        await update(control, service, back=True)
    write(store, secret)
    other = await create(control, with_ports(service_spec("b"), port(8000)))
    with refused(IA, f"port '8000' is already in use by service 'b' ({other.id})"):
        await update(control, service, back=True)


async def test_update_ends_a_pause(control: ControlService, store: Store) -> None:
    """A new spec clears the update status. [control 56]"""
    service = await create(control, service_spec())
    service.update_status.state = api.UpdateStatus.PAUSED
    write(store, copy_of(service))
    assert not (await update(control, service, service_spec(replicas=2))).HasField("update_status")


async def test_update_keeps_what_others_wrote(control: ControlService, store: Store) -> None:
    """The allocated endpoint survives an update. [control 49]"""
    service = await create(control, service_spec())
    service.endpoint.ports.append(port(30001))
    write(store, copy_of(service))
    assert (await update(control, service, service_spec(replicas=2))).endpoint == service.endpoint


async def test_same_spec_again(control: ControlService) -> None:
    """An update with the same spec is an update. [control 57]"""
    service = await create(control, service_spec())
    changed = await update(control, service)
    assert changed.meta.version.index > service.meta.version.index
    assert changed.previous_spec == changed.spec == service.spec


async def test_arguments_before_anything_else(control: ControlService) -> None:
    """Without id and version even a bad spec is just an invalid argument. [control 58]"""
    with refused(IA, "invalid argument", exactly=True):
        await control.UpdateService(api.UpdateServiceRequest(spec=with_ports(service_spec(), port(80), port(80))), ME)


async def test_large_specs(control: ControlService) -> None:
    """A service of 1 MiB can be made, but not changed: the entry would hold its spec twice. [control 160 in part]"""
    spec = service_spec()
    spec.task.container.env.append("A=" + "x" * (1 << 20))
    service = await create(control, spec)
    with refused(UNK, "raft: raft message is too large and can't be sent", exactly=True):
        await update(control, service, spec)
    assert (await update(control, service, service_spec(image="b" * 10))).spec.task.container.image == "b" * 10
