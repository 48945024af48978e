"""Help texts: one layout for all commands, from what the commands declare. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pyswarm.cli.flagset import BOOL, Flag


@dataclass(frozen=True, slots=True)
class Text:
    """What a command says about itself: one line of summary, one or more lines of examples, its other names, and more lines if needed."""

    summary: str
    example: str = ""
    aliases: tuple[str, ...] = ()
    more: str = ""


def command(path: str, text: Text, metavar: str, flags: Sequence[Flag], common: Sequence[Flag]) -> str:
    """Help of a command; `path` is how it is called, `common` the flags of every command."""
    usage = " ".join(part for part in (path, metavar, "[flags]") if part)
    parts = [_head(text), f"Usage:\n  {usage}", *_aliases(text), *_examples(text)]
    return "\n\n".join([*parts, "Flags:\n" + _table(flags), "Global Flags:\n" + _table(common)])


def group(path: str, text: Text, commands: Iterable[tuple[str, str]], flags: Sequence[Flag], common: Sequence[Flag]) -> str:
    """Help of a group: its commands with their summaries."""
    listed = "\n".join(f"  {name:<11} {summary}" for name, summary in commands)
    parts = [_head(text), f"Usage:\n  {path} [command]", *_aliases(text), *_examples(text)]
    parts += ["Available Commands:\n" + listed, "Flags:\n" + _table(flags), "Global Flags:\n" + _table(common)]
    return "\n\n".join([*parts, f'Use "{path} [command] --help" for more information about a command.'])


def _head(text: Text) -> str:
    return f"{text.summary}\n\n{text.more}" if text.more else text.summary


def _aliases(text: Text) -> list[str]:
    return [f"Aliases:\n  {', '.join(text.aliases)}"] if text.aliases else []


def _examples(text: Text) -> list[str]:
    return ["Examples:\n" + "\n".join(f"  {line}" for line in text.example.splitlines())] if text.example else []


def _table(flags: Iterable[Flag]) -> str:
    rows = [(_left(flag), _right(flag)) for flag in sorted(flags, key=lambda flag: flag.name)]
    width = max(len(left) for left, _ in rows)
    return "\n".join(f"{left:<{width}}   {right}" for left, right in rows)


def _left(flag: Flag) -> str:
    short = f"-{flag.short}, " if flag.short else "    "
    return f"  {short}--{flag.name}" + (f" {flag.kind.word}" if flag.kind is not BOOL else "")


def _right(flag: Flag) -> str:
    return f"{flag.help} (default {flag.default})" if flag.default else flag.help
