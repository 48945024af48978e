"""What the manager refuses, as the command line shows it: the specification's sentence, status 1, and nothing has changed."""

from __future__ import annotations

import pathlib

import pytest
from tools.cluster import Cluster, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]
CREATE = ("service", "create", "--name", "a", "--image", "x", "--replicas", "0")


@pytest.fixture(scope="module")
def cluster(small: Cluster) -> Cluster:
    """A manager with two secrets, and a service that uses one of them and a volume."""
    for name in ("pw", "pw2"):
        path = small.root / name
        path.write_text("hidden")
        small.ask("secret", "create", name, "--file", str(path))
    small.ask("service", "create", "--name", "user", "--image", "x", "--replicas", "0", "--secret", "pw", "--volume", "/v2")
    return small


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (("node", "demote", "node-1"), "attempting to demote the last manager of the swarm"),
        ((*CREATE, "--constraint", "node.role=manager"), "constraint expected one operator from ==, !="),
        ((*CREATE, "--hostname", "{{"), "expanding hostname failed: template: expansion:1: unclosed action"),
        ((*CREATE, "--env", "X={{.Bad}}"), 'expanding env "X={{.Bad}}": template: expansion:1:2: executing "expansion" at <.Bad>'),
        (("service", "create", "--name", "", "--image", "x"), "meta: name must be provided"),
        ((*CREATE, "--memory-limit", "1024"), "invalid memory value 1024: Must be at least 4MiB"),
        ((*CREATE, "--cpu-limit", "0.0001"), "invalid cpu value 0.0001: Must be at least 0.001"),
        ((*CREATE, "--update-delay", "-1s"), "TaskSpec: update-delay cannot be negative"),
        ((*CREATE, "--secret", "pw:x,pw2:x"), "secret references 'pw' and 'pw2' have a conflicting target: 'x'"),
        (("service", "update", "user", "--volume", "/v2"), "ContainerSpec: duplicate mount point: /v2"),
        (("service", "update", "user", "--name", "other"), "renaming services is not supported"),
        (("cluster", "update", "default", "--certexpiry", "10m"), "minimum certificate expiry time is: 1h0m0s"),
        (("cluster", "update", "default", "--heartbeatperiod", "-1s"), "heartbeat time period cannot be a negative duration"),
        (("secret", "rm", "pw"), "secret 'pw' is in use by the following service: user"),
    ],
)
def test_sentences(cluster: Cluster, command: tuple[str, ...], text: str) -> None:
    """The server's sentence is the one line printed. [cli 32, 39 in part, 45, 48, 49, 55, 56, 58, 59, 62, 66, 85]"""
    before = cluster.ask("service", "inspect", "user"), cluster.ask("cluster", "inspect", "default"), cluster.ask("secret", "ls", "-q")
    done = cluster.run(*command)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert text in done.stderr
    after = cluster.ask("service", "inspect", "user"), cluster.ask("cluster", "inspect", "default"), cluster.ask("secret", "ls", "-q")
    assert after == before


@pytest.mark.parametrize(("kind", "limit"), [("secret", 512_000), ("config", 1_024_000)])
def test_sizes_and_names(cluster: Cluster, tmp_path: pathlib.Path, kind: str, limit: int) -> None:
    """Data is neither empty nor too large; a name is taken in any case. [cli 83]"""
    file = tmp_path / "data"
    for size in (0, limit):
        file.write_bytes(b"x" * size)
        done = cluster.run(kind, "create", "sized", "--file", str(file))
        assert (done.returncode, f"{kind} data must be larger than 0 and less than {limit} bytes" in done.stderr) == (1, True)
    file.write_bytes(b"x" * (limit - 1))
    cluster.ask(kind, "create", "sized", "--file", str(file))
    assert f"{kind} SIZED already exists" in cluster.run(kind, "create", "SIZED", "--file", str(file)).stderr


def test_why_a_task_gets_no_node(small: Cluster) -> None:
    """A task that fits nowhere says what the nodes lack, as soon as it waits."""
    small.ask("service", "create", "--name", "large", "--image", "x", "--memory-reservation", "900t", "--command", "true")
    lacking = "large.1: no suitable node: the only node lacks the memory it reserves (900 TiB)\n"
    until("the task waits", lambda: small.ask("task", "why", "large.1") == lacking)
    assert small.ask("task", "why", "large") == "large: 0 of 1 task as wanted\n" + lacking
    small.ask("service", "rm", "large")
