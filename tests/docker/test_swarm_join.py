"""A Docker Engine in swarm mode as a worker of a pyswarm manager, as its own API tells it."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from docker import DockerClient
from docker.models.containers import Container
from tools.cluster import BIN, PATIENCE, Cluster, free_port, until
from tools.engine import Engine, start, stop

from pyswarm.agent.executor.process import ProcessExecutor
from pyswarm.api import v1 as api
from pyswarm.clock import SystemClock
from pyswarm.manager.genesis import cluster_of
from pyswarm.manager.manager import Manager
from pyswarm.manager.store import Tx, copy_of
from pyswarm.node import ManagerLike, ManagerParts, Node, NodeConfig, make_manager
from pyswarm.node_state import Settings
from tests.support.engine import present, private_engine

pytestmark = [pytest.mark.docker, pytest.mark.cluster, pytest.mark.timeout(240)]


class Swarm:
    """A manager that runs no tasks itself, and an engine that has joined it."""

    def __init__(self, cluster: Cluster, engine: Engine) -> None:
        self.cluster = cluster
        self.engine = engine
        self.client = DockerClient(engine.address, version="auto")

    @property
    def node_id(self) -> str:
        """The engine's node id, as the engine says."""
        return str(self.client.info()["Swarm"]["NodeID"])

    def join(self) -> None:
        """Make the engine a worker, and wait until the manager says READY."""
        self.client.swarm.join([self.cluster.remote], self.cluster.token(), listen_addr="127.0.0.1", advertise_addr="127.0.0.1")
        self.await_state("READY")

    def state(self, node_id: str) -> str:
        """What the manager says of a node, empty when it has none of that id."""
        return next((row[3] for row in self.cluster.rows("node", "ls") if row[0] == node_id), "")

    def await_state(self, state: str) -> None:
        """Wait until the manager says so of the engine."""
        node_id = self.node_id
        until(f"the engine is {state}", lambda: self.state(node_id) == state)

    def create(self, name: str, *flags: str, replicas: int = 2) -> None:
        """A service of the image that sleeps until it is stopped."""
        flags = ("--image", "busybox:latest", "--replicas", str(replicas), "--restart-delay", "100ms", *flags)
        self.cluster.ask("service", "create", "--name", name, *flags)
        self.await_replicas(name, replicas)

    def await_replicas(self, name: str, count: int) -> None:
        """Wait until both sides agree on the number of containers that run."""
        until(f"{count} tasks of {name} run", lambda: self.cluster.replicas(name) == f"{count}/{count}")
        until(f"{count} containers of {name} run", lambda: len(self.containers(name)) == count)

    def await_another(self, name: str, first: Container) -> Container:
        """Wait until the one container of a service is another one than `first`."""
        until(f"another container of {name} runs", lambda: [c.id for c in self.containers(name)] not in ([], [first.id]))
        self.await_replicas(name, 1)
        return self.containers(name)[0]

    def containers(self, name: str, *, stopped: bool = False) -> list[Container]:
        """The engine's containers of a service."""
        return list(
            self.client.containers.list(all=stopped, ignore_removed=True, filters={"label": f"com.docker.swarm.service.name={name}"})
        )

    def remove(self, name: str) -> None:
        """Remove a service; its containers go in their own time."""
        self.cluster.ask("service", "rm", name)


@pytest.fixture(scope="module")
def swarm() -> Iterator[Swarm]:
    """A pyswarm manager with quick heartbeats and a Docker Engine in it."""
    root = Path(tempfile.mkdtemp(prefix="psw-", dir="/tmp"))  # short: it holds a socket
    cluster = Cluster(root, ("--executor", "process"))
    with private_engine() as engine:
        try:
            cluster.found()
            cluster.ask("cluster", "update", "default", "--heartbeatperiod", "1s")
            cluster.ask("node", "drain", "node-1")
            swarm = Swarm(cluster, engine)
            with closing(swarm.client):
                swarm.join()
                yield swarm
        finally:
            cluster.stop()
            shutil.rmtree(root, ignore_errors=True)


