"""What commands print, byte for byte, for objects like those of the recorded sessions in `expected/`."""

from __future__ import annotations

from pathlib import Path

from pyswarm.api import v1 as api

from . import builders as b
from .conftest import Run
from .fake import Manager, object_id

EXPECTED = Path(__file__).parent / "expected"
S = api.TaskState


def check(run: Run, expected: str, *words: str, now: float = b.NOW) -> None:
    """The command succeeds and prints exactly the file."""
    result = run(*words, now=now)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == (EXPECTED / f"{expected}.txt").read_text()


def add_nodes(manager: Manager) -> None:
    """node-1 to node-3, so that IDs have names."""
    for number in b.NODES:
        manager.add(b.node(number))


def test_cluster_listing(manager: Manager, run: Run) -> None:
    """The cluster list has ID and name, -q the ID."""
    manager.add(b.cluster())
    check(run, "cluster-ls", "cluster", "ls")
    assert run("cluster", "ls", "-q").stdout == object_id(67) + "\n"


def test_cluster_fresh(manager: Manager, run: Run) -> None:
    """A fresh cluster shows history, heartbeat, validity and two tokens. [cli 28]"""
    manager.add(b.join_tokens(b.cluster(), 1, 1, 2))
    check(run, "cluster-inspect", "cluster", "inspect", "default")


def test_cluster_log_driver(manager: Manager, run: Run) -> None:
    """Log options are sorted, one without a value stands alone, and form a column block of their own. [cli 31]"""
    driver = api.Driver(name="json-file", options={"max-size": "10m", "max-file": "3", "bare": ""})
    made = b.join_tokens(b.cluster(72, task_defaults=api.TaskDefaults(log_driver=driver)), 2, 3, 4)
    made.spec.orchestration.task_history_retention_limit = 10
    made.spec.dispatcher.heartbeat_period.seconds = 3
    made.spec.ca_config.node_cert_expiry.seconds = 720 * 3600
    manager.add(made)
    check(run, "cluster-inspect-log-driver", "cluster", "inspect", "default")


def test_cluster_external_ca(manager: Manager, run: Run) -> None:
    """External CAs are listed with their protocol; a heartbeat period of zero is shown. [cli 33]"""
    made = b.join_tokens(b.cluster(72), 2, 5, 6)
    made.spec.dispatcher.heartbeat_period.seconds = 0
    made.spec.dispatcher.heartbeat_period.SetInParent()
    made.spec.ca_config.node_cert_expiry.seconds = 720 * 3600
    made.spec.ca_config.external_cas.add(url="https://127.0.0.1:14299/sign")
    manager.add(made)
    check(run, "cluster-inspect-external-ca", "cluster", "inspect", object_id(72))


def test_node_listing(manager: Manager, run: Run) -> None:
    """The leader has a star, a node on its way to manager says UNKNOWN, a worker's last cell is empty. [cli 14] [cli 36] [cli 38]"""
    promoted = b.node(2, 25)
    promoted.spec.desired_role = api.NodeRole.MANAGER
    manager.add(promoted)
    manager.add(b.make_manager(b.node(1, 45), "0.0.0.0:14201", leader=True))
    manager.add(b.node(3, 88))
    check(run, "node-ls-promoted", "node", "ls")


def test_node_manager(manager: Manager, run: Run) -> None:
    """A manager shows its raft address, reachability and whether it leads."""
    manager.add(b.make_manager(b.node(1), "0.0.0.0:14201", leader=True))
    check(run, "node-inspect-manager", "node", "inspect", "node-1")


def test_node_labels(manager: Manager, run: Run) -> None:
    """Labels print on one line, sorted. [cli 41]"""
    made = b.node(2)
    made.spec.annotations.labels.update({"zone": "east", "security": "high"})
    manager.add(made)
    check(run, "node-inspect-labels", "node", "inspect", "node-2")


