"""From what the user typed to the object, and from IDs to the names shown.

An exact ID wins over an exact name, a name over an ID prefix; two candidates of the same rank are an error that says how many there are
(spec/cli-and-executor, section 4, with prefixes for every kind).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

from pyswarm import errors
from pyswarm.api import v1 as api

if TYPE_CHECKING:
    from pyswarm.cli.client import Client


class Identified(Protocol):
    """A stored object."""

    @property
    def id(self) -> str:
        """Its ID."""
        ...


T = TypeVar("T", bound=Identified)


def pick(kind: str, text: str, candidates: Sequence[T], name: Callable[[T], str]) -> T | None:
    """The one candidate that `text` means: by ID, else by name, else by name in another case, else by ID prefix; None if there is none.

    Raises InvalidArgument when several fit equally well.
    """
    ranks: list[Callable[[T], bool]] = [
        lambda candidate: candidate.id == text,
        lambda candidate: name(candidate) == text,
        lambda candidate: name(candidate).lower() == text.lower(),
        lambda candidate: candidate.id.startswith(text),
    ]
    for fits in ranks:
        found = [candidate for candidate in candidates if fits(candidate)]
        if len(found) > 1:
            raise errors.InvalidArgument(f"{kind} {text} is ambiguous ({len(found)} matches found); use the ID, or more of it")
        if found:
            return found[0]
    return None


def not_found(kind: str, text: str) -> errors.NotFound:
    """The error for a name or ID that nothing has."""
    return errors.NotFound(f"{kind} {text} not found; 'pyswarmctl {kind} ls' shows what there is")


def _find(kind: str, text: str, get: Callable[[], T], by_name: Callable[[], Sequence[T]], by_prefix: Callable[[], Sequence[T]]) -> T:
    """Ask for the ID, then the name, then the prefix: the server's filters are joined by AND, so each is a question of its own."""
    try:
        return get()
    except errors.NotFound:
        found = pick(kind, text, by_name(), lambda _: text) or pick(kind, text, by_prefix(), lambda _: "")
    if found is None:
        raise not_found(kind, text) from None
    return found


def cluster(client: Client, text: str) -> api.Cluster:
    """The cluster of that ID, name or ID prefix. Raises NotFound, InvalidArgument (ambiguous)."""
    control = client.control

    def listed(filters: api.ListClustersRequest.Filters) -> Sequence[api.Cluster]:
        return client.ask(control.ListClusters, api.ListClustersRequest(filters=filters)).clusters

    return _find(
        "cluster",
        text,
        lambda: client.ask(control.GetCluster, api.GetClusterRequest(cluster_id=text)).cluster,
        lambda: listed(api.ListClustersRequest.Filters(names=[text])),
        lambda: listed(api.ListClustersRequest.Filters(id_prefixes=[text])),
    )


def node(client: Client, text: str) -> api.Node:
    """The node of that ID, hostname or ID prefix. Raises NotFound, InvalidArgument (ambiguous)."""
    control = client.control

    def listed(filters: api.ListNodesRequest.Filters) -> Sequence[api.Node]:
        return client.ask(control.ListNodes, api.ListNodesRequest(filters=filters)).nodes

    return _find(
        "node",
        text,
        lambda: client.ask(control.GetNode, api.GetNodeRequest(node_id=text)).node,
        lambda: listed(api.ListNodesRequest.Filters(names=[text])),
        lambda: listed(api.ListNodesRequest.Filters(id_prefixes=[text])),
    )


def service(client: Client, text: str) -> api.Service:
    """The service of that ID, name or ID prefix. Raises NotFound, InvalidArgument (ambiguous)."""
    control = client.control

    def listed(filters: api.ListServicesRequest.Filters) -> Sequence[api.Service]:
        return client.ask(control.ListServices, api.ListServicesRequest(filters=filters)).services

    return _find(
        "service",
        text,
        lambda: client.ask(control.GetService, api.GetServiceRequest(service_id=text)).service,
        lambda: listed(api.ListServicesRequest.Filters(names=[text])),
        lambda: listed(api.ListServicesRequest.Filters(id_prefixes=[text])),
    )


def service_named(client: Client, text: str) -> api.Service | None:
    """The service of that full ID or name, if there is one. Raises InvalidArgument (ambiguous)."""
    try:
        return client.ask(client.control.GetService, api.GetServiceRequest(service_id=text)).service
    except errors.NotFound:
        filters = api.ListServicesRequest.Filters(names=[text])
        listed = client.ask(client.control.ListServices, api.ListServicesRequest(filters=filters)).services
        return pick("service", text, listed, lambda _: text)