def test_the_engine_is_a_node(swarm: Swarm) -> None:
    """Both sides agree that the engine is a worker: same id, active, with the manager's address and the engine's description.

    [ca 190 in part]
    """
    info = swarm.client.info()["Swarm"]
    assert info["LocalNodeState"] == "active"
    assert info["ControlAvailable"] is False
    assert info["Error"] == ""
    manager = swarm.cluster.nodes()["node-1"][0]
    assert info["RemoteManagers"] == [{"NodeID": manager, "Addr": swarm.cluster.remote}]
    shown = swarm.cluster.ask("node", "inspect", swarm.node_id)
    for part in (str(swarm.client.info()["Name"]), str(swarm.client.version()["Version"]), "json-file", "overlay"):
        assert part in shown


def test_scaling(swarm: Swarm) -> None:
    """Replicas are containers with the labels of swarm mode; scaling adds and takes away, removal leaves nothing."""
    swarm.create("scaled")
    for container in swarm.containers("scaled"):
        task = container.labels["com.docker.swarm.task.id"]
        assert container.labels["com.docker.swarm.node.id"] == swarm.node_id
        assert container.labels["com.docker.swarm.task.name"] == container.name
        assert swarm.cluster.places()[task] == swarm.client.info()["Name"]
    kept = {container.id for container in swarm.containers("scaled")}
    swarm.cluster.ask("service", "update", "scaled", "--replicas", "4")
    swarm.await_replicas("scaled", 4)
    assert kept <= {container.id for container in swarm.containers("scaled")}
    swarm.cluster.ask("service", "update", "scaled", "--replicas", "1")
    swarm.await_replicas("scaled", 1)
    until("the others are removed", lambda: len(swarm.containers("scaled", stopped=True)) == 1)
    swarm.remove("scaled")
    until("no container is left", lambda: not swarm.containers("scaled", stopped=True))


def test_rolling_update(swarm: Swarm) -> None:
    """An update of the image replaces every container and completes; the old ones are stopped."""
    swarm.create("rolled")
    before = {container.id for container in swarm.containers("rolled")}
    swarm.cluster.ask("service", "update", "rolled", "--image", "redis:3.0.7", "--update-parallelism", "1")
    until("the update is COMPLETED", lambda: swarm.cluster.updated("rolled"))
    swarm.await_replicas("rolled", 2)
    after = swarm.containers("rolled")
    assert not before & {container.id for container in after}
    assert {container.attrs["Config"]["Image"] for container in after} == {"redis:3.0.7"}
    swarm.remove("rolled")


def test_a_container_that_dies_is_replaced(swarm: Swarm) -> None:
    """The engine reports the end of a container, and gets another task for it."""
    swarm.create("mortal", replicas=1)
    [first] = swarm.containers("mortal")
    first.kill()
    swarm.await_another("mortal", first)
    swarm.remove("mortal")


def test_secrets_and_configs(swarm: Swarm, tmp_path: Path) -> None:
    """A secret is a file in memory under /run/secrets, a config a file where it was asked for, with the bytes that were stored."""
    for kind, data in (("secret", b"hush\x00"), ("config", b"loud\n")):
        (tmp_path / kind).write_bytes(data)
        swarm.cluster.ask(kind, "create", f"my-{kind}", "--file", str(tmp_path / kind))
    swarm.create("reader", "--secret", "my-secret", "--secret", "my-secret:renamed", replicas=1)
    [first] = swarm.containers("reader")
    swarm.cluster.ask("service", "update", "reader", "--add-config", "my-config", "--add-config", "my-config:/etc/app/conf")
    container = swarm.await_another("reader", first)
    for path in ("/run/secrets/my-secret", "/run/secrets/renamed"):
        assert container.exec_run(["cat", path]).output == b"hush\x00"
        assert f"tmpfs on {path} ".encode() in container.exec_run(["mount"]).output
    for path in ("/my-config", "/etc/app/conf"):
        assert container.exec_run(["cat", path]).output == b"loud\n"
    swarm.remove("reader")


