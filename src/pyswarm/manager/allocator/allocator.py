"""The loop: networks, services, tasks and nodes get what they need (spec/scheduling-and-allocation, sections 12 to 14)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.manager.allocator import attachments
from pyswarm.manager.allocator.books import Books
from pyswarm.manager.allocator.claims import holding, is_swarm_wide
from pyswarm.manager.allocator.mirror import Mirror, is_ingress
from pyswarm.manager.allocator.pools import allocated_network, blocks_of, next_address
from pyswarm.manager.allocator.ports import uses_ingress
from pyswarm.manager.allocator.refusal import Awaited, Refusal
from pyswarm.manager.changes import Update
from pyswarm.manager.loop import Decision
from pyswarm.manager.store import Action, Event, Kind, Tx, View, by, copy_of

S = api.TaskState
ALLOCATED = "pending task scheduling"
Key: TypeAlias = tuple[Kind, str]


class Allocator:
    """A `Loop` over (kind, id) of networks, nodes, services and tasks.

    Its books are an index over the store: built from it when leadership begins, kept by its events, and, inside a transaction, by that
    transaction's own changes, so that two decisions of one transaction never take the same. A decision that needs something of another
    object that is not there yet (a task of its service, a service of its network) decides that one first.
    """

    name = "allocator"
    quiet = 0.0
    patience = 0.0

    def __init__(self) -> None:
        self._books = Books()
        self._mirror = Mirror()
        self._built = False
        self._tx: Tx | None = None
        self._followed = 0
        self._last: object = None
        self._ready: dict[str, tuple[api.Service, list[api.Network]]] = {}
        self._blocked: dict[Key, None] = {}
        """What could not be had when it was last looked at. Only says what to look at again when something is given back."""

    # --- what to look at

    def everything(self, view: View) -> Iterable[Key]:
        """All that may lack something. Before anything is given out, all is noted that anybody has."""
        self._forget_trial()
        self._books, self._mirror, self._blocked = Books(), Mirror(), {}
        for table in (view.networks, view.nodes, view.services, view.tasks):
            for obj in table:
                self._books.note(_key(obj), holding(obj), chosen=False)
        self._mirror.build(view)
        self._built = True
        keys: list[Key] = [(Kind.NETWORK, n.id) for n in sorted(view.networks, key=lambda n: (not is_ingress(n), n.id))]
        keys += sorted((Kind.NODE, n.id) for n in view.nodes)
        keys += sorted((Kind.SERVICE, s.id) for s in view.services)
        keys += [(Kind.TASK, t.id) for t in view.tasks.find(by.task_state(S.NEW))]
        return keys

    def on_event(self, event: Event) -> Iterable[Key]:
        """The object itself while it may lack something; what is blocked, when something was given back or a network changed."""
        obj, gone = event.obj, event.action is Action.REMOVE
        if not isinstance(obj, api.Network | api.Node | api.Service | api.Task):
            return []
        self._forget_trial()
        key = _key(obj)
        freed = self._books.drop(key) if gone else self._books.note(key, holding(obj))
        if gone:
            self._blocked.pop(key, None)
        keys: list[Key] = list(self._blocked) if freed or isinstance(obj, api.Network) else []
        match obj:
            case api.Task():
                keys += self._task_event(obj, event.old, gone=gone)
            case api.Service():
                keys += [] if gone else [key, *((Kind.TASK, task_id) for task_id in self._mirror.waiting(obj.id))]
            case api.Network():
                keys += self._network_event(obj, gone=gone)
            case api.Node():
                self._mirror.node(obj.id, gone=gone)
                if not gone and (not isinstance(event.old, api.Node) or event.old.attachments != obj.attachments):
                    keys.append(key)
        return keys

    def _task_event(self, task: api.Task, old: object, *, gone: bool) -> Iterator[Key]:
        nodes = []
        if isinstance(old, api.Task) and self._mirror.place(old, -1):
            nodes.append(old.node_id)
        if self._mirror.place(task, -1 if gone else 1):
            nodes.append(task.node_id)
        yield from ((Kind.NODE, node_id) for node_id in nodes)
        if self._mirror.wait(task, gone=gone):
            yield Kind.TASK, task.id
        elif self._blocked:
            self._blocked.pop((Kind.TASK, task.id), None)

    def _network_event(self, network: api.Network, *, gone: bool) -> Iterator[Key]:
        self._mirror.network(network, gone=gone)
        if not gone:
            yield Kind.NETWORK, network.id
        if gone or is_ingress(network):
            # Nodes that leave or join it; all are looked at, for this is rare.
            yield from ((Kind.NODE, node_id) for node_id in sorted(self._mirror.nodes))

    # --- following a transaction

    def _forget_trial(self) -> None:
        self._books.back_to(0)
        self._tx, self._followed, self._last = None, 0, None
        self._ready.clear()

    def _follow(self, view: View) -> None:
        """Note what the transaction has changed so far; what it took back, is forgotten."""
        changes = view.changes if isinstance(view, Tx) else []
        count = self._followed
        if view is not self._tx or count > len(changes) or (count and changes[count - 1] is not self._last):
            self._forget_trial()
            self._tx = view if isinstance(view, Tx) else None
        for change in changes[self._followed :]:
            obj = change.obj
            if isinstance(obj, api.Network | api.Node | api.Service | api.Task):
                self._books.mark()
                self._books.note(_key(obj), holding(obj)) if change.action is not Action.REMOVE else self._books.drop(_key(obj))
                if isinstance(obj, api.Network):
                    self._ready.clear()
        if changes:
            self._followed, self._last = len(changes), changes[-1]

    # --- what it needs

    def decide(self, view: View, key: Key, now: float) -> Decision:
        """Give the object what it lacks; a task that cannot have it is told why."""
        self._follow(view)
        mark = self._books.mark()
        try:
            changes = self._decide(view, key, now)
            self._blocked.pop(key, None)
        except Refusal as refusal:
            self._blocked[key] = None
            changes = self._tell(view, key, refusal.reason, now)
        finally:
            self._books.back_to(mark)
        return Decision(changes=changes)

    def shortage(self, view: View, obj: api.Network | api.Service) -> str:
        """Why a network or a service that is about to be stored could not have what it needs now; empty when it could.

        A service needs room for itself and one task. What has to wait for something that does not exist is no shortage.
        """
        if not self._built:
            return ""
        self._follow(view)
        mark = self._books.mark()
        try:
            if isinstance(obj, api.Network):
                allocated_network(self._books, view, obj)
            else:
                for network in self._service(view, obj, [])[1]:
                    if is_swarm_wide(network):
                        next_address(self._books, blocks_of(network))
        except Awaited:
            return ""
        except Refusal as refusal:
            return refusal.reason
        finally:
            self._books.back_to(mark)
        return ""

    def _decide(self, view: View, key: Key, now: float) -> list[Update]:
        changes: list[Update] = []
        match key:
            case Kind.NETWORK, network_id if (network := view.networks.get(network_id)) is not None:
                self._network(view, network, changes)
            case Kind.NODE, node_id if (node := view.nodes.get(node_id)) is not None:
                self._node(view, node, changes)
            case Kind.SERVICE, service_id if (service := view.services.get(service_id)) is not None:
                self._service(view, service, changes)
            case Kind.TASK, task_id if (task := view.tasks.get(task_id)) is not None and task.status.state == S.NEW:
                self._task(view, task, now, changes)
        return changes

    def _network(self, view: View, network: api.Network, changes: list[Update]) -> api.Network:
        for change in changes:
            if isinstance(change.obj, api.Network) and change.obj.id == network.id:
                return change.obj
        if is_ingress(network) and network is not self._mirror.ingress(view):
            raise Refusal("there is another ingress network")
        edited = allocated_network(self._books, view, network)
        if edited is not network:
            changes.append(Update(edited))
        return edited

    def _node(self, view: View, node: api.Node, changes: list[Update]) -> None:
        tasks = view.tasks.find(by.node(node.id))
        networks = attachments.networks_of_node(view, tasks, self._mirror.ingress(view))
        edited, refused = attachments.allocated_node(self._books, node, networks)
        if edited is not node:
            changes.append(Update(edited))
        elif refused:
            raise Refusal("; ".join(refused))

    def _service(self, view: View, service: api.Service, changes: list[Update]) -> tuple[api.Service, list[api.Network]]:
        """The service with its endpoint, and the networks it is on."""
        known = self._ready.get(service.id)
        if known is not None and known[0] is service:
            return known
        targets = [config.target for config in attachments.configs_of(service)]
        networks = self._networks(view, targets, ingress=uses_ingress(service.spec), changes=changes)
        edited = attachments.allocated_service(self._books, service, networks)
        if edited is not service:
            changes.append(Update(edited))
        elif not changes:
            self._ready[service.id] = service, networks
        return edited, networks

    def _networks(self, view: View, targets: Iterable[str], *, ingress: bool, changes: list[Update]) -> list[api.Network]:
        """The networks of these ids, each once, allocated; the ingress network before them."""
        found: dict[str, api.Network] = {}
        if ingress:
            network = self._mirror.ingress(view)
            if network is None:
                raise Awaited("the ingress network is missing: create one, or publish ports in host mode")
            found[network.id] = self._network(view, network, changes)
        for target in targets:
            if target in found:
                continue
            network = view.networks.get(target)
            if network is None:
                raise Awaited(f"network {target} not found")
            found[target] = self._network(view, network, changes)
        return list(found.values())

    def _task(self, view: View, task: api.Task, now: float, changes: list[Update]) -> None:
        edited = copy_of(task)
        configs: Sequence[api.NetworkAttachmentConfig] = task.spec.networks
        networks: list[api.Network] | None = None
        if task.service_id:
            service = view.services.get(task.service_id)
            if service is None:
                return  # It goes the way of its service; should that come yet, its event brings this task here again.
            service, networks = self._service(view, service, changes)
            if service.HasField("endpoint"):
                edited.endpoint.CopyFrom(service.endpoint)
            else:
                edited.ClearField("endpoint")
            wanted = attachments.configs_of(service)
            configs = configs or service.spec.networks
            if [c.target for c in configs] != [c.target for c in wanted]:
                networks = self._networks(view, (c.target for c in configs), ingress=uses_ingress(service.spec), changes=changes)
        elif configs:
            networks = self._networks(view, (c.target for c in configs), ingress=False, changes=changes)
        if networks or task.networks:
            attachments.attach(self._books, edited, networks or (), configs)
        edited.status.Clear()
        edited.status.state = S.PENDING
        edited.status.message = ALLOCATED
        edited.status.timestamp.CopyFrom(times.timestamp(now))
        changes.append(Update(edited))

    def _tell(self, view: View, key: Key, reason: str, now: float) -> list[Update]:
        """A waiting task says what it waits for; nothing is written when it says so already."""
        task = view.tasks.get(key[1]) if key[0] is Kind.TASK else None
        if task is None or task.status.err == reason:
            return []
        edited = copy_of(task)
        edited.status.err = reason
        edited.status.timestamp.CopyFrom(times.timestamp(now))
        return [Update(edited)]


def _key(obj: api.Network | api.Node | api.Service | api.Task) -> Key:
    return _KINDS[type(obj)], obj.id


_KINDS: dict[type, Kind] = {api.Network: Kind.NETWORK, api.Node: Kind.NODE, api.Service: Kind.SERVICE, api.Task: Kind.TASK}
