"""From what the user typed to the object."""

from __future__ import annotations

import pytest

from pyswarm.api import v1 as api

from . import builders as b
from .conftest import Run
from .fake import Manager, object_id


def secret(identifier: str, name: str) -> api.Secret:
    """A secret with that ID."""
    return api.Secret(id=identifier, spec=api.SecretSpec(annotations=api.Annotations(name=name)))


@pytest.mark.parametrize("kind", ["cluster", "node", "service", "network", "config", "secret"])
@pytest.mark.parametrize("typed", ["id0067aaaaaaaaaaaaaaaaaaa", "default", "id0067"])
def test_every_kind_by_id_name_and_prefix(kind: str, typed: str, manager: Manager, run: Run) -> None:
    """ID, name and an unambiguous ID prefix find objects of every kind. [cli 21] [cli 22]"""
    annotations = api.Annotations(name="default")
    made = {
        "cluster": b.cluster(67),
        "node": api.Node(id=object_id(67), description=api.NodeDescription(hostname="default")),
        "service": b.service(67, "default"),
        "network": api.Network(id=object_id(67), spec=api.NetworkSpec(annotations=annotations)),
        "config": api.Config(id=object_id(67), spec=api.ConfigSpec(annotations=annotations)),
        "secret": api.Secret(id=object_id(67), spec=api.SecretSpec(annotations=annotations)),
    }
    manager.add(made[kind])
    result = run(kind, "inspect", typed)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.split()[:3] == ["ID", ":", object_id(67)]


@pytest.mark.parametrize("kind", ["cluster", "node", "service", "network", "config", "secret", "task"])
def test_unknown(kind: str, manager: Manager, run: Run) -> None:
    """What nothing is called is not found, in one line that names it and says where to look."""
    result = run(kind, "inspect", "nope")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"Error: {kind} nope not found; 'pyswarmctl {kind} ls' shows what there is\n"


def test_two_nodes_of_one_name(manager: Manager, run: Run) -> None:
    """A name that two nodes have is ambiguous, and nothing is changed; the ID works. [cli 23]"""
    for identifier in (46, 74):
        manager.add(api.Node(id=object_id(identifier), description=api.NodeDescription(hostname="twin")))
    for words in (("inspect", "twin"), ("drain", "twin")):
        result = run("node", *words)
        assert result.exit_code == 1
        assert result.stderr == "Error: node twin is ambiguous (2 matches found); use the ID, or more of it\n"
    assert not manager.requests("UpdateNode")
    assert run("node", "drain", object_id(46)).exit_code == 0
    assert run("node", "inspect", "id00").stderr.startswith("Error: node id00 is ambiguous (2 matches found)")


def test_the_name_wins_over_the_prefix(manager: Manager, run: Run) -> None:
    """A name that is another object's ID prefix means the name; a name that is another's full ID means the ID. [cli 24]"""
    for kind, make in (("service", lambda number, name: b.service(number, name)), ("secret", lambda n, name: secret(object_id(n), name))):
        manager.add(make(1, "id0002"))
        manager.add(make(2, object_id(3)))
        manager.add(make(3, "third"))
        assert f": {object_id(1)}\n" in run(kind, "inspect", "id0002").stdout
        assert f": {object_id(3)}\n" in run(kind, "inspect", object_id(3)).stdout


def test_secrets_are_found_in_any_case(manager: Manager, run: Run) -> None:
    """Names of secrets match in any case, the exact one first; names of services do not. [cli 21] [cli 22]"""
    manager.add(secret(object_id(1), "casetest"))
    assert run("secret", "inspect", "CASETEST").exit_code == 0
    manager.add(b.service(71, "Cased"))
    assert run("service", "inspect", "cased").exit_code == 1


def test_ambiguous_secret_prefix(manager: Manager, run: Run) -> None:
    """A prefix of two secrets is ambiguous for inspect and remove. [cli 22]"""
    manager.add(secret("v1", "a"))
    manager.add(secret("v2", "b"))
    for command in ("inspect", "rm"):
        assert "secret v is ambiguous (2 matches found)" in run("secret", command, "v").stderr
    assert not manager.requests("RemoveSecret")


def test_tasks_by_prefix_and_full_name(manager: Manager, run: Run) -> None:
    """A task is found by ID prefix and by its full name. [cli 25]"""
    web = b.service(86, "web")
    manager.add(b.task(42, web, 1, 0, 5))
    for typed in ("id0042", f"web.1.{object_id(42)}"):
        assert run("task", "inspect", typed).exit_code == 0


def test_names_are_asked_for_once(manager: Manager, run: Run) -> None:
    """A table of many tasks asks for each service and node once."""
    redis = b.service(12, "redis", 30)
    manager.add(redis)
    manager.add(b.node(1))
    for slot in range(1, 31):
        manager.add(b.task(100 + slot, redis, slot, 1, 10))
    run("task", "ls")
    assert (len(manager.requests("GetService")), len(manager.requests("GetNode"))) == (1, 1)


def test_annotation_name_of_a_node_is_shown(manager: Manager, run: Run) -> None:
    """A node's own name, where it has one, is shown instead of the hostname."""
    made = b.node(1)
    made.spec.annotations.name = "renamed"
    manager.add(made)
    manager.add(b.task(1, b.service(12, "redis"), 1, 1, 10))
    assert run("task", "ls").stdout.rstrip().endswith("renamed")
    assert "  renamed  " in run("node", "ls").stdout
