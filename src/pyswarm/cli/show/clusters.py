"""Clusters: the list, the summary, the unlock key."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator

from pyswarm.api import v1 as api
from pyswarm.cli import columns
from pyswarm.cli.columns import entry
from pyswarm.cli.show import parts


def listing(clusters: Iterable[api.Cluster]) -> str:
    """`cluster ls`."""
    return columns.table(columns.LIST, ["ID", "Name"], ((cluster.id, cluster.spec.annotations.name) for cluster in clusters))


def summary(cluster: api.Cluster) -> str:
    """`cluster inspect`."""
    spec = cluster.spec
    lines = [
        entry("ID", cluster.id),
        entry("Name", spec.annotations.name),
        "Orchestration settings:",
        f"  Task history entries: {spec.orchestration.task_history_retention_limit}",
        *_dispatcher(spec),
        "Certificate Authority settings:",
        *_authority(spec),
        "  Join Tokens:",
        f"    Worker: {cluster.root_ca.join_tokens.worker}",
        f"    Manager: {cluster.root_ca.join_tokens.manager}",
    ]
    if spec.task_defaults.HasField("log_driver"):
        lines += parts.driver("Default Log Driver", spec.task_defaults.log_driver, "  ")
    return columns.SUMMARY.text(lines)


def _dispatcher(spec: api.ClusterSpec) -> Iterator[str]:
    if spec.dispatcher.HasField("heartbeat_period"):
        yield "Dispatcher settings:"
        yield f"  Dispatcher heartbeat period: {parts.duration(spec.dispatcher.heartbeat_period)}"


def _authority(spec: api.ClusterSpec) -> Iterator[str]:
    if spec.ca_config.HasField("node_cert_expiry"):
        yield f"  Certificate Validity Duration: {parts.duration(spec.ca_config.node_cert_expiry)}"
    if spec.ca_config.external_cas:
        yield "  External CAs:"
    for external in spec.ca_config.external_cas:
        yield f"    {api.ExternalCA.CAProtocol.Name(external.protocol)}: {external.url}"


def unlock_key(key: bytes) -> str:
    """The line about auto-lock; `key` is empty when it is off."""
    if not key:
        return "Managers not auto-locked\n"
    return f"Managers auto-locked.  Unlock key: SWMKEY-1-{base64.b64encode(key).decode().rstrip('=')}\n"
