"""Which nodes suit tasks of certain needs: looked at once, and again only when a node has changed.

A pool knows of every node whether it suits, else which filter refuses it; those that suit stand by place (the values of the spread
preferences) and load (active tasks). Tasks of different services share a pool when they need the same. A changed node is only marked; it is
looked at when the pool is next used. So a group of tasks costs what changed since, not what exists.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from pyswarm.api import v1 as api
from pyswarm.manager.scheduler.filters import Filter, Pipeline, explain
from pyswarm.manager.scheduler.needs import Needs, needs_of, wants_volumes
from pyswarm.manager.scheduler.nodeinfo import NodeInfo
from pyswarm.manager.scheduler.volumes import Volumes

MOST, FEWEST = 64, 4
"""Pools kept in small clusters, and in any."""

MOST_ENTRIES = 100_000
"""Nodes in all pools together, some 250 bytes each: in between, this limits how many are kept."""

Place: TypeAlias = tuple[str, ...]
Loads: TypeAlias = dict[int, dict[str, NodeInfo]]


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


class Pool:
    """The nodes as tasks of certain needs see them. `pipeline` judges, `descriptors` are the spread preferences.

    `volatile`: more than the state of a node decides about it.
    """

    def __init__(self, nodes: Mapping[str, NodeInfo], pipeline: Pipeline, descriptors: Sequence[str], *, volatile: bool = False) -> None:
        self.pipeline = pipeline
        self.places: dict[Place, Loads] = {}
        self.volatile = volatile
        self.stale: dict[str, None] = dict.fromkeys(nodes)
        self._nodes = nodes
        self._descriptors = tuple(descriptors)
        self._refused: dict[Filter, int] = {}
        self._known: dict[str, tuple[Place, int] | Filter] = {}

    def refresh(self) -> None:
        """Look again at the nodes that changed."""
        stale, self.stale = self.stale, {}
        for node_id in stale:
            self._forget(node_id)
            info = self._nodes.get(node_id)
            if info is not None:
                self._judge(node_id, info)

    def _judge(self, node_id: str, info: NodeInfo) -> None:
        refusing = self.pipeline.refusing(info)
        if refusing is not None:
            self._refused[refusing] = self._refused.get(refusing, 0) + 1
            self._known[node_id] = refusing
            return
        place = self.place_of(info)
        self.places.setdefault(place, {}).setdefault(info.active, {})[node_id] = info
        self._known[node_id] = place, info.active

    def _forget(self, node_id: str) -> None:
        known = self._known.pop(node_id, None)
        if isinstance(known, Filter):
            self._refused[known] -= 1
        elif known is not None:
            place, load = known
            loads = self.places[place]
            del loads[load][node_id]
            if not loads[load]:
                del loads[load]
                if not loads:
                    del self.places[place]

    def suits(self, info: NodeInfo) -> bool:
        """What was found about a node when it was last looked at."""
        return isinstance(self._known.get(info.node.id), tuple)

    def place_of(self, info: NodeInfo) -> Place:
        """The values of the spread preferences; nodes without a label share the empty one."""
        return tuple(label_of(info.node, d) or "" for d in self._descriptors) if self._descriptors else ()

    def explain(self) -> str:
        """What a task is told that none of the nodes suits, as they are now."""
        if self.volatile:
            self.stale = dict.fromkeys(self._nodes)
        self.refresh()
        reasons = explain(self._refused)
        return f"no suitable node ({reasons})" if reasons else "no suitable node"


class Pools:
    """The pools in use, by needs; the one that was not used for the longest time goes when there are too many."""

    def __init__(self, nodes: Mapping[str, NodeInfo]) -> None:
        self._nodes = nodes
        self._pools: dict[Needs, Pool] = {}

    def touch(self, node_id: str) -> None:
        """A node changed."""
        for pool in self._pools.values():
            pool.stale[node_id] = None

    def of(self, task: api.Task, volumes: Volumes) -> Pool:
        """The pool for a task, up to date. What depends on cluster volumes is good for the present pass only."""
        if wants_volumes(task):
            pool = self._new(task, volumes)
            pool.refresh()
            return pool
        needs = needs_of(task)
        pool = self._pools.pop(needs) if needs in self._pools else self._new(task, volumes)
        self._pools[needs] = pool
        while len(self._pools) > max(FEWEST, min(MOST, MOST_ENTRIES // max(1, len(self._nodes)))):
            del self._pools[next(iter(self._pools))]
        pool.refresh()
        return pool

    def _new(self, task: api.Task, volumes: Volumes) -> Pool:
        return Pool(self._nodes, Pipeline(task, volumes), descriptors_of(task.spec.placement), volatile=wants_volumes(task))
