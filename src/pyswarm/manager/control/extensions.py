"""Extensions: kinds of user-defined objects (spec/control-api, section 13). They never change."""

from __future__ import annotations

from pyswarm.api import v1 as api
from pyswarm.errors import AlreadyExists, InvalidArgument, NotFound
from pyswarm.manager.control.environment import Part, require
from pyswarm.manager.store import NameConflict, Tx
from pyswarm.rpc.caller import Caller

_NAMES_SHOWN = 10


class Extensions(Part):
    """The RPCs about extensions."""

    async def CreateExtension(self, request: api.CreateExtensionRequest, _caller: Caller) -> api.CreateExtensionResponse:  # noqa: N802
        """Declare a kind. Raises AlreadyExists for a taken name or the name of a table."""
        require(request.annotations.name, "extension name must be provided")
        extension = api.Extension(id=self._env.new_id(), annotations=request.annotations, description=request.description)
        try:
            stored = await self._env.store.update(lambda tx: tx.extensions.create(extension))
        except NameConflict:
            raise AlreadyExists(f"extension {request.annotations.name} already exists") from None
        return api.CreateExtensionResponse(extension=stored)

    async def GetExtension(self, request: api.GetExtensionRequest, _caller: Caller) -> api.GetExtensionResponse:  # noqa: N802
        """One extension. Raises NotFound."""
        require(request.extension_id, "extension ID must be provided")
        extension = (await self._reading()).extensions.get(request.extension_id)
        if extension is None:
            raise NotFound(f"extension {request.extension_id} not found")
        return api.GetExtensionResponse(extension=extension)

    async def RemoveExtension(self, request: api.RemoveExtensionRequest, _caller: Caller) -> api.RemoveExtensionResponse:  # noqa: N802
        """Delete a kind without resources. Raises NotFound, InvalidArgument naming the resources.

        The kind is compared by the extension's name without case, as CreateResource does; the reference compares its id, in vain.
        """
        require(request.extension_id, "extension ID must be provided")

        def remove(tx: Tx) -> None:
            extension = tx.extensions.get(request.extension_id)
            if extension is None:
                raise NotFound(f"could not find extension {request.extension_id}")
            name = extension.annotations.name
            used = sorted(r.annotations.name for r in tx.resources if r.kind.lower() == name.lower())
            if used:
                noun = "resource" if len(used) == 1 else "resources"
                raise InvalidArgument(f"extension '{name}' is in use by the following {noun}: {', '.join(used[:_NAMES_SHOWN])}")
            tx.extensions.delete(extension.id)

        await self._env.store.update(remove)
        return api.RemoveExtensionResponse()
