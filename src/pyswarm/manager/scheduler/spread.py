"""Where the next task of a group goes: exact levelling over preferences, then over nodes (spec section 6).

One heap per branch. A task descends to the branch with the fewest active tasks of its service that still has room, and there takes the best
node; after each task only the path it took is re-ordered. So n tasks over m nodes cost O(m + n log m), and every level stays even to within
one task wherever there is room.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence

from pyswarm.api import v1 as api
from pyswarm.manager.scheduler.nodeinfo import NodeInfo

Rank = Callable[[NodeInfo], tuple[int, int, int]]


class Leaf:
    """Nodes that no further preference tells apart."""

    def __init__(self) -> None:
        self.count = 0
        self._heap: list[tuple[tuple[int, int, int], str]] = []

    def fill(self, candidates: Iterable[NodeInfo], rank: Rank) -> None:
        """Offer the nodes that passed the filters."""
        self._heap = [(rank(info), info.node.id) for info in candidates]
        heapq.heapify(self._heap)

    def take(self, infos: Callable[[str], NodeInfo], fits: Callable[[NodeInfo], bool]) -> tuple[str, Leaf] | None:
        """Remove and return the best node that still fits; None when the leaf is full."""
        while self._heap:
            _, node_id = heapq.heappop(self._heap)
            if fits(infos(node_id)):
                self.count += 1
                return node_id, self
        return None

    def give_back(self, info: NodeInfo, rank: Rank) -> None:
        """Offer a node again after it took a task."""
        heapq.heappush(self._heap, (rank(info), info.node.id))


class Branch:
    """A preference level: one child per value of its label."""

    def __init__(self, children: Sequence[Branch | Leaf]) -> None:
        self.count: int = sum(c.count for c in children)
        self._heap = [(child.count, number, child) for number, child in enumerate(children)]
        heapq.heapify(self._heap)

    def take(self, infos: Callable[[str], NodeInfo], fits: Callable[[NodeInfo], bool]) -> tuple[str, Leaf] | None:
        """The best node of the emptiest child that has room, with its leaf; None when all are full."""
        while self._heap:
            _, number, child = self._heap[0]
            taken = child.take(infos, fits)
            if taken is None:
                heapq.heappop(self._heap)
                continue
            self.count += 1
            heapq.heapreplace(self._heap, (child.count, number, child))
            return taken
        return None


def label_of(node: api.Node, descriptor: str) -> str | None:
    """The value a node has for a spread descriptor; None for a descriptor that means nothing."""
    lowered = descriptor.lower()
    if lowered.startswith("node.labels.") and len(descriptor) > len("node.labels."):
        return node.spec.annotations.labels.get(descriptor[len("node.labels.") :], "")
    if lowered.startswith("engine.labels.") and len(descriptor) > len("engine.labels."):
        return node.description.engine.labels.get(descriptor[len("engine.labels.") :], "")
    return None


def descriptors_of(placement: api.Placement) -> list[str]:
    """The usable spread preferences, most important first."""
    probe = api.Node()
    wanted = [p.spread.spread_descriptor for p in placement.preferences if p.WhichOneof("Preference") == "spread"]
    return [d for d in wanted if label_of(probe, d) is not None]


def build(
    all_nodes: Iterable[NodeInfo], descriptors: Sequence[str], service: str, passes: Callable[[NodeInfo], bool], rank: Rank
) -> Branch:
    """The tree for one group. Counts include nodes that fail the filters; only nodes that pass are offered."""
    return Branch([_vertex(list(all_nodes), descriptors, service, passes, rank)])


def _vertex(
    nodes: Sequence[NodeInfo], descriptors: Sequence[str], service: str, passes: Callable[[NodeInfo], bool], rank: Rank
) -> Branch | Leaf:
    if not descriptors:
        leaf = Leaf()
        leaf.count = sum(info.by_service.get(service, 0) for info in nodes)
        leaf.fill((info for info in nodes if passes(info)), rank)
        return leaf
    groups: dict[str, list[NodeInfo]] = {}
    for info in nodes:
        groups.setdefault(label_of(info.node, descriptors[0]) or "", []).append(info)
    return Branch([_vertex(groups[value], descriptors[1:], service, passes, rank) for value in sorted(groups)])
