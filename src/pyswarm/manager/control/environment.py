"""What every part of the control service shares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from pyswarm.clock import Clock
from pyswarm.errors import InvalidArgument
from pyswarm.manager.control.features import Features
from pyswarm.manager.store import Store
from pyswarm.raft.log import Log


class NewToken(Protocol):
    """Makes a join token for a root bundle."""

    def __call__(self, bundle: bytes, *, fips: bool = ...) -> str:
        """A fresh token."""
        ...


@dataclass(frozen=True, slots=True)
class Environment:
    """The world as the control service sees it; the sources of randomness can be replaced."""

    store: Store
    log: Log
    clock: Clock
    features: Features
    new_id: Callable[[], str]
    new_token: NewToken
    new_unlock_key: Callable[[], bytes]


class Part:
    """One kind of object. Methods are named after the RPCs."""

    def __init__(self, env: Environment) -> None:
        self._env = env

    async def _reading(self) -> Store:
        """The store, once it holds everything committed before the call: every read goes through here and is linearizable.

        Raises LostLeadership.
        """
        await self._env.log.read_barrier()
        return self._env.store


def require(present: object, message: str = "invalid argument") -> None:
    """Raises InvalidArgument unless the thing is there (not empty, not False)."""
    if not present:
        raise InvalidArgument(message)
