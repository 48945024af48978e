"""What the engine's answers about a container mean for its task. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyswarm.agent.executor import ExecutorError, ExitError
from pyswarm.api import v1 as api

TASK_ID_LABEL = "com.docker.swarm.task.id"


@dataclass(frozen=True, slots=True)
class Port:
    """A container port bound to a port of the host."""

    target: int
    protocol: str
    published: int


@dataclass(frozen=True, slots=True)
class Container:
    """The part of an inspect answer that matters. `health` is empty without a health check; `ports` has no duplicates."""

    id: str
    status: str
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    health_checked: bool = False
    health: str = ""
    tty: bool = False
    ports: tuple[Port, ...] = ()


@dataclass(frozen=True, slots=True)
class Listed:
    """A container in a list."""

    id: str
    task_id: str


class Verdict(enum.Enum):
    """What a look at a container tells somebody who waits for something."""

    WAIT = "not yet"
    DONE = "reached"
    UNHEALTHY = "its health check failed"


def parse_container(answer: Mapping[str, Any]) -> Container:
    """An inspect answer as a Container. Raises ExecutorError for ports that make no sense."""
    state = answer.get("State") or {}
    config = answer.get("Config") or {}
    test: Sequence[str] = (config.get("Healthcheck") or {}).get("Test") or ()
    return Container(
        id=str(answer.get("Id", "")),
        status=str(state.get("Status", "")),
        pid=int(state.get("Pid") or 0),
        exit_code=int(state.get("ExitCode") or 0),
        error=str(state.get("Error") or ""),
        oom_killed=bool(state.get("OOMKilled")),
        health_checked=bool(test) and test[0] != "NONE",
        health=str((state.get("Health") or {}).get("Status") or ""),
        tty=bool(config.get("Tty")),
        ports=parse_ports((answer.get("NetworkSettings") or {}).get("Ports") or {}),
    )


def parse_listed(answer: Mapping[str, Any]) -> Listed:
    """One entry of a container list."""
    return Listed(id=str(answer["Id"]), task_id=str((answer.get("Labels") or {}).get(TASK_ID_LABEL, "")))


def parse_ports(ports: Mapping[str, Any]) -> tuple[Port, ...]:
    """The bindings of an inspect answer; the IPv4 and the IPv6 one of the same port are one. Raises ExecutorError."""
    found: dict[Port, None] = {}
    for key, bindings in sorted(ports.items()):
        number, _, protocol = key.partition("/")
        if not number.isdigit():
            raise ExecutorError(f"invalid port mapping: {key}")
        if protocol not in {"tcp", "udp", "sctp"}:
            raise ExecutorError(f"invalid protocol: {protocol}")
        for binding in bindings or ():
            published = str(binding.get("HostPort", ""))
            if not published.isdigit():
                raise ExecutorError(f"invalid port mapping: {key} to {published!r}")
            found[Port(int(number), protocol, int(published))] = None
    return tuple(found)


def has_ended(container: Container) -> bool:
    """It ran and does not run any more."""
    return container.status in {"exited", "dead"}


def judge_exit(container: Container) -> Verdict:
    """For somebody who waits for the end. Raises ExitError when it ended with a non-zero code."""
    if has_ended(container):
        if container.exit_code:
            raise ExitError(container.exit_code, container.error or ("out of memory" if container.oom_killed else ""))
        return Verdict.DONE
    return Verdict.UNHEALTHY if container.health == "unhealthy" else Verdict.WAIT


def judge_health(container: Container) -> Verdict:
    """For somebody who waits for a good start. Raises ExitError when it ended with a non-zero code.

    An end with code 0 is a good start: the wait that follows finds it (spec/cli-and-executor, section 19).
    """
    if not container.health_checked or container.health in {"healthy", "none"}:
        return judge_exit(container) if has_ended(container) else Verdict.DONE
    return judge_exit(container)


def container_status(container: Container) -> api.ContainerStatus:
    """The status message of a container."""
    return api.ContainerStatus(container_id=container.id, pid=container.pid, exit_code=container.exit_code)


def port_status(container: Container, wanted: api.Endpoint) -> api.PortStatus | None:
    """The host ports in use, with the names the endpoint gives them; None without any."""
    names = {(port.target_port, port.protocol): port.name for port in wanted.ports}
    ports = []
    for port in container.ports:
        protocol = api.PortConfig.Protocol.Value(port.protocol.upper())
        ports.append(
            api.PortConfig(
                name=names.get((port.target, protocol), ""),
                protocol=protocol,
                target_port=port.target,
                published_port=port.published,
                publish_mode=api.PortConfig.HOST,
            )
        )
    return api.PortStatus(ports=ports) if ports else None
