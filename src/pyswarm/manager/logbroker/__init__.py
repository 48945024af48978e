"""The log broker: who wants to read which tasks' output, which nodes have it, and the way from these to those.

Owns: the subscriptions of clients, the nodes that listen for them, and the lines in between. All of it in memory, for one term as leader.
Never: reads a log, keeps more than a little of one (a slow reader slows the nodes down instead), or writes to the store.
Started by the manager when it leads (`LogBrokerService.run`), stopped when it does not; between the two every call is refused.

Deciding modules (pure): `selection` (what a selector means), `subscription` (one subscription: its nodes, who is missing, when it ends).
Doing: `feeds` (what waits to be sent), `broker` (one term as leader), `service` (the RPCs).
"""

from pyswarm.manager.logbroker.service import LogBrokerService

__all__ = ["LogBrokerService"]
