"""Fixtures that every test may use."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from pyswarm.manager.store import Store
from tests.support.clock import VirtualClock
from tests.support.log import running_store


@pytest.fixture
def clock() -> VirtualClock:
    """A clock that moves only when told."""
    return VirtualClock()


@pytest.fixture
async def store(clock: VirtualClock) -> AsyncIterator[Store]:
    """A running store on a memory log."""
    async with running_store(clock) as running:
        yield running
