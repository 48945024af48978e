"""Resources: user-defined objects of a kind that an extension declares (spec/control-api, section 13)."""

from __future__ import annotations

from pyswarm.api import v1 as api
from pyswarm.errors import AlreadyExists, InvalidArgument, NotFound
from pyswarm.manager.control import filters
from pyswarm.manager.control.environment import Part, require
from pyswarm.manager.store import NameConflict, SequenceConflict, Tx, View, by, copy_of
from pyswarm.manager.store.rules import NoKind
from pyswarm.rpc.caller import Caller


class Resources(Part):
    """The RPCs about resources."""

    async def CreateResource(self, request: api.CreateResourceRequest, _caller: Caller) -> api.CreateResourceResponse:  # noqa: N802
        """Store a new resource. Raises InvalidArgument for an unknown kind, AlreadyExists for a name that any kind uses."""
        require(request.annotations.name, "Resource must have a name")
        require(request.kind, "Resource must belong to an Extension")
        resource = api.Resource(id=self._env.new_id(), annotations=request.annotations, kind=request.kind)
        if request.HasField("payload"):
            resource.payload.CopyFrom(request.payload)

        def create(tx: Tx) -> api.Resource:
            if not tx.extensions.find(by.name(request.kind)):
                raise NoKind
            return tx.resources.create(resource)

        try:
            stored = await self._env.store.update(create)
        except NoKind:
            raise InvalidArgument(f"Kind {request.kind} is not registered") from None
        except NameConflict:
            raise AlreadyExists(f"A resource with name {request.annotations.name} already exists") from None
        return api.CreateResourceResponse(resource=stored)

    async def GetResource(self, request: api.GetResourceRequest, _caller: Caller) -> api.GetResourceResponse:  # noqa: N802
        """One resource. Raises NotFound."""
        require(request.resource_id, "resource ID must be present")
        return api.GetResourceResponse(resource=_existing(await self._reading(), request.resource_id))

    async def ListResources(self, request: api.ListResourcesRequest, _caller: Caller) -> api.ListResourcesResponse:  # noqa: N802
        """The resources that a name or prefix finds, of one kind if that is given."""
        store, wanted = await self._reading(), request.filters
        if wanted.kind and not (wanted.names or wanted.name_prefixes or wanted.id_prefixes):
            found = store.resources.find(by.kind(wanted.kind))
            found = [r for r in found if filters.labels_match(r.annotations.labels, wanted.labels)]
        else:
            found = filters.any_of(store.resources, wanted, lambda resource: resource.annotations.labels)
            found = [r for r in found if not wanted.kind or r.kind == wanted.kind]
        return api.ListResourcesResponse(resources=found)

    async def UpdateResource(self, request: api.UpdateResourceRequest, _caller: Caller) -> api.UpdateResourceResponse:  # noqa: N802
        """Replace annotations and payload, each only if given. Raises NotFound, InvalidArgument (for a version conflict too)."""
        require(request.resource_id and request.HasField("resource_version"), "must include ID and version")

        def update(tx: Tx) -> api.Resource:
            resource = copy_of(_existing(tx, request.resource_id))
            if request.HasField("annotations"):
                if request.annotations.name != resource.annotations.name:
                    raise InvalidArgument("cannot change resource name")
                resource.annotations.CopyFrom(request.annotations)
            if request.HasField("payload"):
                resource.payload.CopyFrom(request.payload)
            resource.meta.version.index = request.resource_version.index
            return tx.resources.update(resource)

        try:
            stored = await self._env.store.update(update)
        except SequenceConflict as conflict:
            raise InvalidArgument(conflict.message) from None
        return api.UpdateResourceResponse(resource=stored)

    async def RemoveResource(self, request: api.RemoveResourceRequest, _caller: Caller) -> api.RemoveResourceResponse:  # noqa: N802
        """Delete. Raises NotFound."""
        require(request.resource_id, "resource ID must be present")

        def remove(tx: Tx) -> None:
            _existing(tx, request.resource_id)
            tx.resources.delete(request.resource_id)

        await self._env.store.update(remove)
        return api.RemoveResourceResponse()


def _existing(view: View, resource_id: str) -> api.Resource:
    resource = view.resources.get(resource_id)
    if resource is None:
        raise NotFound(f"resource {resource_id} not found")
    return resource
