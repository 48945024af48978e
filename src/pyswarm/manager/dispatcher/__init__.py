"""The dispatcher: the leader's side of every agent.

Owns: sessions and heartbeats, the observed state of nodes, what each node is told to run, and the intake of the statuses they report.
Never: decides what should run where, starts anything by itself, or waits for the store in a heartbeat.
Started by the manager when it leads (`DispatcherService.run`), stopped when it does not; between the two every call is refused.

Deciding modules (pure): `registry` (sessions, grace, rate limit), `nodestate` (what a node becomes), `assignments` and `tasklist` (what a
stream says next), `statuses` (which report is stored), `orphans` (tasks of nodes that stay away). Doing: `streams` (who hears of which
commit), `leadership` (one term as leader), `service` (the RPCs).
"""

from pyswarm.manager.dispatcher.config import Config
from pyswarm.manager.dispatcher.service import DispatcherService

__all__ = ["Config", "DispatcherService"]
