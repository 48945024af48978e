"""`pyswarm-rafttool`: looks into the log of a manager that does not run (spec/cli-and-executor, section 15).

It changes nothing but what it is told to write: `decrypt` its output directory, `renew-certs` the node's certificate and key. The manager's
directory is locked meanwhile. One clear line and status 1 when it fails, 2 for a wrong command line.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from google.protobuf import text_format
from google.protobuf.message import Message

from pyswarm import __version__
from pyswarm.errors import InvalidArgument, NotFound, SwarmError

if TYPE_CHECKING:
    from pyswarm.ca.keystore import KeyStore
    from pyswarm.manager.store import Store
    from pyswarm.raft.inspection import Inspection, Plain
    from pyswarm.raft.journal import Entry

PROGRAM = "pyswarm-rafttool"
FAILURE, USAGE, INTERRUPTED = 1, 2, 130
_DIRECTORY_MODE = 0o700

_HELP = """Look into the log of a manager, or repair its certificate. The manager must be stopped.

\b
Examples:
  pyswarm-rafttool dump-snapshot -d /tmp/node-1 --redact
  pyswarm-rafttool dump-object service --name redis -d /tmp/node-1
  pyswarm-rafttool decrypt -d /tmp/node-1 --unlock-key SWMKEY-1-... -o /tmp/plain
"""


_STATE_DIR = "/var/lib/swarmd"


def _flags(function: Callable[..., None]) -> Callable[..., None]:
    """Where the manager keeps everything, and what opens it: before the command or behind it."""
    key = click.option("--unlock-key", metavar="SWMKEY-...", help="unlock key of a locked manager")
    directory = click.option("-d", "--state-dir", metavar="DIR", help=f"where the manager keeps everything  [default: {_STATE_DIR}]")
    return directory(key(function))


@click.group(PROGRAM, help=_HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@_flags
@click.version_option(__version__, "-v", "--version", prog_name=PROGRAM, message="%(prog)s pyswarm %(version)s", help="show the version")
@click.pass_context
def command(context: click.Context, state_dir: str | None, unlock_key: str | None) -> None:
    """Click's entry; the help text is `_HELP`."""
    context.obj = (state_dir or _STATE_DIR, unlock_key or "")


