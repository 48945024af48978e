"""One private engine for all tests here, and an executor per test that leaves no container behind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from tools.engine import Engine

from pyswarm.agent.executor.docker import DockerExecutor
from tests.support.engine import NODE, private_engine


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """A running engine with the images of the README."""
    with private_engine() as running:
        yield running


@pytest.fixture
async def executor(engine: Engine) -> AsyncIterator[DockerExecutor]:
    """An executor for node `testnode`."""
    executor = DockerExecutor(engine.address, lambda: NODE)
    yield executor
    await executor.remove_strays(())
    await executor.close()
