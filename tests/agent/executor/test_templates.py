"""Templates in container specs."""

from __future__ import annotations

import pytest

from pyswarm.agent.executor import ExecutorError
from pyswarm.agent.executor.templates import MAX_OUTPUT, TemplateError, context, expand, expanded_container
from pyswarm.api import v1 as api


def example() -> api.Task:
    """The task of the specification's examples."""
    task = api.Task(id="taskID", service_id="serviceID", slot=10, node_id="nodeID")
    task.annotations.labels["ServiceLabelOneKey"] = "a task label must never appear"
    task.service_annotations.name = "serviceName"
    task.service_annotations.labels.update({"one": "1", "com.example.two": "2"})
    task.spec.container.image = "image"
    return task


def node() -> api.NodeDescription:
    """The node of the specification's examples."""
    return api.NodeDescription(hostname="mynode", platform=api.Platform(os="myos", architecture="myarchitecture"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain }} text", "plain }} text"),
        ("{{.Service.ID}}/{{.Service.Name}}/{{.Task.ID}}", "serviceID/serviceName/taskID"),
        ("{{ .Task.Name }}", "serviceName.10.taskID"),
        ("{{.Node.Hostname}}-{{.Node.Platform.OS}}-{{.Node.Platform.Architecture}}", "mynode-myos-myarchitecture"),
        ("{{.Node.Platform}}", "{myarchitecture myos}"),
        ("{{.Service.Labels.one}}", "1"),
        ('{{index .Service.Labels "com.example.two"}}{{index .Service.Labels "zz"}}', "2"),
        ("{{len .Service.Labels}}{{len .Task.ID}}", "26"),
        ("{{.Service.Labels}}", "map[com.example.two:2 one:1]"),
        ('{{join "-" .Service.ID .Node.ID}}', "serviceID-nodeID"),
        ('{{join ","}}', ""),
        ('{{.Task.ID | join "-" "x"}}', "x-taskID"),
        ('a {{- "b" -}} c', "abc"),
        ("a {{/* a comment */ -}} b", "a b"),
        ('{{"{{"}}{{`raw "`}}{{"t\\tb"}}', '{{raw "t\tb'),
        ("{{-3}}{{(.Task.Slot)}}", "-310"),
        ('{{print 1 2 "a" "b" 3}}', "1 2ab3"),
        ("{{.Task.Slot\n}}", "10"),
    ],
)
def test_values(text: str, value: str) -> None:
    """Variables, functions, constants and trim markers have Go's values. [control 143 in part, 151, 152 in part, 153 in part]"""
    assert expand(text, context(example(), node())) == value


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{{", "template: expansion:1: unclosed action"),
        ("{{.A", "template: expansion:1: unclosed action"),
        ('{{"abc}}', "template: expansion:1: unterminated quoted string"),
        ("{{unknown}}", 'template: expansion:1: function "unknown" not defined'),
        ('{{secret "x"}}', 'template: expansion:1: function "secret" not defined'),
        ("{{}}", "template: expansion:1: missing value for command"),
        ("{{if true}}a{{end}}", "template: expansion:1: {{if}} is not supported in templates here"),
        ("{{$z}}", 'template: expansion:1: undefined variable "$z"'),
        ("{{/* x }}", "template: expansion:1: unclosed comment"),
        ("{{(.Task.ID}}", "template: expansion:1: unclosed left paren"),
        ("{{.Task.ID)}}", 'template: expansion:1: unexpected ")" in operand'),
        (
            "a\nb {{.Bad}}",
            'template: expansion:2:4: executing "expansion" at <.Bad>: can\'t evaluate field Bad in type *template.Context',
        ),
        (
            "{{.Service.Labels.zz}}",
            'template: expansion:1:10: executing "expansion" at <.Service.Labels.zz>: map has no entry for key "zz"',
        ),
        ("{{.Task.Slot.More}}", "can't evaluate field More in type string"),
        ('{{.Service.ID "x"}}', "can't give argument to non-function .Service.ID"),
        ("{{join 1 2}}", "error calling join: expected string; found 1"),
        ("{{join}}", "error calling join: wrong number of args"),
        ('{{index .Task "x"}}', "can't index item of type struct"),
        ('{{join "' + "x" * 1000 + '"' + ' "' + "y" * (MAX_OUTPUT + 1) + '" "z"}}', "output longer than"),
        ("{{" + "(" * 100 + "1" + ")" * 100 + "}}", "more than 50 nested parentheses"),
    ],
)
def test_errors(text: str, error: str) -> None:
    """What is wrong or not supported is named, with line and column. [control 152 in part, 154]"""
    with pytest.raises(TemplateError) as caught:
        expand(text, context(example(), node()))
    assert error in str(caught.value)
    assert str(caught.value).startswith("template: expansion:")


def test_container_fields() -> None:
    """Env values, mounts, volume labels, driver options and the hostname expand; names and keys do not; the task stays as it is.

    [control 142] [control 144] [control 145]
    """
    task = example()
    container = task.spec.container
    container.env.extend(["NOTOUCH=dont", "{{.NotExpanded}}=foo", "X", "A=b={{.Task.ID}}"])
    container.hostname = "myhost-{{.Task.Slot}}"
    container.mounts.add(source="bar-{{.Node.ID}}-{{.Task.Name}}", target="foo-{{.Task.Slot}}-{{.Task.ID}}")
    options = container.mounts.add(type=api.Mount.VOLUME).volume_options
    options.labels["{{.Task.ID}}"] = "{{.Task.ID}}"
    options.driver_config.options["k"] = "{{.Node.ID}}"
    before = task.SerializeToString(deterministic=True)
    spec = expanded_container(task, None)
    assert list(spec.env) == ["NOTOUCH=dont", "{{.NotExpanded}}=foo", "X", "A=b=taskID"]
    assert spec.hostname == "myhost-10"
    assert (spec.mounts[0].source, spec.mounts[0].target) == ("bar-nodeID-serviceName.10.taskID", "foo-10-taskID")
    assert spec.mounts[1].volume_options.labels == {"{{.Task.ID}}": "taskID"}
    assert spec.mounts[1].volume_options.driver_config.options == {"k": "nodeID"}
    assert task.SerializeToString(deterministic=True) == before


def test_global_slot_and_unknown_node() -> None:
    """Slot 0 gives the node id; an undescribed node is empty. [control 145]"""
    task = example()
    task.slot = 0
    task.spec.container.hostname = "{{.Task.Slot}}:{{.Node.Hostname}}-{{.Node.Platform.OS}}"
    assert expanded_container(task, None).hostname == "nodeID:-"


@pytest.mark.parametrize(
    ("field", "error"),
    [
        ("env", 'expanding env failed: expanding env "A={{.Bad}}": template: expansion:1:2: '),
        ("hostname", "expanding hostname failed: template: expansion:1:2: "),
        ("source", 'expanding mounts failed: expanding mount source "{{.Bad}}": template: '),
        ("label", 'expanding mounts failed: expanding volume labels: expanding map entry "k"="{{.Bad}}": template: '),
    ],
)
def test_error_names_the_field(field: str, error: str) -> None:
    """An error says which field could not be expanded."""
    task = example()
    container = task.spec.container
    match field:
        case "env":
            container.env.append("A={{.Bad}}")
        case "hostname":
            container.hostname = "{{.Bad}}"
        case "source":
            container.mounts.add(source="{{.Bad}}")
        case _:
            container.mounts.add().volume_options.labels["k"] = "{{.Bad}}"
    with pytest.raises(ExecutorError) as caught:
        expanded_container(task, None)
    assert str(caught.value).startswith(error)
