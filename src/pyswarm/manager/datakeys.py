"""The keys of this manager's log: made at the first start, replaced while the log is in use (spec/store-and-raft, section 18.5).

The key file says which keys there are and whether another is wanted; the log does the work; the order of writes between the two is here.
A key is in the file before anything is written under it, and leaves the file after everything under it is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from pyswarm.ca import dek
from pyswarm.clock import Clock, wait_for
from pyswarm.errors import SwarmError

log = structlog.get_logger(__name__)

RETRY_SECONDS = 5.0


class KeyFile(Protocol):
    """What is needed of `ca.keystore.KeyStore`."""

    def update_data_keys(self, change: Callable[[dek.DataKeys | None], dek.DataKeys | None]) -> dek.DataKeys | None:
        """See KeyStore."""
        ...


def data_keys(file: KeyFile) -> dek.DataKeys:
    """The keys in the file; a first one is made where there is none. Blocking; raises as `KeyStore.read`."""
    first = dek.DataKeys(dek.new_key())
    return file.update_data_keys(lambda known: known or first) or first


class DataKeyChange:
    """Replaces the data key whenever the key file says so. `run()` until cancelled; `look()` when the file may say something new.

    `rekey` puts the log under a key and returns when nothing is left under another.
    """

    def __init__(self, file: KeyFile, rekey: Callable[[bytes], Awaitable[None]], clock: Clock) -> None:
        self._file = file
        self._rekey = rekey
        self._clock = clock
        self._look = asyncio.Event()

    def look(self) -> None:
        """Another key may be wanted. During a change this leads to one more at most."""
        self._look.set()

    async def run(self) -> None:
        """Finish a change that an earlier life began, then begin one whenever it is wanted. What fails is tried again."""
        while True:
            self._look.clear()
            pause = None
            try:
                while await self._change():
                    log.info("data key of the log replaced")
            except (SwarmError, OSError) as error:
                log.error("data key of the log not replaced yet", error=str(error))
                pause = RETRY_SECONDS
            await wait_for(self._look, self._clock, pause)

    async def _change(self) -> bool:
        """One change, if one is wanted or under way. A part that succeeded costs nothing when it is repeated."""
        fresh = dek.new_key()
        keys = await asyncio.to_thread(self._file.update_data_keys, lambda known: known and known.asked(fresh))
        if keys is None or not keys.pending:
            return False
        await self._rekey(keys.pending)
        await asyncio.to_thread(self._file.update_data_keys, lambda known: known and known.finished())
        return True