def network(client: Client, text: str) -> api.Network:
    """The network of that ID, name or ID prefix. Raises NotFound, InvalidArgument (ambiguous)."""
    control = client.control

    def listed(filters: api.ListNetworksRequest.Filters) -> Sequence[api.Network]:
        return client.ask(control.ListNetworks, api.ListNetworksRequest(filters=filters)).networks

    return _find(
        "network",
        text,
        lambda: client.ask(control.GetNetwork, api.GetNetworkRequest(network_id=text)).network,
        lambda: listed(api.ListNetworksRequest.Filters(names=[text])),
        lambda: listed(api.ListNetworksRequest.Filters(id_prefixes=[text])),
    )


def task(client: Client, text: str) -> api.Task:
    """The task of that ID, full name (`web.1.<id>`) or ID prefix. Raises NotFound, InvalidArgument (ambiguous)."""
    control = client.control

    def listed(filters: api.ListTasksRequest.Filters) -> Sequence[api.Task]:
        return client.ask(control.ListTasks, api.ListTasksRequest(filters=filters)).tasks

    return _find(
        "task",
        text,
        lambda: client.ask(control.GetTask, api.GetTaskRequest(task_id=text)).task,
        lambda: listed(api.ListTasksRequest.Filters(names=[text])),
        lambda: listed(api.ListTasksRequest.Filters(id_prefixes=[text])),
    )


def secret(client: Client, text: str) -> api.Secret:
    """The secret of that ID, name (in any case) or ID prefix. Raises NotFound, InvalidArgument (ambiguous)."""
    filters = api.ListSecretsRequest.Filters(names=[text], id_prefixes=[text])
    listed = client.ask(client.control.ListSecrets, api.ListSecretsRequest(filters=filters)).secrets
    found = pick("secret", text, listed, lambda candidate: candidate.spec.annotations.name)
    if found is None:
        raise not_found("secret", text)
    return found


def config(client: Client, text: str) -> api.Config:
    """The config of that ID, name (in any case) or ID prefix. Raises NotFound, InvalidArgument (ambiguous)."""
    filters = api.ListConfigsRequest.Filters(names=[text], id_prefixes=[text])
    listed = client.ask(client.control.ListConfigs, api.ListConfigsRequest(filters=filters)).configs
    found = pick("config", text, listed, lambda candidate: candidate.spec.annotations.name)
    if found is None:
        raise not_found("config", text)
    return found


def volume(client: Client, text: str) -> api.Volume:
    """The cluster volume of that ID, name or ID prefix. Raises NotFound, InvalidArgument (ambiguous)."""
    control = client.control

    def listed(filters: api.ListVolumesRequest.Filters) -> Sequence[api.Volume]:
        return client.ask(control.ListVolumes, api.ListVolumesRequest(filters=filters)).volumes

    return _find(
        "volume",
        text,
        lambda: client.ask(control.GetVolume, api.GetVolumeRequest(volume_id=text)).volume,
        lambda: listed(api.ListVolumesRequest.Filters(names=[text])),
        lambda: listed(api.ListVolumesRequest.Filters(id_prefixes=[text])),
    )


class Names:
    """IDs to the names shown for them. Each is asked for once; what cannot be found stays an ID."""

    def __init__(self, client: Client, *, resolve: bool) -> None:
        self._client = client
        self._resolve = resolve
        self._known: dict[tuple[str, str], str] = {}

    def node(self, node_id: str) -> str:
        """The node's annotation name, else its hostname; empty for no node."""
        control = self._client.control

        def ask() -> str:
            found = self._client.ask(control.GetNode, api.GetNodeRequest(node_id=node_id)).node
            return found.spec.annotations.name or found.description.hostname

        return self._lookup("node", node_id, ask)

    def service(self, service_id: str) -> str:
        """The service's name."""
        control = self._client.control
        request = api.GetServiceRequest(service_id=service_id)
        return self._lookup("service", service_id, lambda: self._client.ask(control.GetService, request).service.spec.annotations.name)

    def task(self, task_id: str) -> str:
        """`<service>.<slot>`."""
        control = self._client.control

        def ask() -> str:
            found = self._client.ask(control.GetTask, api.GetTaskRequest(task_id=task_id)).task
            return f"{self.service(found.service_id)}.{found.slot}"

        return self._lookup("task", task_id, ask)

    def _lookup(self, kind: str, object_id: str, ask: Callable[[], str]) -> str:
        if not self._resolve or not object_id:
            return object_id
        key = (kind, object_id)
        if key not in self._known:
            try:
                self._known[key] = ask() or object_id
            except (errors.NotFound, errors.Unimplemented):
                self._known[key] = object_id
        return self._known[key]
