"""The real connections, over loopback."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest

from pyswarm.api import v1 as api
from pyswarm.api.swarmkit import ca_pb2_grpc
from pyswarm.ca.client import Client, Dial
from pyswarm.ca.connect import GrpcConnector
from pyswarm.ca.credentials import Credentials
from pyswarm.ca.root import RootCA
from pyswarm.clock import SystemClock
from pyswarm.errors import NotFound, Unavailable
from pyswarm.rpc.remotes import DEFAULT_WEIGHT, ConnectionBroker, RemotePeer, Remotes
from tests.ca import pki

ROOT = RootCA.create(now=time.time())


class CA(ca_pb2_grpc.CAServicer):
    """Hands out the root."""

    async def GetRootCACertificate(  # noqa: N802
        self, request: api.GetRootCACertificateRequest, context: object
    ) -> api.GetRootCACertificateResponse:
        """The root."""
        return api.GetRootCACertificateResponse(certificate=ROOT.bundle)


class NodeCA(ca_pb2_grpc.NodeCAServicer):
    """Knows no node."""

    async def NodeCertificateStatus(  # noqa: N802
        self, request: api.NodeCertificateStatusRequest, context: grpc.aio.ServicerContext[object, object]
    ) -> api.NodeCertificateStatusResponse:
        """Refuse."""
        await context.abort(grpc.StatusCode.NOT_FOUND, "NotFound")
        raise AssertionError("abort raises")


@pytest.fixture
async def manager() -> AsyncIterator[tuple[ConnectionBroker, Credentials]]:
    """A manager on a loopback port, and a broker that knows it."""
    shown = pki.issue(ROOT, now=time.time())
    server = grpc.aio.server()
    ca_pb2_grpc.add_CAServicer_to_server(CA(), server)  # type: ignore[no-untyped-call]
    ca_pb2_grpc.add_NodeCAServicer_to_server(NodeCA(), server)  # type: ignore[no-untyped-call]
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(shown.key_pem, shown.cert_pem)]))
    await server.start()
    remotes = Remotes()
    remotes.observe(RemotePeer("", f"127.0.0.1:{port}"), DEFAULT_WEIGHT)
    try:
        yield ConnectionBroker(remotes, lambda: shown), shown
    finally:
        await server.stop(None)


async def test_fetching_a_root(manager: tuple[ConnectionBroker, Credentials]) -> None:
    """The root is fetched over a connection pinned to whatever the server shows [ca 189]."""
    broker, _ = manager
    assert await Client(GrpcConnector(broker).connect, SystemClock()).fetch_root("") == ROOT.bundle
    assert next(iter(broker.remotes.weights().values())) == DEFAULT_WEIGHT * 3 // 4 + 1


async def test_errors_come_back_as_they_were_sent(manager: tuple[ConnectionBroker, Credentials]) -> None:
    """A status becomes the error it was on the other side, with its text."""
    broker, shown = manager
    for credentials in (None, shown):
        connection = await GrpcConnector(broker).connect(Dial(ROOT.bundle, "swarm-ca", credentials))
        with pytest.raises(NotFound, match=r"^NotFound$"):
            await connection.node_certificate_status(api.NodeCertificateStatusRequest(node_id="x"), 5)
        await connection.close(success=True)


async def test_another_root(manager: tuple[ConnectionBroker, Credentials]) -> None:
    """A manager under another root is not talked to."""
    broker, _ = manager
    other = RootCA.create(now=time.time())
    connection = await GrpcConnector(broker).connect(Dial(other.bundle, "swarm-ca"))
    with pytest.raises(Unavailable, match=r"CERTIFICATE_VERIFY_FAILED|certificate verify failed"):
        await connection.node_certificate_status(api.NodeCertificateStatusRequest(node_id="x"), 5)
    await connection.close(success=False)


async def test_nobody_there() -> None:
    """A manager that does not answer loses weight."""
    remotes = Remotes()
    peer = RemotePeer("", "127.0.0.1:1")
    remotes.observe(peer, DEFAULT_WEIGHT)
    broker = ConnectionBroker(remotes, lambda: pki.issue(ROOT, now=time.time()))
    with pytest.raises(Unavailable):
        await GrpcConnector(broker).connect(Dial(None))
    assert remotes.weights()[peer] < DEFAULT_WEIGHT // 2
