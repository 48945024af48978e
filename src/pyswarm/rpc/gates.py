"""What every call passes before its method runs: the caller's identity, its permission, and whether this node leads."""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf.descriptor import MethodDescriptor

from pyswarm.ca.credentials import SecurityConfig
from pyswarm.errors import PermissionDenied
from pyswarm.rpc import forward
from pyswarm.rpc.authorize import Metadata, Policy, authorize
from pyswarm.rpc.binder import Context
from pyswarm.rpc.caller import Caller
from pyswarm.rpc.forward import LeaderDoor
from pyswarm.rpc.front import Front
from pyswarm.rpc.roles import access


class RemoteGate:
    """Every call on the remote port: who is it, and may it."""

    def __init__(self, front: Front, policy: Callable[[], Policy], door: LeaderDoor) -> None:
        self._front = front
        self._policy = policy
        self._door = door

    async def admit(self, method: MethodDescriptor, context: Context) -> Caller:
        """Identity of the caller. Raises SwarmError to refuse."""
        peer = self._front.peer(context.peer())
        if peer is None:
            # It came around the front, so nobody verified anything.
            raise PermissionDenied("Permission denied: no peer info")
        metadata = _metadata(context)
        if method.containing_service.name in forward.PROXIED_REMOTE:
            await self._door.pass_through(metadata, peer.remote_addr)
        return authorize(access(method), peer, metadata, self._policy())


class LocalGate:
    """Every call on the control socket counts as this manager's own."""

    def __init__(self, security: SecurityConfig, remote_addr: Callable[[], str], door: LeaderDoor) -> None:
        self._security = security
        self._remote_addr = remote_addr
        self._door = door

    async def admit(self, method: MethodDescriptor, context: Context) -> Caller:
        """Identity of the caller. Raises SwarmError to refuse."""
        remote_addr = self._remote_addr() or "127.0.0.1:0"
        if method.containing_service.name in forward.PROXIED_LOCAL:
            await self._door.pass_through(_metadata(context), remote_addr)
        me = self._security.current
        return Caller(me.node_id, me.organization, (me.role,), remote_addr, local=True)


def _metadata(context: Context) -> Metadata:
    found: dict[str, list[str]] = {}
    for key, value in context.invocation_metadata() or ():
        found.setdefault(key, []).append(value if isinstance(value, str) else value.decode("latin-1"))
    return found
