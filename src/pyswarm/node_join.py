"""Joining, as far as the node process has a say: whom to ask, whether the disk belongs to another cluster, and errors a person can use."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import structlog
from cryptography import x509

from pyswarm.api import v1 as api
from pyswarm.ca import keystore, tokens
from pyswarm.ca.client import CALL_SECONDS, Connect, Dial, FingerprintError
from pyswarm.ca.keystore import KeyStore, LockedError
from pyswarm.errors import Code, FailedPrecondition, InvalidArgument, SwarmError

log = structlog.get_logger(__name__)


class StartError(FailedPrecondition):
    """The node cannot start; one line that names the object and the remedy."""


async def refuse_other_cluster(directory: Path, join_addr: str, join_token: str, connect: Connect) -> None:
    """Raise StartError when the certificates in `directory` are another cluster's than the one asked for.

    Credentials on disk win over a token, and the token of a first start may stay on the command line for ever. So a token that does not fit
    the root on disk means nothing yet (the root may have been rotated since): only when the cluster at `join_addr` shows the very root
    that the token speaks of, and not ours, it is certain.
    """
    bundle = KeyStore(directory).read_root()
    if bundle is None or not join_token or not (directory / keystore.CERT_FILE).exists():
        return
    digest = tokens.parse(join_token).digest
    if tokens.digest_matches(bundle, digest):
        return
    try:
        connection = await connect(Dial(None, force_remote=True))
        try:
            answer = await connection.get_root_ca_certificate(api.GetRootCACertificateRequest(), CALL_SECONDS)
        finally:
            await connection.close(success=True)
    except SwarmError as error:
        log.info("the cluster to join does not answer; using the certificates on disk", addr=join_addr, error=error.message)
        return
    if tokens.digest_matches(answer.certificate, digest) and not _overlap(answer.certificate, bundle):
        raise StartError(
            f"the certificates in {directory} belong to another cluster than the one at {join_addr}; "
            "use an empty state directory to join that one, or leave out --join-addr and --join-token to stay in this one"
        )


def explain(error: SwarmError, join_addr: str) -> SwarmError:
    """The same failure of a first start, with what to do about it."""
    message = error.message
    if isinstance(error, LockedError):
        return StartError(f"{message}; give it with --unlock-key (a running manager prints it: pyswarmctl cluster unlock-key)")
    if not join_addr:
        return error
    if isinstance(error, FingerprintError):
        remedy = "the token is another cluster's, or older than its present root; get one there: pyswarmctl cluster inspect default"
    elif isinstance(error, InvalidArgument) and message == "invalid join token":
        remedy = "copy the whole token, it has the form SWMTKN-1-<50 characters>-<25 characters>"
    elif error.code is Code.INVALID_ARGUMENT and "join token" in message:
        remedy = "the one given is missing, wrong or was replaced; get the present one: pyswarmctl cluster inspect default"
    elif error.code in (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED):
        remedy = "check the address given with --join-addr, and that a manager is running there"
    else:
        return StartError(f"cannot join the cluster at {join_addr}: {message}")
    return StartError(f"cannot join the cluster at {join_addr}: {message}; {remedy}")


def distrust(error: SwarmError, join_addr: str, certificates: Path) -> StartError:
    """The first session failed because the manager's certificate does not verify."""
    return StartError(
        f"cannot join the cluster at {join_addr}: {error.message}; if that is another cluster than the one in {certificates}, "
        "use an empty state directory to join it, or leave out --join-addr to stay in this one"
    )


def warn_of_address(listen: str, advertise: str) -> None:
    """Log a warning when a manager has no address that other nodes could reach it at for certain."""
    host = listen.rpartition(":")[0].strip("[]")
    try:
        vague = not host or ipaddress.ip_address(host).is_unspecified or ipaddress.ip_address(host).is_loopback
    except ValueError:
        vague = False
    if vague and not advertise:
        log.warning(
            "the listen address does not tell other managers where this one is; name one with --advertise-remote-api", listen=listen
        )


def _overlap(one: bytes, other: bytes) -> bool:
    """Two bundles with a root in common are one cluster's, before and during a rotation."""
    return bool(set(x509.load_pem_x509_certificates(one)) & set(x509.load_pem_x509_certificates(other)))
