"""Templates in container specs: `{{.Service.Name}}-{{.Task.Slot}}` in env values, mounts and the hostname (spec/control-api, section 21).

Understood: text, fields, string and integer constants, parentheses, pipelines, trim markers, comments, and the functions `join`, `index`,
`len` and `print`. Everything else of Go's template language is refused with an error that names it, never guessed. Pure.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from pyswarm.agent.executor import ExecutorError
from pyswarm.agent.executor.spec import container_spec
from pyswarm.api import tasks
from pyswarm.api import v1 as api

MAX_OUTPUT = 1 << 20
"""Characters an expansion may produce: templates come from users."""

MAX_DEPTH = 50
"""Nested parentheses an action may have."""


class TemplateError(ValueError):
    """The template is wrong or asks for something that is not there. The text has Go's form, with line and column."""


@dataclass(frozen=True, slots=True)
class Struct:
    """A value with a fixed set of fields; asking for another is an error that names `kind`."""

    kind: str
    fields: Mapping[str, Value]


Value = str | int | Mapping[str, str] | Struct

_SERVICE_KIND = "struct { ID string; Name string; Labels map[string]string }"
_NODE_KIND = "struct { ID string; Hostname string; Platform template.Platform }"
_TASK_KIND = "struct { ID string; Name string; Slot string }"


def context(task: api.Task, node: api.NodeDescription | None) -> Struct:
    """The variables of a task; node fields are empty while the engine has not described the node."""
    described = node if node is not None else api.NodeDescription()
    platform = Struct("template.Platform", {"Architecture": described.platform.architecture, "OS": described.platform.os})
    annotations = task.service_annotations
    service: dict[str, Value] = {"ID": task.service_id, "Name": annotations.name, "Labels": dict(annotations.labels)}
    slot = str(task.slot) if task.slot else task.node_id
    return Struct(
        "*template.Context",
        {
            "Service": Struct(_SERVICE_KIND, service),
            "Node": Struct(_NODE_KIND, {"ID": task.node_id, "Hostname": described.hostname, "Platform": platform}),
            "Task": Struct(_TASK_KIND, {"ID": task.id, "Name": tasks.display_name(task), "Slot": slot}),
        },
    )


def expand(text: str, variables: Struct) -> str:
    """`text` with every action replaced by its value. Raises TemplateError."""
    if "{{" not in text:
        return text
    return _Expansion(text, variables).run()


def expanded_container(task: api.Task, node: api.NodeDescription | None) -> api.ContainerSpec:
    """A copy of the task's container spec with its templates expanded. Raises ExecutorError with the field and the cause."""
    spec = api.ContainerSpec()
    spec.CopyFrom(container_spec(task))
    variables = context(task, node)
    _expand_env(spec, variables)
    for mount in spec.mounts:
        _expand_mount(mount, variables)
    spec.hostname = _within("expanding hostname failed", spec.hostname, variables)
    return spec


def _expand_env(spec: api.ContainerSpec, variables: Struct) -> None:
    for position, entry in enumerate(spec.env):
        name, separator, value = entry.partition("=")
        if separator:
            spec.env[position] = f"{name}={_within(f'expanding env failed: expanding env {_quoted(entry)}', value, variables)}"


def _expand_mount(mount: api.Mount, variables: Struct) -> None:
    failed = "expanding mounts failed"
    mount.source = _within(f"{failed}: expanding mount source {_quoted(mount.source)}", mount.source, variables)
    mount.target = _within(f"{failed}: expanding mount target {_quoted(mount.target)}", mount.target, variables)
    if not mount.HasField("volume_options"):
        return
    options = mount.volume_options
    for what, entries in (("volume labels", options.labels), ("volume driver config", options.driver_config.options)):
        for key in sorted(entries):
            where = f"{failed}: expanding {what}: expanding map entry {_quoted(key)}={_quoted(entries[key])}"
            entries[key] = _within(where, entries[key], variables)


def _within(where: str, text: str, variables: Struct) -> str:
    try:
        return expand(text, variables)
    except TemplateError as error:
        raise ExecutorError(f"{where}: {error}") from error


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int


_TOKENS = re.compile(
    r"""(?P<space>\s+)
      | (?P<string>"(?:\\.|[^"\\\n])*")
      | (?P<raw>`[^`]*`)
      | (?P<number>-?\d+(?![\w.]))
      | (?P<field>(?:\.[^\W\d]\w*)+)
      | (?P<dot>\.)
      | (?P<word>[^\W\d]\w*)
      | (?P<symbol>[|()])""",
    re.VERBOSE,
)
_CONTROL = frozenset({"if", "else", "end", "range", "with", "define", "block", "template", "break", "continue", "nil"})
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_TRIM_RIGHT = re.compile(r"\s-}}")


