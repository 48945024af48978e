"""The allocator: gives networks, services, tasks and nodes what they need; moves tasks from NEW to PENDING.

Owns: subnets, VXLAN ids, addresses and virtual addresses, published ports: the endpoint of services and tasks, the attachments of tasks and
nodes, the allocated state of networks, and the NEW to PENDING step.
Never: chooses a node, or remembers what the store does not say.
Started by the manager on the leader, as `Loop`s under the shared driver: `Allocator`, and `Deallocator` for what is flagged to go.
"""

from pyswarm.manager.allocator.allocator import Allocator
from pyswarm.manager.allocator.claims import is_swarm_wide
from pyswarm.manager.allocator.deallocator import Deallocator
from pyswarm.manager.allocator.mirror import is_ingress
from pyswarm.manager.allocator.pools import given_vnis
from pyswarm.manager.allocator.ports import uses_ingress
from pyswarm.manager.allocator.refusal import Refusal
from pyswarm.manager.allocator.subnets import Subnet, parse_address

__all__ = ["Allocator", "Deallocator", "Refusal", "Subnet", "given_vnis", "is_ingress", "is_swarm_wide", "parse_address", "uses_ingress"]
