"""Which nodes refuse a task that waits for one, and what they lack."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

from pyswarm.api import v1 as api
from pyswarm.api.private import why_pb2 as pb
from pyswarm.manager import constraints
from pyswarm.manager.orchestrator.global_ import Obstacle, obstacle
from pyswarm.manager.scheduler.filters import FILTERS, Filter, Pipeline
from pyswarm.manager.scheduler.nodeinfo import NodeInfo
from pyswarm.manager.scheduler.volumes import Volumes
from pyswarm.manager.store import Store, by

EXAMPLES = 5
"""Ids of nodes named with each refusal."""

R = TypeVar("R")
Walk: TypeAlias = Generator[None, None, R]
"""A computation that pauses after each small piece, and in the end returns its result."""


@dataclass(slots=True)
class Refused:
    """The nodes that lack the same thing."""

    by: Filter
    lacking: str
    nodes: int = 0
    examples: list[str] = field(default_factory=list)

    def message(self) -> pb.Refusal:
        """As it is told."""
        return pb.Refusal(
            filter=self.by.name, lacking=self.lacking, nodes=self.nodes, sentence=self.by.explain(self.nodes), node_ids=self.examples
        )


@dataclass(slots=True)
class Survey:
    """What the nodes said that a task might go to."""

    suitable: int = 0
    refused: dict[tuple[str, str], Refused] = field(default_factory=dict)

    def ask(self, pipeline: Pipeline, info: NodeInfo) -> None:
        """One more node."""
        refusal = pipeline.refusal(info)
        if refusal is None:
            self.suitable += 1
        else:
            self.note(*refusal, info.node.id)

    def note(self, refusing: Filter, lacking: str, node_id: str) -> None:
        """One more node does not suit."""
        found = self.refused.setdefault((refusing.name, lacking), Refused(refusing, lacking))
        found.nodes += 1
        if len(found.examples) < EXAMPLES:
            found.examples.append(node_id)

    @property
    def nodes(self) -> int:
        """How many were asked."""
        return self.suitable + sum(r.nodes for r in self.refused.values())

    def refusals(self) -> list[pb.Refusal]:
        """What most nodes lack first."""
        return [r.message() for r in sorted(self.refused.values(), key=lambda r: -r.nodes)]


def survey(store: Store, task: api.Task) -> Walk[Survey]:
    """Ask every node, or the one that a task of a global service is meant for, as the scheduler would; one node to a piece."""
    found, pipeline = Survey(), Pipeline(task, Volumes(store))
    for node_id in [task.node_id] if task.node_id else sorted(n.id for n in store.nodes):
        node = store.nodes.get(node_id)
        if node is not None:
            found.ask(pipeline, NodeInfo.of(node, store.tasks.find(by.node(node_id))))
        yield
    return found


_READY, _CONSTRAINTS = (next(f for f in FILTERS if f.name == name) for name in ("ready", "constraints"))
_AVAILABILITY = {Obstacle.DOWN: "DOWN", Obstacle.DRAINED: "DRAIN", Obstacle.PAUSED: "PAUSE"}


def left_out(service: api.Service, nodes: Iterable[api.Node]) -> list[pb.Refusal]:
    """On which of the nodes a global service has no place, and why: in the words of the scheduler's filters."""
    found = Survey()
    for node in nodes:
        in_the_way = obstacle(service, node)
        if in_the_way is Obstacle.CONSTRAINTS:
            found.note(_CONSTRAINTS, constraints.unmet(node, service.spec.task.placement), node.id)
        elif in_the_way is not None:
            found.note(_READY, _AVAILABILITY[in_the_way], node.id)
    return found.refusals()
