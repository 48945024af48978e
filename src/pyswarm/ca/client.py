"""The asking side: fetching a root nobody vouches for yet but a token, and getting a certificate (spec/ca-and-security, section 12).

Talks to managers only through a `Connect` function, so the algorithm is tested without a network; `connect` holds the real one.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeAlias, TypeVar

import structlog

from pyswarm.api import v1 as api
from pyswarm.ca import credentials, csr, tokens, validate
from pyswarm.ca.backoff import Backoff
from pyswarm.ca.credentials import Credentials
from pyswarm.ca.keystore import KeyStore
from pyswarm.ca.root import CA_NAME
from pyswarm.ca.unlock import KEK
from pyswarm.clock import Clock
from pyswarm.errors import DeadlineExceeded, InvalidArgument, NotFound, SwarmError, Unimplemented, Unknown
from pyswarm.rpc.caller import MANAGER, WORKER

log = structlog.get_logger(__name__)
R = TypeVar("R")

ATTEMPTS = 5
RETRY_SECONDS = 2.0
RENEWAL_RETRY_SECONDS = 0.5
"""The reference does not wait at all here, which only hammers a manager that is just starting to lead."""
CALL_SECONDS = 5.0
_POLL = Backoff(base=1.0, factor=1.0, limit=30.0)
_State = api.IssuanceStatus.State


@dataclass(frozen=True, slots=True)
class Dial:
    """What kind of connection to a manager is wanted."""

    root_pem: bytes | None
    """Whom to trust; None: whoever answers, because what it says is checked in another way."""
    server_name: str = MANAGER
    """The name that the server's certificate must carry."""
    credentials: Credentials | None = None
    """The client certificate to show; None: none."""
    force_remote: bool = False
    """Do not use the manager on this node."""


class Connection(Protocol):
    """An open connection to one manager. Calls raise SwarmError; `seconds` bounds each and its end is DeadlineExceeded."""

    async def get_root_ca_certificate(self, request: api.GetRootCACertificateRequest, seconds: float) -> api.GetRootCACertificateResponse:
        """CA.GetRootCACertificate."""
        ...

    async def get_unlock_key(self, request: api.GetUnlockKeyRequest, seconds: float) -> api.GetUnlockKeyResponse:
        """CA.GetUnlockKey."""
        ...

    async def issue_node_certificate(self, request: api.IssueNodeCertificateRequest, seconds: float) -> api.IssueNodeCertificateResponse:
        """NodeCA.IssueNodeCertificate."""
        ...

    async def node_certificate_status(self, request: api.NodeCertificateStatusRequest, seconds: float) -> api.NodeCertificateStatusResponse:
        """NodeCA.NodeCertificateStatus."""
        ...

    async def close(self, *, success: bool) -> None:
        """Done with it; tells how the manager did, which decides how readily it is asked again."""
        ...


Connect: TypeAlias = Callable[[Dial], Awaitable[Connection]]


class IssuanceError(Unknown):
    """The cluster refused to sign this request, for good."""


class FingerprintError(Unknown):
    """The manager's root is not the one the join token speaks of."""

    def __init__(self, expected: str) -> None:
        super().__init__(f"remote CA does not match fingerprint. Expected: {expected}")


@dataclass(frozen=True, slots=True)
class Request:
    """Who asks for a certificate: a newcomer with a token, or a member with its present credentials."""

    root_pem: bytes
    token: str = field(default="", repr=False)
    availability: api.NodeSpec.Availability.ValueType = api.NodeSpec.Availability.ACTIVE
    current: Credentials | None = None

    @property
    def retry_seconds(self) -> float:
        """Pause between attempts."""
        return RETRY_SECONDS if self.current is None else RENEWAL_RETRY_SECONDS

    def dial(self, *, force_remote: bool) -> Dial:
        """The connection for the request itself."""
        return Dial(self.root_pem, CA_NAME if self.current is None else MANAGER, self.current, force_remote)


