"""What is flagged to be deleted goes once nobody uses it (spec/scheduling-and-allocation, section 17).

The control API deletes at once and never sets the flag; programs that write it through other doors rely on this.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeAlias

from pyswarm.api import v1 as api
from pyswarm.manager.allocator.attachments import configs_of
from pyswarm.manager.changes import Delete
from pyswarm.manager.loop import Decision
from pyswarm.manager.store import Action, Event, Kind, View, by

Key: TypeAlias = tuple[Kind, str]


class Deallocator:
    """A `Loop` over (kind, id) of flagged services and networks."""

    name = "deallocator"
    quiet = 0.0
    patience = 0.0

    def __init__(self) -> None:
        self._flagged: set[str] = set()
        """Services whose last task is waited for: which deleted task matters."""

    def everything(self, view: View) -> Iterable[Key]:
        """All that is flagged."""
        self._flagged = {service.id for service in view.services if service.pending_delete}
        keys: list[Key] = [(Kind.SERVICE, service_id) for service_id in sorted(self._flagged)]
        return keys + sorted((Kind.NETWORK, network.id) for network in view.networks if network.pending_delete)

    def on_event(self, event: Event) -> Iterator[Key]:
        """What is flagged now, and the service whose task went."""
        gone = event.action is Action.REMOVE
        match event.obj:
            case api.Service():
                if gone or not event.obj.pending_delete:
                    self._flagged.discard(event.obj.id)
                else:
                    self._flagged.add(event.obj.id)
                    yield Kind.SERVICE, event.obj.id
            case api.Network() if event.obj.pending_delete and not gone:
                yield Kind.NETWORK, event.obj.id
            case api.Task() if gone and event.obj.service_id in self._flagged:
                yield Kind.SERVICE, event.obj.service_id

    def decide(self, view: View, key: Key, now: float) -> Decision:  # noqa: ARG002 - nothing here takes time
        """Delete it if it is flagged and unused; with a service its flagged networks that no other service uses."""
        kind, object_id = key
        if kind is Kind.NETWORK:
            return Decision(changes=_network(view, object_id))
        service = view.services.get(object_id)
        if service is None or not service.pending_delete or view.tasks.find(by.service(object_id)):
            return Decision()
        targets = dict.fromkeys(config.target for config in configs_of(service))
        networks = [change for network_id in targets for change in _network(view, network_id, besides=object_id)]
        return Decision(changes=[Delete(Kind.SERVICE, object_id), *networks])


def _network(view: View, network_id: str, besides: str = "") -> list[Delete]:
    network = view.networks.get(network_id)
    if network is None or not network.pending_delete:
        return []
    used = any(service.id != besides for service in view.services.find(by.network(network_id)))
    return [] if used else [Delete(Kind.NETWORK, network_id)]
