"""What to run for a task: from its spec to a command, an environment and a user."""

from __future__ import annotations

import grp
import os
import pwd
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pyswarm.agent.executor import ExecutorError
from pyswarm.agent.executor.spec import container_spec, resource_environment
from pyswarm.agent.executor.templates import expanded_container
from pyswarm.api import v1 as api

HOST_NETWORK = "host"
"""The one network that processes are on: their machine's."""

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Recipe:
    """A task's command and surroundings. `directory` empty: its own; `user` as in the spec, resolved by `credentials`."""

    argv: tuple[str, ...]
    env: dict[str, str]
    directory: str
    user: str
    groups: tuple[str, ...]
    stop_signal: signal.Signals | int


@dataclass(frozen=True, slots=True)
class Credentials:
    """Numbers of a user and where he lives."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def recipe(task: api.Task, node: api.NodeDescription, *, files: Mapping[str, str] | None = None) -> Recipe:
    """The recipe of a task on the node described; `files` is the environment that says where its secrets and configs are (see `given`).

    Raises ExecutorError when it cannot run as a process.
    """
    _refuse_what_is_missing(task)
    spec = expanded_container(task, node)
    env = {"PATH": DEFAULT_PATH, "HOSTNAME": spec.hostname or node.hostname}
    for entry in (*spec.env, *resource_environment(task)):
        name, separator, value = entry.partition("=")
        if name and separator:
            env[name] = value
    env.update(files or {})
    return Recipe(
        argv=(*spec.command, *spec.args),
        env=env,
        directory=spec.dir,
        user=spec.user,
        groups=tuple(spec.groups),
        stop_signal=parse_signal(spec.stop_signal) if spec.stop_signal else signal.SIGTERM,
    )


def _refuse_what_is_missing(task: api.Task) -> None:
    spec = container_spec(task)
    if not spec.command:
        raise ExecutorError(
            "the process executor runs a command of this machine and takes nothing from the image, but the task has no command: "
            "set one in the service's spec"
        )
    networks = [attachment for attachment in task.networks if attachment.network.driver_state.name != HOST_NETWORK]
    missing = {"mounts": [mount for mount in spec.mounts if mount.type != api.Mount.CLUSTER], "networks": networks}
    asked = [name for name, entries in missing.items() if entries]
    if asked:
        raise ExecutorError(f"the process executor has no {' and no '.join(asked)}: run this task with the docker executor")


def parse_signal(text: str) -> signal.Signals | int:
    """`SIGTERM`, `term`, `15`, `SIGRTMIN+3` as a number. Raises ExecutorError."""
    name = text.upper().removeprefix("SIG")
    if name.isdigit() and int(name) in signal.valid_signals():
        return int(name)
    base, sign, offset = name.partition("+")
    number = getattr(signal, f"SIG{base}", None) if base.isalnum() else None
    if isinstance(number, int) and (not sign or (base == "RTMIN" and offset.isdigit())):
        value = int(number) + (int(offset) if sign else 0)
        if value in signal.valid_signals():
            return value
    raise ExecutorError(f"stop signal {text!r} is no signal of this machine")


def credentials(user: str, groups: Sequence[str]) -> Credentials | None:
    """The numbers behind `name`, `uid`, `name:group` or `uid:gid` and further groups; None for the daemon's own user.

    Blocking: asks the system's user database. Raises ExecutorError for unknown names.
    """
    if not user and not groups:
        return None
    name, _, group = user.partition(":")
    uid, gid, home, own = _user(name)
    if group:
        gid = _group(group)
    extra = tuple(_group(entry) for entry in groups)
    return Credentials(uid, gid, tuple(dict.fromkeys((*own, *extra))), home)


def _user(name: str) -> tuple[int, int, str, list[int]]:
    """Number, main group, home and groups; a bare number need not be in the database."""
    try:
        entry = pwd.getpwuid(int(name)) if name.isdigit() else pwd.getpwnam(name) if name else pwd.getpwuid(os.getuid())
    except KeyError as error:
        if name.isdigit():
            return int(name), 0, "/", []
        raise ExecutorError(f"user {name} does not exist on this machine") from error
    return entry.pw_uid, entry.pw_gid, entry.pw_dir, os.getgrouplist(entry.pw_name, entry.pw_gid)


def _group(name: str) -> int:
    if name.isdigit():
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError as error:
        raise ExecutorError(f"group {name} does not exist on this machine") from error
