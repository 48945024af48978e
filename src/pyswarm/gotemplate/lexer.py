"""A template as tokens: text between actions, and the words within them. An error is a token too, the last one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

from pyswarm.gotemplate.values import MAX_STEPS, quoted

Kind: TypeAlias = Literal[
    "text", "left", "right", "space", "assign", "declare", "pipe", "string", "raw", "char", "number", "variable", "field", "dot", "word",
    "keyword", "bool", "nil", "(", ")", "symbol", "error", "end",
]  # fmt: skip

KEYWORDS = frozenset({"block", "break", "continue", "define", "else", "end", "if", "range", "template", "with"})
SPACE = " \t\r\n"
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_STRING = re.compile(r'"(?:\\[^\n]|[^"\\\n])*"')
_CHAR = re.compile(r"'(?:\\[^\n]|[^'\\\n])*'")
_RAW = re.compile(r"`[^`]*`")
_NUMBER = re.compile(
    r"""[+-]?(?:0[xX][0-9A-Fa-f_]*(?:\.[0-9A-Fa-f_]*)?(?:[pP][+-]?[0-9_]*)?
             | 0[oO][0-7_]* | 0[bB][01_]*
             | [0-9_]*(?:\.[0-9_]*)?(?:[eE][+-]?[0-9_]*)?)""",
    re.VERBOSE,
)
_NAME = re.compile(r"\w*")
_SYMBOLS: dict[str, Kind] = {"|": "pipe", "=": "assign", "(": "(", ")": ")"}


@dataclass(frozen=True, slots=True)
class Token:
    """One token; `at` is its offset in the template, `line` where it begins."""

    kind: Kind
    text: str
    at: int
    line: int

    def __str__(self) -> str:
        if self.kind == "end":
            return "EOF"
        if self.kind == "error":
            return self.text
        if self.kind in {"keyword", "nil", "dot"}:
            return f"<{self.text}>"
        return quoted(self.text[:10]) + "..." if len(self.text) > 10 else quoted(self.text)


class Lexer:
    """Makes the tokens of one template."""

    def __init__(self, text: str, most: int = MAX_STEPS) -> None:
        """At most so many tokens are made; one more is an error."""
        self._text = text
        self._most = most
        self._at = 0
        self._line = 1
        self._depth = 0
        self._tokens: list[Token] = []

    def run(self) -> list[Token]:
        """All tokens; the last one is `end` or `error`."""
        try:
            while self._outside():
                while self._inside():
                    pass
        except _LexError as error:
            self._tokens.append(Token("error", str(error), self._at, self._line))
            return self._tokens
        self._tokens.append(Token("end", "", self._at, self._line))
        return self._tokens

    def _outside(self) -> bool:
        """Text up to the next action; whether there is one."""
        opening = self._text.find("{{", self._at)
        literal = self._text[self._at :] if opening < 0 else self._text[self._at : opening]
        trims = opening >= 0 and _trims_left(self._text, opening + 2)
        kept = literal.rstrip(SPACE) if trims else literal
        if kept:
            self._tokens.append(Token("text", kept, self._at, self._line))
        self._skip(len(literal))
        if opening < 0:
            return False
        after = opening + 2 + (2 if trims else 0)
        if self._text.startswith("/*", after):
            self._comment(after)
            return self._outside() if self._at < len(self._text) else False
        self._emit("left", 2)
        self._skip(after - self._at)
        self._depth = 0
        return True

    def _comment(self, at: int) -> None:
        match = _COMMENT.match(self._text, at)
        if match is None:
            raise _LexError("unclosed comment")
        closing = _closing(self._text, match.end())
        if not closing:
            raise _LexError("comment ends before closing delimiter")
        self._skip(match.end() + closing - self._at)
        if closing > 2:
            self._trim()

    def _inside(self) -> bool:
        """One token of an action; whether the action goes on."""
        closing = _closing(self._text, self._at)
        if closing:
            if self._depth:
                raise _LexError("unclosed left paren")
            self._skip(closing - 2)
            self._emit("right", 2)
            if closing > 2:
                self._trim()
            return False
        if self._at >= len(self._text):
            raise _LexError("unclosed action")
        self._token(self._text[self._at])
        return True

    def _token(self, character: str) -> None:
        if character in SPACE:
            end = self._at
            while end < len(self._text) and self._text[end] in SPACE and not (end > self._at and _closing(self._text, end) > 2):
                end += 1
            self._emit("space", end - self._at)
        elif character == ":":
            if self._text[self._at + 1 : self._at + 2] != "=":
                raise _LexError("expected :=")
            self._emit("declare", 2)
        elif character in _SYMBOLS:
            self._depth += (character == "(") - (character == ")")
            if self._depth < 0:
                raise _LexError("unexpected right paren")
            self._emit(_SYMBOLS[character], 1)
        elif character == '"':
            self._quoted("string", _STRING, "unterminated quoted string")
        elif character == "`":
            self._quoted("raw", _RAW, "unterminated raw quoted string")
        elif character == "'":
            self._quoted("char", _CHAR, "unterminated character constant")
        elif character in "+-0123456789" or (character == "." and self._text[self._at + 1 : self._at + 2].isdecimal()):
            self._number()
        elif character in ".$" or character == "_" or character.isalnum():
            self._word(character)
        elif " " < character < "\x7f":
            self._emit("symbol", 1)
        else:
            raise _LexError(f"unrecognized character in action: {_unicode(character)}")

    def _quoted(self, kind: Kind, pattern: re.Pattern[str], otherwise: str) -> None:
        match = pattern.match(self._text, self._at)
        if match is None:
            raise _LexError(otherwise)
        self._emit(kind, match.end() - self._at)

    def _number(self) -> None:
        match = _NUMBER.match(self._text, self._at)
        end = match.end() if match is not None else self._at
        following = self._text[end : end + 1]
        if following and following in "+-" and (more := _NUMBER.match(self._text, end)) is not None:
            raise _LexError(f'bad number syntax: "{self._text[self._at : more.end()]}"')
        if following == "_" or following.isalnum():
            raise _LexError(f'bad number syntax: "{self._text[self._at : end + 1]}"')
        self._emit("number", end - self._at)

    def _word(self, first: str) -> None:
        start = self._at + (first in ".$")
        match = _NAME.match(self._text, start)
        end = match.end() if match is not None else start
        following = self._text[end : end + 1]
        if following and following not in SPACE + ".,|:)(" and not _closing(self._text, end):
            raise _LexError(f"bad character {_unicode(following)}")
        word = self._text[self._at : end]
        kind: Kind = "word"
        if first == "$":
            kind = "variable"
        elif first == ".":
            kind = "field" if len(word) > 1 else "dot"
        elif word in KEYWORDS:
            kind = "keyword"
        elif word in {"true", "false"}:
            kind = "bool"
        elif word == "nil":
            kind = "nil"
        self._emit(kind, len(word))

    def _emit(self, kind: Kind, length: int) -> None:
        if len(self._tokens) >= self._most:
            raise _LexError(f"more than {MAX_STEPS} steps")
        self._tokens.append(Token(kind, self._text[self._at : self._at + length], self._at, self._line))
        self._skip(length)

    def _skip(self, length: int) -> None:
        self._line += self._text.count("\n", self._at, self._at + length)
        self._at += length

    def _trim(self) -> None:
        end = self._at
        while end < len(self._text) and self._text[end] in SPACE:
            end += 1
        self._skip(end - self._at)


class _LexError(Exception):
    """Becomes the last token."""


def _trims_left(text: str, at: int) -> bool:
    return text[at : at + 1] == "-" and text[at + 1 : at + 2] != "" and text[at + 1] in SPACE


def _closing(text: str, at: int) -> int:
    """The length of the right delimiter at an offset, with its trim marker; 0 when there is none."""
    if text.startswith("}}", at):
        return 2
    return 4 if text.startswith("-}}", at + 1) and text[at] in SPACE else 0


def _unicode(character: str) -> str:
    return f"U+{ord(character):04X}" + (f" '{character}'" if character.isprintable() else "")