def test_node_generic_resources(manager: Manager, run: Run) -> None:
    """Generic resources are listed in stored order, one line for each of a set. [cli 42]"""
    manager.add(b.make_manager(b.add_generic(b.node(2, 25)), "127.0.0.1:14202"))
    check(run, "node-inspect-generic", "node", "inspect", "node-2")


def test_node_tasks(manager: Manager, run: Run) -> None:
    """An empty line and the table of the node's tasks follow the summary. [cli 44]"""
    add_nodes(manager)
    redis = b.service(12, "redis", 6)
    manager.add(b.task(94, redis, 2, 2, 400))
    manager.add(b.task(50, redis, 6, 2, 150))
    manager.add(b.task(51, redis, 1, 1, 150))
    check(run, "node-inspect-tasks", "node", "inspect", "node-2")


def test_node_down(manager: Manager, run: Run) -> None:
    """Why a node is down is its message."""
    manager.add(b.add_generic(b.node(2, 25, state=api.NodeStatus.State.DOWN, message="heartbeat failure")))
    check(run, "node-inspect-down", "node", "inspect", "node-2")


def test_service_listing(manager: Manager, run: Run) -> None:
    """Services list by ID; replicas are running/wanted or `global`; an empty list has its headings. [cli 15] [cli 19] [cli 69]"""
    check(run, "service-ls-empty", "service", "ls")
    add_nodes(manager)
    manager.add(b.node(1, 76, state=api.NodeStatus.State.DOWN))
    redis, web = b.service(12, "redis", 6), b.service(86, "web", 2)
    for made in (redis, web, b.service(29, "glob", None)):
        manager.add(made)
    for slot in range(1, 7):
        manager.add(b.task(100 + slot, redis, slot, 1, 10))
    on_down_node = b.task(110, redis, 7, 1, 10)
    on_down_node.node_id = object_id(76)
    manager.add(on_down_node)
    for slot in (1, 2):
        manager.add(b.task(120 + slot, web, slot, 2, 10))
    manager.add(b.task(130, web, 1, 2, 10, S.FAILED, desired=S.SHUTDOWN))
    check(run, "service-ls", "service", "ls")
    assert run("service", "ls", "-q").stdout.split() == [object_id(12), object_id(29), object_id(86)]


def test_service_full(manager: Manager, run: Run) -> None:
    """A service with nearly everything: resources before ports before mounts before the log driver. [cli 71]"""
    add_nodes(manager)
    made = b.service(31, "web", 2, command=("sh",), args=["-c", "echo out $A; echo err >&2; sleep 1000"], env=["A=1", "B=2", "C=x=y"])
    made.spec.annotations.labels.update({"tier": "front", "owner": "me"})
    made.spec.task.placement.constraints.extend(["node.role==worker", "node.hostname!=node-3"])
    made.spec.task.resources.reservations.CopyFrom(api.Resources(nano_cpus=10**8, memory_bytes=32 << 20))
    made.spec.task.resources.limits.CopyFrom(api.Resources(nano_cpus=5 * 10**8, memory_bytes=64 << 20))
    made.endpoint.ports.add(name="http", target_port=8080, published_port=18080)
    made.endpoint.ports.add(name="dns", target_port=53, protocol=api.PortConfig.Protocol.UDP)
    made.spec.task.container.mounts.add(type=api.Mount.Type.BIND, source="/etc", target="/host-etc")
    made.spec.task.container.mounts.add(type=api.Mount.Type.VOLUME, target="/data")
    made.spec.task.container.mounts.add(type=api.Mount.Type.TMPFS, target="/scratch")
    made.spec.task.log_driver.CopyFrom(api.Driver(name="json-file", options={"max-size": "10m", "tag": ""}))
    manager.add(made)
    manager.add(b.task(39, made, 1, 2, 1.5, S.REJECTED, desired=S.READY))
    manager.add(b.task(24, made, 2, 2, 1.5, S.REJECTED, desired=S.READY))
    check(run, "service-inspect-full", "service", "inspect", "web")


