"""Why a task is not where it should be: `pyswarm.v1.Why`, SwarmKit's status texts as data, and what these do not say.

Owns: deriving one reason for a task from the store and the time, with the very functions that decide (filters, release, restart policy,
rolling update, orphans), so that what is said cannot drift from what is done. Never: stores anything, changes anything, or keeps anything
from one call to the next.
Everything but `service` is pure. Walks over many objects are generators that yield after each small piece, so that the service can let
others run; what they have found so far may be a little older than what they find next, as for any reader of a living cluster.
Started by the manager with its other services; answers on the leader.

    nodes       which nodes refuse a task that waits for one
    updates     how far the service's update has come
    reasons     one task: the reason
    walk        what has to be gathered for a task or a service, and the answer
    service     the RPC
"""
