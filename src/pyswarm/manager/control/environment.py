"""What every part of the control service shares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from pyswarm.api import v1 as api
from pyswarm.clock import Clock
from pyswarm.errors import InvalidArgument, ResourceExhausted
from pyswarm.manager.store import Store, View
from pyswarm.raft.log import Log


class NewToken(Protocol):
    """Makes a join token for a root bundle."""

    def __call__(self, bundle: bytes, *, fips: bool = ...) -> str:
        """A fresh token."""
        ...


class Shortage(Protocol):
    """Asks the allocator."""

    def __call__(self, view: View, obj: api.Network | api.Service) -> str:
        """Why what is about to be stored could not have the ports or addresses it needs; empty when it could."""
        ...


@dataclass(frozen=True, slots=True)
class Environment:
    """The world as the control service sees it; the sources of randomness can be replaced."""

    store: Store
    log: Log
    clock: Clock
    new_id: Callable[[], str]
    new_token: NewToken
    new_unlock_key: Callable[[], bytes]
    shortage: Shortage


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

    def _check_room(self, view: View, obj: api.Network | api.Service) -> None:
        """What is stored can be carried out. Raises ResourceExhausted with what lacks."""
        reason = self._env.shortage(view, obj)
        if reason:
            raise ResourceExhausted(f"{obj.spec.annotations.name}: {reason}")


def require(present: object, message: str = "invalid argument") -> None:
    """Raises InvalidArgument unless the thing is there (not empty, not False)."""
    if not present:
        raise InvalidArgument(message)
