"""A parsed template. Each node prints as its source would, for error texts; `at` is its offset in the template."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from pyswarm.gotemplate.values import Value, quoted


@dataclass(frozen=True, slots=True)
class Dot:
    """`.`, or a constant's `nil` (see `Constant`)."""

    at: int

    def __str__(self) -> str:
        return "."


@dataclass(frozen=True, slots=True)
class Constant:
    """A literal; `source` as it was written."""

    at: int
    value: Value
    source: str

    def __str__(self) -> str:
        return self.source


@dataclass(frozen=True, slots=True)
class Field:
    """`.A.B`."""

    at: int
    names: tuple[str, ...]

    def __str__(self) -> str:
        return "".join(f".{name}" for name in self.names)


@dataclass(frozen=True, slots=True)
class Variable:
    """`$x.A`."""

    at: int
    name: str
    names: tuple[str, ...]

    def __str__(self) -> str:
        return self.name + "".join(f".{name}" for name in self.names)


@dataclass(frozen=True, slots=True)
class Call:
    """A function's name."""

    at: int
    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Chain:
    """`(pipeline).A.B`, or a function's name with fields."""

    at: int
    start: Operand
    names: tuple[str, ...]

    def __str__(self) -> str:
        shown = f"({self.start})" if isinstance(self.start, Pipeline) else str(self.start)
        return shown + "".join(f".{name}" for name in self.names)


@dataclass(frozen=True, slots=True)
class Command:
    """Operands; the first may be a function that takes the others."""

    at: int
    operands: tuple[Operand, ...]

    def __str__(self) -> str:
        return " ".join(f"({operand})" if isinstance(operand, Pipeline) else str(operand) for operand in self.operands)


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Commands, each given the last one's result, and the variables that take the end result."""

    at: int
    variables: tuple[str, ...]
    assigns: bool
    commands: tuple[Command, ...]

    def __str__(self) -> str:
        declared = ", ".join(self.variables) + (" = " if self.assigns else " := ") if self.variables else ""
        return declared + " | ".join(map(str, self.commands))


Operand: TypeAlias = Dot | Constant | Field | Variable | Call | Chain | Pipeline


@dataclass(frozen=True, slots=True)
class Text:
    """Copied as it is."""

    text: str


@dataclass(frozen=True, slots=True)
class Action:
    """Prints a pipeline's value, unless it declares something."""

    at: int
    pipeline: Pipeline

    def __str__(self) -> str:
        return f"{{{{{self.pipeline}}}}}"


@dataclass(frozen=True, slots=True)
class Branch:
    """`if`, `with` or `range`; `kind` says which."""

    at: int
    kind: str
    pipeline: Pipeline
    body: Block
    otherwise: Block | None

    def __str__(self) -> str:
        return f"{{{{{self.kind} {self.pipeline}}}}}..."


@dataclass(frozen=True, slots=True)
class Jump:
    """`break` or `continue`."""

    kind: str


@dataclass(frozen=True, slots=True)
class Include:
    """`{{template "name" pipeline}}`, also what is left of a `block`."""

    at: int
    name: str
    pipeline: Pipeline | None

    def __str__(self) -> str:
        return f"{{{{template {quoted(self.name)}" + (f" {self.pipeline}" if self.pipeline else "") + "}}"


Node: TypeAlias = Text | Action | Branch | Jump | Include
Block: TypeAlias = tuple[Node, ...]
