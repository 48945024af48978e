"""Each filter, and the sentence with which it refuses."""

from __future__ import annotations

from pyswarm.api import v1 as api
from pyswarm.manager.changes import Create, Update
from pyswarm.manager.store import copy_of
from tests.manager.scheduler.support import HOST, S, Scheduling, moved, node, service, task

TCP, UDP = api.PortConfig.Protocol.TCP, api.PortConfig.Protocol.UDP


def on(made: api.Node, os: str, architecture: str) -> api.Node:
    """A node with a platform."""
    made.description.platform.MergeFrom(api.Platform(os=os, architecture=architecture))
    return made


def for_platforms(task_id: str, *platforms: tuple[str, str]) -> api.Task:
    """A task that runs on some platforms only."""
    made = task(task_id, "s")
    for os, architecture in platforms:
        made.spec.placement.platforms.add(os=os, architecture=architecture)
    return made


def test_platforms() -> None:
    """Operating system and architecture must fit, where asked for; two architectures have two names. [scheduling 48]"""
    world = Scheduling(service("s"), on(node("n1"), "linux", "x86_64"), on(node("n2"), "windows", "amd64"), node("n3"))
    world.create(for_platforms("a", ("linux", "amd64")), for_platforms("b", ("linux", "arm")))
    assert (world.place("a"), world.why("b")) == ("n1", "no suitable node (unsupported platform on 3 nodes)")
    world.create(for_platforms("c"))
    assert world.place("c") in {"n2", "n3"}
    world.create(for_platforms("d", ("linux", "")))
    assert world.place("d") == "n1"
    world.create(for_platforms("e", ("linux", "amd64"), ("windows", "x86_64")))
    assert world.place("e") in {"n1", "n2"}
    world.create(on(node("n4"), "linux", "aarch64"), for_platforms("f", ("linux", "arm64")))
    assert world.place("f") == "n4"


def with_plugins(node_id: str, *plugins: tuple[str, str]) -> api.Node:
    """A node that lists plugins as (type, name)."""
    made = node(node_id)
    for kind, name in plugins:
        made.description.engine.plugins.add(type=kind, name=name)
    return made


def mounting(task_id: str, *drivers: str) -> api.Task:
    """A task with a volume of each driver, and a bind mount."""
    made = task(task_id, "s")
    made.spec.container.mounts.add(type=api.Mount.Type.BIND, source="/a", target="/b")
    for driver in drivers:
        made.spec.container.mounts.add(type=api.Mount.Type.VOLUME, volume_options={"driver_config": {"name": driver}})
    return made


def logging_to(task_id: str, driver: str) -> api.Task:
    """A task with a log driver."""
    made = task(task_id, "s")
    made.spec.log_driver.MergeFrom(api.Driver(name=driver, options={"a": "b"}))
    return made


def test_plugins_for_volumes_networks_and_logs() -> None:
    """A node must list every plugin that a task names. [scheduling 49, 50]"""
    world = Scheduling(service("s"), with_plugins("n1", ("Volume", "plugin1"), ("Log", "default")))
    world.create(mounting("bind"), mounting("one", "plugin1"), mounting("both", "plugin1", "plugin2"))
    assert (world.place("bind"), world.place("one")) == ("n1", "n1")
    assert world.why("both") == "no suitable node (missing plugin on 1 node)"
    world.create(with_plugins("n2", ("Volume", "plugin1"), ("Volume", "plugin2"), ("Log", "default")))
    assert world.place("both") == "n2"

    attached = task("net", "s")
    attached.networks.add().network.driver_state.name = "plugin1"
    world.create(attached)
    assert world.why("net") == "no suitable node (missing plugin on 2 nodes)"
    world.create(with_plugins("n3", ("Network", "plugin1"), ("Log", "default")))
    assert world.place("net") == "n3"

    world.create(logging_to("log1", "plugin1"))
    assert world.why("log1") == "no suitable node (missing plugin on 3 nodes)"
    world.create(with_plugins("n4", ("Log", "plugin1")))
    world.create(logging_to("log2", "plugin1"))
    assert (world.place("log1"), world.place("log2")) == ("n4", "n4")


def fits(made: api.Task, *plugins: tuple[str, str]) -> bool:
    """Whether a task is placed on a node that lists these plugins."""
    return Scheduling(service("s"), with_plugins("n", *plugins), made).task(made.id).node_id == "n"


def test_plugins_that_need_not_be_listed() -> None:
    """`none`, nameless and local drivers, engines that list no log drivers; and the tag `latest` may be left out. [scheduling 51]"""
    logs = ("Log", "json-file")
    assert fits(logging_to("t", "none"), logs)
    assert fits(logging_to("t", ""), logs)
    assert fits(logging_to("t", "syslog"), ("Volume", "local"))
    assert not fits(logging_to("t", "syslog"), logs)
    assert fits(mounting("t", "foo"), ("Volume", "foo:latest"))
    assert not fits(mounting("t", "foo"), ("Volume", "foo:1.0"))
    assert not fits(mounting("t", "foo"), ("Network", "foo"))
    assert fits(mounting("t", "local", ""), logs)
    assert Scheduling(service("s"), node("n"), mounting("t", "foo")).place("t") == "n"


