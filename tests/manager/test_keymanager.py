"""Network keys."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyswarm.api import v1 as api
from pyswarm.ca.root import RootCA
from pyswarm.errors import InvalidArgument
from pyswarm.manager.keymanager import GOSSIP, IPSEC, ROTATION_SECONDS, SUBSYSTEMS, KeyManager, with_first_keys, with_rotated_keys
from pyswarm.manager.store import Store
from tests.ca.cluster import create_cluster, running, stored_cluster
from tests.support.clock import VirtualClock, settle
from tests.support.log import MemoryLog

ROOT = RootCA.create(now=VirtualClock().now())


def counting() -> object:
    """A source of bytes that never repeats."""
    numbers = itertools.count(1)
    return lambda size: next(numbers).to_bytes(size, "big")


def times_of(cluster: api.Cluster, subsystem: str) -> list[int]:
    """Lamport times of a ring, as stored."""
    return [key.lamport_time for key in cluster.network_bootstrap_keys if key.subsystem == subsystem]


def first(subsystems: Sequence[str] = SUBSYSTEMS) -> api.Cluster:
    """A cluster with its first keys."""
    made = with_first_keys(api.Cluster(id="c"), subsystems, counting())  # type: ignore[arg-type]
    assert made is not None
    return made


def test_first_keys() -> None:
    """A fresh cluster gets three keys per subsystem, 16 bytes, with consecutive times after a random start [ca 177]."""
    cluster = first()
    keys = cluster.network_bootstrap_keys
    assert [key.lamport_time for key in keys] == [2, 3, 4, 5, 6, 7]
    assert [key.subsystem for key in keys] == [GOSSIP] * 3 + [IPSEC] * 3
    assert {len(key.key) for key in keys} == {16}
    assert len({key.key for key in keys}) == 6
    assert {key.algorithm for key in keys} == {api.EncryptionKey.Algorithm.AES_128_GCM}
    assert cluster.encryption_key_lamport_clock == 7


def test_nothing_missing() -> None:
    """A cluster that has keys is left as it is [ca 179]."""
    assert with_first_keys(first(), SUBSYSTEMS, counting()) is None  # type: ignore[arg-type]


def test_rotation() -> None:
    """A rotation drops the oldest key of each subsystem and adds a newer one [ca 178]."""
    before = first()
    after = with_rotated_keys(before, SUBSYSTEMS, counting())  # type: ignore[arg-type]
    assert (times_of(after, GOSSIP), times_of(after, IPSEC)) == ([3, 4, 8], [6, 7, 9])
    assert after.encryption_key_lamport_clock == 9
    assert times_of(before, GOSSIP) == [2, 3, 4]


def test_one_subsystem() -> None:
    """With one subsystem only its keys are made, and other keys are left alone [ca 178]."""
    cluster = first([IPSEC])
    assert [key.subsystem for key in cluster.network_bootstrap_keys] == [IPSEC] * 3
    cluster.network_bootstrap_keys.add(subsystem=GOSSIP, lamport_time=1)
    after = with_rotated_keys(cluster, [IPSEC], counting())  # type: ignore[arg-type]
    assert times_of(after, GOSSIP) == [1]


@given(st.permutations(range(6)), st.integers(0, 6))
def test_the_oldest_goes_whatever_the_order(order: list[int], kept: int) -> None:
    """The order in the store means nothing, and incomplete rings fill up."""
    cluster = first()
    keys = list(cluster.network_bootstrap_keys)
    shuffled = [keys[i] for i in order][:kept]
    stored = api.Cluster(network_bootstrap_keys=shuffled, encryption_key_lamport_clock=7)
    after = with_rotated_keys(stored, SUBSYSTEMS, counting())  # type: ignore[arg-type]
    for subsystem in SUBSYSTEMS:
        before = sorted(key.lamport_time for key in shuffled if key.subsystem == subsystem)
        assert times_of(after, subsystem)[:-1] == (before[1:] if len(before) == 3 else before)


def test_unknown_subsystem(store: Store, clock: VirtualClock) -> None:
    """A subsystem nobody knows is refused at once [ca 178]."""
    with pytest.raises(InvalidArgument, match="unknown key subsystem networking:x"):
        KeyManager(store, clock, ["networking:x"])


async def test_running(store: Store, clock: VirtualClock) -> None:
    """Keys come with the cluster object, rotate every twelve hours, and a new leader goes on from them [ca 177] [ca 178] [ca 179]."""
    async with running(KeyManager(store, clock).run()):
        await create_cluster(store, ROOT)
        await settle()
        began = stored_cluster(store)
        assert len(began.network_bootstrap_keys) == 6
        await clock.advance(ROTATION_SECONDS - 1)
        assert stored_cluster(store) == began
        await clock.advance(1)
        rotated = stored_cluster(store)
        assert rotated.encryption_key_lamport_clock == began.encryption_key_lamport_clock + 2
        await clock.advance(ROTATION_SECONDS)
        assert stored_cluster(store).encryption_key_lamport_clock == began.encryption_key_lamport_clock + 4
    async with running(KeyManager(store, clock).run()):
        await clock.advance(ROTATION_SECONDS)
        assert stored_cluster(store).encryption_key_lamport_clock == began.encryption_key_lamport_clock + 6
        assert len(stored_cluster(store).network_bootstrap_keys) == 6


async def test_log_that_refuses(clock: VirtualClock) -> None:
    """A rotation that cannot be committed is tried again."""
    store = Store(clock)
    log = MemoryLog(store)
    store.attach(log)
    async with running(store.run()):
        await create_cluster(store, ROOT)
        log.leading = False
        async with running(KeyManager(store, clock).run()):
            assert len(stored_cluster(store).network_bootstrap_keys) == 0
            log.leading = True
            await clock.advance(5)
            assert len(stored_cluster(store).network_bootstrap_keys) == 6
