"""Configs: create, get, list, relabel, remove (spec/control-api, section 12). Answers hold the data."""

from __future__ import annotations

from pyswarm.api import v1 as api
from pyswarm.errors import AlreadyExists, InvalidArgument, NotFound
from pyswarm.manager.control import filters, references, validate_payload
from pyswarm.manager.control.environment import Part, require
from pyswarm.manager.store import NameConflict, Tx, copy_of
from pyswarm.rpc.caller import Caller


class Configs(Part):
    """The RPCs about configs."""

    async def CreateConfig(self, request: api.CreateConfigRequest, _caller: Caller) -> api.CreateConfigResponse:  # noqa: N802
        """Store a new config. Raises AlreadyExists for a taken name, and what the checks raise."""
        require(request.HasField("spec"))
        validate_payload.check_config(request.spec)
        config = api.Config(id=self._env.new_id(), spec=request.spec)
        try:
            stored = await self._env.store.update(lambda tx: tx.configs.create(config))
        except NameConflict:
            raise AlreadyExists(f"config {request.spec.annotations.name} already exists") from None
        return api.CreateConfigResponse(config=stored)

    async def GetConfig(self, request: api.GetConfigRequest, _caller: Caller) -> api.GetConfigResponse:  # noqa: N802
        """One config. Raises NotFound."""
        require(request.config_id, "config ID must be provided")
        config = (await self._reading()).configs.get(request.config_id)
        if config is None:
            raise NotFound(f"config {request.config_id} not found")
        return api.GetConfigResponse(config=config)

    async def ListConfigs(self, request: api.ListConfigsRequest, _caller: Caller) -> api.ListConfigsResponse:  # noqa: N802
        """The configs that a name or prefix finds."""
        found = filters.any_of((await self._reading()).configs, request.filters, filters.spec_labels)
        return api.ListConfigsResponse(configs=found)

    async def UpdateConfig(self, request: api.UpdateConfigRequest, _caller: Caller) -> api.UpdateConfigResponse:  # noqa: N802
        """Replace the labels; nothing else can change. Raises NotFound, InvalidArgument, SequenceConflict."""
        require(request.config_id and request.HasField("config_version"))

        def update(tx: Tx) -> api.Config:
            old = tx.configs.get(request.config_id)
            if old is None:
                raise NotFound(f"config {request.config_id} not found")
            require(request.HasField("spec"))
            wanted = request.spec
            if wanted.annotations.name != old.spec.annotations.name or (wanted.data and wanted.data != old.spec.data):
                raise InvalidArgument("only updates to Labels are allowed")
            config = copy_of(old)
            config.meta.version.index = request.config_version.index
            config.spec.annotations.labels.clear()
            config.spec.annotations.labels.update(wanted.annotations.labels)
            return tx.configs.update(config)

        return api.UpdateConfigResponse(config=await self._env.store.update(update))

    async def RemoveConfig(self, request: api.RemoveConfigRequest, _caller: Caller) -> api.RemoveConfigResponse:  # noqa: N802
        """Delete a config that no service references. Raises NotFound, InvalidArgument naming the services."""
        require(request.config_id, "config ID must be provided")

        def remove(tx: Tx) -> None:
            config = tx.configs.get(request.config_id)
            if config is None:
                raise NotFound(f"could not find config {request.config_id}")
            references.check_unused("config", config.spec.annotations.name, references.users(tx, config=config.id))
            tx.configs.delete(config.id)

        await self._env.store.update(remove)
        return api.RemoveConfigResponse()
