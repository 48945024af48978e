"""A store and the allocator's loop at work on it, without driver, clock or event loop; and what must hold of everything handed out."""

from __future__ import annotations

import ipaddress
from collections.abc import Hashable, Iterable, Iterator
from typing import Any

from pyswarm.api import v1 as api
from pyswarm.manager.allocator import Allocator, is_swarm_wide
from pyswarm.manager.changes import Change, Create, Delete, Update, apply, write
from pyswarm.manager.loop import Loop
from pyswarm.manager.store import Event, Kind, Store, Tx, View, copy_of
from tests.support.clock import VirtualClock

S = api.TaskState
INGRESS, HOST = api.PortConfig.INGRESS, api.PortConfig.HOST
TCP, UDP = api.PortConfig.TCP, api.PortConfig.UDP
VNIS = "com.docker.network.driver.overlay.vxlanid_list"


class Office:
    """One leader after the other. `at_once` is how many decisions share a transaction."""

    def __init__(self, *objects: Any, at_once: int = 50) -> None:
        self.store = Store(VirtualClock())
        self.at_once = at_once
        self.writes = 0
        self._index = 10
        self.loop: Loop[Any] = Allocator()
        self._dirty: dict[Hashable, None] = {}
        self.store_only(*objects)
        self.lead()

    def store_only(self, *objects: Any) -> None:
        """Put objects where a new leader finds them."""
        for obj in objects:
            self.store.table(Kind(type(obj).__name__.lower())).put(obj)

    def lead(self, loop: Loop[Any] | None = None) -> None:
        """A new leader takes over."""
        self.loop = loop or Allocator()
        self._dirty = dict.fromkeys(self.loop.everything(self.store))

    def change(self, *changes: Change) -> None:
        """Somebody commits changes."""
        tx = Tx(self.store, self._index, 1.0)
        for change in changes:
            write(tx, change)
        self._commit(tx)

    def put(self, *objects: Any) -> None:
        """Create or replace, as somebody who read just before, and let the allocator work."""
        made: list[Change] = []
        for obj in objects:
            old = self.store.table(Kind(type(obj).__name__.lower())).get(obj.id)
            if old is None:
                made.append(Create(obj))
            else:
                obj = copy_of(obj)
                obj.meta.CopyFrom(old.meta)
                made.append(Update(obj))
        self.change(*made)
        self.settle()

    def delete(self, *keys: tuple[Kind, str]) -> None:
        """Delete, and let the allocator work."""
        self.change(*(Delete(kind, object_id) for kind, object_id in keys))
        self.settle()

    def step(self) -> bool:
        """One transaction of decisions; False when there is nothing to decide."""
        if not self._dirty:
            return False
        tx = Tx(self.store, self._index, 1.0)
        for key in list(self._dirty)[: self.at_once]:
            del self._dirty[key]
            apply(tx, self.loop.decide(tx, key, 1.0).changes)
        if tx.changes:
            self.writes += len(tx.changes)
            self._commit(tx)
        return True

    def settle(self) -> int:
        """Decide until nothing is left to decide; how many objects were written."""
        before = self.writes
        for _ in range(10_000):
            if not self.step():
                return self.writes - before
        raise AssertionError("does not settle")

    def _commit(self, tx: Tx) -> None:
        events: list[Event] = []
        undo = self.store.on_commit(lambda commit: events.extend(commit.events))
        self._index += 1
        self.store.apply(self._index, api.InternalRaftRequest(), tx)
        undo()
        for event in events:
            self._dirty.update(dict.fromkeys(self.loop.on_event(event)))
        check(self.store)

    # --- looking

    def network(self, network_id: str) -> api.Network:
        """The stored network."""
        return _there(self.store.networks.get(network_id))

    def service(self, service_id: str) -> api.Service:
        """The stored service."""
        return _there(self.store.services.get(service_id))

    def task(self, task_id: str) -> api.Task:
        """The stored task."""
        return _there(self.store.tasks.get(task_id))

    def node(self, node_id: str) -> api.Node:
        """The stored node."""
        return _there(self.store.nodes.get(node_id))

    def is_pending(self, task_id: str) -> bool:
        """Whether the task was allocated."""
        return self.task(task_id).status.state == S.PENDING

    def addresses(self, task_id: str) -> list[str]:
        """The addresses of a task, without prefix lengths."""
        return [plain(text) for a in self.task(task_id).networks for text in a.addresses]

    def vips(self, service_id: str) -> list[str]:
        """The virtual addresses of a service, without prefix lengths."""
        return [plain(vip.addr) for vip in self.service(service_id).endpoint.virtual_ips]

    def ports(self, service_id: str) -> list[int]:
        """The published ports of a service."""
        return [p.published_port for p in self.service(service_id).endpoint.ports]

    def attached(self, node_id: str) -> dict[str, str]:
        """A node's address on each of its networks."""
        return {a.network.id: plain(a.addresses[0]) for a in self.node(node_id).attachments}