class Client:
    """Runs the algorithm. Cancelling a call abandons it; nothing is written before everything was checked."""

    def __init__(self, connect: Connect, clock: Clock, rng: random.Random | None = None) -> None:
        self._connect = connect
        self._clock = clock
        # Only spreads polls.
        self._rng = rng or random.Random()  # noqa: S311

    async def fetch_root(self, token: str) -> bytes:
        """The cluster's trusted bundle, checked against the digest in `token`; an empty token trusts whoever answers.

        Raises InvalidArgument for a malformed token, before any connection; FingerprintError at once; after the last attempt its error.
        """
        digest = tokens.parse(token).digest if token else ""

        async def attempt(force_remote: bool) -> bytes:
            dial = Dial(None, force_remote=force_remote)
            empty = api.GetRootCACertificateRequest()
            answer = await self._call(dial, lambda peer: peer.get_root_ca_certificate(empty, CALL_SECONDS))
            bundle = answer.certificate
            if digest and not tokens.digest_matches(bundle, digest):
                raise FingerprintError(digest)
            validate.validate_roots(bundle, self._clock.now())
            return bundle

        return await self._attempts(attempt, RETRY_SECONDS)

    async def request_certificate(self, request: Request, keystore: KeyStore) -> Credentials:
        """A new key and a certificate for it, written to `keystore` and returned. The live credentials are the caller's to switch.

        Raises IssuanceError when the request was refused, UnknownAuthorityError when the answer belongs to another root, CertificateError
        when it is unusable otherwise, and any SwarmError of the last attempt.
        """
        return await self._finish(request, keystore, await self._obtain(request))

    async def renew(self, current: Credentials, keystore: KeyStore) -> Credentials:
        """As `request_certificate`, for a member. A worker whose cluster has a new root meanwhile first takes that, if it is safe.

        The new root is safe when it also validates the present certificate: nobody but the cluster can make such a root, so no digest is
        needed. Managers learn roots from the log and never do this. The returned credentials may trust another root than `current`.
        """
        request = Request(current.root_pem, current=current)
        signed = await self._obtain(request)
        try:
            return await self._finish(request, keystore, signed)
        except validate.UnknownAuthorityError:
            if WORKER not in _roles(signed.cert_pem) or MANAGER in _roles(signed.cert_pem):
                raise
        bundle = await self.fetch_root("")
        credentials.build(bundle, current.cert_pem, current.key_pem, self._clock.now())
        log.info("took over a new root from the cluster", node=current.node_id)
        await asyncio.to_thread(keystore.write_root, bundle)
        return await self.request_certificate(replace(request, root_pem=bundle, current=replace(current, root_pem=bundle)), keystore)

    async def _obtain(self, request: Request) -> _Signed:
        csr_pem, key_pem = csr.generate()

        async def attempt(force_remote: bool) -> bytes:
            return await self._submit_and_poll(request, csr_pem, force_remote=force_remote)

        return _Signed(await self._attempts(attempt, request.retry_seconds), key_pem)

    async def _finish(self, request: Request, keystore: KeyStore, signed: _Signed) -> Credentials:
        fresh = credentials.build(request.root_pem, signed.cert_pem, signed.key_pem, self._clock.now())
        kek = await self._kek(fresh, request.retry_seconds)
        await asyncio.to_thread(keystore.write, fresh.cert_pem, fresh.key_pem, kek)
        return fresh

    async def _kek(self, fresh: Credentials, retry_seconds: float) -> KEK:
        """How to encrypt the new key: as the cluster says for a manager, never for a worker, which may have been a manager before."""
        if not fresh.is_manager:
            return KEK()

        async def attempt(force_remote: bool) -> KEK:
            dial = Dial(fresh.root_pem, CA_NAME, fresh, force_remote)
            try:
                answer = await self._call(dial, lambda peer: peer.get_unlock_key(api.GetUnlockKeyRequest(), CALL_SECONDS))
            except Unimplemented:
                return KEK()
            return KEK(answer.unlock_key, answer.version.index)

        return await self._attempts(attempt, retry_seconds)

    async def _attempts(self, attempt: Callable[[bool], Awaitable[R]], retry_seconds: float) -> R:
        """Up to five attempts; all but the first avoid the manager on this node, which may have been demoted just now."""
        for number in range(1, ATTEMPTS):
            try:
                return await attempt(number > 1)
            except (IssuanceError, FingerprintError, InvalidArgument):
                # Asking again cannot help.
                raise
            except SwarmError as error:
                log.info("asking a manager failed, trying again", attempt=number, error=error.message)
            await self._clock.sleep(retry_seconds)
        return await attempt(True)

    async def _call(self, dial: Dial, call: Callable[[Connection], Awaitable[R]]) -> R:
        """One call on a connection of its own."""
        connection = await self._connect(dial)
        success = False
        try:
            answer = await call(connection)
            success = True
        except Unimplemented:
            success = True
            raise
        finally:
            await connection.close(success=success)
        return answer

    async def _submit_and_poll(self, request: Request, csr_pem: bytes, *, force_remote: bool) -> bytes:
        line = _Line(self._connect, request)
        try:
            connection = await line.open(force_remote=force_remote)
            issue = api.IssueNodeCertificateRequest(csr=csr_pem, token=request.token, availability=request.availability)
            poll = api.NodeCertificateStatusRequest(node_id=(await connection.issue_node_certificate(issue, CALL_SECONDS)).node_id)
            for failures in itertools.count(1):
                try:
                    answer = await connection.node_certificate_status(poll, CALL_SECONDS)
                except DeadlineExceeded:
                    # It holds the call until there is a decision, so this is how waiting looks.
                    pass
                except NotFound:
                    # Removed while waiting: nobody will ever sign this.
                    raise
                except SwarmError as error:
                    log.info("waiting for the certificate at another manager", node=poll.node_id, error=error.message)
                    connection = await line.open(force_remote=True)
                else:
                    line.worked()
                    if issued := _take(answer, csr_pem):
                        return issued
                await self._clock.sleep(_POLL.delay(failures, self._rng))
            raise AssertionError("unreachable")
        finally:
            await line.close()


