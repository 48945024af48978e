"""What every call passes before its method runs: whether this node or another answers, the caller's identity, its permission.

A call that another manager answers is not checked here: the one that runs it decides (spec/ca-and-security, section 22).
"""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf.descriptor import MethodDescriptor

from pyswarm.ca.credentials import SecurityConfig
from pyswarm.errors import PermissionDenied
from pyswarm.rpc import forward, headers
from pyswarm.rpc.authorize import REDIRECT, Metadata, Policy, authorize
from pyswarm.rpc.binder import Context
from pyswarm.rpc.caller import Caller
from pyswarm.rpc.forward import LeaderDoor
from pyswarm.rpc.front import Front
from pyswarm.rpc.headers import Header
from pyswarm.rpc.relay import Passage
from pyswarm.rpc.roles import access


class RemoteGate:
    """Every call on the remote port: who is it, and may it."""

    def __init__(self, front: Front, policy: Callable[[], Policy], door: LeaderDoor) -> None:
        self._front = front
        self._policy = policy
        self._door = door

    async def admit(self, method: MethodDescriptor, context: Context, refused_by: str | None = None) -> Caller | Passage:
        """Identity of the caller, or leave to pass the call on. Raises SwarmError to refuse."""
        peer = self._front.peer(context.peer())
        if peer is None:
            # It came around the front, so nobody verified anything.
            raise PermissionDenied("Permission denied: no peer info")
        received = _received(context)
        metadata = _metadata(received)
        senders = metadata.get(REDIRECT, ())
        name = method.containing_service.name
        # What another manager's control socket passed on was meant for the leader, whatever this port answers by itself otherwise.
        if name in forward.PROXIED_REMOTE or (senders and name in forward.PROXIED_LOCAL):
            line = await self._door.find(senders, refused_by)
            if line is not None:
                return Passage(line, headers.for_peer(received, peer))
        return authorize(access(method), peer, metadata, self._policy())


class LocalGate:
    """Every call on the control socket counts as this manager's own."""

    def __init__(self, security: SecurityConfig, remote_addr: Callable[[], str], door: LeaderDoor) -> None:
        self._security = security
        self._remote_addr = remote_addr
        self._door = door

    async def admit(self, method: MethodDescriptor, context: Context, refused_by: str | None = None) -> Caller | Passage:
        """Identity of the caller, or leave to pass the call on. Raises SwarmError to refuse."""
        remote_addr = self._remote_addr() or "127.0.0.1:0"
        if method.containing_service.name in forward.PROXIED_LOCAL:
            received = _received(context)
            line = await self._door.find(_metadata(received).get(REDIRECT, ()), refused_by)
            if line is not None:
                return Passage(line, headers.as_this_manager(received, remote_addr))
        me = self._security.current
        return Caller(me.node_id, me.organization, (me.role,), remote_addr, local=True)


def _received(context: Context) -> tuple[Header, ...]:
    return tuple((key, value) for key, value in context.invocation_metadata() or ())


def _metadata(received: tuple[Header, ...]) -> Metadata:
    found: dict[str, list[str]] = {}
    for key, value in received:
        found.setdefault(key, []).append(value if isinstance(value, str) else value.decode("latin-1"))
    return found
