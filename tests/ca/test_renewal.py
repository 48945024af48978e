"""When certificates are renewed, and what is told about it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyswarm.api import v1 as api
from pyswarm.ca.backoff import Backoff
from pyswarm.ca.credentials import SecurityConfig
from pyswarm.ca.renewal import Renewer, Update, renewal_delay
from pyswarm.ca.root import RootCA
from pyswarm.errors import NotFound, Unavailable
from pyswarm.manager.store import Store
from pyswarm.rpc.caller import MANAGER, WORKER
from tests.ca import pki
from tests.ca.cluster import create_cluster, edit_node, running
from tests.ca.test_client import World
from tests.support.clock import VirtualClock


class Node(World):
    """A joined node with a renewer."""

    renewer: Renewer
    security: SecurityConfig
    updates: list[Update]

    async def begin(self, kind: str = "worker") -> None:
        """Join and make the renewer."""
        self.security = SecurityConfig(await self.join(kind), self.clock)
        self.renewer = Renewer(self.security, self.keystore, self.client, self.clock, random.Random(2))
        self.updates = []
        self.renewer.subscribe(self.updates.append)
        self.direct.calls.clear()

    async def pass_time(self, seconds: float, steps: int = 50) -> None:
        """Virtual time, with real moments in between for the threads that write to disk."""
        for _ in range(steps):
            await self.clock.advance(seconds / steps)
            await asyncio.sleep(0.001)

    async def finish(self, count: int) -> None:
        """Let the threads end what was begun: so many renewals."""
        async with asyncio.timeout(10):
            while len(self.updates) < count:
                await self.clock.advance(0.001)
                await asyncio.sleep(0.001)


@pytest.fixture
async def node(store: Store, clock: VirtualClock, tmp_path: Path) -> AsyncIterator[Node]:
    """A worker of a cluster with a running signer."""
    root = RootCA.create(now=clock.now())
    await create_cluster(store, root)
    made = Node(store, clock, root, tmp_path)
    async with running(made.signer.run()):
        await made.begin()
        yield made


@given(st.floats(0, 1, exclude_max=True))
def test_window(fraction: float) -> None:
    """A certificate valid for 100 minutes from now is renewed after 50 to 80 of them [ca 81]."""
    assert 50 * 60 <= renewal_delay(1000.0, 1000.0 + 6000, 1000.0, fraction) < 80 * 60


@given(st.floats(0, 1e9), st.floats(-1e6, 1e9), st.floats(0, 1e9), st.floats(0, 1, exclude_max=True))
def test_never_negative(start: float, length: float, now: float, fraction: float) -> None:
    """The delay is never negative, whatever the validity [ca 81]."""
    assert renewal_delay(start, start + length, now, fraction) >= 0


def test_edges() -> None:
    """Late in the validity there is no delay; a window under a minute is its lower end [ca 81]."""
    assert renewal_delay(0, 6000, 5900, 0.5) == 0
    assert renewal_delay(0, 120, 0, 0.99) == 60
    assert renewal_delay(0, 60, 0, 0.5) == 0


@given(st.integers(1, 2000), st.integers(0, 1000))
def test_backoff(failures: int, seed: int) -> None:
    """Waits grow with the failures and never pass the limit; without failures there is none."""
    backoff = Backoff(5, 5, 3600)
    assert backoff.delay(0, random.Random(seed)) == 0
    assert 0 <= backoff.delay(failures, random.Random(seed)) <= min(3600, 5 + 5 * 2 ** min(failures - 1, 30))


async def test_renewed_in_time(node: Node) -> None:
    """A certificate is renewed inside its window, and the live credentials change [ca 82]."""
    before = node.security.current
    async with running(node.renewer.run()):
        await node.pass_time(44 * pki.DAY)
        assert node.security.current is before
        await node.pass_time(30 * pki.DAY)
        await node.finish(1)
    assert node.security.current.cert_pem != before.cert_pem
    assert node.updates == [Update(role=WORKER)]
    assert node.keystore.read().cert_pem == node.security.current.cert_pem


class Calendar:
    """A virtual clock whose calendar can be set without time passing."""

    def __init__(self, clock: VirtualClock) -> None:
        self.ahead = 0.0
        self._clock = clock
        self.monotonic, self.sleep, self.call_later = clock.monotonic, clock.sleep, clock.call_later

    def now(self) -> float:
        """What the calendar says."""
        return self._clock.now() + self.ahead


@pytest.fixture
def calendar(node: Node) -> Calendar:
    """The node's own, in place of the cluster's clock."""
    made = Calendar(node.clock)
    node.renewer = Renewer(node.security, node.keystore, node.client, made, random.Random(2))
    node.renewer.subscribe(node.updates.append)
    return made


async def test_machine_that_slept(node: Node, calendar: Calendar) -> None:
    """A calendar that jumps past the renewal's moment is noticed within an hour, though no timer ran meanwhile."""
    async with running(node.renewer.run()):
        await node.pass_time(7200)
        assert node.updates == []
        calendar.ahead = 80 * pki.DAY
        await node.pass_time(3700)
        await node.finish(1)
    assert node.updates[0] == Update(role=WORKER)  # by this calendar the new certificate is due as well


