"""Where the next task of a group goes: exact levelling over preferences, then over nodes (spec section 6).

A task descends to the branch with the fewest active tasks of its service that still has room, and there takes the best node: one without a
task of the service, and of those the emptiest; when each has one, the one with the fewest. After each task only the path it took is
re-ordered. So a task costs the logarithm of the nodes, and every level stays even to within one task wherever there is room.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence

from pyswarm.manager.scheduler.filters import Pipeline
from pyswarm.manager.scheduler.mirror import Mirror
from pyswarm.manager.scheduler.nodeinfo import FAULTY_COUNT, NodeInfo, Version
from pyswarm.manager.scheduler.pool import Loads, Place, Pool


class Leaf:
    """Nodes that no further preference tells apart."""

    def __init__(self, count: int, loads: Loads, service: str, faulty: Mapping[str, int]) -> None:
        self.count = count
        self._service = service
        self._faulty = faulty
        self._loads = loads
        self._empty = self._without_task()
        self._heap: list[tuple[int, int, int, str, NodeInfo]] = []

    def _without_task(self) -> Iterator[NodeInfo]:
        """The nodes without a task of the service, emptiest first; each is met once."""
        for load in sorted(self._loads):
            for node_id, info in self._loads[load].items():
                if self._service not in info.by_service and node_id not in self._faulty:
                    yield info

    def offer(self, info: NodeInfo) -> None:
        """A node that has a task of the service, or many failures: it comes after those that have neither."""
        node_id = info.node.id
        failures = self._faulty.get(node_id, 0) if self._faulty else 0
        # Lower is better (spec section 5.1).
        heapq.heappush(self._heap, (failures, info.by_service.get(self._service, 0), info.active, node_id, info))

    def take(self, pipeline: Pipeline) -> tuple[NodeInfo, Leaf] | None:
        """The best node that suits, removed; None when the leaf is full."""
        while info := next(self._empty, None) or self._pop():
            if pipeline.refusing(info) is None:
                self.count += 1
                return info, self
        return None

    def _pop(self) -> NodeInfo | None:
        return heapq.heappop(self._heap)[-1] if self._heap else None


class Branch:
    """A preference level: one child per value of its label."""

    def __init__(self, count: int, children: Sequence[Branch | Leaf]) -> None:
        self.count = count
        self._heap = [(child.count, number, child) for number, child in enumerate(children)]
        heapq.heapify(self._heap)

    def take(self, pipeline: Pipeline) -> tuple[NodeInfo, Leaf] | None:
        """The best node of the emptiest child that has room, with its leaf; None when all are full."""
        while self._heap:
            _, number, child = self._heap[0]
            taken = child.take(pipeline)
            if taken is None:
                heapq.heappop(self._heap)
                continue
            self.count += 1
            heapq.heapreplace(self._heap, (child.count, number, child))
            return taken
        return None


class Plan:
    """Where the tasks of one service version go, one after the other. Good as long as nothing but its own placements changes the nodes."""

    def __init__(self, mirror: Mirror, pool: Pool, version: Version, now: float) -> None:
        self.pool = pool
        self.root: Branch | Leaf = Branch(0, [])
        if pool.places:
            self.root = self._grown(mirror, version, now)

    def _grown(self, mirror: Mirror, version: Version, now: float) -> Branch | Leaf:
        """The tree over the nodes that suit."""
        pool, service = self.pool, version[0]
        faulty = {n: f for n in mirror.failing if (f := mirror.nodes[n].recent_failures(version, now)) >= FAULTY_COUNT}
        counts: dict[Place, int] = {}
        leaves = {place: Leaf(0, loads, service, faulty) for place, loads in pool.places.items()}
        for info in mirror.with_service(service):
            place = pool.place_of(info)
            for depth in range(len(place) + 1):
                counts[place[:depth]] = counts.get(place[:depth], 0) + info.by_service[service]
            if info.node.id not in faulty and pool.suits(info):
                leaves[place].offer(info)
        for node_id in faulty:
            info = mirror.nodes[node_id]
            if pool.suits(info):
                leaves[pool.place_of(info)].offer(info)
        for place, leaf in leaves.items():
            leaf.count = counts.get(place, 0)
        return _tree(leaves, counts, ())

    def take(self) -> tuple[NodeInfo, Leaf] | None:
        """The node for the next task, with the leaf to give it back to once the task is counted; None when no node is left."""
        return self.root.take(self.pool.pipeline)


def _tree(leaves: Mapping[Place, Leaf], counts: Mapping[Place, int], place: Place) -> Branch | Leaf:
    """The vertex of a place. Counts include nodes that do not suit; only branches with nodes that do are there."""
    if place in leaves:
        return leaves[place]
    below: dict[str, dict[Place, Leaf]] = {}
    for at, leaf in leaves.items():
        below.setdefault(at[len(place)], {})[at] = leaf
    return Branch(counts.get(place, 0), [_tree(below[value], counts, (*place, value)) for value in sorted(below)])
