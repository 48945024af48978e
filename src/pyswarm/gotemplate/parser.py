"""Tokens as a tree. Raises TemplateError, with the line, for what is no template."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal, NoReturn

from pyswarm.gotemplate import literals
from pyswarm.gotemplate.lexer import Kind, Token
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
    Node,
    Operand,
    Pipeline,
    Text,
    Variable,
)
from pyswarm.gotemplate.values import TemplateError, quoted

NAME = "expansion"
"""What every template is called; error texts say it."""
MAX_NESTING = 50
"""Blocks and parentheses within each other."""
MAX_VARIABLES = 500
"""At any one place."""

_OPERANDS = frozenset({"bool", "char", "dot", "field", "word", "number", "nil", "raw", "string", "variable", "("})
Stop = Literal["end", "else"]


@dataclass(slots=True)
class Templates:
    """The main template, and those that it defines."""

    main: Block = ()
    named: dict[str, Block] = field(default_factory=dict)


def parse(tokens: Sequence[Token], functions: Collection[str]) -> Templates:
    """A template's tree; only these functions may be called. Raises TemplateError."""
    return _Parser(tokens, functions).run()


class _Reader:
    """Takes the tokens one after another, and says where something is wrong."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self._tokens = tokens
        self._next = 0
        self._seen = 0
        self._action_line = 0

    def _take(self) -> Token:
        token = self._tokens[min(self._next, len(self._tokens) - 1)]
        self._next += 1
        self._seen = max(self._seen, min(self._next, len(self._tokens)) - 1)
        return token

    def _peek(self) -> Token:
        token = self._take()
        self._next -= 1
        return token

    def _take_word(self) -> Token:
        """The next token that is no space."""
        token = self._take()
        while token.kind == "space":
            token = self._take()
        return token

    def _peek_word(self) -> Token:
        token = self._take_word()
        self._next -= 1
        return token

    def _expect(self, kind: Kind, context: str) -> Token:
        token = self._take_word()
        if token.kind != kind:
            self._unexpected(token, context)
        return token

    def _unexpected(self, token: Token, context: str) -> NoReturn:
        if token.kind != "error":
            self._fail(f"unexpected {token} in {context}")
        where = ""
        if self._action_line and self._action_line != token.line:
            where = f" in action started at {NAME}:{self._action_line}"
            if token.text.endswith(" action"):
                where = where.removeprefix(" in action")
        self._fail(f"{token}{where}")

    def _fail(self, what: str) -> NoReturn:
        raise self._error(what)

    def _error(self, what: str) -> TemplateError:
        return TemplateError(f"template: {NAME}:{self._tokens[self._seen].line}: {what}")


class _Parser(_Reader):
    def __init__(self, tokens: Sequence[Token], functions: Collection[str]) -> None:
        super().__init__(tokens)
        self._functions = functions
        self._variables = ["$"]
        self._ranges = 0
        self._nesting = 0
        self._templates = Templates()

    def run(self) -> Templates:
        nodes: list[Node] = []
        while self._peek().kind != "end":
            if self._defines():
                self._define()
                continue
            node = self._text_or_action()
            if isinstance(node, str):
                self._fail(f"unexpected {{{{{node}}}}}")
            nodes.append(node)
        self._templates.main = tuple(nodes)
        if NAME not in self._templates.named:
            self._templates.named[NAME] = self._templates.main
        return self._templates

    # --- blocks

    def _defines(self) -> bool:
        if self._peek().kind != "left":
            return False
        begin = self._next
        self._take()
        if (token := self._take_word()).kind == "keyword" and token.text == "define":
            return True
        self._next = begin
        return False

    def _define(self) -> None:
        name = self._name(self._take_word(), "define clause")
        self._expect("right", "define clause")
        self._add(name, "define clause")

    def _add(self, name: str, context: str) -> None:
        """Parse a named template's body, which sees no variables from outside."""
        outside, self._variables = self._variables, ["$"]
        ranges, self._ranges = self._ranges, 0
        body, stop = self._block()
        if stop != "end":
            self._fail(f"unexpected {{{{{stop}}}}} in {context}")
        self._variables, self._ranges = outside, ranges
        if _is_empty(self._templates.named.get(name, ())):
            self._templates.named[name] = body
        elif not _is_empty(body):
            self._fail(f"template: multiple definition of template {quoted(name)}")

    def _block(self) -> tuple[Block, Stop]:
        """Everything up to `end` or `else`, and which of them."""
        self._nesting += 1
        if self._nesting > MAX_NESTING:
            self._fail(f"more than {MAX_NESTING} blocks within each other")
        nodes: list[Node] = []
        while self._peek_word().kind != "end":
            node = self._text_or_action()
            if isinstance(node, str):
                self._nesting -= 1
                return tuple(nodes), node
            nodes.append(node)
        raise self._error("unexpected EOF")

    def _text_or_action(self) -> Node | Stop:
        token = self._take_word()
        if token.kind == "text":
            return Text(token.text)
        if token.kind != "left":
            self._unexpected(token, "input")
        self._action_line = token.line
        try:
            return self._action()
        finally:
            self._action_line = 0

    def _action(self) -> Node | Stop:
        token = self._take_word()
        if token.kind == "keyword":
            match token.text:
                case "if" | "with" | "range":
                    return self._branch(token.text)
                case "end":
                    self._expect("right", "end")
                    return "end"
                case "else":
                    if (following := self._peek_word()).kind != "keyword" or following.text not in {"if", "with"}:
                        self._expect("right", "else")
                    return "else"
                case "break" | "continue":
                    return self._jump(token.text)
                case "template" | "block":
                    return self._include(token)
        self._next -= 1
        at = self._peek().at
        return Action(at, self._pipeline("command", "right"))

    def _branch(self, kind: str) -> Branch:
        scope = len(self._variables)
        at = self._peek_word().at
        pipeline = self._pipeline(kind, "right")
        self._ranges += kind == "range"
        body, stop = self._block()
        self._ranges -= kind == "range"
        otherwise: Block | None = None
        if stop == "else":
            following = self._peek_word()
            if following.kind == "keyword" and following.text == kind and kind != "range":
                self._take_word()
                self._nesting += 1
                otherwise = (self._branch(kind),)
                self._nesting -= 1
            else:
                otherwise, stop = self._block()
                if stop != "end":
                    self._fail(f"expected end; found {{{{{stop}}}}}")
        del self._variables[scope:]
        return Branch(at, kind, pipeline, body, otherwise)

    def _jump(self, kind: str) -> Jump:
        token = self._take_word()
        if token.kind != "right":
            self._unexpected(token, f"{{{{{kind}}}}}")
        if not self._ranges:
            self._fail(f"{{{{{kind}}}}} outside {{{{range}}}}")
        return Jump(kind)

    def _include(self, token: Token) -> Include:
        context = f"{token.text} clause"
        at = self._peek_word().at
        name = self._name(self._take_word(), context)
        if token.text == "block":
            pipeline = self._pipeline(context, "right")
            self._add(name, context)
            return Include(at, name, pipeline)
        if self._peek_word().kind == "right":
            self._take_word()
            return Include(at, name, None)
        return Include(at, name, self._pipeline(context, "right"))

    def _name(self, token: Token, context: str) -> str:
        if token.kind not in {"string", "raw"}:
            self._unexpected(token, context)
        return self._string(token)

    # --- pipelines

    def _pipeline(self, context: str, end: Kind) -> Pipeline:
        self._nesting += 1
        if self._nesting > MAX_NESTING:
            self._fail(f"more than {MAX_NESTING} blocks or parentheses within each other")
        at = self._peek_word().at
        declared, assigns = self._declarations(context)
        commands: list[Command] = []
        while (token := self._take_word()).kind != end:
            if token.kind not in _OPERANDS:
                self._unexpected(token, context)
            self._next -= 1
            commands.append(self._command())
        if not commands:
            self._fail(f"missing value for {context}")
        for stage, command in enumerate(commands[1:], 2):
            if isinstance(command.operands[0], Constant | Dot):
                self._fail(f"non executable command in pipeline stage {stage}")
        self._nesting -= 1
        return Pipeline(at, tuple(declared), assigns, tuple(commands))

    def _declarations(self, context: str) -> tuple[list[str], bool]:
        """The variables before `:=` or `=`."""
        declared: list[str] = []
        while (token := self._peek_word()).kind == "variable":
            begin = self._next
            self._take_word()
            following = self._take_word()
            if following.kind in {"assign", "declare"}:
                self._declare(token.text, declared)
                return declared, following.kind == "assign"
            if following.kind != "symbol" or following.text != ",":
                self._next = begin
                break
            self._declare(token.text, declared)
            if context != "range" or len(declared) > 1:
                self._fail(f"too many declarations in {context}")
            if self._peek_word().kind not in {"variable", "right", ")"}:
                self._fail("range can only initialize variables")
        return declared, False

    def _declare(self, name: str, declared: list[str]) -> None:
        if len(self._variables) > MAX_VARIABLES:
            self._fail(f"more than {MAX_VARIABLES} variables")
        declared.append(name)
        self._variables.append(name)

    def _command(self) -> Command:
        at = self._peek_word().at
        operands: list[Operand] = []
        while True:
            self._peek_word()
            operand = self._operand()
            if operand is not None:
                operands.append(operand)
            token = self._take()
            if token.kind == "space":
                continue
            if token.kind in {"right", ")"}:
                self._next -= 1
            elif token.kind != "pipe":
                self._unexpected(token, "operand")
            break
        if not operands:
            self._fail("empty command")
        return Command(at, tuple(operands))

    def _operand(self) -> Operand | None:
        term = self._term()
        if term is None or self._peek().kind != "field":
            return term
        at = self._peek().at
        names: list[str] = []
        while self._peek().kind == "field":
            names.append(self._take().text[1:])
        match term:
            case Field():
                return Field(at, (*term.names, *names))
            case Variable():
                return Variable(at, term.name, (*term.names, *names))
            case Constant() | Dot():
                self._fail(f"unexpected . after term {quoted(str(term))}")
        return Chain(at, term, tuple(names))

    def _term(self) -> Operand | None:
        token = self._take_word()
        at = token.at
        match token.kind:
            case "word":
                if token.text not in self._functions:
                    self._fail(f"function {quoted(token.text)} not defined")
                return Call(at, token.text)
            case "dot":
                return Dot(at)
            case "nil":
                return Constant(at, None, "nil")
            case "variable":
                if token.text not in self._variables:
                    self._fail(f"undefined variable {quoted(token.text)}")
                return Variable(at, token.text, ())
            case "field":
                return Field(at, (token.text[1:],))
            case "bool":
                return Constant(at, token.text == "true", token.text)
            case "(":
                return self._pipeline("parenthesized pipeline", ")")
            case "string" | "raw":
                return Constant(at, self._string(token), token.text)
            case "char" | "number":
                return Constant(at, self._number(token), token.text)
        self._next -= 1
        return None

    def _string(self, token: Token) -> str:
        try:
            return literals.string(token.text)
        except literals.LiteralError as error:
            self._fail(str(error))

    def _number(self, token: Token) -> int | float:
        try:
            return literals.character(token.text) if token.kind == "char" else literals.number(token.text)
        except literals.LiteralError as error:
            self._fail(str(error))


def _is_empty(block: Block) -> bool:
    """Whether a template is nothing but space, so that another one may take its name."""
    return all(isinstance(node, Text) and not node.text.strip() for node in block)