async def test_clocks_that_disagree(node: Node, calendar: Calendar) -> None:
    """Where a new certificate is due at once by the node's own calendar, the cluster is still left alone for a minute."""
    calendar.ahead = 80 * pki.DAY
    async with running(node.renewer.run()):
        await node.pass_time(600, 600)
    assert 2 <= len(node.updates) <= 11


async def test_moment_is_chosen_once(node: Node) -> None:
    """Looking at the calendar every hour does not draw the renewal towards the beginning of its window."""
    for seed in range(6):
        current = node.security.current
        node.renewer = Renewer(node.security, node.keystore, node.client, node.clock, random.Random(seed))
        node.renewer.subscribe(node.updates.append)
        fraction = random.Random(seed).random()
        due = current.not_before + renewal_delay(current.not_before, current.not_after, current.not_before, fraction)
        async with running(node.renewer.run()):
            await node.pass_time(due - node.clock.now() - 1, 3)
            assert len(node.updates) == seed
            await node.pass_time(2, 2)
            await node.finish(seed + 1)


async def test_forced(node: Node) -> None:
    """A forced renewal of a healthy certificate happens after half a second [ca 84]."""
    async with running(node.renewer.run()):
        node.renewer.force()
        await node.pass_time(0.4)
        assert "issue" not in node.direct.calls
        await node.pass_time(0.2)
        await node.finish(1)
    assert node.updates == [Update(role=WORKER)]


async def test_forced_signals_coalesce(node: Node) -> None:
    """Signals before and during a renewal make exactly one more [ca 86]."""
    async with running(node.renewer.run()):
        for _ in range(3):
            node.renewer.force()
        await node.pass_time(0.2)
        for _ in range(3):
            node.renewer.force()
        await node.pass_time(5)
    assert node.direct.calls.count("issue") == 2
    assert len(node.updates) == 2


async def test_removed_node(node: Node) -> None:
    """A node removed from the store is told so [ca 83]."""
    await node.store.update(lambda tx: tx.nodes.delete(node.security.current.node_id))
    async with running(node.renewer.run()):
        node.renewer.force()
        await node.pass_time(10)
    error = node.updates[0].error
    assert isinstance(error, NotFound)
    assert "not found when attempting to renew certificate" in error.message


async def test_expected_role(node: Node) -> None:
    """Until the certificate has the expected role renewals repeat, with growing pauses, and only then is it announced [ca 85]."""
    async with running(node.renewer.run()):
        node.renewer.expect_role(MANAGER)
        node.renewer.force()
        await node.pass_time(60, 200)
        assert node.updates == []
        tries = node.direct.calls.count("issue")
        assert 2 <= tries <= 30

        def promote(changed: api.Node) -> None:
            changed.role = api.NodeRole.MANAGER

        await edit_node(node.store, node.security.current.node_id, promote)
        await node.pass_time(3600, 200)
    assert node.updates == [Update(role=MANAGER)]
    assert node.security.current.role == MANAGER


async def test_failures_back_off(node: Node) -> None:
    """An expired certificate is tried at once and then with growing pauses, every failure reported."""
    node.direct.faults["connect"] = [Unavailable("down")] * 10_000
    await node.clock.advance(100 * pki.DAY)
    async with running(node.renewer.run()):
        await node.pass_time(10, 40)
        assert isinstance(node.updates[0].error, Unavailable)
        await node.pass_time(4 * 3600, 400)
    assert 5 <= len(node.updates) <= 40


async def test_root_that_changes_meanwhile(node: Node) -> None:
    """A root that arrives during a renewal and the renewal's certificate both end up in use [ca 35]."""
    other = RootCA.create(now=node.clock.now())
    bundle = node.root.bundle + other.bundle
    before = node.security.current
    original = node.client.renew

    async def renew(*args: object) -> object:
        fresh = await original(*args)  # type: ignore[arg-type]
        node.security.replace_root(bundle)
        return fresh

    node.client.renew = renew  # type: ignore[method-assign, assignment]
    async with running(node.renewer.run()):
        node.renewer.force()
        await node.pass_time(2)
        await node.finish(1)
    assert node.security.current.root_pem == bundle
    assert node.security.current.cert_pem != before.cert_pem


async def test_full_disk(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """A renewal that cannot be saved changes nothing and is tried again."""
    before = node.security.current

    def refuse(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(node.keystore, "write", refuse)
        async with running(node.renewer.run()):
            node.renewer.force()
            await node.pass_time(3)
            assert node.security.current is before
            patch.undo()
            await node.pass_time(30)
            await node.finish(1)
    assert node.security.current is not before
