"""A manager for the command line to talk to: the Control, CA and Logs services over a few dictionaries, on a real socket with real TLS."""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pyswarm.api import times
from pyswarm.api import v1 as api
from pyswarm.api.private import why_pb2, why_pb2_grpc
from pyswarm.api.swarmkit import ca_pb2_grpc, control_pb2_grpc, logbroker_pb2_grpc

KINDS = ("Cluster", "Node", "Service", "Task", "Secret", "Config", "Network", "Volume")


def identity() -> tuple[bytes, bytes]:
    """Certificate and key (PEM) of a manager."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "manager")]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "swarm-ca")]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("swarm-manager")]), critical=False)
        .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    )
    encoded = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return certificate.public_bytes(serialization.Encoding.PEM), encoded


def object_id(number: int) -> str:
    """An ID of the usual length."""
    return f"id{number:04d}".ljust(25, "a")


def name_of(kind: str, stored: object) -> str:
    """What the name filter of a list looks at."""
    if kind == "Node":
        return stored.description.hostname  # type: ignore[attr-defined]
    if kind == "Task":
        return f"{stored.service_annotations.name}.{stored.slot}.{stored.id}"  # type: ignore[attr-defined]
    return stored.spec.annotations.name  # type: ignore[attr-defined]


class Manager(control_pb2_grpc.ControlServicer, ca_pb2_grpc.CAServicer, logbroker_pb2_grpc.LogsServicer, why_pb2_grpc.WhyServicer):
    """Objects by kind and ID; `calls` has every request; `failures` maps a method to its error, `holding` to what it waits for."""

    def __init__(self) -> None:
        self.stored: dict[str, dict[str, object]] = {kind: {} for kind in KINDS}
        self.calls: list[tuple[str, object]] = []
        self.failures: dict[str, tuple[grpc.StatusCode, str]] = {}
        self.holding: dict[str, threading.Event] = {}
        self.key = b""
        self.messages: list[api.LogMessage] = []
        self.breaks: list[tuple[grpc.StatusCode, str]] = []
        self.more: list[api.LogMessage] = []
        self.explanations = why_pb2.ExplainResponse()

    def add(self, stored: object) -> None:
        """Store an object."""
        self.stored[type(stored).__name__][stored.id] = stored  # type: ignore[attr-defined]

    def requests(self, method: str) -> list[object]:
        """What was asked of a method."""
        return [request for name, request in self.calls if name == method]

    def note(self, method: str, request: object, context: grpc.ServicerContext) -> None:
        """Remember the call, and fail if it is meant to."""
        self.calls.append((method, request))
        if method in self.holding:
            self.holding[method].wait(30)
        if method in self.failures:
            context.abort(*self.failures[method])

    def GetUnlockKey(self, request: object, context: grpc.ServicerContext) -> object:  # noqa: N802
        """CA.GetUnlockKey."""
        self.note("GetUnlockKey", request, context)
        return api.GetUnlockKeyResponse(unlock_key=self.key)

    def Explain(self, request: object, context: grpc.ServicerContext) -> object:  # noqa: N802
        """Why.Explain."""
        self.note("Explain", request, context)
        return self.explanations

    def SubscribeLogs(self, request: object, context: grpc.ServicerContext) -> Iterator[object]:  # noqa: N802
        """Logs.SubscribeLogs."""
        self.calls.append(("SubscribeLogs", request))
        yield api.SubscribeLogsMessage(messages=self.messages)
        if self.breaks:
            self.messages += self.more
            context.abort(*self.breaks.pop(0))
        if "SubscribeLogs" in self.failures:
            context.abort(*self.failures["SubscribeLogs"])


def _define(kind: str) -> None:
    """Give Manager the five methods of a kind."""
    small = kind.lower()
    plural = f"{small}s"

    def get(self: Manager, request: object, context: grpc.ServicerContext) -> object:
        self.note(f"Get{kind}", request, context)
        wanted = getattr(request, f"{small}_id")
        if wanted not in self.stored[kind]:
            context.abort(grpc.StatusCode.NOT_FOUND, f"{small} {wanted} not found")
        return getattr(api, f"Get{kind}Response")(**{small: self.stored[kind][wanted]})

    def listed(self: Manager, request: object, context: grpc.ServicerContext) -> object:
        self.note(f"List{kind}s", request, context)
        filters = request.filters  # type: ignore[attr-defined]
        tests = []
        if filters.names:
            fold = str.lower if kind in {"Secret", "Config"} else str
            tests.append(lambda one: fold(name_of(kind, one)) in [fold(name) for name in filters.names])
        if filters.id_prefixes:
            tests.append(lambda one: one.id.startswith(tuple(filters.id_prefixes)))
        join = any if kind in {"Secret", "Config"} else all
        found = [one for _, one in sorted(self.stored[kind].items()) if not tests or join(test(one) for test in tests)]
        if kind == "Task" and filters.service_ids:
            found = [one for one in found if one.service_id in filters.service_ids]
        if kind == "Task" and filters.node_ids:
            found = [one for one in found if one.node_id in filters.node_ids]
        return getattr(api, f"List{kind}sResponse")(**{plural: found})

    def create(self: Manager, request: object, context: grpc.ServicerContext) -> object:
        self.note(f"Create{kind}", request, context)
        made = getattr(api, kind)(id=object_id(1000 + len(self.stored[kind])), spec=request.spec)  # type: ignore[attr-defined]
        made.meta.created_at.CopyFrom(times.timestamp(time.time()))
        self.add(made)
        return getattr(api, f"Create{kind}Response")(**{small: made})

    def update(self: Manager, request: object, context: grpc.ServicerContext) -> object:
        self.note(f"Update{kind}", request, context)
        stored = self.stored[kind][getattr(request, f"{small}_id")]
        stored.spec.CopyFrom(request.spec)  # type: ignore[attr-defined]
        return getattr(api, f"Update{kind}Response")(**{small: stored})

    def remove(self: Manager, request: object, context: grpc.ServicerContext) -> object:
        self.note(f"Remove{kind}", request, context)
        del self.stored[kind][getattr(request, f"{small}_id")]
        return getattr(api, f"Remove{kind}Response")()

    for name, method in ((f"Get{kind}", get), (f"List{kind}s", listed), (f"Create{kind}", create)):
        setattr(Manager, name, method)
    setattr(Manager, f"Update{kind}", update)
    setattr(Manager, f"Remove{kind}", remove)


for _kind in KINDS:
    _define(_kind)


@contextmanager
def serve(manager: Manager, path: Path) -> Iterator[None]:
    """The manager on its control socket."""
    certificate, key = identity()
    server = grpc.server(futures.ThreadPoolExecutor(4))
    control_pb2_grpc.add_ControlServicer_to_server(manager, server)
    ca_pb2_grpc.add_CAServicer_to_server(manager, server)
    logbroker_pb2_grpc.add_LogsServicer_to_server(manager, server)
    why_pb2_grpc.add_WhyServicer_to_server(manager, server)
    server.add_secure_port(f"unix:{path}", grpc.ssl_server_credentials([(key, certificate)]))
    server.start()
    try:
        yield
    finally:
        server.stop(None).wait()