def updated_redis(manager: Manager) -> api.Service:
    """Six replicas, the update of which is under way."""
    add_nodes(manager)
    made = b.service(12, "redis", 6, command=("sleep", "10000"))
    manager.add(made)
    return made


def test_service_updating(manager: Manager, run: Run) -> None:
    """During an update there is no completion; -a shows replaced tasks, the newest of a slot first. [cli 70] [cli 73]"""
    made = updated_redis(manager)
    made.spec.task.container.image = "docker.io/library/busybox:1.35"
    made.update_status.CopyFrom(api.UpdateStatus(state=api.UpdateStatus.UpdateState.UPDATING, message="update in progress"))
    made.update_status.started_at.seconds = int(b.NOW) - 26
    old = "busybox:1.35"
    for task in (
        b.task(36, made, 1, 1, 185, image=old),
        b.task(94, made, 2, 2, 182, image=old),
        b.task(64, made, 3, 1, 2.5, desired=S.SHUTDOWN, created=182, image=old),
        b.task(89, made, 3, 1, 2.5, S.READY, desired=S.READY),
        b.task(54, made, 4, 3, 14.5, S.SHUTDOWN, desired=S.SHUTDOWN, created=182, image=old),
        b.task(83, made, 4, 3, 14.5, created=20),
        b.task(47, made, 5, 3, 182, image=old),
        b.task(59, made, 6, 2, 2.5, S.SHUTDOWN, desired=S.SHUTDOWN, created=182, image=old),
        b.task(77, made, 6, 2, 2.5, created=10),
    ):
        manager.add(task)
    check(run, "service-inspect-updating", "service", "inspect", "-a", "redis")
    short = run("service", "inspect", "redis").stdout
    assert object_id(89) in short
    assert object_id(64) not in short


def test_service_updated(manager: Manager, run: Run) -> None:
    """After an update its start and its completion are shown. [cli 70]"""
    made = updated_redis(manager)
    made.update_status.CopyFrom(api.UpdateStatus(state=api.UpdateStatus.UpdateState.COMPLETED, message="update completed"))
    made.update_status.started_at.seconds = int(b.NOW) - 40
    made.update_status.completed_at.seconds = int(b.NOW) - 16
    for identifier, slot, on, age in ((36, 1, 1, 250), (94, 2, 2, 230), (27, 3, 1, 39), (92, 4, 3, 24), (47, 5, 3, 230), (50, 6, 2, 28)):
        manager.add(b.task(identifier, made, slot, on, age))
    check(run, "service-inspect-completed", "service", "inspect", "redis")


def test_service_references(manager: Manager, run: Run) -> None:
    """Secrets and configs show name, ID and target."""
    add_nodes(manager)
    made = b.service(48, "sec", command=("sleep", "1000"))
    made.update_status.CopyFrom(api.UpdateStatus(state=api.UpdateStatus.UpdateState.UPDATING, message="update in progress"))
    made.update_status.started_at.seconds = int(b.NOW) - 1
    made.spec.task.container.secrets.extend([b.secret_reference("pw", 34, "pw"), b.secret_reference("pw", 34, "again")])
    made.spec.task.container.configs.extend([b.config_reference("cfg", 82, "cfg"), b.config_reference("cfg2", 15, "/etc/cfg2")])
    manager.add(made)
    manager.add(b.task(35, made, 2, 2, 5, desired=S.SHUTDOWN))
    manager.add(b.task(43, made, 1, 2, 0.5, S.READY, desired=S.READY))
    check(run, "service-inspect-references", "service", "inspect", "sec")


def test_service_generic(manager: Manager, run: Run) -> None:
    """Generic reservations are listed; an unassigned task has an empty node. [cli 27]"""
    add_nodes(manager)
    made = b.service(93, "gen", 3, command=("sh",), args=["-c", "env | grep DOCKER_; sleep 100"])
    for kind in ("gpu", "fpga"):
        amount = api.DiscreteGenericResource(kind=kind, value=1)
        made.spec.task.resources.reservations.generic.append(api.GenericResource(discrete_resource_spec=amount))
    manager.add(made)
    manager.add(b.task(6, made, 1, 2, 3))
    manager.add(b.task(66, made, 2, 0, 4, S.PENDING))
    manager.add(b.task(49, made, 3, 2, 3))
    check(run, "service-inspect-generic", "service", "inspect", "gen")


