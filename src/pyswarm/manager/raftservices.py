"""The services RaftMembership and Raft, as far as they are in the reference's wire form (spec/store-and-raft, sections 14 and 15).

Log entries travel in a private service of their own: `ProcessRaftMessage` and `StreamRaftMessage` answer UNIMPLEMENTED.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import grpc
import grpc.aio
import structlog

from pyswarm.api import v1 as api
from pyswarm.api.swarmkit import health_pb2_grpc
from pyswarm.ca.connect import from_rpc
from pyswarm.ca.credentials import SecurityConfig
from pyswarm.cancellation import heeded
from pyswarm.errors import FailedPrecondition, InvalidArgument, NotFound, Unknown
from pyswarm.raft.log import Joined, LostLeadership, Member
from pyswarm.rpc import channel, reach
from pyswarm.rpc.caller import Caller
from pyswarm.rpc.server import split_address

log = structlog.get_logger(__name__)

HEALTH_SECONDS = 5.0
"""How long a manager that wants to join may take to show that it can be reached."""

RAFT_HEALTH = "Raft"
"""The health name that a manager serves from before it joins."""

Probe = Callable[[str], Awaitable[None]]

_NOT_REACHED = "could not connect to prospective new cluster member using its advertised address"


class Membership(Protocol):
    """What is asked of the log: part of `raft.node.RaftNode`."""

    @property
    def is_leader(self) -> bool:
        """Leading and caught up."""
        ...

    def members(self) -> Sequence[Member]:
        """The present members; empty before the log runs."""
        ...

    async def join(self, node_id: str, addr: str) -> Joined:
        """Make a node a member, or take its new address."""
        ...

    async def remove(self, raft_id: int) -> None:
        """Remove a member unless that may cost the quorum."""
        ...

    def advertise(self, addr: str) -> None:
        """Have the table say that this manager is at `addr`."""
        ...


class RaftMembershipService:
    """`docker.swarmkit.v1.RaftMembership`: managers come and go. Answers on the leader."""

    def __init__(self, raft: Membership, node_id: str, probe: Probe) -> None:
        """`node_id` is this manager's; `probe` returns when a manager serves at an address and raises SwarmError when not."""
        self._raft = raft
        self._node_id = node_id
        self._probe = probe

    async def Join(self, request: api.JoinRequest, caller: Caller) -> api.JoinResponse:  # noqa: N802 - the RPC's name
        """Make the caller a member. Raises FailedPrecondition, InvalidArgument (its address), Unknown (nobody healthy there)."""
        self._check_leader()
        addr = reachable_address(request.addr, caller.remote_addr)
        await self._probe(addr)
        self._name_myself(caller.remote_addr)
        self._check_leader()
        joined = await self._raft.join(caller.node_id, addr)
        log.info("manager joined", node=caller.node_id, addr=addr, raft_id=f"{joined.raft_id:x}")
        members = [api.RaftMember(raft_id=m.raft_id, node_id=m.node_id, addr=m.addr) for m in joined.members]
        return api.JoinResponse(raft_id=joined.raft_id, members=members, removed_members=joined.removed)

    async def Leave(self, request: api.LeaveRequest, caller: Caller) -> api.LeaveResponse:  # noqa: N802 - the RPC's name
        """Remove a member. Raises InvalidArgument without one, FailedPrecondition, and what the log raises."""
        if not request.HasField("node"):
            raise InvalidArgument("no node information provided")
        self._check_leader()
        await self._raft.remove(request.node.raft_id)
        log.info("manager left", raft_id=f"{request.node.raft_id:x}", by=caller.node_id)
        return api.LeaveResponse()

    def _check_leader(self) -> None:
        if not self._raft.members():
            raise FailedPrecondition("raft: node is not yet part of a raft cluster")
        if not self._raft.is_leader:
            raise FailedPrecondition(LostLeadership().message)

    def _name_myself(self, remote_addr: str) -> None:
        """A founder that was told no address is in the table as `0.0.0.0`, of no use to the manager that now comes."""
        me = next((member for member in self._raft.members() if member.node_id == self._node_id), None)
        if me is None or not reach.is_wildcard(me.addr):
            return
        addr = reach.seen_from(me.addr, remote_addr)
        if addr != me.addr:
            self._raft.advertise(addr)


class RaftService:
    """`docker.swarmkit.v1.Raft`: only the question where a member is."""

    def __init__(self, raft: Membership) -> None:
        self._raft = raft

    async def ResolveAddress(  # noqa: N802 - the RPC's name
        self, request: api.ResolveAddressRequest, caller: Caller
    ) -> api.ResolveAddressResponse:
        """The address of a member. Raises NotFound, FailedPrecondition before this manager is a member itself."""
        del caller
        members = self._raft.members()
        if not members:
            raise FailedPrecondition("raft: node is not yet part of a raft cluster")
        for member in members:
            if member.raft_id == request.raft_id:
                return api.ResolveAddressResponse(addr=member.addr)
        raise NotFound(f"member {request.raft_id:x} not found")


def reachable_address(addr: str, remote_addr: str) -> str:
    """The address of a joiner: its own word, with the one it calls from in place of an unspecified one. Raises InvalidArgument."""
    try:
        host, port = split_address(addr)
    except InvalidArgument as error:
        raise InvalidArgument(f"invalid address {addr} in raft join request") from error
    if host and not reach.is_wildcard(addr):
        return addr
    try:
        seen, _ = split_address(remote_addr)
        ip = ipaddress.ip_address(seen)
    except (InvalidArgument, ValueError) as error:
        raise InvalidArgument(f"invalid address {addr} in raft join request: it names no host, and neither does {remote_addr}") from error
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return f"[{ip}]:{port}" if ip.version == 6 else f"{ip}:{port}"


def health_probe(security: SecurityConfig) -> Probe:
    """A probe that connects with this manager's certificate and asks whether raft is served."""

    async def probe(addr: str) -> None:
        opened = channel.connect(addr, security.current)
        stub: Any = health_pb2_grpc.HealthStub(opened)
        try:
            with heeded():
                answer = await stub.Check(api.HealthCheckRequest(service=RAFT_HEALTH), timeout=HEALTH_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise Unknown(f"{_NOT_REACHED}: {from_rpc(error).message}") from error
        finally:
            await opened.close(None)
        if answer.status != api.HealthCheckResponse.SERVING:
            raise Unknown(f"{_NOT_REACHED}: health check returned status {api.HealthCheckResponse.ServingStatus.Name(answer.status)}")

    return probe