def _there(obj: Any) -> Any:
    assert obj is not None
    return obj


def plain(text: str) -> str:
    """An address without its prefix length."""
    return str(ipaddress.ip_interface(text).ip)


# --- what must hold, read off the store by other means than the allocator's own


def check(view: View) -> None:
    """Nothing is held by two."""
    seen: dict[object, str] = {}
    for what, holder in held(view):
        assert seen.setdefault(what, holder) == holder, f"{holder} and {seen[what]} both have {what}"


def held(view: View) -> Iterator[tuple[object, str]]:
    """Whatever may be held once only, with the holder."""
    for network in view.networks:
        yield from _of_network(network)
    for service in view.services:
        for port in service.endpoint.ports:
            if port.publish_mode == INGRESS and port.published_port:
                yield ("port", port.protocol, port.published_port), service.id
        for number, vip in enumerate(service.endpoint.virtual_ips):
            if vip.addr:
                yield _address(vip.addr), f"{service.id}, vip {number}"
    for task in view.tasks:
        if task.status.state <= S.RUNNING:
            yield from _of_attachments(task.id, task.networks)
    for node in view.nodes:
        yield from _of_attachments(node.id, node.attachments)


def _of_network(network: api.Network) -> Iterator[tuple[object, str]]:
    for number, vni in enumerate(filter(None, network.driver_state.options.get(VNIS, "").split(","))):
        yield ("vni", int(vni)), f"{network.id}, vni {number}"
    if not is_swarm_wide(network) or not network.HasField("ipam"):
        return
    for config in network.ipam.configs:
        subnet = ipaddress.ip_network(config.subnet)
        if not config.range:
            yield ("subnet", subnet), network.id
        for text in (config.gateway, *config.reserved):
            yield _address(f"{text}/{subnet.prefixlen}"), f"{network.id}, {text}"
        if subnet.prefixlen < subnet.max_prefixlen - 1:
            yield _address(f"{subnet.network_address}/{subnet.prefixlen}"), f"the subnet {subnet}"
        if subnet.version == 4 and subnet.prefixlen < 31:
            yield _address(f"{subnet.broadcast_address}/{subnet.prefixlen}"), f"the subnet {subnet}"


def _of_attachments(holder: str, attachments: Iterable[api.NetworkAttachment]) -> Iterator[tuple[object, str]]:
    for attachment in attachments:
        for number, text in enumerate(attachment.addresses):
            yield _address(text), f"{holder}, {attachment.network.id}, address {number}"


def _address(text: str) -> object:
    interface = ipaddress.ip_interface(text)
    return "address", interface.network, interface.ip


# --- making objects


def network(network_id: str, *, ingress: bool = False, driver: str = "", subnets: Iterable[str] = (), **fields: Any) -> api.Network:
    """A network as users make them."""
    made = api.Network(id=network_id, spec=api.NetworkSpec(annotations=api.Annotations(name=network_id), ingress=ingress, **fields))
    if driver:
        made.spec.driver_config.name = driver
    for subnet in subnets:
        made.spec.ipam.configs.add(subnet=subnet)
    return made


def allocated(network_id: str, subnet: str, gateway: str, vni: int, *, ingress: bool = False) -> api.Network:
    """An overlay network that an earlier leader allocated."""
    made = network(network_id, ingress=ingress)
    made.driver_state.CopyFrom(api.Driver(name="overlay", options={VNIS: str(vni)}))
    made.ipam.driver.name = "default"
    made.ipam.configs.add(family=api.IPAMConfig.IPV4, subnet=subnet, gateway=gateway)
    return made


def port(
    published: int = 0,
    target: int = 80,
    name: str = "",
    *,
    protocol: api.PortConfig.Protocol.ValueType = TCP,
    mode: api.PortConfig.PublishMode.ValueType = INGRESS,
) -> api.PortConfig:
    """One port."""
    return api.PortConfig(name=name, protocol=protocol, target_port=target, published_port=published, publish_mode=mode)


def service(service_id: str, *ports: api.PortConfig, networks: Iterable[str] = (), endpoint: bool = True) -> api.Service:
    """A service in VIP mode. Without `endpoint` its spec has none."""
    made = api.Service(id=service_id)
    made.spec.annotations.name = service_id
    made.spec.task.networks.extend(api.NetworkAttachmentConfig(target=target) for target in networks)
    if endpoint:
        made.spec.endpoint.CopyFrom(api.EndpointSpec(ports=ports))
    return made


def task(task_id: str, of: api.Service | None = None, *, networks: Iterable[str] = (), node: str = "") -> api.Task:
    """A new task, of a service or alone."""
    made = api.Task(id=task_id, node_id=node, desired_state=S.RUNNING)
    made.status.message = "created"
    if of is not None:
        made.service_id = of.id
        made.spec.CopyFrom(of.spec.task)
        made.endpoint.spec.CopyFrom(of.spec.endpoint)
    made.spec.networks.extend(api.NetworkAttachmentConfig(target=target) for target in networks)
    return made
