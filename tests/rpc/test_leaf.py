"""Pinning: fetching a server's certificate unverified and talking to exactly that server."""

from __future__ import annotations

import datetime
import socket
import threading
from concurrent import futures
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pyswarm.errors import Unavailable
from pyswarm.rpc.leaf import fetch_leaf, pinned_credentials


def make_identity() -> tuple[bytes, bytes]:
    """A leaf certificate and key in PEM, issued by a root nobody is told about."""
    root_key, leaf_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "swarm-ca")])
    names = [x509.DNSName("swarm-manager"), x509.DNSName("swarm-ca")]
    leaf = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "node")]))
        .issuer_name(issuer)
        .public_key(leaf_key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(root_key, hashes.SHA256())
    )
    key = leaf_key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return leaf.public_bytes(serialization.Encoding.PEM), key


def serve(address: str) -> tuple[grpc.Server, bytes, int]:
    """A gRPC server that echoes bytes at /test/Echo; returns it, its leaf and its port."""
    leaf, key = make_identity()
    handler = grpc.method_handlers_generic_handler("test", {"Echo": grpc.unary_unary_rpc_method_handler(lambda request, _: request)})
    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((handler,))
    port = server.add_secure_port(address, grpc.ssl_server_credentials([(key, leaf)]))
    server.start()
    return server, leaf, port


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_pinned_channel(kind: str, tmp_path: Path) -> None:
    """The fetched leaf is the server's own, and a channel that trusts only it reaches the server without knowing its root."""
    unix = f"unix:{tmp_path}/s.sock"
    server, leaf, port = serve(unix if kind == "unix" else "127.0.0.1:0")
    address = unix if kind == "unix" else f"127.0.0.1:{port}"
    try:
        fetched = fetch_leaf(address)
        assert fetched.split() == leaf.split()
        credentials, options = pinned_credentials(fetched)
        with grpc.secure_channel(address, credentials, options=options) as channel:
            assert channel.unary_unary("/test/Echo")(b"hello", timeout=10) == b"hello"
    finally:
        server.stop(None).wait()


def test_other_leaf_is_refused(tmp_path: Path) -> None:
    """A channel pinned to another certificate does not talk to the server."""
    server, _, _ = serve(f"unix:{tmp_path}/s.sock")
    credentials, options = pinned_credentials(make_identity()[0])
    try:
        with (
            grpc.secure_channel(f"unix:{tmp_path}/s.sock", credentials, options=options) as channel,
            pytest.raises(grpc.RpcError) as caught,
        ):
            channel.unary_unary("/test/Echo")(b"hello", timeout=10)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    finally:
        server.stop(None).wait()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "No such file or directory"),
        (lambda path: path.write_text("stale"), "Connection refused"),
    ],
)
def test_nothing_there(make: object, reason: str, tmp_path: Path) -> None:
    """A missing or dead socket is Unavailable with the address and the system's reason."""
    path = tmp_path / "s.sock"
    make(path)  # type: ignore[operator]
    with pytest.raises(Unavailable) as caught:
        fetch_leaf(f"unix:{path}")
    assert caught.value.message == f"unix:{path}: {reason}"


def test_silent_server(tmp_path: Path) -> None:
    """A socket that accepts and never answers ends with the timeout, not never."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{tmp_path}/s.sock")
        listener.listen()
        with pytest.raises(Unavailable, match=r"no answer within 0\.1 s"):
            fetch_leaf(f"unix:{tmp_path}/s.sock", timeout=0.1)


def test_not_tls(tmp_path: Path) -> None:
    """A server that speaks something else is Unavailable with the failed handshake as reason."""

    def answer() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{tmp_path}/s.sock")
        listener.listen()
        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(Unavailable, match="TLS handshake failed"):
            fetch_leaf(f"unix:{tmp_path}/s.sock")
        thread.join()


def test_bad_address() -> None:
    """An address without a port says what form is expected."""
    with pytest.raises(Unavailable, match="host:port"):
        fetch_leaf("nowhere")
