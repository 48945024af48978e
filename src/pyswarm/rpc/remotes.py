"""Which manager to talk to: weighted remotes, the file that remembers them, and the broker that opens connections.

Rules: spec/dispatcher-agent-node, section 17.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import grpc
import grpc.aio
import structlog

from pyswarm.ca.credentials import Credentials
from pyswarm.ca.files import write_atomically
from pyswarm.errors import Unknown
from pyswarm.rpc import channel

log = structlog.get_logger(__name__)

DEFAULT_WEIGHT = 10
_LIMIT = 256
_BIAS = 0.001
_SMOOTHING = 0.5


@dataclass(frozen=True, slots=True, order=True)
class RemotePeer:
    """A manager: node id (empty while unknown) and `host:port`. The same address under another id is another peer."""

    node_id: str
    addr: str


class NoRemotes(Unknown):
    """No manager is known, or all are excluded."""

    def __init__(self) -> None:
        super().__init__("no remote hosts provided")


class Remotes:
    """Managers and how well they served."""

    def __init__(self, rng: random.Random | None = None) -> None:
        self._weights: dict[RemotePeer, int] = {}
        # Spreads load between managers; nothing here is secret.
        self._rng = rng or random.Random()  # noqa: S311

    def weights(self) -> Mapping[RemotePeer, int]:
        """A copy of what is known."""
        return dict(self._weights)

    def observe(self, peer: RemotePeer, weight: float) -> None:
        """Let `peer` drift towards `weight`; a new one starts half way from zero."""
        observed = 0.0 if math.isnan(weight) else min(max(weight, -_LIMIT), _LIMIT)
        old = self._weights.get(peer, 0)
        self._weights[peer] = math.ceil(_SMOOTHING * observed + (1 - _SMOOTHING) * old)

    def observe_if_exists(self, peer: RemotePeer, weight: float) -> None:
        """The same, for known peers only."""
        if peer in self._weights:
            self.observe(peer, weight)

    def remove(self, *peers: RemotePeer) -> None:
        """Forget peers; unknown ones are fine."""
        for peer in peers:
            self._weights.pop(peer, None)

    def select(self, *excludes: str) -> RemotePeer:
        """A random peer, better ones more often, whose id and address are none of `excludes`. Raises NoRemotes."""
        candidates = [(peer, w) for peer, w in self._weights.items() if peer.node_id not in excludes and peer.addr not in excludes]
        if not candidates:
            raise NoRemotes
        # The bias keeps bad peers selectable when all are bad, and next to never otherwise.
        return self._rng.choices([peer for peer, _ in candidates], [max(w, 0) + _BIAS for _, w in candidates])[0]


class PersistentRemotes(Remotes):
    """Remotes that survive a restart in `state.json`: who is known, without weights."""

    def __init__(self, path: Path, rng: random.Random | None = None) -> None:
        super().__init__(rng)
        self._path = path
        self._known = asyncio.Event()

    def load(self) -> None:
        """Take the peers of an earlier life. A missing file is fine; raises ValueError naming the file when it is not what it should be."""
        try:
            text = self._path.read_text("utf-8")
        except FileNotFoundError:
            return
        try:
            peers = [RemotePeer(str(entry.get("node_id", "")), str(entry.get("addr", ""))) for entry in json.loads(text)]
        except (ValueError, AttributeError, TypeError) as error:
            raise ValueError(f"{self._path} is not a list of managers ({error}); remove it and start with --join-addr") from error
        for peer in peers:
            super().observe(peer, DEFAULT_WEIGHT)
        self._signal()

    def observe(self, peer: RemotePeer, weight: float) -> None:
        """As `Remotes.observe`; a new peer is written to the file."""
        new = peer not in self._weights
        super().observe(peer, weight)
        if new:
            self._save()

    def remove(self, *peers: RemotePeer) -> None:
        """As `Remotes.remove`; the file follows."""
        gone = [peer for peer in peers if peer in self._weights]
        super().remove(*peers)
        if gone:
            self._save()

    def replace(self, listed: Iterable[tuple[RemotePeer, float]], *, drop_others: bool = True) -> None:
        """Observe every listed peer and forget the others, with one write to the file."""
        before = set(self._weights)
        wanted = dict(listed)
        for peer, weight in wanted.items():
            super().observe(peer, weight)
        if drop_others:
            super().remove(*(before - set(wanted)))
        if set(self._weights) != before:
            self._save()

    async def wait(self) -> RemotePeer:
        """The first selectable peer, as soon as there is one."""
        while True:
            await self._known.wait()
            try:
                return self.select()
            except NoRemotes:
                self._known.clear()

    def _signal(self) -> None:
        if self._weights:
            self._known.set()

    def _save(self) -> None:
        self._signal()
        entries = [_entry(peer) for peer in sorted(self._weights)]
        try:
            write_atomically(self._path, json.dumps(entries).encode("utf-8"), 0o600)
        except OSError as error:
            # The list is a convenience for the next start; the session that told us must go on.
            log.error("managers not saved", path=str(self._path), error=str(error))


def _entry(peer: RemotePeer) -> dict[str, str]:
    return {key: value for key, value in (("node_id", peer.node_id), ("addr", peer.addr)) if value}


class Connection(Protocol):
    """An open channel to a manager."""

    @property
    def channel(self) -> grpc.aio.Channel:
        """What stubs are made from."""
        ...

    @property
    def peer(self) -> RemotePeer:
        """Who it is; empty fields for the local manager."""
        ...

    async def close(self, success: bool) -> None:
        """Hand it back, saying how it went; the channel must not be used afterwards."""
        ...


class _RemoteConnection:
    def __init__(self, remotes: Remotes, peer: RemotePeer, opened: grpc.aio.Channel) -> None:
        self._remotes = remotes
        self.peer = peer
        self.channel = opened

    async def close(self, success: bool) -> None:
        self._remotes.observe_if_exists(self.peer, DEFAULT_WEIGHT if success else -DEFAULT_WEIGHT)
        await self.channel.close(None)


class _LocalConnection:
    def __init__(self, opened: grpc.aio.Channel) -> None:
        self.peer = RemotePeer("", "")
        self.channel = opened

    async def close(self, success: bool) -> None:  # noqa: ARG002 - the local manager has no weight
        await self.channel.close(None)


class ConnectionBroker:
    """Opens a channel to a manager: this node's own while it has one, else a remote one."""

    def __init__(self, remotes: Remotes, credentials: Callable[[], Credentials]) -> None:
        """`credentials` returns the node's present ones; every connection is made with those of its moment."""
        self.remotes = remotes
        self._credentials = credentials
        self._local: Path | None = None

    @property
    def local(self) -> Path | None:
        """The control socket of this node's manager, while it serves."""
        return self._local

    def set_local(self, path: Path | None) -> None:
        """Prefer the control socket at `path`; None: there is no local manager (any more)."""
        self._local = path

    async def select(self) -> Connection:
        """A connection to the local manager, else to a remote one. Raises NoRemotes."""
        if self._local is not None:
            return _LocalConnection(channel.connect_local(self._local, self._credentials()))
        return await self.select_remote()

    async def select_remote(self) -> Connection:
        """A connection to a remote manager. It connects lazily; failures show in the first call. Raises NoRemotes."""
        peer = self.remotes.select()
        return _RemoteConnection(self.remotes, peer, channel.connect(peer.addr, self._credentials(), options=channel.SESSION_OPTIONS))
