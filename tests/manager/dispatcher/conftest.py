from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from pyswarm.manager.store import Store
from tests.manager.dispatcher.support import Harness, cluster, create, leading, node
from tests.support.clock import VirtualClock
from tests.support.log import MemoryLog


@pytest.fixture
def raft(store: Store) -> MemoryLog:
    """Membership and leadership of one manager."""
    return MemoryLog(store)


@pytest.fixture
async def d(store: Store, raft: MemoryLog, clock: VirtualClock) -> AsyncIterator[Harness]:
    """A leading dispatcher; node n1 was created after it started, so it is not in the registry."""
    await create(store, cluster())
    async with leading(store, raft, clock) as harness:
        await create(store, node())
        yield harness
