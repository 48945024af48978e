"""The text that a template becomes. Raises TemplateError, with line, column and the piece of source, for what cannot be had."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NoReturn

from pyswarm.gotemplate.functions import BUILT_IN, Function, Parameter
from pyswarm.gotemplate.lexer import Lexer
from pyswarm.gotemplate.nodes import (
    Action,
    Block,
    Branch,
    Call,
    Chain,
    Command,
    Constant,
    Dot,
    Field,
    Include,
    Jump,
    Operand,
    Pipeline,
    Text,
    Variable,
)
from pyswarm.gotemplate.parser import NAME, Templates, parse
from pyswarm.gotemplate.values import (
    MAX_OUTPUT,
    MAX_STEPS,
    Budget,
    CallError,
    Struct,
    TemplateError,
    Value,
    in_order,
    kind_of,
    octets,
    printed,
    quoted,
    text_of,
    truth,
)

MAX_DEPTH = 100
"""Blocks, templates and parentheses within each other, as they are executed. Go goes 100,000 deep, which only mistakes need."""
_SHORT_CIRCUIT = frozenset({"and", "or"})


class _Missing:
    """No value: nothing comes through the pipe, or no data was handed to a template."""


MISSING: Final = _Missing()
Maybe = Value | _Missing


class _Jump(Exception):
    """`break` or `continue`, on its way to the loop."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


def expand(text: str, data: Value, functions: Mapping[str, Function] | None = None, budget: Budget | None = None) -> str:
    """`text` with every action replaced by its value; `data` is what `.` is at first, `budget` what the expansion may take, and is charged.

    Raises TemplateError.
    """
    if "{{" not in text:
        return text
    budget = budget if budget is not None else Budget()
    known = {**BUILT_IN, **(functions or {})}
    tokens = Lexer(text, budget.steps).run()
    budget.steps -= len(tokens)
    return _Expansion(text, parse(tokens, known.keys() | _SHORT_CIRCUIT), known, budget).run(data)


def expand_bytes(template: bytes, data: Value, functions: Mapping[str, Function] | None = None) -> bytes:
    """The same for bytes, of which those outside actions need not be text. Raises TemplateError."""
    return octets(expand(text_of(template), data, functions))


