"""Channels to managers. A grpcio channel cannot change its credentials, so one is made per session and closed with it.

Addresses are `host:port` or `unix:/path`. HTTP proxies from the environment are never used.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from pyswarm.ca.credentials import Credentials
from pyswarm.rpc.leaf import fetch_leaf, pinned_credentials

MANAGER_NAME = "swarm-manager"
CA_NAME = "swarm-ca"

Option = tuple[str, Any]

SESSION_OPTIONS: Sequence[Option] = (("grpc.http2.bdp_probe", 0),)
"""For a node's session, on which small messages come: gRPC answers each with a ping to measure the line, and a manager has many nodes."""

_OPTIONS: list[Option] = [
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", -1),
    # Without this, closing a channel leaves its connection to the next channel that looks alike.
    ("grpc.use_local_subchannel_pool", 1),
]

KEEPALIVE: list[Option] = [
    # A peer that answers nothing while calls run is noticed in fifteen seconds.
    ("grpc.keepalive_time_ms", 10_000),
    # What was sent and is not acknowledged for this long ends the connection too (TCP_USER_TIMEOUT). Without it TCP repeats itself ever
    # more rarely, and after a network that lost everything for a minute it would stay silent for most of another.
    ("grpc.keepalive_timeout_ms", 5_000),
]
"""Options of a connection on which calls last, between managers."""


def connect(addr: str, credentials: Credentials, server_name: str = MANAGER_NAME, *, options: Sequence[Option] = ()) -> grpc.aio.Channel:
    """A channel to a remote manager, showing the node certificate and verifying `server_name` against the roots. Connects lazily.

    `options` are further gRPC channel arguments.
    """
    secrets = grpc.ssl_channel_credentials(credentials.root_pem, credentials.key_pem, credentials.cert_pem)
    return _channel(addr, secrets, server_name, options)


def connect_anonymous(addr: str, root_pem: bytes, server_name: str = CA_NAME) -> grpc.aio.Channel:
    """A channel for a node that has the root but no certificate yet."""
    return _channel(addr, grpc.ssl_channel_credentials(root_pem), server_name)


def connect_local(socket_path: Path, credentials: Credentials) -> grpc.aio.Channel:
    """A channel to this node's own control socket, without a client certificate.

    The socket shows this node's own certificate, so there is no need to skip verification as a stranger must: its name is the node id.
    """
    return _channel(f"unix:{socket_path}", grpc.ssl_channel_credentials(credentials.root_pem), credentials.node_id)


async def connect_unverified(addr: str) -> grpc.aio.Channel:
    """A channel to whoever answers at `addr`, pinned to the certificate it shows now; for fetching a root whose digest is checked after.

    Raises Unavailable when nobody answers within five seconds.
    """
    leaf = await asyncio.to_thread(fetch_leaf, addr)
    secrets, options = pinned_credentials(leaf)
    return grpc.aio.secure_channel(addr, secrets, options=[*_OPTIONS, *options])


def _channel(addr: str, secrets: grpc.ChannelCredentials, server_name: str, options: Sequence[Option] = ()) -> grpc.aio.Channel:
    return grpc.aio.secure_channel(addr, secrets, options=[*_OPTIONS, *options, ("grpc.ssl_target_name_override", server_name)])
