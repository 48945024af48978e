"""The template language, held against what Go's own `text/template` made of the same templates (Go 1.27, measured.json)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyswarm.gotemplate import MAX_OUTPUT, CallError, Function, Struct, TemplateError, Value, expand, expand_bytes
from pyswarm.gotemplate.values import shortest

MEASURED = json.loads((Path(__file__).parent / "measured.json").read_text())
LABELS = {
    "ServiceLabelOneKey": "service-label-one-value",
    "ServiceLabelTwoKey": "service-label-two-value",
    "com.example.ServiceLabelThreeKey": "service-label-three-value",
}
PLATFORM = Struct("template.Platform", {"Architecture": "myarchitecture", "OS": "myos"})
DATA = Struct(
    "*template.Context",
    {
        "Service": Struct(
            "struct { ID string; Name string; Labels map[string]string }", {"ID": "serviceID", "Name": "serviceName", "Labels": LABELS}
        ),
        "Node": Struct(
            "struct { ID string; Hostname string; Platform template.Platform }",
            {"ID": "nodeID", "Hostname": "mynode", "Platform": PLATFORM},
        ),
        "Task": Struct("struct { ID string; Name string; Slot string }", {"ID": "taskID", "Name": "serviceName.10.taskID", "Slot": "10"}),
    },
)


def join(words: Sequence[Value]) -> Value:
    """As the measured program had it."""
    if not words:
        raise CallError("expected at least one argument")
    return str(words[0]).join(map(str, words[1:]))


def secret(names: Sequence[Value]) -> Value:
    """As the measured program had it."""
    if names[0] != "t":
        raise CallError(f"secret target {names[0]} not found")
    return "mysecret"


FUNCTIONS = {
    "join": Function(join, more="string"),
    "secret": Function(secret, ("string",)),
    "env": Function(lambda names: {"foo": "bar"}.get(str(names[0]), ""), ("string",)),
}


@pytest.mark.parametrize(("template", "value"), MEASURED["values"].items())
def test_values(template: str, value: str) -> None:
    """Control structures, variables, constants, functions and formats have Go's values. [control 143, 152, 153, 155]"""
    assert expand(template, DATA, FUNCTIONS) == value


@pytest.mark.parametrize(("template", "error"), MEASURED["errors"].items())
def test_errors(template: str, error: str) -> None:
    """What Go refuses is refused, in the same words and at the same place. [control 154]"""
    with pytest.raises(TemplateError) as caught:
        expand(template, DATA, FUNCTIONS)
    assert str(caught.value) == error


@pytest.mark.parametrize(
    ("template", "error"),
    [
        ("{{range 100000}}{{end}}", "steps"),
        ("{{range 300}}{{range 300}}{{end}}{{end}}", "steps"),
        ("{{1}}" * 20_000, "steps"),
        ("".join(f"{{{{$a{n} := 1}}}}" for n in range(600)), "more than 500 variables"),
        ('{{$x := "0123456789"}}{{range 30}}{{$x = print $x $x}}{{end}}', "bytes"),
        ('{{$x := printf "%1000000s" ""}}{{print $x $x $x}}', "bytes"),
        ('{{printf "%1000000s%1000000s" "" ""}}', "bytes"),
        ('{{$x := printf "%1000000s" ""}}{{$x}}{{$x}}', f"more than {MAX_OUTPUT} bytes of output"),
        ('{{$x := printf "%1000000s" ""}}{{range 1000}}{{if len $x}}{{end}}{{end}}', "steps"),
        ('{{define "a"}}{{template "a"}}{{end}}{{template "a"}}', "exceeded maximum template depth (100)"),
        ('{{define "a"}}' + "{{if 1}}" * 40 + '{{template "a"}}' + "{{end}}" * 40 + '{{end}}{{template "a"}}', "template depth"),
        ("{{" + "(" * 60 + "1" + ")" * 60 + "}}", "more than 50"),
        ("{{if 1}}" * 60 + "{{end}}" * 60, "more than 50"),
        ("{{" + "print (" * 60 + "1" + ")" * 60 + "}}", "more than 50"),
    ],
)
def test_limits(template: str, error: str) -> None:
    """No template takes all the time, memory or stack there is."""
    with pytest.raises(TemplateError) as caught:
        expand(template, DATA)
    assert error in str(caught.value)


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_bytes_survive(before: bytes, after: bytes) -> None:
    """All bytes outside actions stay as they are, whatever they are. [control 156]"""
    for data in (before, after):
        if b"{" in data:
            return
    assert expand_bytes(before + b"{{.Task.ID}}" + after, DATA) == before + b"taskID" + after


@given(
    st.lists(
        st.sampled_from([*"{}{}()|.$ax1 \n\"`'-=:,", "{{", "}}", "if ", "range ", "end", "else", "with ", "print ", ".Task"]), max_size=25
    )
)
def test_nonsense(pieces: list[str]) -> None:
    """Whatever is written, the answer is a text or an error with a place."""
    try:
        expand("".join(pieces), DATA)
    except TemplateError as error:
        assert str(error).startswith("template: expansion:")  # noqa: PT017 - most of them, not all, are errors


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats(number: float) -> None:
    """The shortest digits mean the same number."""
    assert float(shortest(number)) == number
