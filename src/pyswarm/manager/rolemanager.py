"""From the role a user wants to the role a node has (spec/ca-and-security, section 15).

A `Loop` over node ids. Promotion is a word: the node then asks for a new certificate and joins the log itself. Demotion waits until
`evictions` took the node out of the log's membership.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pyswarm.api import v1 as api
from pyswarm.manager.changes import Update
from pyswarm.manager.loop import Decision
from pyswarm.manager.store import Action, Event, View, copy_of

RETRY_SECONDS = 0.2


class RoleManager:
    """Reconciles `spec.desired_role` with `role`."""

    name = "role manager"
    quiet = 0.0
    patience = 0.0

    def __init__(self, is_member: Callable[[str], bool]) -> None:
        """`is_member` says whether a node id is in the log's membership now."""
        self._is_member = is_member

    def everything(self, view: View) -> Iterable[str]:
        """Every node."""
        return [n.id for n in view.nodes]

    def on_event(self, event: Event) -> Iterable[str]:
        """A node that came or changed."""
        return (event.obj.id,) if isinstance(event.obj, api.Node) and event.action is not Action.REMOVE else ()

    def decide(self, view: View, key: str, now: float) -> Decision:
        """Promote at once; demote once the node is out of the log."""
        node = view.nodes.get(key)
        if node is None or node.role == node.spec.desired_role:
            return Decision()
        if node.spec.desired_role == api.NodeRole.WORKER and self._is_member(key):
            return Decision(wake=now + RETRY_SECONDS)
        edited = copy_of(node)
        edited.role = node.spec.desired_role
        return Decision(changes=[Update(edited)])
