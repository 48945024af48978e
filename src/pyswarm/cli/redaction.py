"""Taking secrets out of what is shown to people or sent to somebody for help. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from pyswarm.api import v1 as api

M = TypeVar("M", bound=Message)


def redacted(message: M) -> M:
    """A copy without payloads of secrets and configs, environments, registry passwords and the cluster's keys, however deep they lie."""
    copy = type(message)()
    copy.CopyFrom(message)
    _redact(copy)
    return copy


def _redact(message: Message) -> None:
    rule = _RULES.get(message.DESCRIPTOR.full_name)
    if rule is not None:
        rule(message)
    for field, value in message.ListFields():
        if field.type != FieldDescriptor.TYPE_MESSAGE:
            continue
        inner = [value] if isinstance(value, Message) else value.values() if isinstance(value, Mapping) else value
        for one in inner:
            if isinstance(one, Message):
                _redact(one)


def _cluster(cluster: api.Cluster) -> None:
    for name in ("root_ca", "network_bootstrap_keys", "unlock_keys"):
        cluster.ClearField(name)
    cluster.spec.ClearField("ca_config")


def _secret(spec: api.SecretSpec) -> None:
    spec.data = b"SECRET REDACTED"


def _config(spec: api.ConfigSpec) -> None:
    spec.data = b"CONFIG REDACTED"


def _container(spec: api.ContainerSpec) -> None:
    if spec.env:
        spec.env[:] = ["ENVVARS REDACTED"]
    if spec.pull_options.registry_auth:
        spec.pull_options.registry_auth = "REDACTED"


_RULES: dict[str, Callable[..., None]] = {
    api.Cluster.DESCRIPTOR.full_name: _cluster,
    api.SecretSpec.DESCRIPTOR.full_name: _secret,
    api.ConfigSpec.DESCRIPTOR.full_name: _config,
    api.ContainerSpec.DESCRIPTOR.full_name: _container,
}
