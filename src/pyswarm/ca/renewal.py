"""Renewing the node's certificate in time, or when told to (spec/ca-and-security, section 13)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from pyswarm.ca.backoff import Backoff
from pyswarm.ca.client import Client
from pyswarm.ca.credentials import Credentials, SecurityConfig
from pyswarm.ca.keystore import KeyStore
from pyswarm.clock import Clock, wait_for
from pyswarm.errors import SwarmError

log = structlog.get_logger(__name__)

FORCED_DELAY = 0.5
"""Seconds before a forced renewal, in which the leader can settle the role."""
_FAILURES = Backoff(base=5.0, factor=5.0, limit=3600.0)
_LOOK_AGAIN = 3600.0
"""Seconds after which the calendar is asked again: it may have been set, or the machine asleep, which no timer notices."""
_REST = 60.0
"""Seconds without a renewal after one, unless forced: where clocks disagree, a new certificate may look due at once."""
_EARLIEST, _LATEST = 50, 80


@dataclass(frozen=True, slots=True)
class Update:
    """A renewal that succeeded, with the role in the new certificate, or why one failed."""

    role: str = ""
    error: SwarmError | None = None


def renewal_delay(not_before: float, not_after: float, now: float, fraction: float) -> float:
    """Seconds from `now` to the renewal: a whole minute between 50 % and 80 % of the validity, chosen by `fraction` in [0, 1)."""
    minutes = int((not_after - not_before) // 60)
    earliest, latest = minutes * _EARLIEST // 100, minutes * _LATEST // 100
    chosen = earliest + int(fraction * (latest - earliest)) if latest - earliest >= 1 else earliest
    return max(0.0, not_before + chosen * 60.0 - now)


class Renewer:
    """Renews for the life of the node; one renewal at a time. `run()` until cancelled."""

    def __init__(
        self, security: SecurityConfig, keystore: KeyStore, client: Client, clock: Clock, rng: random.Random | None = None
    ) -> None:
        self._security = security
        self._keystore = keystore
        self._client = client
        self._clock = clock
        # Only spreads renewals over time.
        self._rng = rng or random.Random()  # noqa: S311
        self._forced = asyncio.Event()
        self._outstanding = False
        self._expected = ""
        self._failures = 0
        self._rested_at = clock.monotonic()
        self._fraction_of: tuple[bytes, float] = (b"", 0.0)
        self._callbacks: dict[object, Callable[[Update], None]] = {}

    def force(self) -> None:
        """Renew soon. Calls while one is already waiting to happen count once."""
        self._forced.set()

    def expect_role(self, role: str) -> None:
        """From now on a certificate with another role (`swarm-manager`, `swarm-worker`) is not announced, and renewal repeats."""
        self._expected = role

    def subscribe(self, callback: Callable[[Update], None]) -> Callable[[], None]:
        """Call back, on the loop, with every outcome worth knowing. Must not raise. Returns undo."""
        token = object()
        self._callbacks[token] = callback

        def undo() -> None:
            self._callbacks.pop(token, None)

        return undo

    async def run(self) -> None:
        """Wait and renew until cancelled; failures are reported and retried with growing pauses, up to an hour."""
        while True:
            delay = self._delay()
            if await wait_for(self._forced, self._clock, min(delay, _LOOK_AGAIN)):
                self._forced.clear()
                self._outstanding = True
                await self._clock.sleep(FORCED_DELAY)
            elif delay > _LOOK_AGAIN:
                continue
            await self._renew_once()

    def _delay(self) -> float:
        current, now = self._security.current, self._clock.now()
        if now >= current.not_after or self._outstanding:
            return _FAILURES.delay(self._failures, self._rng)
        scheduled = renewal_delay(current.not_before, current.not_after, now, self._fraction(current))
        # Past its scheduled moment a certificate that cannot be renewed must not be asked for without pause.
        return max(scheduled, _FAILURES.delay(self._failures, self._rng), self._rested_at - self._clock.monotonic())

    def _fraction(self, current: Credentials) -> float:
        """Where in its window this certificate is renewed: chosen once, however often the calendar is looked at."""
        certificate, fraction = self._fraction_of
        if certificate != current.cert_pem:
            fraction = self._rng.random()
            self._fraction_of = (current.cert_pem, fraction)
            seconds = renewal_delay(current.not_before, current.not_after, self._clock.now(), fraction)
            log.debug("next certificate renewal", seconds=round(seconds))
        return fraction

    async def _renew_once(self) -> None:
        before = self._security.current
        try:
            fresh = await self._client.renew(before, self._keystore)
            self._take(before, fresh)
        except SwarmError as error:
            self._failures += 1
            log.warning("certificate not renewed", failures=self._failures, error=error.message)
            self._report(Update(error=error))
            return
        except OSError as error:
            self._failures += 1
            log.error("renewed certificate not saved", failures=self._failures, error=str(error))
            return
        if self._expected and fresh.role != self._expected:
            self._failures += 1
            log.info("renewed certificate has the old role still", role=fresh.role, expected=self._expected)
            return
        self._failures = 0
        self._outstanding = False
        self._rested_at = self._clock.monotonic() + _REST
        log.info("certificate renewed", node=fresh.node_id, role=fresh.role)
        self._report(Update(role=fresh.role))

    def _take(self, before: Credentials, fresh: Credentials) -> None:
        """Switch the live credentials. A root that changed meanwhile stays; one that the renewal itself brought comes along."""
        roots = {fresh.root_pem, self._security.current.root_pem}
        if before.root_pem in roots and fresh.root_pem != before.root_pem:
            self._security.replace_all(fresh)
        else:
            self._security.replace_certificate(fresh.cert_pem, fresh.key_pem)

    def _report(self, update: Update) -> None:
        for callback in list(self._callbacks.values()):
            callback(update)
