"""`task ls / inspect / logs / why / remove` (spec/cli-and-executor, section 10)."""

from __future__ import annotations

from pyswarm.api import v1 as api
from pyswarm.cli import framework, helptext, resolve
from pyswarm.cli.commands import logs, why
from pyswarm.cli.framework import Call, no_arguments, one_argument
from pyswarm.cli.show import tasks

COMMAND = framework.Group("task", helptext.Text("Look at tasks"))
_MISSING = "task ID missing"


@COMMAND.declare(
    "ls",
    no_arguments("ls"),
    summary="List tasks",
    example="pyswarmctl task ls\npyswarmctl task ls -aq",
    flags=[framework.ALL, framework.QUIET],
)
def ls(call: Call) -> None:
    """The tasks that are meant to run, or all."""
    with call.connect() as client:
        listed = client.ask(client.control.ListTasks, api.ListTasksRequest()).tasks
        found = tasks.wanted(listed, all_tasks=call.given.truth("all"))
        if call.given.truth("quiet"):
            call.show("".join(f"{task.id}\n" for task in found))
        else:
            names = call.names(client)
            call.show(tasks.listing(found, names.service, names.node, call.now()))


@COMMAND.declare(
    "inspect",
    one_argument("<task>", _MISSING, "inspect command takes exactly 1 argument"),
    summary="Show a task and the others of its slot",
    example="pyswarmctl task inspect 0xk1ir8wr85l",
)
def inspect(call: Call) -> None:
    """The task, then all tasks of its service and slot."""
    with call.connect() as client:
        task = resolve.task(client, call.argument)
        request = api.ListTasksRequest(filters=api.ListTasksRequest.Filters(service_ids=[task.service_id]))
        listed = client.ask(client.control.ListTasks, request).tasks if task.service_id else [task]
        slot = [one for one in listed if one.slot == task.slot]
        names = call.names(client)
        call.show(tasks.summary(task, names.service(task.service_id), names.node(task.node_id)))
        if slot:
            call.show("\n===> Task Parents\n" + tasks.table(slot, names.node, call.now(), all_tasks=True))


COMMAND.declare(
    "why",
    one_argument("<task or service>", "task or service missing", "why command takes exactly 1 argument"),
    summary="Say why a task, or what of a service, is not where it should be",
    more="A task is named by its ID or its place: web.3, or agent.node-2 for a global service.",
    example="pyswarmctl task why web\npyswarmctl task why web.3\npyswarmctl task why 0xk1ir8wr85l -o json",
    flags=[why.OUTPUT],
)(why.run)


@COMMAND.declare(
    "logs",
    framework.some_arguments("<task>...", "missing task IDs"),
    summary="Print what single tasks wrote",
    more=logs.MORE,
    example="pyswarmctl task logs 0xk1ir8wr85l\npyswarmctl task logs --since 10m --timestamps 0xk1ir8wr85l",
    flags=logs.FLAGS,
    aliases=("log",),
)
def show_logs(call: Call) -> None:
    """One subscription for all of them."""
    with call.connect() as client:
        logs.show(call, client, api.LogSelector(task_ids=[resolve.task(client, text).id for text in call.arguments]))


@COMMAND.declare(
    "remove",
    one_argument("<task>", _MISSING, "remove command takes exactly 1 argument"),
    summary="Remove a task; its service replaces it",
    example="pyswarmctl task rm 0xk1ir8wr85lbs8sqg0ug03vr",
    aliases=("rm",),
)
def remove(call: Call) -> None:
    """Remove the task."""
    with call.connect() as client:
        task = resolve.task(client, call.argument)
        client.ask(client.control.RemoveTask, api.RemoveTaskRequest(task_id=task.id))
        call.show(call.argument + "\n")
