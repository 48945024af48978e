"""What a user does to services and nodes, told the same way to both executors, on real daemons."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tools.cluster import Cluster, until

from pyswarm.api import v1 as api
from pyswarm.cli.client import connect

CREATE = ("service", "create", "--restart-delay", "100ms", "--name")


@dataclass(frozen=True, slots=True)
class Kind:
    """Flags of `service create` and `service update` that suit an executor."""

    sound: tuple[str, ...]
    """Runs until it is stopped, which takes no time."""
    broken: tuple[str, ...]
    """Never runs: the image, or the program, is nowhere."""


@contextmanager
def busy(cluster: Cluster, kind: Kind) -> Iterator[list[str]]:
    """Somebody creates, scales and removes services all the while. Gives the errors they got, complete once the block has ended."""
    errors: list[str] = []
    done = threading.Event()

    def work() -> None:
        number = 0
        while not done.is_set():
            name = f"load-{number}"
            for words in (
                (*CREATE, name, *kind.sound, "--replicas", "2"),
                ("service", "update", name, "--replicas", "3"),
                ("service", "rm", name),
            ):
                answer = cluster.run(*words)
                if answer.returncode:
                    errors.append(answer.stderr)
            number += 1

    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield errors
    finally:
        done.set()
        worker.join()


def drain_under_load(cluster: Cluster, kind: Kind, replicas: int) -> None:
    """A drained node gives up all it runs, what ran elsewhere is not touched, and no write is refused meanwhile. It ends as it began."""
    cluster.ask(*CREATE, "steady", *kind.sound, "--replicas", str(replicas))
    until("all run", lambda: cluster.replicas("steady") == f"{replicas}/{replicas}")
    elsewhere = {task for task, node in places(cluster, "steady").items() if node != "node-2"}
    assert 0 < len(elsewhere) < replicas
    with busy(cluster, kind) as errors:
        cluster.ask("node", "drain", "node-2")
        until("node-2 is empty", lambda: "node-2" not in cluster.places().values())
        until("all run elsewhere", lambda: cluster.replicas("steady") == f"{replicas}/{replicas}")
        after = places(cluster, "steady")
    assert errors == []
    assert elsewhere <= after.keys()
    assert "node-2" not in after.values()
    cluster.ask("node", "activate", "node-2")
    cluster.ask("service", "rm", "steady")
    until("nothing is left", lambda: not tasks(cluster, "steady") and not tasks(cluster, "load-"))


def update_that_rolls_back(cluster: Cluster, kind: Kind) -> None:
    """A version that cannot run replaces no more than one task of the old one, which comes back by itself; and why is told."""
    flags = ("--replicas", "3", "--update-parallelism", "1", "--update-on-failure", "rollback")
    cluster.ask(*CREATE, "web", *kind.sound, *flags)
    until("three run", lambda: cluster.replicas("web") == "3/3")
    watch_briefly(cluster, "web")
    before = places(cluster, "web")
    cluster.ask("service", "update", "web", *kind.broken)
    until("it is rolled back", lambda: "ROLLBACK_COMPLETED" in cluster.ask("service", "inspect", "web"))
    assert cluster.replicas("web") == "3/3"
    kept = before.keys() & places(cluster, "web").keys()
    assert len(kept) == 2
    failed = [row[3] for row in tasks(cluster, "web.") if row[3].split()[0] in {"REJECTED", "FAILED"}]
    assert failed
    cluster.ask("service", "rm", "web")
    until("nothing is left", lambda: not tasks(cluster, "web."))


def watch_briefly(cluster: Cluster, name: str) -> None:
    """Let updates of a service be watched for half a second, which no flag can say, instead of five."""
    with connect(str(cluster.socket)) as client:
        control = client.control
        [service] = client.ask(control.ListServices, api.ListServicesRequest(filters={"names": [name]})).services
        service.spec.update.monitor.FromMilliseconds(500)
        service.spec.rollback.monitor.FromMilliseconds(500)
        version = service.meta.version
        client.ask(control.UpdateService, api.UpdateServiceRequest(service_id=service.id, service_version=version, spec=service.spec))


def tasks(cluster: Cluster, prefix: str) -> list[list[str]]:
    """Rows of `task ls --all` of services whose names begin so."""
    return [row for row in cluster.rows("task", "ls", "--all") if row[1].startswith(prefix)]


def places(cluster: Cluster, service: str) -> dict[str, str]:
    """Node by task, for the tasks of a service that run."""
    return {row[0]: row[4] for row in cluster.rows("task", "ls") if row[1].startswith(f"{service}.") and row[3].startswith("RUNNING")}