class _Expansion:
    """One pass over one template: copies text, evaluates each action where it stands."""

    def __init__(self, text: str, variables: Struct) -> None:
        self._text = text
        self._variables = variables
        self._tokens: list[_Token] = []
        self._next = 0

    def run(self) -> str:
        parts: list[str] = []
        size = at = 0
        trim_next = False
        while at < len(self._text):
            opening = self._text.find("{{", at)
            end = len(self._text) if opening < 0 else opening
            literal = self._text[at:end]
            if trim_next:
                literal = literal.lstrip(" \t\r\n")
            if opening < 0:
                parts.append(literal)
                break
            inside = opening + 2
            if re.match(r"-\s", self._text[inside:]):
                literal = literal.rstrip(" \t\r\n")
                inside += 1
            value, at, trim_next = self._action(inside)
            parts += (literal, value)
            size += len(literal) + len(value)
            if size > MAX_OUTPUT:
                self._fail(opening, f"output longer than {MAX_OUTPUT} characters")
        return "".join(parts)

    def _action(self, at: int) -> tuple[str, int, bool]:
        """Evaluates the action that starts at `at`: its value as text, where it ends, and whether it trims what follows."""
        comment = self._comment(at)
        if comment is not None:
            return comment
        self._tokens = []
        self._next = 0
        start = at
        while True:
            if self._text.startswith("}}", at):
                trims = False
                break
            if _TRIM_RIGHT.match(self._text, at):
                at, trims = at + 2, True
                break
            match = _TOKENS.match(self._text, at)
            if match is None:
                self._fail_lexing(at, start)
            kind = match.lastgroup or ""
            if kind != "space":
                self._tokens.append(_Token(kind, match.group(), at))
            at = match.end()
            if kind == "space" and self._text.startswith("-}}", at):
                at, trims = at + 1, True
                break
        if not self._tokens:
            self._fail(start, "missing value for command")
        value = self._pipeline(0)
        if self._next < len(self._tokens):
            left = self._tokens[self._next]
            self._fail(left.at, f"unexpected {_quoted(left.text)} in operand")
        return _printed(value), at + 2, trims

    def _comment(self, at: int) -> tuple[str, int, bool] | None:
        start = at
        while at < len(self._text) and self._text[start - 1] == "-" and self._text[at].isspace():
            at += 1
        if not self._text.startswith("/*", at):
            return None
        match = _COMMENT.match(self._text, at)
        if match is None:
            self._fail(at, "unclosed comment")
        closing = re.compile(r"(\s-)?}}").match(self._text, match.end())
        if closing is None:
            self._fail(at, "comment ends before closing delimiter")
        return "", closing.end(), closing.group(1) is not None

    def _pipeline(self, depth: int) -> Value:
        if depth > MAX_DEPTH:
            self._fail(self._tokens[self._next].at, f"more than {MAX_DEPTH} nested parentheses")
        value = self._command(None, depth)
        while self._peek() == "|":
            self._next += 1
            value = self._command(value, depth)
        return value

    def _command(self, piped: Value | None, depth: int) -> Value:
        if self._next >= len(self._tokens) or self._peek() in {"|", ")"}:
            at = self._tokens[min(self._next, len(self._tokens) - 1)].at
            self._fail(at, "missing value for command")
        first = self._tokens[self._next]
        function = None
        if first.kind == "word" and first.text not in {"true", "false"}:
            function = self._function(first)
            self._next += 1
        operands: list[Value] = []
        while self._next < len(self._tokens) and self._peek() not in {"|", ")"}:
            operands.append(self._operand(depth))
        if piped is not None:
            operands.append(piped)
        if function is None:
            if len(operands) != 1:
                self._fail_at(first, f"can't give argument to non-function {first.text}")
            return operands[0]
        try:
            return function(operands)
        except TemplateError as error:
            self._fail_at(first, f"error calling {first.text}: {error}")

    def _function(self, token: _Token) -> Callable[[Sequence[Value]], Value]:
        if token.text in _CONTROL:
            self._fail(token.at, f"{{{{{token.text}}}}} is not supported in templates here")
        function = _FUNCTIONS.get(token.text)
        if function is None:
            self._fail(token.at, f"function {_quoted(token.text)} not defined")
        return function

    def _operand(self, depth: int) -> Value:
        token = self._tokens[self._next]
        self._next += 1
        if token.kind == "string":
            return str(ast.literal_eval(token.text))
        if token.kind == "raw":
            return token.text[1:-1]
        if token.kind == "number":
            return int(token.text)
        if token.kind == "dot":
            return self._variables
        if token.kind == "field":
            return self._field(token)
        if token.text in {"true", "false"}:
            return token.text
        if token.text == "(":
            value = self._pipeline(depth + 1)
            if self._peek() != ")":
                self._fail(token.at, "unclosed left paren")
            self._next += 1
            return value
        return self._function(token)([])

    def _field(self, token: _Token) -> Value:
        value: Value = self._variables
        for name in token.text[1:].split("."):
            if isinstance(value, Struct):
                if name not in value.fields:
                    self._fail_at(token, f"can't evaluate field {name} in type {value.kind}")
                value = value.fields[name]
            elif isinstance(value, Mapping):
                if name not in value:
                    self._fail_at(token, f"map has no entry for key {_quoted(name)}")
                value = value[name]
            else:
                self._fail_at(token, f"can't evaluate field {name} in type {_kind(value)}")
        return value

    def _peek(self) -> str:
        token = self._tokens[self._next] if self._next < len(self._tokens) else None
        return token.text if token is not None and token.kind == "symbol" else ""

    def _fail_lexing(self, at: int, start: int) -> NoReturn:
        rest = self._text[at:]
        if not rest or "}}" not in rest:
            self._fail(start, "unclosed action")
        if rest[0] in '"`':
            self._fail(at, "unterminated quoted string")
        if rest[0] == "$":
            name = re.match(r"\$\w*", rest)
            self._fail(at, f"undefined variable {_quoted(name.group() if name else '$')}")
        self._fail(at, f"unexpected {_quoted(rest[0])} in action")

    def _fail(self, at: int, what: str) -> NoReturn:
        line = self._text.count("\n", 0, at) + 1
        raise TemplateError(f"template: expansion:{line}: {what}")

    def _fail_at(self, token: _Token, what: str) -> NoReturn:
        """An error while evaluating; of a chain of fields the position is that of its second one, as in Go."""
        at = token.at
        second = token.text.find(".", 1) if token.kind == "field" else -1
        if second > 0:
            at += second
        line = self._text.count("\n", 0, at) + 1
        column = len(self._text[self._text.rfind("\n", 0, at) + 1 : at].encode())
        raise TemplateError(f'template: expansion:{line}:{column}: executing "expansion" at <{token.text}>: {what}')


