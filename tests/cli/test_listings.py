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


def job_tasks(of: api.Service, *states: tuple[S.ValueType, S.ValueType], iteration: int, first: int) -> list[api.Task]:
    """Tasks of an iteration on node 1, with these desired and observed states."""
    made = [b.task(first + n, of, n, 1, 9, state, desired=desired) for n, (desired, state) in enumerate(states)]
    for one in made:
        one.job_iteration.index = iteration
    return made


def test_jobs(manager: Manager, run: Run) -> None:
    """A job shows what runs, what may run, and what its present iteration has completed of what it has to; completed tasks are
    hidden like all that is over."""
    manager.add(b.node(1))
    sums, each = b.service(20, "sums"), b.service(21, "each")
    sums.spec.replicated_job.CopyFrom(api.ReplicatedJob(max_concurrent=2, total_completions=9))
    each.spec.global_job.SetInParent()
    wanted, done, failed = (S.COMPLETE, S.RUNNING), (S.COMPLETE, S.COMPLETE), (S.SHUTDOWN, S.FAILED)
    for made in (sums, each):
        made.job_status.job_iteration.index = 1
        manager.add(made)
    for task in (
        *job_tasks(sums, done, done, (S.REMOVE, S.RUNNING), iteration=0, first=100),
        *job_tasks(sums, done, wanted, failed, (S.READY, S.NEW), iteration=1, first=200),
        *job_tasks(each, done, done, wanted, (S.COMPLETE, S.PENDING), failed, iteration=1, first=300),
    ):
        manager.add(task)
    replicas = [line.rpartition("busybox:1.35")[2].strip() for line in run("service", "ls").stdout.splitlines()[2:]]
    assert replicas == ["1/2 (1/9 completed)", "1/2 (2/4 completed)"]
    summary = run("service", "inspect", "sums").stdout
    assert next(line for line in summary.splitlines() if line.startswith("Replicas")).endswith(": 1/2 (1/9 completed)")
    assert table(summary.partition("\n\n")[2]) == [object_id(201), object_id(203)]
    assert table(run("task", "ls").stdout) == [object_id(n) for n in (201, 203, 302, 303)]


def test_failed_tasks_that_are_wanted(manager: Manager, run: Run) -> None:
    """What is meant to run is listed whatever has become of it. [cli 79]"""
    web = b.service(86, "web", 2)
    manager.add(web)
    manager.add(b.task(1, web, 1, 1, 9, S.REJECTED))
    manager.add(b.task(2, web, 2, 1, 9, S.FAILED))
    manager.add(b.task(3, web, 2, 1, 9, S.RUNNING, desired=S.SHUTDOWN))
    assert table(run("task", "ls").stdout) == [object_id(1), object_id(2)]
    assert table(run("task", "ls", "-a").stdout) == [object_id(1), object_id(2), object_id(3)]