def test_service_finished(manager: Manager, run: Run) -> None:
    """When every task is finished the table has its headings only; a service without tasks has no table. [cli 72]"""
    made = b.service(32, "fail", command=("sh",), args=["-c", "exit 3"])
    manager.add(made)
    assert run("service", "inspect", "fail").stdout.count("\n\n") == 0
    manager.add(b.task(37, made, 1, 2, 3, S.FAILED, desired=S.SHUTDOWN))
    check(run, "service-inspect-finished", "service", "inspect", "fail")


def test_service_network(manager: Manager, run: Run) -> None:
    """The networks have a line of their own."""
    add_nodes(manager)
    made = b.service(63, "netsvc", command=("sleep", "1000"))
    made.spec.task.networks.add(target=object_id(38))
    manager.add(made)
    manager.add(b.task(21, made, 1, 1, 2, S.READY, desired=S.READY))
    check(run, "service-inspect-network", "service", "inspect", "netsvc")


def test_service_global(manager: Manager, run: Run) -> None:
    """A global service's tasks have slot 0."""
    add_nodes(manager)
    made = b.service(29, "glob", None, command=("sleep", "1000"))
    manager.add(made)
    for identifier, on, created in ((40, 1, 3.1), (22, 2, 3.2), (80, 3, 3.3)):
        manager.add(b.task(identifier, made, 0, on, 3, created=created))
    check(run, "service-inspect-global", "service", "inspect", "glob")


def test_service_that_is_no_container(manager: Manager, run: Run) -> None:
    """A service with another runtime, and its tasks, show empty fields."""
    made = api.Service(id=object_id(1))
    made.spec.annotations.name = "plugin"
    made.spec.replicated.replicas = 1
    made.spec.task.generic.kind = "plugin"
    manager.add(made)
    manager.add(b.task(2, made, 1, 0, 5))
    for words in (("service", "inspect", "plugin"), ("service", "ls"), ("task", "ls"), ("task", "inspect", object_id(2))):
        assert run(*words).exit_code == 0


def test_task_listing(manager: Manager, run: Run) -> None:
    """Tasks list by ID with service name and slot; a fresh unassigned one has trailing blanks for its node. [cli 27] [cli 79]"""
    add_nodes(manager)
    redis, web = b.service(12, "redis", 6), b.service(86, "web", 2)
    manager.add(redis)
    manager.add(web)
    for identifier, of, slot, on, age in (
        (27, redis, 3, 1, 130),
        (36, redis, 1, 1, 330),
        (47, redis, 5, 3, 330),
        (50, redis, 6, 2, 130),
        (55, web, 2, 1, 9),
        (92, redis, 4, 3, 130),
        (94, redis, 2, 2, 330),
    ):
        manager.add(b.task(identifier, of, slot, on, age))
    manager.add(b.task(90, web, 1, 0, 0.5, S.PENDING))
    manager.add(b.task(99, web, 1, 2, 90, S.REJECTED, desired=S.SHUTDOWN))
    result = run("task", "ls")
    assert result.stdout == (EXPECTED / "task-ls-pending.txt").read_text()
    assert object_id(99) in run("task", "ls", "-a").stdout
    assert run("task", "ls", "-aq").stdout.split()[-1] == object_id(99)