@dataclass(frozen=True, slots=True)
class _Signed:
    """A certificate as it came from the cluster, not checked yet, and our key for it."""

    cert_pem: bytes
    key_pem: bytes = field(repr=False)


class _Line:
    """The connection a poll goes over, which may have to change on the way."""

    def __init__(self, connect: Connect, request: Request) -> None:
        self._connect = connect
        self._request = request
        self._open: Connection | None = None
        self._success = False

    async def open(self, *, force_remote: bool) -> Connection:
        """A new connection; the one before, which failed, is closed."""
        await self.close()
        self._open = await self._connect(self._request.dial(force_remote=force_remote))
        return self._open

    def worked(self) -> None:
        """The manager did what it should."""
        self._success = True

    async def close(self) -> None:
        """Close what is open."""
        connection, self._open = self._open, None
        success, self._success = self._success, False
        if connection is not None:
            await connection.close(success=success)


def _take(answer: api.NodeCertificateStatusResponse, csr_pem: bytes) -> bytes | None:
    """The certificate if the answer is about our request and says issued; None to go on polling. Raises IssuanceError."""
    if answer.certificate.csr != csr_pem:
        # The record is still, or already, about another request.
        return None
    if answer.status.state == _State.FAILED:
        raise IssuanceError(answer.status.err or "the cluster refused to sign the certificate")
    if answer.status.state not in {_State.ISSUED, _State.ROTATE}:
        return None
    if not answer.certificate.certificate:
        raise IssuanceError("no certificate in CertificateStatus response")
    return answer.certificate.certificate


def _roles(cert_pem: bytes) -> tuple[str, ...]:
    return credentials.identity_of(validate.parse_certificates(cert_pem)[0]).roles
