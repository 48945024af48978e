"""Which tasks listings and summaries count and show."""

from __future__ import annotations

from pyswarm.api import v1 as api

from . import builders as b
from .conftest import Run
from .fake import Manager, object_id

S = api.TaskState


def table(output: str) -> list[str]:
    """The first cell of every row below the dashes."""
    lines = output.splitlines()
    start = next((n for n, line in enumerate(lines) if line.startswith("--")), len(lines))
    return [line.split()[0] for line in lines[start + 1 :] if line]


def test_tasks_on_a_node_that_is_down(manager: Manager, run: Run) -> None:
    """The listing counts tasks on nodes that answer, the summary all that are said to run. [cli 69]"""
    manager.add(b.node(1))
    manager.add(b.node(2, state=api.NodeStatus.State.DOWN))
    web = b.service(86, "web", 6)
    manager.add(web)
    for number in range(1, 7):
        manager.add(b.task(100 + number, web, number, 1 if number < 4 else 2, 9))
    assert run("service", "ls").stdout.splitlines()[-1].split()[-1] == "3/6"
    summary = run("service", "inspect", "web").stdout
    assert next(line.split()[-1] for line in summary.splitlines() if line.startswith("Replicas")) == "6/6"


def test_finished_tasks_of_a_node(manager: Manager, run: Run) -> None:
    """Finished tasks are hidden, but their table is not; -a shows them. [cli 44]"""
    manager.add(b.node(2))
    redis = b.service(12, "redis", 1)
    manager.add(redis)
    manager.add(b.task(51, redis, 1, 2, 150, S.SHUTDOWN, desired=S.SHUTDOWN))
    short = run("node", "inspect", "node-2").stdout
    assert "\n\nTask ID" in short
    assert table(short) == []
    assert table(run("node", "inspect", "-a", "node-2").stdout) == [object_id(51)]


def test_finished_tasks_of_a_service(manager: Manager, run: Run) -> None:
    """-a shows them. [cli 72]"""
    made = b.service(32, "fail")
    manager.add(made)
    manager.add(b.task(37, made, 1, 2, 3, S.FAILED, desired=S.SHUTDOWN))
    assert table(run("service", "inspect", "fail").stdout) == []
    assert table(run("service", "inspect", "-a", "fail").stdout) == [object_id(37)]


def test_failed_tasks_that_are_wanted(manager: Manager, run: Run) -> None:
    """What is meant to run is listed whatever has become of it. [cli 79]"""
    web = b.service(86, "web", 2)
    manager.add(web)
    manager.add(b.task(1, web, 1, 1, 9, S.REJECTED))
    manager.add(b.task(2, web, 2, 1, 9, S.FAILED))
    manager.add(b.task(3, web, 2, 1, 9, S.RUNNING, desired=S.SHUTDOWN))
    assert table(run("task", "ls").stdout) == [object_id(1), object_id(2)]
    assert table(run("task", "ls", "-a").stdout) == [object_id(1), object_id(2), object_id(3)]
