"""Reading a command line: flags of one command and what was given of them. Pure, and independent of click.

The rules are those that SwarmKit's users know (spec/cli-and-executor, section 2): flags and arguments in any order, `--` ends the flags,
`--flag value`, `--flag=value`, `-f value`, `-fvalue`, `-f=value`; booleans take a value only after `=`; short booleans can be grouped;
repeated lists add up, of anything else the last one wins; names are never abbreviated. click's own parser differs in each of these, which
is why it only gets to see what is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from pyswarm.cli import units

T = TypeVar("T")


class FlagError(ValueError):
    """The command line itself is wrong; the text says how."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What a flag's values look like: the word help shows for them, and how one is read (ValueError with the reason)."""

    word: str
    read: Callable[[str], object]
    many: bool = False


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag. `default` is what help says happens without it; a flag that is not given changes nothing."""

    name: str
    kind: Kind
    help: str
    short: str = ""
    default: str = ""

    @property
    def display(self) -> str:
        """How errors name it."""
        return f"-{self.short}, --{self.name}" if self.short else f"--{self.name}"


class Given(Mapping[str, object]):
    """The flags that were on the command line, by name, read; the others are absent."""

    def __init__(self, values: Mapping[str, object] | None = None) -> None:
        self._values = dict(values or {})

    def __getitem__(self, name: str) -> object:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def any(self, *names: str) -> bool:
        """Whether at least one of the flags was given."""
        return any(name in self._values for name in names)

    def text(self, name: str, default: str = "") -> str:
        """A string flag."""
        return self._typed(name, str, default)

    def number(self, name: str, default: int = 0) -> int:
        """A number, or a duration in nanoseconds."""
        return self._typed(name, int, default)

    def truth(self, name: str, default: bool = False) -> bool:
        """A boolean flag."""
        return self._typed(name, bool, default)

    def texts(self, name: str) -> list[str]:
        """A list flag."""
        return [str(value) for value in self._typed(name, list, [])]

    def items_of(self, name: str, kind: type[T]) -> list[T]:
        """A list flag whose elements are read into something else than text."""
        return [value for value in self._typed(name, list, []) if isinstance(value, kind)]

    def _typed(self, name: str, kind: type[T], default: T) -> T:
        value = self._values.get(name, default)
        if not isinstance(value, kind):
            raise TypeError(f"--{name} is not read as {kind.__name__}")
        return value


@dataclass(slots=True)
class Parsed:
    """A command line taken apart."""

    values: dict[str, object] = field(default_factory=dict)
    arguments: list[str] = field(default_factory=list)

    @property
    def given(self) -> Given:
        """The flags that were there."""
        return Given(self.values)


def parse(words: Sequence[str], flags: Iterable[Flag], *, mixed: bool = True) -> Parsed:
    """Take `words` apart; without `mixed`, the first argument and all after it are left alone. Raises FlagError."""
    return _Reader(list(words), flags, mixed).run()


class _Reader:
    """The words still to be read, and what came of those before."""

    def __init__(self, words: list[str], flags: Iterable[Flag], mixed: bool) -> None:
        self._words = words
        self._long = {flag.name: flag for flag in flags}
        self._short = {flag.short: flag for flag in self._long.values() if flag.short}
        self._mixed = mixed
        self._parsed = Parsed()

    def run(self) -> Parsed:
        while self._words:
            word = self._words.pop(0)
            if word == "--":
                break
            if word.startswith("--"):
                self._long_flag(word)
            elif word.startswith("-") and len(word) > 1:
                self._short_flags(word)
            else:
                self._parsed.arguments.append(word)
                if not self._mixed:
                    break
        self._parsed.arguments += self._words
        return self._parsed

    def _long_flag(self, word: str) -> None:
        name, equals, value = word[2:].partition("=")
        if name.startswith("-") or not name:
            raise FlagError(f"bad flag syntax: {word}")
        flag = self._long.get(name)
        if flag is None:
            raise FlagError(f"unknown flag: --{name}")
        if equals:
            self._keep(flag, value)
        elif flag.kind is BOOL:
            self._keep(flag, "true")
        else:
            self._keep(flag, self._next_word(f"--{name}"))

    def _short_flags(self, word: str) -> None:
        letters = word[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            flag = self._short.get(letter)
            if flag is None:
                raise FlagError(f"unknown shorthand flag: '{letter}' in {word}")
            if letters.startswith("="):
                self._keep(flag, letters[1:])
                return
            if flag.kind is BOOL:
                self._keep(flag, "true")
            else:
                self._keep(flag, letters or self._next_word(f"'{letter}' in {word}"))
                return

    def _next_word(self, display: str) -> str:
        if not self._words:
            raise FlagError(f"flag needs an argument: {display}")
        return self._words.pop(0)

    def _keep(self, flag: Flag, text: str) -> None:
        try:
            value = flag.kind.read(text)
        except ValueError as reason:
            raise FlagError(f"invalid argument {units.quoted(text)} for {units.quoted(flag.display)} flag: {reason}") from None
        values = self._parsed.values
        if not flag.kind.many:
            values[flag.name] = value
            return
        have = values.setdefault(flag.name, [])
        if isinstance(have, list):
            have.extend(value if isinstance(value, list) else [value])


def csv_record(text: str) -> list[str]:
    """The elements of one comma-separated record: an element with a comma needs double quotes, a quote inside them is doubled.

    Surrounding blanks are kept, an empty text has no elements, and what follows an unquoted line end is not read.
    """
    fields: list[str] = []
    position = 0
    while text:
        if text.startswith('"', position):
            value, position = _quoted_field(text, position)
        else:
            end = min(i for i in (text.find(",", position), text.find("\n", position), len(text)) if i >= 0)
            value = text[position:end]
            if '"' in value:
                column = position + value.index('"') + 1
                raise ValueError(
                    f'parse error on line 1, column {column}: bare " in non-quoted-field; '
                    "put double quotes around the value and double its own"
                )
            position = end
        fields.append(value)
        if not text.startswith(",", position):
            break
        position += 1
    return fields


def _quoted_field(text: str, start: int) -> tuple[str, int]:
    """The quoted field that opens at `start`, and where it ends."""
    value, position = "", start + 1
    while True:
        end = text.find('"', position)
        if end < 0:
            raise ValueError(f'parse error on line 1, column {len(text) + 1}: extraneous or missing " in quoted-field')
        value += text[position:end]
        if text.startswith('""', end):
            value += '"'
            position = end + 2
        elif text[end + 1 : end + 2] in {"", ",", "\n"}:
            return value, end + 1
        else:
            raise ValueError(f'parse error on line 1, column {end + 1}: extraneous or missing " in quoted-field')


BOOL = Kind("", units.parse_bool)
STRING = Kind("string", str)
STRINGS = Kind("strings", csv_record, many=True)
UINT = Kind("uint", units.parse_uint)
INT = Kind("int", units.parse_int)
DURATION = Kind("duration", units.parse_duration)
