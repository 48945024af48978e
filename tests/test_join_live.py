"""A node of one cluster that is sent to another, with real sockets and certificates."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest

from pyswarm.node_join import StartError
from tests.support.nodes import live_cluster


async def test_another_cluster_without_token() -> None:
    """A worker whose certificates are another cluster's than the manager's at the join address ends with one line. [dispatcher 193]"""
    with tempfile.TemporaryDirectory(prefix="ps-") as one, tempfile.TemporaryDirectory(prefix="ps-") as two:
        async with live_cluster(Path(one)) as home, live_cluster(Path(two)) as other:
            worker = await home.join("worker")
            await worker.stop()
            before = worker.state_files.read()
            with pytest.raises(StartError) as failure:
                await asyncio.wait_for(worker.start(other.address), 20)
            message = failure.value.message
            assert message.startswith(f"cannot join the cluster at {other.address}: the manager's certificate does not verify: ")
            assert str(worker.state / "certificates") in message
            assert worker.state_files.read() == before
            await worker.start(home.address)
