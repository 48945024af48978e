"""The one table of who may call what, read from the method options in the proto files (spec/ca-and-security, section 21)."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from pyswarm.api.private import auth_pb2, why_pb2
from pyswarm.api.swarmkit import (
    ca_pb2,
    control_pb2,
    dispatcher_pb2,
    health_pb2,
    logbroker_pb2,
    raft_pb2,
    resource_pb2,
    watch_pb2,
)


@dataclass(frozen=True, slots=True)
class Access:
    """Who may call a method on the remote port: certificates of one of `roles`, or anyone when `insecure`."""

    roles: tuple[str, ...] = ()
    insecure: bool = False


@functools.cache
def access(method: MethodDescriptor) -> Access | None:
    """The method's option; None when it has none, which must be refused."""
    options = method.GetOptions()
    if not options.HasExtension(auth_pb2.tls_authorization):
        return None
    option = options.Extensions[auth_pb2.tls_authorization]
    if not option.insecure and not option.roles:
        return None
    return Access(tuple(option.roles), option.insecure)


def services() -> Iterable[ServiceDescriptor]:
    """Every service that clients may call: the public wire contract, and what is ours beside it."""
    for module in (ca_pb2, control_pb2, dispatcher_pb2, health_pb2, logbroker_pb2, raft_pb2, resource_pb2, watch_pb2, why_pb2):
        yield from module.DESCRIPTOR.services_by_name.values()


def table() -> Mapping[str, Access | None]:
    """`Service.Method` to its access, for all methods that clients may call."""
    return {f"{service.name}.{method.name}": access(method) for service in services() for method in service.methods}
