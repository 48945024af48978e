"""The services CA and NodeCA (spec/ca-and-security, section 9).

Both answer on the leader; `rpc/` passes calls on to it and says who is calling. Nothing is cached: tokens and keys are read from the store
for each call, so a rotated token stops working with the commit that rotates it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from pyswarm.api import ids
from pyswarm.api import v1 as api
from pyswarm.ca import issuance, tokens, unlock
from pyswarm.ca.signer import Signer, default_cluster
from pyswarm.errors import Aborted, InvalidArgument, NotFound
from pyswarm.manager.store import Commit, Exists, Kind, Store, Tx, copy_of
from pyswarm.rpc.caller import MANAGER, WORKER, Caller

log = structlog.get_logger(__name__)

_ID_RETRIES = 3
_State = api.IssuanceStatus.State


class CAService:
    """Both services in one object; methods are named as on the wire."""

    def __init__(self, store: Store, signer: Signer, new_id: Callable[[], str] = ids.new_id) -> None:
        self._store = store
        self._signer = signer
        self._new_id = new_id

    async def GetRootCACertificate(  # noqa: N802
        self, request: api.GetRootCACertificateRequest, caller: Caller
    ) -> api.GetRootCACertificateResponse:
        """The trusted bundle, byte for byte as the digests in the join tokens cover it. Raises Aborted before there is a cluster."""
        del request, caller
        return api.GetRootCACertificateResponse(certificate=self._cluster().root_ca.ca_cert)

    async def GetUnlockKey(self, request: api.GetUnlockKeyRequest, caller: Caller) -> api.GetUnlockKeyResponse:  # noqa: N802
        """The key that managers encrypt their key files with, empty while autolock is off."""
        del request, caller
        cluster = self._cluster()
        locked = cluster.spec.encryption_config.auto_lock_managers
        return api.GetUnlockKeyResponse(unlock_key=unlock.stored_key(cluster) if locked else b"", version=cluster.meta.version)

    async def IssueNodeCertificate(  # noqa: N802
        self, request: api.IssueNodeCertificateRequest, caller: Caller
    ) -> api.IssueNodeCertificateResponse:
        """Take a request: a renewal for a member, a new node for whoever brings a token. The role in the request is ignored.

        Raises InvalidArgument (no CSR, no valid token), Aborted (the signer does not run here), NotFound (the member was removed).
        """
        if not request.csr:
            raise InvalidArgument("InvalidArgument")
        self._signer.check_ready()
        cluster = self._cluster()
        if is_member(caller, cluster):
            return await self._renew(caller.node_id, request.csr)
        role = tokens.role_for(request.token, cluster.root_ca.join_tokens)
        if role is None:
            raise InvalidArgument("A valid join token is necessary to join this cluster")
        return await self._admit(request, role)

    async def NodeCertificateStatus(  # noqa: N802
        self, request: api.NodeCertificateStatusRequest, caller: Caller
    ) -> api.NodeCertificateStatusResponse:
        """How a request stands; held until it is decided. The caller's deadline, which `rpc/` enforces by cancelling, ends the wait.

        Raises InvalidArgument, NotFound, Aborted when the signer stops.
        """
        del caller
        if not request.node_id:
            raise InvalidArgument("InvalidArgument")
        self._signer.check_ready()
        changed = asyncio.Event()

        def on_commit(commit: Commit) -> None:
            if any(event.kind is Kind.NODE and event.obj.id == request.node_id for event in commit.events):
                changed.set()

        undo = [self._store.on_commit(on_commit), self._signer.on_stop(changed.set)]
        try:
            while True:
                record = self._record(request.node_id)
                if record.status.state in issuance.FINAL:
                    return api.NodeCertificateStatusResponse(status=record.status, certificate=record)
                changed.clear()
                await changed.wait()
                self._signer.check_ready()
        finally:
            for step in undo:
                step()

    def _cluster(self) -> api.Cluster:
        cluster = default_cluster(self._store)
        if cluster is None:
            raise Aborted("CA signer is still starting")
        return cluster

    def _record(self, node_id: str) -> api.Certificate:
        node = self._store.nodes.get(node_id)
        if node is None:
            raise NotFound("NotFound")
        return node.certificate

    async def _renew(self, node_id: str, csr: bytes) -> api.IssueNodeCertificateResponse:
        def renew(tx: Tx) -> api.NodeSpec.Membership.ValueType:
            node = tx.nodes.get(node_id)
            if node is None:
                raise NotFound(f"node {node_id} not found when attempting to renew certificate")
            changed = copy_of(node)
            changed.certificate.CopyFrom(issuance.request_record(node_id, csr, node.role, _State.RENEW))
            return tx.nodes.update(changed).spec.membership

        membership = await self._store.update(renew)
        log.info("certificate renewal requested", node=node_id)
        return api.IssueNodeCertificateResponse(node_id=node_id, node_membership=membership)

    async def _admit(self, request: api.IssueNodeCertificateRequest, role: api.NodeRole.ValueType) -> api.IssueNodeCertificateResponse:
        accepted = api.NodeSpec.Membership.ACCEPTED

        def create(tx: Tx) -> str:
            node_id = self._new_id()
            cluster = default_cluster(tx)
            tx.nodes.create(
                api.Node(
                    id=node_id,
                    role=role,
                    spec=api.NodeSpec(desired_role=role, membership=accepted, availability=request.availability),
                    certificate=issuance.request_record(node_id, request.csr, role, _State.PENDING),
                    VXLANUDPPort=cluster.VXLANUDPPort if cluster else 0,
                )
            )
            return node_id

        for attempt in range(_ID_RETRIES + 1):
            try:
                node_id = await self._store.update(create)
            except Exists:
                if attempt == _ID_RETRIES:
                    raise
                continue
            log.info("node admitted", node=node_id, role=api.NodeRole.Name(role))
            return api.IssueNodeCertificateResponse(node_id=node_id, node_membership=accepted)
        raise AssertionError("unreachable")


def is_member(caller: Caller, cluster: api.Cluster) -> bool:
    """Whether the caller showed a certificate that still counts: a role, this cluster, not removed. A forwarder must count as well."""
    known = bool(set(caller.roles) & {WORKER, MANAGER}) and bool(caller.node_id)
    if not known or caller.organization != cluster.id or caller.node_id in cluster.blacklisted_certificates:
        return False
    return caller.forwarder is None or (MANAGER in caller.forwarder.roles and is_member(caller.forwarder, cluster))
