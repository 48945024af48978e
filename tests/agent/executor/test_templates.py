"""Templates in container specs."""

from __future__ import annotations

import pytest

from pyswarm.agent.dependencies import Dependencies
from pyswarm.agent.executor import ExecutorError, TemporaryError
from pyswarm.agent.executor.files import wanted_files
from pyswarm.agent.executor.payloads import Payloads
from pyswarm.agent.executor.templates import FUNCTIONS, context, expanded_container
from pyswarm.api import v1 as api
from pyswarm.gotemplate import MAX_OUTPUT, TemplateError, expand


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
        ("{{range $k, $v := .Service.Labels}}{{$k}}={{$v}},{{end}}", "com.example.two=2,one=1,"),
        ('{{range $k,$v := .Service.Labels}}{{if eq $k "one"}}{{break}}{{end}}{{$k}}{{end}}', "com.example.two"),
        ('{{if eq .Task.Slot "10"}}y{{else}}n{{end}}', "y"),
        ("{{if .Service.Labels}}{{.Service.Labels.one}}{{end}}", "1"),
        ('{{define "t"}}T{{.}}{{end}}{{template "t" .Service.ID}}', "TserviceID"),
        ("{{$a := 1}}{{if true}}{{$a = 5}}{{end}}{{$a}}", "5"),
        ('{{printf "%05d|%s|%q" 42 "a" "b"}} {{printf "%d" "x"}}', '00042|a|"b" %!d(string=x)'),
        ("{{1.0}} {{'a'}}", "1 97"),
        ('{{html "<a>&\'"}} {{urlquery "a b&c"}}', "&lt;a&gt;&amp;&#39; a+b%26c"),
    ],
)
def test_values(text: str, value: str) -> None:
    """Variables, functions, constants, control structures and trim markers have Go's values. [control 143, 151, 152, 153, 155]"""
    assert expand(text, context(example(), node()), FUNCTIONS) == value


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{{", "template: expansion:1: unclosed action"),
        ("{{.A", "template: expansion:1: unclosed action"),
        ('{{"abc}}', "template: expansion:1: unterminated quoted string"),
        ("{{unknown}}", 'template: expansion:1: function "unknown" not defined'),
        ('{{secret "x"}}', 'template: expansion:1: function "secret" not defined'),
        ("{{}}", "template: expansion:1: missing value for command"),
        ("{{end}}", "template: expansion:1: unexpected {{end}}"),
        ("{{if}}", "template: expansion:1: missing value for if"),
        ("{{if true}}a", "template: expansion:1: unexpected EOF"),
        ("{{ /* c */ }}", 'template: expansion:1: unexpected "/" in command'),
        ("{{$z}}", 'template: expansion:1: undefined variable "$z"'),
        ("{{/* x }}", "template: expansion:1: unclosed comment"),
        ("{{(.Task.ID}}", "template: expansion:1: unclosed left paren"),
        ("{{.Task.ID)}}", "template: expansion:1: unexpected right paren"),
        (
            "a\nb {{.Bad}}",
            'template: expansion:2:4: executing "expansion" at <.Bad>: can\'t evaluate field Bad in type *template.Context',
        ),
        (
            "{{.Service.Labels.zz}}",
            'template: expansion:1:10: executing "expansion" at <.Service.Labels.zz>: map has no entry for key "zz"',
        ),
        ("{{.Task.Slot.More}}", "can't evaluate field More in type string"),
        ('{{.Service.ID "x"}}', "ID has arguments but cannot be invoked as function"),
        ("{{join 1 2}}", "at <1>: expected string; found 1"),
        ("{{join}}", "error calling join: wrong number of args"),
        ('{{index .Task "x"}}', "can't index item of type struct {"),
        ('{{join "' + "x" * 1000 + '"' + ' "' + "y" * (MAX_OUTPUT + 1) + '" "z"}}', "bytes"),
        ("{{" + "(" * 100 + "1" + ")" * 100 + "}}", "more than 50 blocks or parentheses"),
    ],
)
def test_errors(text: str, error: str) -> None:
    """What is wrong is named, with line and column. [control 152, 154]"""
    with pytest.raises(TemplateError) as caught:
        expand(text, context(example(), node()), FUNCTIONS)
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


def given(task: api.Task, kind: str, data: bytes, driver: str | None = "golang") -> bytes:
    """What becomes of the payload of a secret or config which `task` has as `templated<kind>target`."""
    node_has = Dependencies()
    container = task.spec.container
    for name in ("my", "templated"):
        container.secrets.add(secret_id=f"{name}secret-id", secret_name=f"{name}secret", file=api.FileTarget(name=f"{name}secrettarget"))
        container.configs.add(config_id=f"{name}config-id", config_name=f"{name}config", file=api.FileTarget(name=f"{name}configtarget"))
    node_has.secrets.add(api.Secret(id="mysecret-id", spec=api.SecretSpec(data=b"my\xffsecret{{.Task.ID}}")))
    node_has.configs.add(api.Config(id="myconfig-id", spec=api.ConfigSpec(data=b"myconfig")))
    templating = api.Driver(name=driver) if driver is not None else None
    if kind == "secret":
        node_has.secrets.add(api.Secret(id="templatedsecret-id", spec=api.SecretSpec(data=data, templating=templating)))
    else:
        node_has.configs.add(api.Config(id="templatedconfig-id", spec=api.ConfigSpec(data=data, templating=templating)))
    wanted = next(file for file in wanted_files(container) if file.id == f"templated{kind}-id")
    return Payloads(task, node(), node_has.of(task)).content(wanted)


