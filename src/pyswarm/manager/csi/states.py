"""The life of a volume: what is to be done next, and what the store says once it is done. Pure.

A volume without `volume_info` is made; one that is to go, and is published nowhere, is deleted; in between each node's entry goes
PENDING_PUBLISH -> PUBLISHED -> PENDING_NODE_UNPUBLISH -> PENDING_UNPUBLISH -> gone. Each result is written only where the store still asks
for it, so what a plugin answered to an earlier leader, or before the volume was forced away, changes nothing.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from pyswarm.api import v1 as api
from pyswarm.manager.store import Tx, View, copy_of

P = api.VolumePublishStatus


class Action(enum.Enum):
    """What a plugin is asked to do."""

    CREATE = "create"
    DELETE = "delete"
    PUBLISH = "publish"
    UNPUBLISH = "unpublish"


@dataclass(frozen=True, slots=True)
class Step:
    """One call; `node_id` is the swarm node that it is about, if any."""

    action: Action
    node_id: str = ""


_ACTIONS = {P.PENDING_UNPUBLISH: Action.UNPUBLISH, P.PENDING_PUBLISH: Action.PUBLISH}


def steps(volume: api.Volume) -> list[Step]:
    """What is to be done for the volume now, in this order.

    One that is to go before it was made is made first: a call whose answer nobody heard may have made it already, and only by asking again
    its id is learned. Nodes are given up before others are taken on, for volumes that only one node may have.
    """
    if not volume.HasField("volume_info"):
        return [Step(Action.CREATE)]
    if volume.pending_delete and not volume.publish_status:
        return [Step(Action.DELETE)]
    return [Step(action, e.node_id) for state, action in _ACTIONS.items() for e in volume.publish_status if e.state == state]


def entry_of(volume: api.Volume, node_id: str) -> api.VolumePublishStatus | None:
    """The volume's state towards a node."""
    return next((entry for entry in volume.publish_status if entry.node_id == node_id), None)


def csi_node_id(view: View, node_id: str, driver: str) -> str | None:
    """What the driver's plugin on that node calls itself; None when the node does not say."""
    node = view.nodes.get(node_id)
    infos = node.description.csi_info if node is not None else ()
    return next((info.node_id for info in infos if info.plugin_name == driver), None)


def created(tx: Tx, volume_id: str, info: api.VolumeInfo) -> None:
    """The plugin made the volume."""
    volume = tx.volumes.get(volume_id)
    if volume is not None and not volume.HasField("volume_info"):
        changed = copy_of(volume)
        changed.volume_info.CopyFrom(info)
        tx.volumes.update(changed)


def deleted(tx: Tx, volume_id: str) -> None:
    """The plugin deleted the volume."""
    volume = tx.volumes.get(volume_id)
    if volume is not None and steps(volume) == [Step(Action.DELETE)]:
        tx.volumes.delete(volume_id)


def published(tx: Tx, volume_id: str, node_id: str, context: Mapping[str, str]) -> None:
    """The plugin published the volume to the node, which needs `context` to find it."""
    changed = _changing(tx, volume_id, node_id, P.PENDING_PUBLISH)
    if changed is not None:
        entry = _entry(changed, node_id)
        entry.state = P.PUBLISHED
        entry.publish_context.update(context)
        entry.message = ""
        tx.volumes.update(changed)


def unpublished(tx: Tx, volume_id: str, node_id: str) -> None:
    """The plugin took the volume back from the node."""
    changed = _changing(tx, volume_id, node_id, P.PENDING_UNPUBLISH)
    if changed is not None:
        changed.publish_status.remove(_entry(changed, node_id))
        tx.volumes.update(changed)


def failed(tx: Tx, volume_id: str, step: Step, error: str) -> None:
    """The plugin refused: said where the user looks. Nothing is written for what has no place for it, or says so already."""
    states = {action: state for state, action in _ACTIONS.items()}
    changed = _changing(tx, volume_id, step.node_id, states[step.action]) if step.action in states else None
    message = f"error {step.action.value}ing volume: {error}"
    if changed is not None and _entry(changed, step.node_id).message != message:
        _entry(changed, step.node_id).message = message
        tx.volumes.update(changed)


def _changing(tx: Tx, volume_id: str, node_id: str, state: P.State.ValueType) -> api.Volume | None:
    """A copy to change, if the volume is (still) in this state towards the node."""
    volume = tx.volumes.get(volume_id)
    entry = entry_of(volume, node_id) if volume is not None else None
    return copy_of(volume) if volume is not None and entry is not None and entry.state == state else None


def _entry(volume: api.Volume, node_id: str) -> api.VolumePublishStatus:
    return next(entry for entry in volume.publish_status if entry.node_id == node_id)