def test_logs(swarm: Swarm, tmp_path: Path) -> None:
    """The engine publishes what its containers print, once and followed across an update; a task of it that never ran holds nobody up.

    [dispatcher 154, 155] [cli 76, 77]
    """
    script = ("--command", "sh", "--args=-c", "--args", "echo out $V; echo err $V >&2; trap 'exit 0' TERM; sleep 1000 & wait")
    swarm.create("talking", "--env", "V=1", *script, replicas=1)
    [first] = swarm.containers("talking")
    node = swarm.client.info()["Name"]
    done = swarm.cluster.run("service", "logs", "talking")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"talking.1@{node}❯ out 1\n", f"talking.1@{node}❯ err 1\n")  # noqa: RUF001
    out = tmp_path / "out"
    command = [str(BIN / "pyswarmctl"), "-s", str(swarm.cluster.socket), "service", "logs", "--stream", "stdout", "-f", "talking"]
    with out.open("wb") as both, subprocess.Popen(command, stdout=both, stderr=both, stdin=subprocess.DEVNULL) as follower:
        try:
            until("the past is read", lambda: out.read_text().endswith("out 1\n"))
            swarm.cluster.ask("service", "update", "talking", "--env", "V=2")
            swarm.await_another("talking", first)
            until("the new container is read", lambda: out.read_text().endswith("out 2\n"))
            swarm.cluster.ask("service", "update", "talking", "--image", "nowhere.invalid/none:1")
            until("a task is REJECTED", lambda: "REJECTED" in swarm.cluster.ask("task", "ls", "--all"))
            done = swarm.cluster.run("service", "logs", "--stream", "stdout", "talking")
            assert (done.returncode, len(done.stdout.splitlines()), done.stderr) == (0, 2, "")
            swarm.remove("talking")
            assert follower.wait(PATIENCE) == 0  # the engine may be looking for the image yet
        finally:
            follower.kill()
    assert [line.partition("❯ ")[2] for line in out.read_text().splitlines()] == ["out 1", "out 2"]  # noqa: RUF001


SERVE = ("--command", "sh", "--args=-c", "--args", "echo $HOSTNAME > /tmp/index.html; exec httpd -f -p 80 -h /tmp")
IPVS = Path("/proc/sys/net/ipv4/vs")
"""What the engine balances with: without it a service's own address, and ports published on all nodes, lead nowhere."""


def address(container: Container, network: str) -> str:
    """A container's address on a network, as the engine says."""
    container.reload()
    return str(container.attrs["NetworkSettings"]["Networks"][network]["IPAddress"])


def inside(container: Container, code: str, *arguments: str) -> str:
    """What a Python program prints that runs in a container's network; empty when it fails. The image's own cannot look up names."""
    pid = str(container.attrs["State"]["Pid"])
    command = ["nsenter", "--net", "-t", pid, sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=20).stdout.strip()


FETCH = "import sys, urllib.request; print(urllib.request.urlopen(f'http://{sys.argv[1]}/', timeout=3).read().decode())"
RESOLVE = """
import socket, struct, sys
question = b"".join(bytes([len(part)]) + part.encode() for part in sys.argv[1].split(".")) + b"\\0" + struct.pack("!2H", 1, 1)
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
    client.settimeout(3)
    client.sendto(struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + question, ("127.0.0.11", 53))
    answer = client.recv(4096)
records = answer[12 + len(question):]
while records:
    records = records[records.index(struct.pack("!2H", 1, 1)):]
    print(socket.inet_ntoa(records[10:14]))
    records = records[14:]
"""


def fetched(container: Container, host: str) -> str:
    """What the web server at an address answers to a container; empty when it does not."""
    return inside(container, FETCH, host)


