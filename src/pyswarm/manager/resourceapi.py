"""The ResourceAllocator service: containers that no task runs join a network of the cluster (spec/control-api, section 15).

The attachment is a task, which takes the usual way: the allocator gives it an address, the scheduler confirms its node, the dispatcher
sends it there.
"""

from __future__ import annotations

from collections.abc import Callable

from pyswarm.api import ids
from pyswarm.api import v1 as api
from pyswarm.errors import InvalidArgument, NotFound, PermissionDenied
from pyswarm.manager.store import Store, Tx, View, by
from pyswarm.rpc.caller import Caller


class ResourceService:
    """`docker.swarmkit.v1.ResourceAllocator`: one coroutine per RPC. The caller's node is the one its certificate names."""

    def __init__(self, store: Store, *, new_id: Callable[[], str] = ids.new_id) -> None:
        self._store = store
        self._new_id = new_id

    async def AttachNetwork(self, request: api.AttachNetworkRequest, caller: Caller) -> api.AttachNetworkResponse:  # noqa: N802
        """Create the attachment; the address follows. Raises InvalidArgument, NotFound, PermissionDenied."""
        if not request.config.target:
            raise InvalidArgument("invalid argument: the attachment names no network")
        task = api.Task(id=self._new_id(), node_id=caller.node_id, desired_state=api.TaskState.RUNNING)
        task.spec.attachment.container_id = request.container_id
        task.status.state = api.TaskState.NEW
        task.status.message = "created"

        def attach(tx: Tx) -> None:
            network = _network(tx, request.config.target)
            if not network.spec.attachable:
                raise PermissionDenied(f"network {request.config.target} not manually attachable")
            del task.spec.networks[:]
            task.spec.networks.add(target=network.id, addresses=request.config.addresses)
            task.status.timestamp.CopyFrom(tx.now)
            tx.tasks.create(task)

        await self._store.update(attach)
        return api.AttachNetworkResponse(attachment_id=task.id)

    async def DetachNetwork(self, request: api.DetachNetworkRequest, caller: Caller) -> api.DetachNetworkResponse:  # noqa: N802
        """Delete an attachment of the caller's. Raises InvalidArgument, NotFound, PermissionDenied.

        Unlike the reference it deletes attachments only: a worker cannot make a service's task disappear here.
        """
        if not request.attachment_id:
            raise InvalidArgument("invalid argument")

        def detach(tx: Tx) -> None:
            task = tx.tasks.get(request.attachment_id)
            if task is None or not task.spec.HasField("attachment"):
                raise NotFound(f"attachment {request.attachment_id} not found")
            if task.node_id != caller.node_id:
                raise PermissionDenied(f"attachment {request.attachment_id} doesn't belong to this node")
            tx.tasks.delete(task.id)

        await self._store.update(detach)
        return api.DetachNetworkResponse()


def _network(view: View, target: str) -> api.Network:
    network = view.networks.get(target)
    if network is not None:
        return network
    named = view.networks.find(by.name(target))
    if len(named) != 1:
        raise NotFound(f"network {target} not found")
    return named[0]
