"""The allocator: gives services and tasks what they need before they can be scheduled; moves tasks from NEW to PENDING.

Owns: the endpoint of services and tasks, and the NEW to PENDING step. Host-mode ports pass through as asked for; ingress ports, networks,
addresses and cluster volumes are not allocated yet, and the control API refuses specs that need them.
Never: chooses a node.
Started by the manager on the leader, as a `Loop` under the shared driver.
"""

from pyswarm.manager.allocator.allocator import Allocator

__all__ = ["Allocator"]
