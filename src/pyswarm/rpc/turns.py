"""An event loop on which gRPC's events are not throttled.

gRPC for asyncio has a thread that writes one byte into a socket pair per event (a call that came in, a message sent or received), and a
reader on the loop that takes one byte out per turn, though it handles all events that have come. So every byte costs a turn of its own,
and once some 270 of them wait, which is all that the socket holds, the thread blocks: from then on one event passes per turn of the loop,
for all connections together. A manager whose turns take 10 ms each answered heartbeats after five seconds.
This loop takes the waiting bytes out at once.
"""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVarTuple

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

Ts = TypeVarTuple("Ts")
_GRPC_READER = "_handle_events"
_MANY = 4096
_LOOK = int(socket.MSG_PEEK) | int(socket.MSG_DONTWAIT)


class Loop(asyncio.SelectorEventLoop):
    """asyncio's own, but for gRPC's reader."""

    def add_reader(self, fd: FileDescriptorLike, callback: Callable[[*Ts], Any], *args: *Ts) -> None:
        """See asyncio."""
        if not isinstance(fd, socket.socket) or _name(callback) != _GRPC_READER:
            super().add_reader(fd, callback, *args)
            return
        waking = fd

        def drained(*passed: *Ts) -> None:
            _drain(waking)
            callback(*passed)

        super().add_reader(fd, drained, *args)


def _drain(waking: socket.socket) -> None:
    """Leave gRPC's reader the one byte that it takes. The events are there before their bytes are."""
    waiting = len(waking.recv(_MANY, _LOOK))
    if waiting > 1:
        waking.recv(waiting - 1)


def _name(callback: Callable[..., Any]) -> str:
    while isinstance(callback, functools.partial):
        callback = callback.func
    return getattr(callback, "__name__", "")
