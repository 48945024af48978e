"""What the allocator knows beside its books: which tasks wait, which nodes are on which networks. Kept by events, built from the store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from pyswarm.api import v1 as api
from pyswarm.manager.allocator.claims import is_allocated
from pyswarm.manager.store import View

S = api.TaskState


def is_ingress(network: api.Network) -> bool:
    """The routing mesh's own network, in its present or its oldest form."""
    annotations = network.spec.annotations
    return network.spec.ingress or (annotations.name == "ingress" and "com.docker.swarm.internal" in annotations.labels)


class Mirror:
    """See the module."""

    def __init__(self) -> None:
        self.nodes: set[str] = set()
        self._waiting: dict[str, dict[str, None]] = {}
        self._on_node: dict[str, Counter[str]] = {}
        self._ingress: set[str] = set()

    def build(self, view: View) -> None:
        """Begin anew from the store."""
        for node in view.nodes:
            self.nodes.add(node.id)
        for network in view.networks:
            self.network(network)
        for task in view.tasks:
            self.place(task, 1)
            self.wait(task)

    def waiting(self, service_id: str) -> Iterable[str]:
        """The tasks of a service that nobody has allocated."""
        return list(self._waiting.get(service_id, ()))

    def ingress(self, view: View) -> api.Network | None:
        """The ingress network in use. Of several, which only other programs can make, the one that is allocated, then the first by id."""
        found = [network for i in self._ingress if (network := view.networks.get(i)) is not None]
        return min(found, key=lambda n: (not is_allocated(n), n.id), default=None)

    def network(self, network: api.Network, *, gone: bool = False) -> None:
        """A network is there, or gone."""
        if is_ingress(network) and not gone:
            self._ingress.add(network.id)
        else:
            self._ingress.discard(network.id)

    def node(self, node_id: str, *, gone: bool) -> None:
        """A node is there, or gone."""
        if gone:
            self.nodes.discard(node_id)
            self._on_node.pop(node_id, None)
        else:
            self.nodes.add(node_id)

    def place(self, task: api.Task, count: int) -> bool:
        """Count a task in (1) or out (-1) on its node's networks; whether the node may now need another set of them."""
        if not task.networks or not task.node_id or task.status.state > S.RUNNING:
            return False
        counts = self._on_node.setdefault(task.node_id, Counter())
        changed = False
        for attachment in task.networks:
            counts[attachment.network.id] += count
            changed |= counts[attachment.network.id] == (1 if count > 0 else 0)
        return changed

    def wait(self, task: api.Task, *, gone: bool = False) -> bool:
        """Keep the index of tasks that nobody has allocated; whether this is one."""
        if task.status.state == S.NEW and not gone:
            self._waiting.setdefault(task.service_id, {})[task.id] = None
            return True
        group = self._waiting.get(task.service_id)
        if group is not None and task.id in group:
            del group[task.id]
            if not group:
                del self._waiting[task.service_id]
        return False
