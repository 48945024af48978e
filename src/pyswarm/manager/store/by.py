"""Selectors: what `Table.find` accepts. `store.tasks.find(by.service(service_id))`.

Which table knows which selector follows from its indexes (tables.py); anything else raises InvalidFind.
"""

from __future__ import annotations

from pyswarm.api import v1 as api
from pyswarm.manager.store.tables import AnyOf, Everything, Exact, Prefix, Selector


def everything() -> Selector:
    """All objects, by id."""
    return Everything()


def any_of(*parts: Selector) -> Selector:
    """Objects that any part selects, in the order of the parts, each once."""
    return AnyOf(parts)


def id_prefix(prefix: str) -> Selector:
    """Ids that begin so."""
    return Prefix("id", prefix)


def name(value: str) -> Selector:
    """The name, compared without case."""
    return Exact("name", value.lower())


def name_prefix(value: str) -> Selector:
    """Names that begin so, compared without case."""
    return Prefix("name", value.lower())


def custom(key: str, value: str) -> Selector:
    """Objects with this entry in `annotations.indices`."""
    return Exact("custom", (key, value))


def custom_prefix(key: str, value: str) -> Selector:
    """Objects with an entry of this key in `annotations.indices` whose value begins so."""
    return Prefix("custom", value, under=key)


def role(value: api.NodeRole.ValueType) -> Selector:
    """Nodes by observed role."""
    return Exact("role", value)


def membership(value: api.NodeSpec.Membership.ValueType) -> Selector:
    """Nodes by membership."""
    return Exact("membership", value)


def runtime(value: str) -> Selector:
    """Services and tasks by runtime name (`container`, `attachment`, a generic kind)."""
    return Exact("runtime", value)


def network(network_id: str) -> Selector:
    """Services and tasks that ask for a network."""
    return Exact("network", network_id)


def secret(secret_id: str) -> Selector:
    """Services and tasks that reference a secret."""
    return Exact("secret", secret_id)


def config(config_id: str) -> Selector:
    """Services and tasks that reference a config."""
    return Exact("config", config_id)


def service(service_id: str) -> Selector:
    """Tasks of a service."""
    return Exact("service", service_id)


def node(node_id: str) -> Selector:
    """Tasks on a node; the empty id selects unassigned ones."""
    return Exact("node", node_id)


def slot(service_id: str, number: int) -> Selector:
    """Tasks in one slot of a service."""
    return Exact("slot", (service_id, number))


def desired_state(value: api.TaskState.ValueType) -> Selector:
    """Tasks by desired state."""
    return Exact("desired_state", value)


def task_state(value: api.TaskState.ValueType) -> Selector:
    """Tasks by observed state."""
    return Exact("task_state", value)


def volume(volume_id: str) -> Selector:
    """Tasks attached to a cluster volume."""
    return Exact("volume", volume_id)


def kind(value: str) -> Selector:
    """Resources by kind."""
    return Exact("kind", value)


def group(value: str) -> Selector:
    """Volumes by group."""
    return Exact("group", value)


def driver(value: str) -> Selector:
    """Volumes by driver name."""
    return Exact("driver", value)