@pytest.mark.parametrize("kind", ["secret", "config"])
@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"{{.Service.ID}} {{.Service.Name}} {{.Task.ID}} {{.Task.Name}}", b"serviceID serviceName taskID serviceName.10.taskID"),
        (b"{{.Node.ID}} {{.Node.Hostname}} {{.Node.Platform.OS}}{{range .Service.Labels}} {{.}}{{end}}", b"nodeID mynode myos 2 1"),
        (b'{{secret "mysecrettarget"}}', b"my\xffsecret{{.Task.ID}}"),
        (b'{{config "myconfigtarget" | printf "%q"}}', b'"myconfig"'),
        (b'{{env "foo"}} {{env "unknown"}} {{env "templated"}}', b"bar  {{.Task.ID}}"),
        (b"\xff\x00\xfe{{.Task.Slot}}\x80\xe2\x28", b"\xff\x00\xfe10\x80\xe2\x28"),
        (b'{{join "-" "a" "b"}}{{if eq .Task.Slot "10"}}!{{end}}', b"a-b!"),
    ],
)
def test_payloads(kind: str, data: bytes, value: bytes) -> None:
    """A payload sees the task's variables, its secrets and configs by their file names and raw, and its environment unexpanded; bytes
    outside actions stay. [control 146, 156]
    """
    task = example()
    task.spec.container.env.extend(["foo=bar", "foo=later", "unknown", "templated={{.Task.ID}}"])
    assert given(task, kind, data) == value


@pytest.mark.parametrize("kind", ["secret", "config"])
def test_payload_includes_itself(kind: str) -> None:
    """The inner copy stays as it is written. [control 148]"""
    data = f'VAL={{{{{kind} "templated{kind}target"}}}}'.encode()
    assert given(example(), kind, data) == b"VAL=" + data


@pytest.mark.parametrize("kind", ["secret", "config"])
@pytest.mark.parametrize(
    ("call", "error"),
    [
        ('{0} "unknowntarget"', "error calling {0}: {0} target unknowntarget not found"),
        ('{0} "my{0}"', "error calling {0}: {0} target my{0} not found"),
        ('{0} "my{0}-id"', "error calling {0}: {0} target my{0}-id not found"),
        ("{0}", "wrong number of args for {0}: want 1 got 0"),
        (".Bad", "can't evaluate field Bad in type *template.PayloadContext"),
    ],
)
def test_payload_errors(kind: str, call: str, error: str) -> None:
    """An error names the secret or config, the place and the piece. [control 146, 147]"""
    call = call.format(kind)
    with pytest.raises(ExecutorError) as caught:
        given(example(), kind, f"VAL={{{{{call}}}}}".encode())
    begin = f'failed to expand templated {kind} templated{kind}-id: template: expansion:1:6: executing "expansion" at <{call}>: '
    assert str(caught.value) == begin + error.format(kind)


def test_payloads_that_are_no_templates() -> None:
    """Without a driver braces are braces; a driver that nobody knows is an error. [control 150]"""
    assert given(example(), "config", b"{{.Bad}}", None) == b"{{.Bad}}"
    for name in ("jinja", ""):
        with pytest.raises(ExecutorError, match="failed to expand templated config templatedconfig-id: unrecognized template type"):
            given(example(), "config", b"x", name)


def test_payload_waits_for_what_it_includes() -> None:
    """A secret that a template names and that is not here yet is waited for, as any other."""
    task = example()
    task.spec.container.secrets.add(secret_id="late", file=api.FileTarget(name="late"))
    task.spec.container.configs.add(config_id="c", file=api.FileTarget(name="c"))
    node_has = Dependencies()
    data = b'password={{secret "late"}}'
    node_has.configs.add(api.Config(id="c", spec=api.ConfigSpec(data=data, templating=api.Driver(name="golang"))))
    payloads = Payloads(task, None, node_has.of(task))
    (config,) = (file for file in wanted_files(task.spec.container) if file.kind == "config")
    with pytest.raises(TemporaryError, match="dependency not ready: secret late not found"):
        payloads.content(config)
    node_has.secrets.add(api.Secret(id="late", spec=api.SecretSpec(data=b"hush")))
    assert payloads.content(config) == b"password=hush"


def test_one_spec_one_budget() -> None:
    """Many templates in a spec together take no more than one may."""
    task = example()
    task.spec.container.env.extend(f"A{n}={{{{range 1000}}}}{{{{end}}}}" for n in range(20))
    assert len(expanded_container(task, None).env) == 20
    task.spec.container.env.extend(f"B{n}={{{{range 1000}}}}{{{{end}}}}" for n in range(40))
    with pytest.raises(ExecutorError, match="more than 50000 steps"):
        expanded_container(task, None)


def test_expansion_that_is_no_text() -> None:
    """What a container spec cannot hold is refused by name."""
    task = example()
    task.spec.container.env.append('A={{slice "ä" 1}}')
    with pytest.raises(ExecutorError, match=r"expanding env failed: .*the result is not valid UTF-8"):
        expanded_container(task, None)
