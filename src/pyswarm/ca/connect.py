"""The real connections behind `client.Connect`: gRPC channels to the managers that the broker knows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc
import grpc.aio

from pyswarm import errors
from pyswarm.api import v1 as api
from pyswarm.api.swarmkit import ca_pb2_grpc
from pyswarm.ca.client import Dial
from pyswarm.cancellation import heeded
from pyswarm.errors import SwarmError, Unavailable
from pyswarm.rpc import channel
from pyswarm.rpc.remotes import DEFAULT_WEIGHT, ConnectionBroker, RemotePeer

R = TypeVar("R")
_BY_CODE = {
    int(kind.code): kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, SwarmError) and kind is not SwarmError
}


def from_rpc(error: grpc.aio.AioRpcError) -> SwarmError:
    """The error that a call's status stands for."""
    return _BY_CODE.get(error.code().value[0], errors.Unknown)(error.details() or error.code().name)


class GrpcConnector:
    """Opens what a `Dial` asks for; `connect` is the `client.Connect`."""

    def __init__(self, broker: ConnectionBroker) -> None:
        self._broker = broker

    async def connect(self, dial: Dial) -> GrpcConnection:
        """A connection to the manager on this node if there is one, else to a remote one. Raises Unavailable, NoRemotes."""
        local = self._broker.local
        if local is not None and dial.credentials is not None and not dial.force_remote:
            return GrpcConnection(channel.connect_local(local, dial.credentials), lambda _weight: None)
        peer = self._broker.remotes.select()
        try:
            opened = await _open(peer, dial)
        except Unavailable:
            self._broker.remotes.observe_if_exists(peer, -DEFAULT_WEIGHT)
            raise
        return GrpcConnection(opened, lambda weight: self._broker.remotes.observe_if_exists(peer, weight))


async def _open(peer: RemotePeer, dial: Dial) -> grpc.aio.Channel:
    if dial.root_pem is None:
        return await channel.connect_unverified(peer.addr)
    if dial.credentials is None:
        return channel.connect_anonymous(peer.addr, dial.root_pem, dial.server_name)
    return channel.connect(peer.addr, dial.credentials, dial.server_name)


class GrpcConnection:
    """Implements `client.Connection` on a channel."""

    def __init__(self, opened: grpc.aio.Channel, observe: Callable[[float], None]) -> None:
        self._channel = opened
        self._observe = observe
        self._ca: Any = ca_pb2_grpc.CAStub(opened)
        self._node_ca: Any = ca_pb2_grpc.NodeCAStub(opened)

    async def get_root_ca_certificate(self, request: api.GetRootCACertificateRequest, seconds: float) -> api.GetRootCACertificateResponse:
        """CA.GetRootCACertificate."""
        return await _translated(self._ca.GetRootCACertificate(request, timeout=seconds))

    async def get_unlock_key(self, request: api.GetUnlockKeyRequest, seconds: float) -> api.GetUnlockKeyResponse:
        """CA.GetUnlockKey."""
        return await _translated(self._ca.GetUnlockKey(request, timeout=seconds))

    async def issue_node_certificate(self, request: api.IssueNodeCertificateRequest, seconds: float) -> api.IssueNodeCertificateResponse:
        """NodeCA.IssueNodeCertificate."""
        return await _translated(self._node_ca.IssueNodeCertificate(request, timeout=seconds))

    async def node_certificate_status(self, request: api.NodeCertificateStatusRequest, seconds: float) -> api.NodeCertificateStatusResponse:
        """NodeCA.NodeCertificateStatus."""
        return await _translated(self._node_ca.NodeCertificateStatus(request, timeout=seconds))

    async def close(self, *, success: bool) -> None:
        """Close the channel and let the manager's weight follow."""
        self._observe(DEFAULT_WEIGHT if success else -DEFAULT_WEIGHT)
        await self._channel.close(None)


async def _translated(call: Awaitable[R]) -> R:
    try:
        with heeded():
            return await call
    except grpc.aio.AioRpcError as error:
        raise from_rpc(error) from error
