"""The command tree: help, usage errors, exit statuses."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from pyswarm import __version__
from pyswarm.cli.ctl import ROOT
from pyswarm.cli.framework import Command, Group

from .conftest import Run

TREE = {
    "cluster": {"inspect": "", "ls": "q", "unlock-key": "", "update": ""},
    "config": {"create": "f", "inspect": "", "ls": "q", "remove": ""},
    "network": {"create": "", "inspect": "", "ls": "q", "remove": ""},
    "node": {
        **dict.fromkeys(["activate", "demote", "drain", "pause", "promote", "update"], ""),
        "inspect": "a",
        "ls": "q",
        "remove": "f",
    },
    "secret": {"create": "df", "inspect": "", "ls": "q", "remove": ""},
    "service": {"create": "", "inspect": "a", "logs": "f", "ls": "q", "remove": "", "update": ""},
    "volume": {"create": "do", "inspect": "", "ls": "q", "remove": "f", "update": ""},
    "task": {"inspect": "", "logs": "f", "ls": "aq", "remove": "", "why": "o"},
}
BOTH = """\
args strings, bind strings, cluster-volume strings, command strings, constraint strings, cpu-limit string, cpu-reservation string,
endpoint-mode string, env strings, generic-resources string, hostname string, image string, init, label strings, log-driver string,
log-opt strings, memory-limit string, memory-reservation string, name string, network string, npipe strings, oom-score-adj int,
open-stdin, ports strings, publish strings, replicas uint, replicas-max-per-node uint, restart-condition string, restart-delay string,
restart-max-attempts uint, restart-window string,
rollback-delay string, rollback-on-failure string, rollback-order string, rollback-parallelism uint, tmpfs strings, tty, ulimit strings,
update-delay string, update-on-failure string, update-order string, update-parallelism uint, volume strings, """
FLAGS = {
    ("cluster", "update"): "autolock, certexpiry duration, external-ca external-ca, heartbeatperiod duration, log-driver string, "
    "log-opt strings, rotate-join-token string, rotate-unlock-key, taskhistory int",
    ("network", "create"): "attachable, ingress, internal, ipv6, label strings, driver string, gateway strings, ip-range strings, "
    "ipam-driver string, name string, opts strings, subnet strings",
    ("node", "update"): "label strings",
    ("secret", "create"): "driver string, file string",
    ("service", "create"): BOTH + "mode string, secret strings",
    ("service", "update"): BOTH + "add-capability strings, add-config strings, add-secret strings, force, rm-capability strings, "
    "rm-config strings, rm-secret strings",
}


def commands() -> Iterator[tuple[tuple[str, ...], Group | Command]]:
    """Every group and command with its path."""
    context = click.Context(ROOT, info_name="pyswarmctl")
    yield (), ROOT
    for name in ROOT.list_commands(context):
        found = ROOT.get_command(context, name)
        assert isinstance(found, Group | Command)
        yield (name,), found
        if isinstance(found, Group):
            for inner in found.list_commands(context):
                leaf = found.get_command(context, inner)
                assert isinstance(leaf, Command)
                yield (name, inner), leaf


def test_all_commands_are_there() -> None:
    """The groups and commands, and the shorthands of their flags, are SwarmKit's; `task logs` and `volume` are ours."""
    tree: dict[str, dict[str, str]] = {}
    for path, command in commands():
        if len(path) == 2:
            assert isinstance(command, Command)
            tree.setdefault(path[0], {})[path[1]] = "".join(sorted(flag.short for flag in command.flags))
    assert tree == TREE


@pytest.mark.parametrize("path", FLAGS)
def test_flags(path: tuple[str, ...]) -> None:
    """Names and types of the flags are SwarmKit's; those of what its command line cannot make are Docker's. [cli 10]"""
    command = dict(commands())[path]
    assert isinstance(command, Command)
    shown = {f"{flag.name} {flag.kind.word}".strip() for flag in command.flags}
    assert shown - {"max-concurrent uint", "template-driver string"} == {
        entry.strip() for entry in FLAGS[path].replace("\n", " ").split(",") if entry.strip()
    }


@pytest.mark.parametrize("path", [path for path, _ in commands()], ids=" ".join)
def test_help(path: tuple[str, ...], dead: Path, run: Run) -> None:
    """Every command explains itself on stdout, asking nobody; every leaf has an example that calls it. [cli 10]"""
    result = run(*path, "--help")
    assert (result.exit_code, result.stderr) == (0, "")
    assert f"\nUsage:\n  {' '.join(['pyswarmctl', *path])}" in result.stdout
    assert result.stdout == run(*path, "-h").stdout == run("help", *path).stdout
    if len(path) == 2:
        example = result.stdout.partition("Examples:\n")[2].partition("\n\n")[0]
        words = example.split()
        names = {path[1], "rm"} if path[1] == "remove" else {path[1]}
        assert "pyswarmctl" in words
        assert words[words.index("pyswarmctl") + 1] == path[0]
        assert words[words.index("pyswarmctl") + 2] in names


@pytest.mark.parametrize("words", [(), ("service",), ("svc",)])
def test_groups_alone_show_their_help(words: tuple[str, ...], run: Run) -> None:
    """The program or a group without a command shows its help and succeeds. [cli 4]"""
    result = run(*words)
    assert result.exit_code == 0
    assert "Available Commands:" in result.stdout