def resolved(container: Container, name: str) -> set[str]:
    """The addresses that a name stands for in a container, as the engine's name server says."""
    return set(inside(container, RESOLVE, name).split())


def test_overlay_networks(swarm: Swarm) -> None:
    """Containers are on the overlay network that the manager allocated, reach each other over it by address and by name, and leave it."""
    swarm.cluster.ask("network", "create", "--name", "back", "--subnet", "10.44.0.0/24")
    swarm.create("web", "--network", "back", "--publish", "18080:80", *SERVE)
    shown = swarm.cluster.ask("network", "inspect", "back")
    attributes = swarm.client.networks.get("back").attrs
    assert [config["Subnet"] for config in attributes["IPAM"]["Config"]] == ["10.44.0.0/24"]
    vxlan = "com.docker.network.driver.overlay.vxlanid_list"
    assert f"{vxlan} = {attributes['Options'][vxlan]}" in shown
    first, second = swarm.containers("web")
    given = {address(first, "back"), address(second, "back")}
    assert len(given) == 2
    assert all(text.startswith("10.44.0.") for text in given)
    for one, other in ((first, second), (second, first)):
        until("a neighbour answers", lambda: fetched(one, address(other, "back")) == other.id[:12], 20)  # noqa: B023
    until("the tasks' name stands for both", lambda: resolved(first, "tasks.web") == given, 20)
    [virtual] = resolved(first, "web")
    assert virtual.startswith("10.44.0.")
    assert virtual not in {*given, "10.44.0.1"}
    done = swarm.cluster.run("network", "rm", "back")
    assert (done.returncode, "is in use by service" in done.stderr) == (1, True)
    if IPVS.exists():
        until("the service's own address answers", lambda: fetched(first, virtual) != "", 20)
    swarm.remove("web")
    until("no container is left", lambda: not swarm.containers("web", stopped=True), 20)
    swarm.cluster.ask("network", "rm", "back")


def test_containers_join_networks(swarm: Swarm) -> None:
    """A container that the engine's user runs joins an attachable network, as an attachment that goes with it."""
    swarm.cluster.ask("network", "create", "--name", "open", "--attachable")
    swarm.create("web", "--network", "open", "--endpoint-mode", "dnsrr", *SERVE, replicas=1)
    [server] = swarm.containers("web")
    guest = swarm.client.containers.run("busybox:latest", ["sleep", "1000"], detach=True, network="open")
    try:
        guest.reload()
        until("the service's name is its address", lambda: resolved(guest, "web") == {address(server, "open")}, 20)
        until("the service answers", lambda: fetched(guest, address(server, "open")) == server.id[:12], 20)
        tasks = swarm.cluster.ask("task", "ls")
    finally:
        guest.remove(force=True)
    assert len(tasks.splitlines()) == len(swarm.cluster.ask("task", "ls").splitlines()) + 1
    swarm.remove("web")
    until("no container is left", lambda: not swarm.containers("web", stopped=True), 20)
    until("nothing is on the network", lambda: swarm.cluster.run("network", "rm", "open").returncode == 0, 20)


def test_the_manager_restarts(swarm: Swarm) -> None:
    """After kill -9 of its only manager the engine finds it again, with the same containers, and takes new tasks."""
    swarm.create("steady")
    before = {container.id for container in swarm.containers("steady")}
    swarm.cluster.kill("node-1")
    swarm.cluster.start("node-1")
    swarm.cluster.await_manager()
    swarm.await_state("READY")
    swarm.cluster.ask("service", "update", "steady", "--replicas", "3")
    swarm.await_replicas("steady", 3)
    assert before <= {container.id for container in swarm.containers("steady")}
    swarm.remove("steady")


def test_the_engine_restarts(swarm: Swarm) -> None:
    """A restarted engine is the same node again, and runs what it should."""
    swarm.create("returning")
    before = swarm.node_id
    stop(present(swarm.engine))
    start(swarm.engine.directory)
    until("it is active", lambda: swarm.client.info()["Swarm"]["LocalNodeState"] == "active")
    assert swarm.node_id == before
    swarm.await_state("READY")
    swarm.await_replicas("returning", 2)
    swarm.remove("returning")