def test_task_listing_without_names(manager: Manager, run: Run) -> None:
    """-n shows IDs; a service that is gone shows its ID anyway. [cli 26]"""
    add_nodes(manager)
    web, gone = b.service(86, "web", 2), b.service(87, "gone")
    manager.add(web)
    manager.add(b.task(1, web, 2, 1, 9))
    manager.add(b.task(2, gone, 1, 1, 9))
    bare = run("task", "ls", "-n").stdout.splitlines()[2]
    assert f"  {object_id(86)}.2  " in bare
    assert bare.endswith(b.node_id(1))
    assert run("-n", "task", "ls").stdout == run("task", "ls", "-n").stdout == run("task", "-n", "ls").stdout
    named = run("task", "ls", "--no-resolve=false").stdout
    assert "  web.2 " in named
    assert f"  {object_id(87)}.1  " in named


def test_task_running(manager: Manager, run: Run) -> None:
    """A running task shows container, process and published ports. [cli 80]"""
    add_nodes(manager)
    web = b.service(86, "web", 2, command=("sh",), args=["-c", "echo out $A; echo err >&2; sleep 1000"], env=["A=1"])
    manager.add(web)
    made = b.inspected(b.task(42, web, 1, 3, 9), message="started", container=1, pid=27110)
    for _ in range(2):
        made.status.port_status.ports.add(target_port=8080, published_port=32768)
    manager.add(made)
    check(run, "task-inspect-running", "task", "inspect", object_id(42), now=b.MOMENT + 9.9)
    check(run, "task-inspect-running", "task", "inspect", "id0042", now=b.MOMENT + 9.9)


def test_task_secrets(manager: Manager, run: Run) -> None:
    """A task shows the names and targets of its secrets."""
    add_nodes(manager)
    sec = b.service(48, "sec", command=("sleep", "1000"))
    sec.spec.task.container.secrets.extend([b.secret_reference("pw", 34, "pw"), b.secret_reference("pw2", 28, "renamed")])
    manager.add(sec)
    manager.add(b.inspected(b.task(61, sec, 1, 2, 2), message="started", container=2, pid=32276))
    check(run, "task-inspect-secrets", "task", "inspect", object_id(61), now=b.MOMENT + 2.9)


def test_task_failed(manager: Manager, run: Run) -> None:
    """A failed task shows its exit code and no process. [cli 80]"""
    add_nodes(manager)
    fail = b.service(32, "fail", command=("sh",), args=["-c", "exit 3"])
    manager.add(fail)
    made = b.task(37, fail, 1, 2, 3, S.FAILED, desired=S.SHUTDOWN)
    manager.add(b.inspected(made, message="started", err="task: non-zero exit (3)", container=4, exit_code=3))
    check(run, "task-inspect-failed", "task", "inspect", object_id(37), now=b.MOMENT + 3.9)


def test_task_pending(manager: Manager, run: Run) -> None:
    """A pending task shows the scheduler's reason, an empty node and no container. [cli 80]"""
    pend = b.service(96, "pend")
    manager.add(pend)
    made = b.task(79, pend, 1, 0, 1, S.PENDING)
    reason = "no suitable node (scheduling constraints not satisfied on 3 nodes)"
    manager.add(b.inspected(made, message="pending task scheduling", err=reason))
    check(run, "task-inspect-pending", "task", "inspect", object_id(79), now=b.MOMENT + 1.9)


def test_task_parents_of_a_global_service(manager: Manager, run: Run) -> None:
    """All tasks of a global service share slot 0 and are listed together. [cli 81]"""
    glob = b.service(29, "glob", None)
    manager.add(glob)
    for identifier, on in ((40, 1), (22, 2), (80, 3)):
        manager.add(b.task(identifier, glob, 0, on, 3))
    parents = run("task", "inspect", object_id(22)).stdout.partition("===> Task Parents\n")[2]
    assert all(object_id(identifier) in parents for identifier in (40, 22, 80))


def add_secrets(manager: Manager) -> None:
    """pw, then pw2."""
    for identifier, name, age in ((34, "pw", 2.5), (28, "pw2", 1.5)):
        manager.add(api.Secret(id=object_id(identifier), meta=b.meta(age), spec=api.SecretSpec(annotations=api.Annotations(name=name))))