@pytest.mark.parametrize(
    ("words", "line", "see"),
    [
        (("foo",), 'unknown command "foo" for "pyswarmctl"', "pyswarmctl"),
        (("servic", "ls"), 'unknown command "servic" for "pyswarmctl". Did you mean "service"?', "pyswarmctl"),
        (("service", "foo"), 'unknown command "foo" for "pyswarmctl service"', "pyswarmctl service"),
        (("--bogus", "node", "ls"), "unknown flag: --bogus", "pyswarmctl"),
        (("node", "ls", "-z"), "unknown shorthand flag: 'z' in -z", "pyswarmctl node ls"),
        (("task", "ls", "--quie"), "unknown flag: --quie", "pyswarmctl task ls"),
        (("cluster", "update", "default", "--certexpiry"), "flag needs an argument: --certexpiry", "pyswarmctl cluster update"),
        (("version", "x"), "version command takes no arguments", "pyswarmctl version"),
        (("service", "create", "--", "c"), "create command takes no arguments", "pyswarmctl service create"),
        (("help", "bogus"), 'unknown help topic "bogus"', "pyswarmctl help"),
        (("completion", "powershell"), 'no completion for shell "powershell": there is one for bash, fish, zsh', "pyswarmctl completion"),
        (("node", "inspect", "\udcff"), r"'\udcff' is not valid UTF-8", "pyswarmctl"),
    ],
)
def test_usage_errors(words: tuple[str, ...], line: str, see: str, dead: Path, run: Run) -> None:
    """A wrong command line is one line, a hint where to look, and status 2. [cli 5] [cli 6] [cli 11]"""
    result = run(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"Error: {line}\nSee '{see} --help'.\n"


@pytest.mark.parametrize("kind", TREE)
def test_ls_takes_no_arguments(kind: str, dead: Path, run: Run) -> None:
    """Arguments are counted before anyone is asked. [cli 8]"""
    result = run(kind, "ls", "x")
    assert (result.exit_code, result.stderr.splitlines()[0]) == (2, "Error: ls command takes no arguments")


@pytest.mark.parametrize(
    ("words", "missing", "many"),
    [
        (("cluster", "inspect"), "cluster name missing", "inspect command takes exactly 1 argument"),
        (("cluster", "update"), "cluster name missing", "update command takes exactly 1 argument"),
        (("cluster", "unlock-key"), "cluster name missing", "unlock-key command takes exactly 1 argument"),
        (("node", "inspect"), "node ID missing", "inspect command takes exactly 1 argument"),
        (("node", "drain"), "missing node ID", "command takes exactly 1 argument"),
        (("node", "update"), "node ID missing", "command takes exactly 1 argument"),
        (("node", "rm"), "missing node ID", "remove command takes exactly 1 argument"),
        (("service", "inspect"), "service ID missing", "inspect command takes exactly 1 argument"),
        (("service", "update"), "service ID missing", "update command takes exactly 1 argument"),
        (("service", "rm"), "service ID missing", "remove command takes exactly 1 argument"),
        (("task", "inspect"), "task ID missing", "inspect command takes exactly 1 argument"),
        (("task", "rm"), "task ID missing", "remove command takes exactly 1 argument"),
        (("network", "inspect"), "network ID missing", "inspect command takes exactly 1 argument"),
        (("network", "rm"), "network ID missing", "remove command takes exactly 1 argument"),
        (("secret", "inspect"), "inspect command takes a single secret ID or name", "inspect command takes a single secret ID or name"),
        (("config", "inspect"), "inspect command takes a single config ID or name", "inspect command takes a single config ID or name"),
    ],
)
def test_argument_counts(words: tuple[str, ...], missing: str, many: str, dead: Path, run: Run) -> None:
    """No argument, an empty one or too many are usage errors in the command's own words."""
    for arguments, line in (((), missing), (("",), missing), (("a", "b"), many)):
        result = run(*words, *arguments)
        assert (result.exit_code, result.stderr.splitlines()[0]) == (2, f"Error: {line}")


def test_logs_without_a_service(dead: Path, run: Run) -> None:
    """logs needs at least one service."""
    result = run("service", "logs")
    assert (result.exit_code, result.stderr.splitlines()[0]) == (2, "Error: missing service IDs")


def test_version(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program as it was called, the package, the version. [cli 11]"""
    monkeypatch.setattr(sys, "argv", ["/opt/pyswarmctl"])
    assert run("version").stdout == f"/opt/pyswarmctl pyswarm {__version__}\n"


def test_completion(run: Run) -> None:
    """A script for each shell, and completions of commands and flags."""
    for shell in ("fish", "zsh"):
        assert "_PYSWARMCTL_COMPLETE" in run("completion", shell).stdout
    for words, index, expected in (
        ("pyswarmctl serv", 1, "plain,service"),
        ("pyswarmctl service cre", 2, "plain,create"),
        ("pyswarmctl service create --repl", 3, "plain,--replicas"),
    ):
        environment = {**os.environ, "_PYSWARMCTL_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(index)}
        program = [sys.executable, "-c", "from pyswarm.cli.ctl import main; main()"]
        lines = subprocess.run(program, env=environment, capture_output=True, text=True, check=False).stdout.splitlines()
        assert expected in lines


def test_reader_that_goes_away() -> None:
    """`pyswarmctl ... | head` ends without a traceback."""
    program = [sys.executable, "-c", "from pyswarm.cli.ctl import main; main()", "service", "create", "--help"]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