class _Expansion:
    """One execution."""

    def __init__(self, text: str, templates: Templates, functions: Mapping[str, Function], budget: Budget) -> None:
        self._text = text
        self._templates = templates
        self._functions = functions
        self._out: list[str] = []
        self._budget = budget
        self._depth = 0
        self._template = NAME
        self._variables: list[tuple[str, Maybe]] = []
        self._node: object = None
        self._at = 0

    def run(self, data: Value) -> str:
        self._variables = [("$", data)]
        self._walk(data, self._templates.main)
        return "".join(self._out)

    # --- blocks

    def _walk(self, dot: Maybe, block: Block) -> None:
        self._deeper()
        for node in block:
            self._step()
            match node:
                case Text():
                    self._write(node.text)
                case Action():
                    self._mark(node, node.at)
                    value = self._pipeline(dot, node.pipeline)
                    if not node.pipeline.variables:
                        self._write("<no value>" if value is None or isinstance(value, _Missing) else printed(value))
                case Branch():
                    kept = len(self._variables)
                    self._branch(dot, node)
                    del self._variables[kept:]
                case Jump():
                    raise _Jump(node.kind)
                case Include():
                    self._include(dot, node)
        self._depth -= 1

    def _branch(self, dot: Maybe, node: Branch) -> None:
        if node.kind == "range":
            self._range(dot, node)
            return
        value = self._pipeline(dot, node.pipeline)
        if not isinstance(value, _Missing) and truth(value):
            self._walk(value if node.kind == "with" else dot, node.body)
        elif node.otherwise is not None:
            self._walk(dot, node.otherwise)

    def _range(self, dot: Maybe, node: Branch) -> None:
        value = self._pipeline(dot, node.pipeline)
        names = node.pipeline.variables
        items: Sequence[tuple[Maybe, Value]]
        if isinstance(value, int) and not isinstance(value, bool):
            if len(names) > 1:
                self._fail(f"can't use {value} to iterate over more than one variable")
            items = range_items(value)
        elif isinstance(value, Mapping):
            items = [(key, value[key]) for key in in_order(value)]
        elif value is None or isinstance(value, _Missing):
            items = ()
        else:
            self._fail(f"range can't iterate over {printed(value)}")
        kept = len(self._variables)
        for index, element in items:
            self._step()
            self._bind(node.pipeline, kept, index, element)
            depth = self._depth
            try:
                self._walk(element, node.body)
            except _Jump as jump:
                self._depth = depth
                if jump.kind == "break":
                    break
            finally:
                del self._variables[kept:]
        if not items and node.otherwise is not None:
            self._walk(dot, node.otherwise)

    def _bind(self, pipeline: Pipeline, kept: int, index: Maybe, element: Value) -> None:
        """Give a loop's variables this round's values: one is the element, two are key and element."""
        values = [element] if len(pipeline.variables) == 1 else [index, element]
        for position, (name, value) in enumerate(zip(pipeline.variables, values, strict=False)):
            if pipeline.assigns:
                self._assign(name, value)
            else:
                self._variables[kept - len(pipeline.variables) + position] = (name, value)

    def _include(self, dot: Maybe, node: Include) -> None:
        self._mark(node, node.at)
        block = self._templates.named.get(node.name)
        if block is None:
            self._fail(f"template {quoted(node.name)} not defined")
        data: Maybe = self._pipeline(dot, node.pipeline) if node.pipeline is not None else MISSING
        outside, self._variables = self._variables, [("$", data)]
        template, self._template = self._template, node.name
        self._walk(data, block)
        self._variables, self._template = outside, template

    # --- values

    def _pipeline(self, dot: Maybe, pipeline: Pipeline) -> Maybe:
        self._mark(pipeline, pipeline.at)
        self._deeper()
        value: Maybe = MISSING
        for command in pipeline.commands:
            self._step()
            value = self._command(dot, command, value)
        for name in pipeline.variables:
            if pipeline.assigns:
                self._assign(name, value)
            else:
                self._variables.append((name, value))
        self._depth -= 1
        return value

    def _command(self, dot: Maybe, command: Command, piped: Maybe) -> Maybe:
        first = command.operands[0]
        if isinstance(first, Call):
            self._mark(first, first.at)
            return self._call(dot, first.name, command, command.operands[1:], piped)
        given = len(command.operands) > 1 or piped is not MISSING
        if isinstance(first, Field | Chain | Variable):
            return self._operand(dot, first, given=given)
        if not isinstance(first, Pipeline):
            self._mark(first, first.at)
        if given:
            self._no_function(first)
        if isinstance(first, Constant) and first.value is None:
            self._fail("nil is not a command")
        return self._operand(dot, first)

    def _operand(self, dot: Maybe, operand: Operand, *, given: bool = False) -> Maybe:
        """An operand's value; `given`: arguments follow, which only functions take."""
        if not isinstance(operand, Pipeline):
            self._mark(operand, operand.at)
        match operand:
            case Dot():
                return dot
            case Constant():
                return operand.value
            case Field():
                return self._fields(dot, operand.names, given=given)
            case Variable():
                value = self._variable(operand.name)
                if given and not operand.names:
                    self._no_function(operand)
                return self._fields(value, operand.names, given=given)
            case Chain():
                if isinstance(operand.start, Constant):
                    self._fail(f"indirection through explicit nil in {operand}")
                value = self._operand(dot, operand.start)
                return self._fields(value, operand.names, given=given)
            case Call():
                return self._call(dot, operand.name, operand, (), MISSING)
        return self._pipeline(dot, operand)

    def _fields(self, value: Maybe, names: Sequence[str], *, given: bool) -> Maybe:
        for position, name in enumerate(names):
            value = self._field(value, name, given=given and position == len(names) - 1)
        return value

    def _field(self, value: Maybe, name: str, *, given: bool) -> Value:
        if value is None or isinstance(value, _Missing):
            self._fail(f"nil data; no entry for key {quoted(name)}")
        if isinstance(value, Struct) and name in value.fields:
            if given:
                self._fail(f"{name} has arguments but cannot be invoked as function")
            return value.fields[name]
        if isinstance(value, Mapping):
            if given:
                self._fail(f"{name} is not a method but has arguments")
            if name not in value:
                self._fail(f"map has no entry for key {quoted(name)}")
            return value[name]
        raise self._error(f"can't evaluate field {name} in type {kind_of(value)}")

    def _variable(self, name: str) -> Maybe:
        for known, value in reversed(self._variables):
            if known == name:
                return value
        raise self._error(f"undefined variable: {name}")

    def _assign(self, name: str, value: Maybe) -> None:
        for position in range(len(self._variables) - 1, -1, -1):
            if self._variables[position][0] == name:
                self._variables[position] = (name, value)
                return
        self._fail(f"undefined variable: {name}")

    # --- calls

    def _call(self, dot: Maybe, name: str, place: Call | Command, operands: Sequence[Operand], piped: Maybe) -> Value:
        given = len(operands) + (piped is not MISSING)
        if name in _SHORT_CIRCUIT:
            if not given:
                self._fail(f"wrong number of args for {name}: want at least 1 got 0")
            return self._short_circuit(dot, name, operands, piped)
        function = self._functions[name]
        if function.more is None and given != len(function.fixed):
            self._fail(f"wrong number of args for {name}: want {len(function.fixed)} got {given}")
        if given < len(function.fixed):
            self._fail(f"wrong number of args for {name}: want at least {len(function.fixed)} got {len(operands)}")
        arguments = [self._argument(dot, operand, _parameter(function, n)) for n, operand in enumerate(operands)]
        if piped is not MISSING:
            arguments.append(self._valid(piped, _parameter(function, len(operands))))
        self._step(1 + sum(len(argument) for argument in arguments if isinstance(argument, str)) // 1000)
        try:
            value = function.call(arguments)
        except CallError as error:
            self._mark(place, place.at)
            self._fail(f"error calling {name}: {error}")
        if isinstance(value, str) and len(value) > MAX_OUTPUT:
            self._fail(f"{name} gives more than {MAX_OUTPUT} bytes")
        return value

    def _short_circuit(self, dot: Maybe, name: str, operands: Sequence[Operand], piped: Maybe) -> Value:
        value: Value = None
        for operand in operands:
            value = self._argument(dot, operand, "any")
            if truth(value) == (name == "or"):
                return value
        return self._valid(piped, "any") if piped is not MISSING else value

    def _argument(self, dot: Maybe, operand: Operand, parameter: Parameter) -> Value:
        if isinstance(operand, Constant) and parameter == "string" and not isinstance(operand.value, str):
            self._mark(operand, operand.at)
            self._fail("cannot assign nil to string" if operand.value is None else f"expected string; found {operand}")
        return self._valid(self._operand(dot, operand), parameter)

    def _valid(self, value: Maybe, parameter: Parameter) -> Value:
        if isinstance(value, _Missing) or value is None:
            if parameter == "string":
                self._fail("invalid value; expected string")
            return None
        if parameter == "string" and not isinstance(value, str):
            self._fail(f"wrong type for value; expected string; got {kind_of(value)}")
        return value

    def _no_function(self, operand: Operand) -> NoReturn:
        self._fail(f"can't give argument to non-function {operand}")

    # --- limits and errors

    def _write(self, text: str) -> None:
        self._budget.output -= len(octets(text))
        if self._budget.output < 0:
            self._fail(f"more than {MAX_OUTPUT} bytes of output")
        self._out.append(text)

    def _step(self, count: int = 1) -> None:
        self._budget.steps -= count
        if self._budget.steps < 0:
            self._fail(f"more than {MAX_STEPS} steps")

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._fail(f"exceeded maximum template depth ({MAX_DEPTH})")

    def _mark(self, node: object, at: int) -> None:
        """What is being evaluated, for errors."""
        self._node, self._at = node, at

    def _fail(self, what: str) -> NoReturn:
        raise self._error(what)

    def _error(self, what: str) -> TemplateError:
        line = self._text.count("\n", 0, self._at) + 1
        column = len(octets(self._text[self._text.rfind("\n", 0, self._at) + 1 : self._at]))
        where = "" if self._node is None else f":{column}: executing {quoted(self._template)} at <{self._node}>"
        return TemplateError(f"template: {NAME}:{line}{where}: {what}")


def range_items(count: int) -> Sequence[tuple[Maybe, Value]]:
    """What `range 3` visits. More rounds than steps are not made up in memory."""
    return [(MISSING, number) for number in range(min(count, MAX_STEPS + 1))]


def _parameter(function: Function, position: int) -> Parameter:
    return function.fixed[position] if position < len(function.fixed) else function.more or "any"
