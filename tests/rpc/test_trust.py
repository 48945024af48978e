"""What a changed root does to connections, and which protocol versions are spoken."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import ssl
from pathlib import Path

import grpc.aio
import pytest

from pyswarm.api import v1 as api
from pyswarm.api.swarmkit import raft_pb2
from pyswarm.api.swarmkit.ca_pb2_grpc import CAStub
from pyswarm.api.swarmkit.control_pb2_grpc import ControlStub
from pyswarm.api.swarmkit.dispatcher_pb2_grpc import DispatcherStub
from pyswarm.api.swarmkit.raft_pb2_grpc import RaftMembershipStub
from pyswarm.rpc import channel
from pyswarm.rpc.binder import bind
from pyswarm.rpc.caller import WORKER
from pyswarm.rpc.server import split_address
from tests.rpc.pki import Authority, Toy, manager_security, remote_port, toy_services


async def whoami(opened: grpc.aio.Channel) -> bytes:
    """Whom the port takes the channel's owner for."""
    answer = await CAStub(opened).GetRootCACertificate(api.GetRootCACertificateRequest(), timeout=10)
    return bytes(answer.certificate)


async def test_a_further_root_is_trusted_at_once(tmp_path: Path) -> None:
    """Client and server of two clusters refuse each other until each trusts both roots; nothing is restarted for it. [ca 33]"""
    ours, theirs = Authority(), Authority()
    both = ours.root.bundle + theirs.root.bundle
    security = manager_security(ours)
    stranger = theirs.issue("worker-9", WORKER)
    trusting = dataclasses.replace(stranger, root_pem=both)
    async with remote_port(security, toy_services(Toy()), tmp_path / "rpc") as server:
        for credentials in (stranger, trusting):
            async with channel.connect(server.address, credentials) as opened:
                with pytest.raises(grpc.aio.AioRpcError):
                    await whoami(opened)
        security.replace_root(both)
        async with channel.connect(server.address, stranger) as opened:
            with pytest.raises(grpc.aio.AioRpcError):
                await whoami(opened)
        async with channel.connect(server.address, trusting) as opened:
            assert await whoami(opened) == b"worker-9|swarm-worker"


async def test_tls_before_1_2_is_not_spoken(tmp_path: Path) -> None:
    """A client that knows TLS 1.1 at most gets an alert about the version. [ca 31 in part]"""
    authority = Authority()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1

    def talk(host: str, port: int) -> None:
        with socket.create_connection((host, port), timeout=10) as plain:
            context.wrap_socket(plain)

    async with remote_port(manager_security(authority), toy_services(Toy()), tmp_path / "rpc") as server:
        with pytest.raises(ssl.SSLError, match=r"(?i)protocol.version"):
            await asyncio.to_thread(talk, *split_address(server.address))


async def test_who_shows_no_certificate_may_not(tmp_path: Path) -> None:
    """Sessions, commands and membership are for members; the port that was chosen is known. [dispatcher 174, 178 in part; ca 158]"""
    authority = Authority()
    membership = bind(raft_pb2.DESCRIPTOR.services_by_name["RaftMembership"], object())
    async with remote_port(manager_security(authority), [*toy_services(Toy()), membership], tmp_path / "rpc") as server:
        assert split_address(server.address)[1] != 0
        async with channel.connect_anonymous(server.address, authority.root.bundle) as opened:
            for call in (
                DispatcherStub(opened).Heartbeat(api.HeartbeatRequest(), timeout=10),
                ControlStub(opened).ListNodes(api.ListNodesRequest(), timeout=10),
                RaftMembershipStub(opened).Join(api.JoinRequest(), timeout=10),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as failure:
                    await call
                assert failure.value.code() is grpc.StatusCode.PERMISSION_DENIED
                assert failure.value.details() == (
                    "Permission denied: unauthorized peer role: rpc error: code = PermissionDenied desc = no client certificates in request"
                )