def _everywhere(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the flags of all; those behind it win."""

    @functools.wraps(function)
    @click.pass_obj
    def with_defaults(before: tuple[str, str], /, state_dir: str | None, unlock_key: str | None, **more: Any) -> None:
        function(state_dir=state_dir or before[0], unlock_key=unlock_key or before[1], **more)

    return _flags(with_defaults)


_REDACT = click.option("--redact", is_flag=True, help="leave out payloads, environments, passwords and keys")


@command.command(help="Write the log and the snapshots without encryption to a directory.")
@_everywhere
@click.option(
    "-o", "--output-dir", default="plaintext_raft", show_default=True, metavar="DIR", help="where to write; what is there moves aside"
)
def decrypt(state_dir: str, unlock_key: str, output_dir: str) -> None:
    """Everything is read before anything is written."""
    with _inspection(state_dir, unlock_key) as found:
        snapshots, segments = found.plain_snapshots(), found.plain_log()
    _write(Path(output_dir) / "snap-decrypted", snapshots)
    _write(Path(output_dir) / "wal-decrypted", segments)


@command.command("dump-wal", help="Show the entries of the log, committed or not.")
@_everywhere
@click.option("--start", type=click.IntRange(min=0), default=0, metavar="INDEX", help="first entry to show")
@click.option("--end", type=click.IntRange(min=0), default=0, metavar="INDEX", help="last entry to show")
@_REDACT
def dump_wal(state_dir: str, unlock_key: str, start: int, end: int, redact: bool) -> None:
    """In the order of the log."""
    with _inspection(state_dir, unlock_key) as found:
        entries = found.entries()
    for entry in entries:
        if start <= entry[1] and (not end or entry[1] <= end):
            click.echo(describe(entry, redact=redact))


@command.command("dump-snapshot", help="Show members and objects of the newest snapshot.")
@_everywhere
@_REDACT
def dump_snapshot(state_dir: str, unlock_key: str, redact: bool) -> None:
    """Only what is in the snapshot; `dump-object` knows the log too."""
    with _inspection(state_dir, unlock_key) as found:
        newest = found.snapshot()
    if newest is None:
        raise NotFound("no snapshot found")
    members = newest.snapshot.membership
    lines = ["Active members:", *(f" NodeID={m.node_id}, RaftID={m.raft_id:x}, Addr={m.addr}" for m in members.members), ""]
    lines += ["Removed members:", *(f" RaftID={raft_id:x}" for raft_id in members.removed), "", "Objects:"]
    click.echo("\n".join([*lines, _text(newest.snapshot.store, redact=redact)]))


@command.command("dump-object", help="Show objects of a type as snapshot and log together have them: node, service, task, network, ...")
@_everywhere
@click.argument("kind", metavar="TYPE")
@click.option("--id", "object_id", default="", metavar="ID", help="only the object with this ID")
@click.option("--name", default="", metavar="NAME", help="only objects with this name")
@_REDACT
def dump_object(state_dir: str, unlock_key: str, kind: str, object_id: str, name: str, redact: bool) -> None:
    """Entries that are not committed count too, as they will when this manager leads."""
    from pyswarm.manager.store import Kind, by

    if kind not in list(Kind):
        raise click.UsageError(f"unrecognized object type {kind}; one of {', '.join(Kind)}")
    with _inspection(state_dir, unlock_key) as found:
        table = _replay(found).table(Kind(kind))
    chosen = table.find(by.name(name)) if name else list(table)
    chosen = [one for one in chosen if not object_id or one.id == object_id]
    if not chosen:
        raise NotFound("no matching objects found")
    click.echo("\n".join(_text(one, redact=redact) for one in chosen))


@command.command("renew-certs", help="Sign a new certificate for the manager with the CA key from its log, as when the old one expired.")
@_everywhere
def renew_certs(state_dir: str, unlock_key: str) -> None:
    """Name, role and cluster stay as in the old certificate; the key is new, locked as the old one was."""
    from pyswarm.clock import SystemClock
    from pyswarm.manager.recertify import recertify

    recertify(Path(state_dir), _keystore(state_dir, unlock_key), SystemClock())


def describe(entry: Entry, *, redact: bool) -> str:
    """One entry of the log in words, with an empty line behind."""
    from pyswarm.api.private import raft_pb2
    from pyswarm.raft import commands

    content, index, term = entry
    change = commands.parse_membership(content)
    kind = "EntryNormal" if change is None else "EntryConfChange"
    head = f"Entry Index={index}, Term={term}, Type={kind}:\n"
    if change is not None:
        return head + f"Conf change type: {raft_pb2.MembershipChange.Kind.Name(change.kind)}\nNode ID: {change.member.raft_id:x}\n"
    return head + (_text(commands.parse_request(content), redact=redact) if content[0] == commands.Type.STORE else "")


def main() -> None:
    """Entry point of the console script."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run a command line; returns the exit status."""
    from pyswarm.cli import logging

    logging.configure("error")
    try:
        status: Any = command.main(list(arguments), PROGRAM, standalone_mode=False)
    except click.UsageError as error:
        return _complain(f"{error.format_message().rstrip('.')} (see {PROGRAM} --help)", USAGE)
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except SwarmError as error:
        return _complain(error.message, FAILURE)
    except (OSError, ValueError) as error:
        return _complain(str(error), FAILURE)
    return status if isinstance(status, int) else 0


def _complain(text: str, status: int) -> int:
    click.echo(f"Error: {' '.join(text.split())}", err=True)
    return status


def _keystore(state_dir: str, unlock_key: str) -> KeyStore:
    from pyswarm.ca import unlock
    from pyswarm.ca.keystore import KeyStore

    try:
        key = unlock.parse(unlock_key) if unlock_key else b""
    except InvalidArgument as error:
        raise click.UsageError(f"--unlock-key: {error.message}") from error
    return KeyStore(Path(state_dir) / "certificates", key)


@contextmanager
def _inspection(state_dir: str, unlock_key: str) -> Iterator[Inspection]:
    """The manager's log, opened with the keys in its key file."""
    from pyswarm.manager.recertify import inspection

    with inspection(Path(state_dir), _keystore(state_dir, unlock_key)) as found:
        yield found


def _replay(found: Inspection) -> Store:
    from pyswarm.clock import SystemClock
    from pyswarm.manager.recertify import replay

    return replay(found, SystemClock())


def _text(message: Message, *, redact: bool) -> str:
    from pyswarm.cli.redaction import redacted

    return text_format.MessageToString(redacted(message) if redact else message, as_utf8=True)


def _write(directory: Path, files: Sequence[Plain]) -> None:
    """Make a directory that holds exactly these; one that is there is renamed."""
    from pyswarm.ca.files import ensure_directory, write_atomically

    if directory.exists():
        number = 1
        while (aside := directory.with_name(f"{directory.name}.{number}")).exists():
            number += 1
        directory.rename(aside)
    ensure_directory(directory.parent, _DIRECTORY_MODE)
    ensure_directory(directory, _DIRECTORY_MODE)
    for file in files:
        write_atomically(directory / file.name, file.data)
