"""A broker for the tests in this directory."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from pyswarm.manager.store import Store
from tests.manager.logbroker.support import Harness, leading
from tests.support.clock import VirtualClock


@pytest.fixture
async def b(store: Store, clock: VirtualClock) -> AsyncIterator[Harness]:
    """A leading broker on an empty store."""
    async with leading(store, clock) as harness:
        yield harness
