"""Which manager to talk to."""

from __future__ import annotations

import asyncio
import json
import random
import stat
from collections import Counter
from pathlib import Path

import pytest

from pyswarm.rpc.caller import WORKER
from pyswarm.rpc.remotes import ConnectionBroker, NoRemotes, PersistentRemotes, RemotePeer, Remotes
from tests.rpc.pki import Authority

A, B, C = RemotePeer("a", "10.0.0.1:4242"), RemotePeer("b", "10.0.0.2:4242"), RemotePeer("c", "10.0.0.3:4242")


def remotes(**weights: int) -> Remotes:
    """Peers a, b, c with exactly these weights."""
    made = Remotes(random.Random(1))
    for peer in (A, B, C):
        if peer.node_id in weights:
            made._weights[peer] = weights[peer.node_id]
    return made


def draw(from_: Remotes, times: int) -> Counter[RemotePeer]:
    """How often each was selected."""
    return Counter(from_.select() for _ in range(times))


def test_selection_reaches_all() -> None:
    """Equal peers are all selected. [dispatcher 86]"""
    made = Remotes(random.Random(2))
    for peer in (A, B, C):
        made.observe(peer, 10)
    assert set(draw(made, 30)) == {A, B, C}
    assert set(made.weights().values()) == {5}


def test_nobody_left() -> None:
    """Without peers, or with all excluded by id or address, there is a plain error; one left is always chosen. [dispatcher 87]"""
    with pytest.raises(NoRemotes, match="no remote hosts provided"):
        Remotes().select()
    made = remotes(a=5, b=5)
    with pytest.raises(NoRemotes):
        made.select("a", "10.0.0.2:4242")
    assert {made.select("a") for _ in range(20)} == {B}


def test_weights_converge() -> None:
    """An observation counts half, rounded up, within fixed limits. [dispatcher 88]"""
    made = Remotes()
    seen = []
    for _ in range(6):
        made.observe(A, 10)
        seen.append(made.weights()[A])
    assert seen == [5, 8, 9, 10, 10, 10]
    made.observe(A, -10)
    assert made.weights()[A] == 0
    for _ in range(20):
        made.observe(A, 1e9)
    assert made.weights()[A] == 256
    made.observe(B, float("nan"))
    assert made.weights()[B] == 0


def test_bad_peers_stay_selectable() -> None:
    """When all are bad, all are tried; next to good ones a bad one hardly ever is. [dispatcher 89] [dispatcher 90] [dispatcher 91]"""
    assert set(draw(remotes(a=0, b=0, c=0), 1000)) == {A, B, C}
    assert set(draw(remotes(a=0, b=-256, c=-1), 1000)) == {A, B, C}
    assert draw(remotes(a=8, b=8, c=-1), 20_000)[C] < 20


def test_observe_if_exists() -> None:
    """An unknown peer is not added, nor is its double under another id. [dispatcher 92]"""
    made = remotes(a=4)
    made.observe_if_exists(RemotePeer("z", A.addr), 10)
    made.observe_if_exists(A, 10)
    assert made.weights() == {A: 7}


def test_state_file_follows_the_set(tmp_path: Path) -> None:
    """`state.json` is written when the set changes, sorted, private, and not for weights alone. [dispatcher 94]"""
    path = tmp_path / "state.json"
    made = PersistentRemotes(path)
    made.observe(B, 10)
    made.observe(RemotePeer("", "10.0.0.9:1"), 10)
    made.observe(A, 10)
    assert json.loads(path.read_text()) == [
        {"addr": "10.0.0.9:1"},
        {"node_id": "a", "addr": "10.0.0.1:4242"},
        {"node_id": "b", "addr": "10.0.0.2:4242"},
    ]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.unlink()
    made.observe(A, -10)
    made.remove(C)
    assert not path.exists()
    made.replace([(B, 10)])
    assert json.loads(path.read_text()) == [{"node_id": "b", "addr": "10.0.0.2:4242"}]


def test_state_file_is_read_back(tmp_path: Path) -> None:
    """The next life knows the same peers; a missing file is fine, a broken one is named."""
    path = tmp_path / "state.json"
    PersistentRemotes(path).load()
    first = PersistentRemotes(path)
    first.observe(A, 10)
    second = PersistentRemotes(path)
    second.load()
    assert second.weights() == {A: 5}
    for broken in ("{", "[1]", '{"a": 1}', "7"):
        path.write_text(broken)
        with pytest.raises(ValueError, match=str(path)):
            PersistentRemotes(path).load()


async def test_waiting_for_the_first_peer(tmp_path: Path) -> None:
    """Who waits for a peer gets the first one that becomes known."""
    made = PersistentRemotes(tmp_path / "state.json")
    waiting = asyncio.create_task(made.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    made.observe(A, 10)
    assert await waiting == A
    assert await made.wait() == A


async def test_broker_prefers_the_local_manager(tmp_path: Path) -> None:
    """With a local manager its socket is used and weighs nothing; else a remote one, weighed at the end. [dispatcher 93]"""
    made = remotes(a=5)
    credentials = Authority().issue("w1", WORKER)
    broker = ConnectionBroker(made, lambda: credentials)
    broker.set_local(tmp_path / "swarm.sock")
    local = await broker.select()
    assert local.peer == RemotePeer("", "")
    await local.close(False)
    assert made.weights() == {A: 5}
    remote = await broker.select_remote()
    assert remote.peer == A
    await remote.close(True)
    assert made.weights() == {A: 8}
    broker.set_local(None)
    await (await broker.select()).close(False)
    assert made.weights() == {A: -1}
    made.remove(A)
    with pytest.raises(NoRemotes):
        await broker.select()
