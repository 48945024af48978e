"""When an update has to replace a task."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.manager.orchestrator.dirty import is_dirty, only_placement_differs
from pyswarm.manager.store import copy_of
from tests.support.swarm import config, node, restart, service, task

S = api.TaskState
NODE = node("node1")


def changed(edit: Callable[[api.ServiceSpec], object], version: int = 7) -> api.Service:
    """The plain service after an update."""
    svc = service()
    edit(svc.spec)
    svc.spec_version.index = version
    return svc


def edit_image(spec: api.ServiceSpec) -> None:
    """Another image."""
    spec.task.container.image = "v:2"


def edit_constraints(*expressions: str) -> Callable[[api.ServiceSpec], None]:
    """Other constraints."""
    return lambda spec: spec.task.placement.constraints.extend(expressions)


def edit_preferences(spec: api.ServiceSpec) -> None:
    """Another spread."""
    spec.task.placement.preferences.add().spread.spread_descriptor = "node.labels.az"


def edit_force(spec: api.ServiceSpec) -> None:
    """Nothing but force."""
    spec.task.force_update += 1


def edit_restart_delay(spec: api.ServiceSpec) -> None:
    """Another restart delay."""
    spec.task.restart.CopyFrom(restart(delay=1))


def edit_port(spec: api.ServiceSpec) -> None:
    """A published port."""
    spec.endpoint.ports.add(target_port=80)


def edit_scale(spec: api.ServiceSpec) -> None:
    """What is changed in place."""
    spec.replicated.replicas = 9
    spec.update.CopyFrom(config(3))
    spec.annotations.labels["a"] = "b"


@pytest.mark.parametrize(
    ("edit", "dirty"),
    [
        (edit_image, True),
        (edit_force, True),
        (edit_restart_delay, True),
        (edit_port, True),
        (edit_scale, False),
        (edit_preferences, False),
        (edit_constraints("node=node1"), False),
        (edit_constraints("node!=node1"), True),
        (edit_constraints("node.id==node1"), False),
    ],
)
def test_dirty_by_what_changed(edit: Callable[[api.ServiceSpec], None], dirty: bool) -> None:
    """Anything in the task spec or the endpoint counts, a placement that the node still satisfies does not. [orchestration 20]
    [orchestration 23] [orchestration 25]"""
    assert is_dirty(changed(edit), task("t", on="node1"), NODE) is dirty


def test_unassigned_task_with_other_placement_is_dirty() -> None:
    """Without a node there is nothing that could satisfy new constraints. [orchestration 23]"""
    assert is_dirty(changed(edit_constraints("node.id==node1")), task("t", state=S.PENDING), None)


def test_versions_win_over_content() -> None:
    """Equal spec versions are clean whatever the specs say; without versions content decides. [orchestration 19] [orchestration 25]"""
    assert not is_dirty(changed(edit_image, version=0), task("t", version=0), NODE)
    old = task("t")
    old.ClearField("spec_version")
    assert not is_dirty(service(version=1), old, NODE)
    assert is_dirty(changed(edit_image), old, NODE)


def test_endpoint_object_without_spec_is_clean() -> None:
    """A service without endpoint makes tasks with an empty endpoint object. [orchestration 16]"""
    assert not is_dirty(service(version=3), task("t"), NODE)


def credentials(token: str) -> api.Service:
    """The plain service with registry credentials, written at second 100."""
    svc = service(version=7)
    svc.spec.task.container.pull_options.registry_auth = token
    svc.meta.updated_at.CopyFrom(times.timestamp(100.0))
    return svc


@pytest.mark.parametrize(
    ("state", "desired", "at", "dirty"),
    [
        (S.RUNNING, S.RUNNING, 50.0, False),
        (S.READY, S.READY, 50.0, False),
        (S.PREPARING, S.RUNNING, 50.0, True),
        (S.SHUTDOWN, S.SHUTDOWN, 50.0, True),
        (S.COMPLETE, S.SHUTDOWN, 150.0, False),
    ],
)
def test_credentials_do_not_replace_what_has_its_image(
    state: api.TaskState.ValueType, desired: api.TaskState.ValueType, at: float, dirty: bool
) -> None:
    """New registry credentials replace only tasks still to be prepared, or over when they came. [orchestration 24]"""
    assert is_dirty(credentials("new"), task("t", state=state, desired=desired, of=service(), on="node1", at=at), NODE) is dirty


def test_only_placement_differs() -> None:
    """The predicate wants a difference in the placement and in nothing else. [orchestration 21]"""
    plain = service().spec.task
    placed = copy_of(plain)
    placed.placement.constraints.append("node.id==x")
    other = copy_of(plain)
    other.container.image = "v:2"
    assert not only_placement_differs(plain, plain)
    assert only_placement_differs(plain, placed)
    assert not only_placement_differs(placed, other)


@pytest.mark.parametrize("where", [NODE, None])
def test_placement_does_not_concern_what_has_ended(where: api.Node | None) -> None:
    """A task that is done stays so when only the placement changed, whatever becomes of the node it was on."""
    done = task("t", state=S.COMPLETE, desired=S.SHUTDOWN, on="node1")
    assert not is_dirty(changed(edit_constraints("node.id!=node1")), done, where)
    assert is_dirty(changed(edit_image), done, where)