def test_secret_listing(manager: Manager, run: Run) -> None:
    """Secrets list the newest first, four blanks between columns. [cli 15] [cli 20]"""
    check(run, "secret-ls-empty", "secret", "ls")
    add_secrets(manager)
    check(run, "secret-ls", "secret", "ls")


def test_secret_summary(manager: Manager, run: Run) -> None:
    """A secret's summary has its creation and never its data."""
    annotations = api.Annotations(name="pw")
    manager.add(api.Secret(id=object_id(34), meta=b.meta_at_moment(), spec=api.SecretSpec(annotations=annotations, data=b"s3cr3t")))
    check(run, "secret-inspect", "secret", "inspect", "pw")


def test_config_listing(manager: Manager, run: Run) -> None:
    """Configs list like secrets, without a driver."""
    for identifier, name, age in ((82, "cfg", 1.5), (15, "cfg2", 0.5)):
        manager.add(api.Config(id=object_id(identifier), meta=b.meta(age), spec=api.ConfigSpec(annotations=api.Annotations(name=name))))
    check(run, "config-ls", "config", "ls")


def test_config_payload(manager: Manager, run: Run) -> None:
    """A config's payload follows its summary, byte for byte. [cli 86]"""
    spec = api.ConfigSpec(annotations=api.Annotations(name="cfg"), data=b"hello")
    manager.add(api.Config(id=object_id(82), meta=b.meta_at_moment(), spec=spec))
    check(run, "config-inspect", "config", "inspect", "cfg")
    spec.data = b"\xff\x00raw"
    manager.add(api.Config(id=object_id(82), meta=b.meta_at_moment(), spec=spec))
    assert run("config", "inspect", "cfg").stdout_bytes.endswith(b"Payload:\n\n\xff\x00raw\n")


def network(identifier: int, name: str, driver: str = "overlay", **options: str) -> api.Network:
    """An allocated network."""
    made = api.Network(id=object_id(identifier), spec=api.NetworkSpec(annotations=api.Annotations(name=name)))
    made.driver_state.CopyFrom(api.Driver(name=driver, options=options))
    made.ipam.driver.name = "default"
    return made


def test_network_listing(manager: Manager, run: Run) -> None:
    """Networks list with the driver they got; one that has none yet does no harm. [cli 89]"""
    for identifier, name, driver in ((8, "ingress", "overlay"), (10, "host", "host"), (65, "bridge", "bridge")):
        manager.add(network(identifier, name, driver))
    check(run, "network-ls", "network", "ls")
    manager.add(api.Network(id=object_id(99), spec=api.NetworkSpec(annotations=api.Annotations(name="new"))))
    assert run("network", "ls").stdout.splitlines()[-1].rstrip() == f"{object_id(99)}  new"


def test_network_summary(manager: Manager, run: Run) -> None:
    """Options are sorted, the range is shown once. [cli 87]"""
    made = network(53, "net2", a="1", b="2")
    made.driver_state.options["com.docker.network.driver.overlay.vxlanid_list"] = "4098"
    ipv4 = api.IPAMConfig.AddressFamily.IPV4
    made.ipam.configs.add(family=ipv4, subnet="10.99.0.0/16", range="10.99.5.0/24", gateway="10.99.0.1")
    manager.add(made)
    check(run, "network-inspect-options", "network", "inspect", "net2")


def test_network_with_two_subnets(manager: Manager, run: Run) -> None:
    """Every address configuration has its block."""
    made = network(2, "net6", **{"com.docker.network.driver.overlay.vxlanid_list": "4099"})
    made.ipam.configs.add(family=api.IPAMConfig.AddressFamily.IPV4, subnet="10.97.0.0/16", gateway="10.97.0.1")
    made.ipam.configs.add(family=api.IPAMConfig.AddressFamily.IPV6, subnet="fd00:1::/64", gateway="fd00:1::1")
    manager.add(made)
    check(run, "network-inspect-two-subnets", "network", "inspect", "net6")
