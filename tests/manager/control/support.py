"""What the tests of the control service share: specs, callers, expected refusals."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import pytest

from pyswarm.api import v1 as api
from pyswarm.errors import Code, SwarmError
from pyswarm.manager.control import ControlService
from pyswarm.raft.log import Member
from pyswarm.rpc.caller import Caller
from tests.support.log import MemoryLog

ME = Caller(node_id="node-1", local=True)
IA, NF, FP, AE = Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.FAILED_PRECONDITION, Code.ALREADY_EXISTS
UI, UNK, INT = Code.UNIMPLEMENTED, Code.UNKNOWN, Code.INTERNAL


class MembersLog(MemoryLog):
    """A memory log whose membership a test may set, and which counts the reads that waited for it."""

    present: Sequence[Member] = (Member(raft_id=1, node_id="node-1", addr="127.0.0.1:4242", leader=True),)
    barriers = 0

    def members(self) -> Sequence[Member]:
        """As set."""
        return self.present

    async def read_barrier(self) -> None:
        """Count."""
        self.barriers += 1


@contextlib.contextmanager
def refused(code: Code, text: str = "", *, exactly: bool = False) -> Iterator[None]:
    """The block raises an error of this status whose message contains (or is) the text."""
    with pytest.raises(SwarmError) as caught:
        yield
    assert caught.value.code == code, caught.value.message
    assert text in caught.value.message
    assert not exactly or text == caught.value.message


def service_spec(name: str = "name", image: str = "image", replicas: int = 1) -> api.ServiceSpec:
    """The specification's `S(name, image, n)`."""
    return api.ServiceSpec(
        annotations=api.Annotations(name=name, labels={"common": "yes", "unique": name}),
        task=api.TaskSpec(container=api.ContainerSpec(image=image)),
        replicated=api.ReplicatedService(replicas=replicas),
    )


def port(
    published: int = 0,
    target: int = 80,
    mode: api.PortConfig.PublishMode.ValueType = api.PortConfig.INGRESS,
    protocol: api.PortConfig.Protocol.ValueType = api.PortConfig.TCP,
) -> api.PortConfig:
    """One port of an endpoint."""
    return api.PortConfig(published_port=published, target_port=target, publish_mode=mode, protocol=protocol)


def with_ports(spec: api.ServiceSpec, *ports: api.PortConfig) -> api.ServiceSpec:
    """The spec with these ports as its endpoint."""
    spec.endpoint.CopyFrom(api.EndpointSpec(ports=ports))
    return spec


async def create(control: ControlService, spec: api.ServiceSpec) -> api.Service:
    """CreateService; the new service."""
    return (await control.CreateService(api.CreateServiceRequest(spec=spec), ME)).service


async def update(
    control: ControlService, service: api.Service, spec: api.ServiceSpec | None = None, *, back: bool = False, version: int | None = None
) -> api.Service:
    """UpdateService with the service's own version unless another is given; the service afterwards."""
    request = api.UpdateServiceRequest(service_id=service.id, service_version=service.meta.version, spec=spec or service.spec)
    if version is not None:
        request.service_version.index = version
    if back:
        request.rollback = api.UpdateServiceRequest.PREVIOUS
    return (await control.UpdateService(request, ME)).service


def names_of(objects: Sequence[object]) -> list[str]:
    """The spec names of listed objects, sorted."""
    return sorted(o.spec.annotations.name for o in objects)  # type: ignore[attr-defined]
