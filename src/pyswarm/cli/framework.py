"""How a pyswarmctl command is declared, what it is handed, how its help reads.

click finds the command, keeps the contexts and completes in shells; the words behind the command are read by `flagset` (see there why).
Each command is a function of one `Call`. Nothing here connects or imports gRPC until a command asks for a client.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from pyswarm.cli import helptext
from pyswarm.cli.flagset import BOOL, STRING, Flag, FlagError, Given, parse

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from pyswarm.cli.client import Client
    from pyswarm.cli.resolve import Names

PROGRAM = "pyswarmctl"
DEFAULT_SOCKET = "/var/run/swarmd.sock"
HELP = Flag("help", BOOL, "show this help", "h")
QUIET = Flag("quiet", BOOL, "print IDs only, one per line", "q")
ALL = Flag("all", BOOL, "show tasks that are meant to be stopped too", "a", default="shows just running")


def socket_from_environment() -> str:
    """SWARM_SOCKET, or where pyswarmd listens by default. An empty variable counts as unset."""
    return os.environ.get("SWARM_SOCKET") or DEFAULT_SOCKET


def global_flags() -> list[Flag]:
    """The flags that every command takes, before and after its name."""
    return [
        Flag("no-resolve", BOOL, "print IDs instead of the names behind them", "n"),
        Flag("socket", STRING, "control socket of a manager", "s", default=f'"{socket_from_environment()}"'),
    ]


@dataclass(frozen=True, slots=True)
class Arguments:
    """What a command takes besides flags: how help shows it, and the complaint about a wrong number."""

    metavar: str
    complaint: Callable[[Sequence[str]], str]


def no_arguments(command: str) -> Arguments:
    """None at all."""
    return Arguments("", lambda given: f"{command} command takes no arguments" if given else "")


def one_argument(metavar: str, missing: str, many: str) -> Arguments:
    """Exactly one that is not empty."""
    return Arguments(metavar, lambda given: missing if not given or not given[0] else many if len(given) > 1 else "")


def some_arguments(metavar: str, missing: str) -> Arguments:
    """At least one, none empty."""
    return Arguments(metavar, lambda given: "" if given and all(given) else missing)


@dataclass(frozen=True, slots=True)
class Call:
    """One run of a command: its arguments, the flags given, and the way to the manager."""

    context: click.Context
    arguments: list[str]
    given: Given

    @property
    def argument(self) -> str:
        """The only argument."""
        return self.arguments[0]

    @contextmanager
    def connect(self) -> Iterator[Client]:
        """A client of the manager at the socket that was chosen. Raises Unavailable when nobody answers there."""
        from pyswarm.cli.client import connect

        with connect(self._global("socket").text("socket") or socket_from_environment()) as client:
            yield client

    def names(self, client: Client) -> Names:
        """IDs to names for display, or to themselves with --no-resolve."""
        from pyswarm.cli.resolve import Names

        return Names(client, resolve=not self._global("no-resolve").truth("no-resolve"))

    def now(self) -> float:
        """The moment against which ages are shown, seconds since the epoch."""
        from pyswarm.clock import SystemClock

        return SystemClock().now()

    def pause(self, seconds: float) -> None:
        """Wait before something is tried again."""
        import asyncio

        from pyswarm.clock import SystemClock

        asyncio.run(SystemClock().sleep(seconds))

    def show(self, text: str) -> None:
        """Print text that brings its own line ends."""
        click.echo(text, nl=False)

    def _global(self, name: str) -> Given:
        """The flags of the innermost level (command, group, program) that has the global flag `name`."""
        context: click.Context | None = self.context
        while context is not None:
            given = given_of(context)
            if name in given:
                return given
            context = context.parent
        return Given()


def given_of(context: click.Context) -> Given:
    """The flags given at this very level."""
    given: object = context.params.get("given")
    return given if isinstance(given, Given) else Given()


def _read(context: click.Context, words: list[str], flags: Sequence[Flag], *, mixed: bool) -> list[str]:
    """Read a level's own words; what is left is its arguments. Raises click.UsageError; shows help and exits where that is asked."""
    try:
        for word in words:
            if not word.isprintable() and any("\ud800" <= character <= "\udfff" for character in word):
                raise FlagError(f"{word!r} is not valid UTF-8")
        parsed = parse(words, [*flags, *global_flags(), HELP], mixed=mixed)
    except FlagError as error:
        if context.resilient_parsing:
            return []
        raise click.UsageError(str(error), context) from None
    context.params["given"] = parsed.given
    if parsed.given.truth("help") and not context.resilient_parsing:
        click.echo(context.get_help())
        context.exit()
    return parsed.arguments


