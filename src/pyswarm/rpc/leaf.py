"""Trust by pinning: how a client talks TLS to a manager whose root it does not know yet.

gRPC for Python cannot skip verification of a server's certificate. So the certificate the server shows is fetched first over a plain
handshake that verifies nothing, and then becomes the only trust anchor of the real channel. On a local socket the file's permissions are
the guard; a joining node checks the fetched root against the digest in its token afterwards.

Only the standard library until credentials are asked for: the command line starts with this and must start fast.
"""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING, Any

from pyswarm.errors import Unavailable

if TYPE_CHECKING:
    import grpc

TARGET_NAME = "swarm-manager"
"""A subject alternative name of every manager's certificate."""


def fetch_leaf(address: str, timeout: float = 5.0) -> bytes:
    """The certificate (PEM) of the TLS server at `address`, unverified.

    `address` is `unix:/path` or `host:port` (`[v6]:port` too), `timeout` in seconds bounds every wait for the peer. The handshake offers
    ALPN `h2`, which Go's gRPC servers insist on. Raises Unavailable with the reason: no such socket, refused, no TLS there, no answer.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        with _connect(address, timeout) as plain, context.wrap_socket(plain, server_hostname=TARGET_NAME) as secure:
            der = secure.getpeercert(binary_form=True)
    except TimeoutError:
        raise Unavailable(f"{address}: no answer within {timeout:g} s") from None
    except ssl.SSLError as error:
        raise Unavailable(f"{address}: TLS handshake failed: {error.reason or error}") from None
    except OSError as error:
        raise Unavailable(f"{address}: {error.strerror or error}") from None
    if not der:
        raise Unavailable(f"{address}: the server showed no certificate")
    return ssl.DER_cert_to_PEM_cert(der).encode()


def pinned_credentials(leaf_pem: bytes) -> tuple[grpc.ChannelCredentials, list[tuple[str, Any]]]:
    """Credentials that trust `leaf_pem` and nothing else, without a client certificate, and the channel options that go with them.

    Messages of any size may be received (a cluster's task list has no bound), and no proxy from the environment is used.
    """
    import grpc

    options: list[tuple[str, Any]] = [
        ("grpc.ssl_target_name_override", TARGET_NAME),
        ("grpc.max_receive_message_length", -1),
        ("grpc.enable_http_proxy", 0),
    ]
    return grpc.ssl_channel_credentials(root_certificates=leaf_pem), options


def _connect(address: str, timeout: float) -> socket.socket:
    """A connected stream socket; raises OSError."""
    if not address.startswith("unix:"):
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit():
            raise OSError("not an address of the form host:port")
        return socket.create_connection((host.strip("[]"), int(port)), timeout=timeout)
    plain = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        plain.settimeout(timeout)
        plain.connect(address.removeprefix("unix:").removeprefix("//"))
    except BaseException:
        plain.close()
        raise
    return plain