def listening(task_id: str, *ports: tuple[api.PortConfig.Protocol.ValueType, int], service_id: str = "s", at: str = "") -> api.Task:
    """A task with host-mode ports in its endpoint."""
    made = task(task_id, service_id, on=at, state=S.RUNNING if at else S.PENDING)
    for protocol, port in ports:
        made.endpoint.ports.add(protocol=protocol, published_port=port, target_port=80, publish_mode=HOST)
    return made


def test_host_ports() -> None:
    """A host port is used once per node and protocol, until its task has ended; port 0 asks for none. [scheduling 52, 53]"""
    world = Scheduling(service("s"), listening("tcp", (TCP, 58)), listening("udp", (UDP, 58)))
    world.create(node("n1"), node("n2"))
    assert {world.place("tcp"), world.place("udp")} == {"n1", "n2"}
    world.create(listening("both", (TCP, 58), (UDP, 58)), listening("any", (TCP, 0)))
    assert world.why("both") == "no suitable node (host-mode port already in use on 2 nodes)"
    assert world.place("any")
    unwanted = copy_of(world.task("tcp"))
    unwanted.desired_state = S.SHUTDOWN
    world.update(unwanted)
    assert world.why("both")
    world.report("tcp", S.SHUTDOWN)
    assert world.place("both") == world.task("tcp").node_id


def test_ports_of_one_version_may_differ() -> None:
    """A task that was allocated before its service had the port is of the same version; one made beside it goes where the port is free."""
    earlier, later = listening("earlier"), listening("later", (TCP, 80))
    for one in (earlier, later):
        one.spec_version.index = 7
    world = Scheduling(service("s"), service("other"), node("n"), listening("holder", (TCP, 80), service_id="other", at="n"))
    world.create(earlier, later)
    assert (world.place("earlier"), world.why("later")) == ("n", "no suitable node (host-mode port already in use on 1 node)")


def test_a_port_held_twice_is_free_when_both_ended() -> None:
    """Preassigned tasks may share a port after a restart; the first end does not free it. [scheduling trap 11]"""
    world = Scheduling(service("s"), node("n"), listening("a", (TCP, 80), at="n"), listening("b", (TCP, 80), at="n"))
    world.report("a", S.FAILED)
    world.create(listening("c", (TCP, 80)))
    assert world.why("c") == "no suitable node (host-mode port already in use on 1 node)"
    world.report("b", S.FAILED)
    assert world.place("c") == "n"


def limited(task_id: str, limit: int, *constraints: str, version: int | None = None) -> api.Task:
    """A task of a service with so many tasks per node."""
    made = task(task_id, "s", version=version)
    made.spec.placement.max_replicas = limit
    made.spec.placement.constraints.extend(constraints)
    return made


def test_max_replicas_per_node() -> None:
    """No node gets more; a new node is used at once. [scheduling 54]"""
    world = Scheduling(service("s"), node("n1"), node("n2"), *(limited(f"t{i}", 1) for i in range(3)))
    (waiting,) = [t.id for t in world.store.tasks if not t.node_id]
    assert world.spread("s") == {"n1": 1, "n2": 1}
    assert world.why(waiting) == "no suitable node (max replicas per node limit exceed)"
    world.create(node("n3"))
    assert world.place(waiting) == "n3"


def test_the_first_filter_that_fails_is_named() -> None:
    """Constraints are looked at before the limit per node. [scheduling 55]"""
    wanting = [limited(f"t{i}", 3, "node.hostname==node1") for i in range(3)]
    world = Scheduling(service("s"), *(node(f"n{i}") for i in range(3)), *wanting)
    assert {world.why(t.id) for t in wanting} == {"no suitable node (scheduling constraints not satisfied on 3 nodes)"}


def test_a_waiting_task_that_is_replaced_ends() -> None:
    """No agent would ever report its end, so the scheduler does. [scheduling 56]"""
    world = Scheduling(service("s", 0), node("n"), limited("t0", 1, version=0), limited("t1", 1, version=0))
    (waiting,) = [t.id for t in world.store.tasks if not t.node_id]
    (placed,) = {"t0", "t1"} - {waiting}
    assert world.why(waiting) == "no suitable node (max replicas per node limit exceed)"
    unwanted, updated = copy_of(world.task(waiting)), copy_of(world.store.services.get("s"))
    assert updated is not None
    unwanted.desired_state = S.SHUTDOWN
    updated.spec_version.index = 1
    world.change(Update(moved(world.task(placed), S.RUNNING)), Update(unwanted), Create(limited("t2", 1, version=1)), Update(updated))
    assert world.task(waiting).status.state == S.SHUTDOWN
    assert world.task(waiting).status.err == ""
    assert world.why("t2") == "no suitable node (max replicas per node limit exceed)"