def _completions(flags: Sequence[Flag], incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    if not incomplete.startswith("-"):
        return []
    found = [flag for flag in [*flags, *global_flags(), HELP] if f"--{flag.name}".startswith(incomplete)]
    return [CompletionItem(f"--{flag.name}", help=flag.help) for flag in found]


class Command(click.Command):
    """A leaf of the command tree."""

    def __init__(
        self,
        name: str,
        run: Callable[[Call], None],
        arguments: Arguments,
        flags: Sequence[Flag],
        text: helptext.Text,
    ) -> None:
        super().__init__(name, help=text.summary, add_help_option=False, context_settings={"allow_extra_args": True})
        self.run = run
        self.arguments = arguments
        self.flags = list(flags)
        self.text = text

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read flags and arguments; click sees the arguments only."""
        rest = _read(ctx, args, self.flags, mixed=True)
        complaint = self.arguments.complaint(rest)
        if complaint and not ctx.resilient_parsing:
            raise click.UsageError(complaint, ctx)
        return super().parse_args(ctx, ["--", *rest])

    def invoke(self, ctx: click.Context) -> None:
        """Run it; a wrong flag value found on the way is a usage error like any other."""
        try:
            self.run(Call(ctx, list(ctx.args), given_of(ctx)))
        except FlagError as error:
            raise click.UsageError(str(error), ctx) from None

    def get_help(self, ctx: click.Context) -> str:
        """The help text."""
        return helptext.command(ctx.command_path, self.text, self.arguments.metavar, [*self.flags, HELP], global_flags())

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002 - click's signature
        """The command's flags."""
        return _completions(self.flags, incomplete)


@dataclass(slots=True)
class Entry:
    """A command as its group lists it. `module` is where it is declared, imported when it is wanted; empty: declared already."""

    summary: str
    module: str = ""
    aliases: tuple[str, ...] = ()
    command: click.Command | None = field(default=None)


class Group(click.Group):
    """A level of the command tree. Alone it shows its help; a name it does not know is a usage error."""

    def __init__(self, name: str, text: helptext.Text) -> None:
        super().__init__(name, help=text.summary, add_help_option=False, invoke_without_command=True)
        self.text = text
        self.entries: dict[str, Entry] = {}

    def declare(
        self,
        name: str,
        arguments: Arguments,
        *,
        summary: str,
        example: str,
        flags: Sequence[Flag] = (),
        aliases: tuple[str, ...] = (),
        more: str = "",
    ) -> Callable[[Callable[[Call], None]], Callable[[Call], None]]:
        """Make the decorated function a command of this group. `more` is further help, below the summary."""

        text = helptext.Text(summary, example, (name, *aliases) if aliases else (), more)

        def decorate(run: Callable[[Call], None]) -> Callable[[Call], None]:
            self.entries[name] = Entry(summary, aliases=aliases, command=Command(name, run, arguments, flags, text))
            return run

        return decorate

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Their names in alphabetical order, without aliases."""
        return sorted(self.entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """The command of that name or alias, its module imported if need be."""
        for name, entry in self.entries.items():
            if cmd_name == name or cmd_name in entry.aliases:
                if entry.command is None:
                    entry.command = importlib.import_module(entry.module).COMMAND
                return entry.command
        return None

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the global flags in front of the sub-command's name."""
        rest = _read(ctx, args, [], mixed=False)
        if rest and not ctx.resilient_parsing and self.get_command(ctx, rest[0]) is None:
            raise click.UsageError(self._unknown(ctx, rest[0]), ctx)
        return super().parse_args(ctx, rest)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the sub-command, or show the help when there is none."""
        result = super().invoke(ctx)
        if ctx.invoked_subcommand is None:
            click.echo(self.get_help(ctx))
        return result

    def get_help(self, ctx: click.Context) -> str:
        """The help text with the list of commands."""
        commands = [(name, self.entries[name].summary) for name in self.list_commands(ctx)]
        return helptext.group(ctx.command_path, self.text, commands, [HELP], global_flags())

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The names of the commands, and the global flags."""
        from click.shell_completion import CompletionItem

        names = [name for name in self.list_commands(ctx) if name.startswith(incomplete)]
        return [CompletionItem(name, help=self.entries[name].summary) for name in names] + _completions([], incomplete)

    def _unknown(self, ctx: click.Context, name: str) -> str:
        import difflib

        close = difflib.get_close_matches(name, self.entries, n=1)
        hint = f'. Did you mean "{close[0]}"?' if close else ""
        return f'unknown command "{name}" for "{ctx.command_path}"{hint}'