def _join(operands: Sequence[Value]) -> Value:
    if not operands:
        raise TemplateError("wrong number of args for join: want at least 1 got 0")
    words: list[str] = []
    for value in operands:
        if not isinstance(value, str):
            raise TemplateError(f"expected string; found {_printed(value)}")
        words.append(value)
    return words[0].join(words[1:])


def _index(operands: Sequence[Value]) -> Value:
    if len(operands) != 2:
        raise TemplateError(f"wrong number of args for index: want 2 got {len(operands)}")
    container, key = operands
    if isinstance(container, str) and isinstance(key, int):
        octets = container.encode()
        if not 0 <= key < len(octets):
            raise TemplateError(f"index out of range: {key}")
        return octets[key]
    if isinstance(container, Mapping) and isinstance(key, str):
        return container.get(key, "")
    raise TemplateError(f"can't index item of type {_kind(container)}")


def _length(operands: Sequence[Value]) -> Value:
    if len(operands) != 1 or isinstance(operands[0], int | Struct):
        raise TemplateError("len of type " + (_kind(operands[0]) if operands else "nothing"))
    value = operands[0]
    return len(value.encode()) if isinstance(value, str) else len(value)


def _print(operands: Sequence[Value]) -> Value:
    parts: list[str] = []
    for position, value in enumerate(operands):
        before = operands[position - 1] if position else ""
        if position and not isinstance(before, str) and not isinstance(value, str):
            parts.append(" ")
        parts.append(_printed(value))
    return "".join(parts)


_FUNCTIONS: dict[str, Callable[[Sequence[Value]], Value]] = {"join": _join, "index": _index, "len": _length, "print": _print}


def _printed(value: Value) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Struct):
        return "{" + " ".join(_printed(field) for field in value.fields.values()) + "}"
    return "map[" + " ".join(f"{key}:{value[key]}" for key in sorted(value)) + "]"


def _kind(value: Value) -> str:
    if isinstance(value, Struct):
        return value.kind
    if isinstance(value, str):
        return "string"
    return "int" if isinstance(value, int) else "map[string]string"