def test_leaving(swarm: Swarm) -> None:
    """An engine that leaves removes its containers; the manager sees it DOWN; it may join again as another node."""
    swarm.create("left")
    before = swarm.node_id
    swarm.client.swarm.leave()
    try:
        assert swarm.client.info()["Swarm"]["LocalNodeState"] == "inactive"
        until("no container is left", lambda: not swarm.containers("left", stopped=True))
        until("it is DOWN", lambda: swarm.state(before) == "DOWN")
    finally:
        swarm.join()
    assert swarm.node_id != before
    swarm.await_replicas("left", 2)
    swarm.cluster.ask("node", "rm", before)
    assert swarm.state(before) == ""
    swarm.remove("left")


async def test_forced_renewal(swarm: Swarm, tmp_path: Path) -> None:
    """Told to rotate its certificate, the engine gets a new one, and registers with that when its session ends. [ca 190 in part]"""
    certificate = swarm.engine.directory / "data" / "swarm" / "certificates" / "swarm-node.crt"
    await asyncio.to_thread(swarm.client.swarm.leave)
    settings = Settings(listen_control_api=str(tmp_path / "swarm.sock"), listen_remote_api=f"127.0.0.1:{free_port()}")
    try:
        async with managing(tmp_path, settings) as manager:
            cluster = cluster_of(manager.store)
            assert cluster is not None
            token = cluster.root_ca.join_tokens.worker
            await asyncio.to_thread(swarm.client.swarm.join, [settings.listen_remote_api], token, listen_addr="127.0.0.1")
            node_id = swarm.node_id
            await ready(manager, node_id)
            first = certificate.read_bytes()
            await manager.store.update(lambda tx: demand_rotation(tx, node_id))
            await eventually(lambda: certificate.read_bytes() != first)
            await eventually(lambda: of(manager, node_id).certificate.status.state == api.IssuanceStatus.ISSUED)
            renewed = certificate.read_bytes()
            assert of(manager, node_id).certificate.certificate in renewed
        async with managing(tmp_path, settings) as manager:
            await ready(manager, node_id)
            assert certificate.read_bytes() == renewed
    finally:
        await asyncio.to_thread(swarm.client.swarm.leave, force=True)
        await asyncio.to_thread(swarm.join)


@asynccontextmanager
async def managing(state_dir: Path, settings: Settings) -> AsyncIterator[Manager]:
    """A node of this process that manages, to reach what no API offers."""
    made: list[Manager] = []

    def make(parts: ManagerParts) -> ManagerLike:
        manager = make_manager(parts)
        assert isinstance(manager, Manager)
        made.append(manager)
        return manager

    node = Node(NodeConfig(state_dir, settings), ProcessExecutor(state_dir), SystemClock(), manager=make)
    running = asyncio.create_task(node.run())
    try:
        await asyncio.wait_for(node.ready.wait(), 20)
        yield made[0]
    finally:
        node.stop()
        await running


def demand_rotation(tx: Tx, node_id: str) -> None:
    """What the rotation of a root does to every node."""
    found = tx.nodes.get(node_id)
    assert found is not None
    node = copy_of(found)
    node.certificate.status.state = api.IssuanceStatus.ROTATE
    tx.nodes.update(node)


async def ready(manager: Manager, node_id: str) -> None:
    """Wait until the node is READY."""
    await eventually(lambda: of(manager, node_id).status.state == api.NodeStatus.READY)


def of(manager: Manager, node_id: str) -> api.Node:
    """The node as the manager has it."""
    node = manager.store.nodes.get(node_id)
    assert node is not None
    return node


async def eventually(check: object, patience: float = 20.0) -> None:
    """Wait until `check()` is true."""
    assert callable(check)
    deadline = time.monotonic() + patience
    while not check():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.05)
